"""Rows of a table with only those columns given that a test is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from builders.lake.table import Table

FITS = {"string": "x", "binary": b"", "bool": False, "int32": 1, "int64": 1, "float32": 0.5, "float64": 0.5}


def rows_of(table: Table, *rows: dict[str, Any]) -> pa.Table:
    """Return rows of *table* with known columns, nothing where nothing may stand, and else something that fits."""
    usual = {column.name: [] if column.is_list else None if column.nullable else FITS[column.dtype] for column in table.columns}
    return table.rows([usual | row for row in rows])
