"""The ways to steer a subject: what is added, where, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

DIFFERENCE, LDA = "difference", "lda"
RESIDUAL, STATE, BOTH = "residual", "state", "both"


@dataclass(frozen=True, order=True)
class Push:
    """A way to steer: *multiplier* times the vectors of *method* are added at one *layer* and *site* (residual stream, state or both)."""

    method: str
    site: str
    layer: int
    multiplier: float
