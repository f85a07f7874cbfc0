"""Small releases, written from the rows of some tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builders.lake.shards import write_parquet
from builders.releases.release import Release, open_release, write_contents

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa

    from builders.lake.table import Table


def released(root: Path, rows: Mapping[Table, pa.Table]) -> Release:
    """Write a release of *rows* by table into *root*, and return it."""
    for table, some in rows.items():
        write_parquet(root / f"{table.name}/train-00000-of-00001.parquet", table, table.row_groups(some))
    write_contents(root, "small", "1.0.0", rows)
    return open_release(root)
