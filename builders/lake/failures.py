"""Every item that a stage dropped, with the reason: the `failures` config."""

from __future__ import annotations

from typing import Any

from builders.lake.references import OF_LATENT
from builders.lake.table import Column, Table

FAILURES = Table(
    name="failures",
    row="an item that a stage dropped, and why",
    key=("sae", "latent", "stage", "item"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("stage", "string", "the stage that dropped it", categorical=True),
        Column("item", "string", "what was dropped: the whole latent, a kind of windows, an explainer or a scorer", categorical=True),
        Column("reason", "string", "why it was dropped"),
    ),
    references=(OF_LATENT,),
)


def failure(sae: str, latent: int, stage: str, item: str, reason: str) -> dict[str, Any]:
    """Return one record of FAILURES."""
    return {"sae": sae, "latent": latent, "stage": stage, "item": item, "reason": reason}
