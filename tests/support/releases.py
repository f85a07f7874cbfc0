"""Small releases: few rows, written, described and listed as the stage writes a large one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from rows import rows_of

from builders.explainers.explanations import EXPLANATIONS
from builders.lake.shards import write_parquet
from builders.lake.table import Table
from builders.releases.release import Release, open_release, write_contents
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.subjects.checkpoints import SUBJECTS
from cards.header import Part, header

FACTS = {"license": "mit", "language": ["en"], "title": "Small"}


def released(root: Path, tables: Mapping[Table, pa.Table], version: str = "1.0.0") -> Release:
    """Write a release of *tables* without a card into *root*, and return it."""
    for table, rows in tables.items():
        write_parquet(root / table.name / "train-00000-of-00001.parquet", table, table.row_groups(rows))
    write_contents(root, "small", version, tables)
    return open_release(root)


def write_release(root: Path, version: str, tables: Mapping[Table, pa.Table], others: Mapping[str, bytes] | None = None) -> Path:
    """Write a release of *tables* and of *others*, files by path, into the new folder *root*."""
    release = released(root, tables, version)
    parts = [Part.of(table, release.paths(table.name)) for table in tables]
    top = yaml.safe_dump(header(parts, {**FACTS, "version": version}), sort_keys=False)
    (root / "README.md").write_text(f"---\n{top}---\n\n# Small\n")
    for name, content in (others or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    write_contents(root, "small", version, list(tables))
    return root


def small_tables(texts: Mapping[str, Sequence[str]]) -> dict[Table, pa.Table]:
    """Return explanations, latents, dictionaries and a subject: *texts* are the explanations of each dictionary's latents."""
    named = [(sae, latent, text) for sae, found in texts.items() for latent, text in enumerate(found)]
    latents = [{"sae": sae, "latent": latent, "status": "alive"} for sae, latent, _ in named]
    explanations: list[dict[str, Any]] = [
        {"sae": sae, "latent": latent, "explainer": "lexical", "text": text, "status": "ok"} for sae, latent, text in named
    ]
    return {
        EXPLANATIONS: rows_of(EXPLANATIONS, *explanations),
        LATENTS: rows_of(LATENTS, *latents),
        SAES: rows_of(SAES, *({"sae": sae, "subject": "lab"} for sae in texts)),
        SUBJECTS: rows_of(SUBJECTS, {"subject": "lab"}),
    }
