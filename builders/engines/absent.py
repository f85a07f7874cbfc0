"""An engine that is not there: every request of it fails with the reason, so that rows say why they have no answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builders.engines.requests import Failure, Outcome, Request

ABSENT = "not installed"  # the status of what such an engine was asked


@dataclass(frozen=True)
class AbsentEngine:
    """Stands for a *model* that is missing on this machine, and says so in one line: the *reason*."""

    model: str
    reason: str
    kind: str = "absent"

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on beside the request; there are no answers."""
        return {"kind": self.kind, "model": self.model}

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield a failure for every request."""
        yield from ((place, Failure(ABSENT, self.reason)) for place in range(len(requests)))
