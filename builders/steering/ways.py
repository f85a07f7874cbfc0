"""The ways to steer a subject: what is added, where, when, and how much of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

DIFFERENCE, LDA = "difference", "lda"
RESIDUAL, STATE, BOTH, PARTS = "residual", "state", "both", "parts"  # parts: each part of the state alone, a site of its own
LATE, ALIGNED = "late", "aligned"
NONE = "none"  # no method, no site, no phase


@dataclass(frozen=True, order=True)
class Push:
    """A way to steer: *multiplier* times the vectors of *method* are added at one *layer* and *site*.

    A site is the residual stream, the state, both, or one part of the state by its name. *phase* says when the state is changed: late
    (before the token is read, so that it acts one token after the one it was measured on) or aligned (while the token is read).
    """

    method: str
    site: str
    layer: int
    multiplier: float
    phase: str = LATE

    @property
    def streams(self) -> bool:
        """Whether the residual stream is changed."""
        return self.site in (RESIDUAL, BOTH)

    @property
    def when(self) -> str:
        """The phase as rows tell it: none where no state is changed."""
        return NONE if self.site == RESIDUAL else self.phase

    @property
    def columns(self) -> dict[str, str | int | float]:
        """The columns that name this way to steer."""
        return {"method": self.method, "site": self.site, "phase": self.when, "layer": self.layer, "multiplier": self.multiplier}

    def parts(self, state: Iterable[str]) -> list[str]:
        """Return which of a layer's parts of *state* are changed."""
        return [name for name in state if self.site in (STATE, BOTH, name)]


def columns_of(push: Push | None) -> dict[str, str | int | float]:
    """Return the columns that name a way to steer; those of no push are none."""
    return {"method": NONE, "site": NONE, "phase": NONE, "layer": -1, "multiplier": 0.0} if push is None else push.columns
