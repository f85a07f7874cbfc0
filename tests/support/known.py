"""Rows of a small release by config, whose foreign keys hold, and releases of such rows."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from releases import released
from rows import rows_of

from pipelines.registry import CONFIGS

if TYPE_CHECKING:
    from pathlib import Path

    from builders.lake.table import Table
    from builders.releases.release import Release

Rows = dict[str, list[dict[str, Any]]]
TABLES: dict[str, Table] = {config.table.name: config.table for config in CONFIGS}
SCORE = {"sae": "one", "explainer": "words", "scorer": "detection", "negatives": "random", "judge": "judge"}
WINDOW = {"sae": "one", "latent": 0, "row": 0}
# One subject, one dictionary of two latents; the first has an explanation and a score of two windows.
WHOLE: Rows = {
    "scores": [{**SCORE, "latent": 0, "score": 0.5}, {**SCORE, "latent": 1, "explainer": "none"}],
    "explanations": [{"sae": "one", "latent": 0, "explainer": "words", "source_latent": 1, "text": "cats"}],
    "latents": [{"sae": "one", "latent": latent} for latent in range(2)],
    "contexts": [{**WINDOW, "split": split, "example": number} for split, number in (("test", 0), ("test", 1), ("train", 0))],
    "judgements": [{**SCORE, "latent": 0, "example": 0}, {**SCORE, "latent": 1, "explainer": "none", "example": 9}],
    "activations": [{**WINDOW, "position": 3}],
    "tokens": [{"subject": "lab", "row": row} for row in range(2)],
    "saes": [{"sae": "one", "subject": "lab", "kind": "trained"}],
    "subjects": [{"subject": "lab"}],
}


def whole(**more: list[dict[str, Any]]) -> Rows:
    """Return the rows of WHOLE and *more* rows by config."""
    rows = deepcopy(WHOLE)
    for name, added in more.items():
        rows[name] = [*rows.get(name, []), *added]
    return rows


def release_of(root: Path, rows: Rows, version: str = "1.0.0", tables: dict[str, Table] | None = None) -> Release:
    """Write a release of *rows* by config into the new folder *root* and open it; *tables* take the place of those of the same name."""
    held = {name: (tables or {}).get(name, TABLES.get(name)) for name in rows}
    root.mkdir(parents=True, exist_ok=True)
    (root / "README.md").write_text(f"version {version}")
    return released(root, {table: rows_of(table, *rows[table.name]) for table in held.values() if table is not None}, version)
