"""An engine whose answers come from a function, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builders.engines.requests import Outcome, Request


@dataclass(frozen=True)
class ScriptedEngine:
    """Answers every request by calling *script*; *name* tells scripts apart."""

    script: Callable[[Request], Outcome]
    name: str
    kind: str = "scripted"

    @property
    def model(self) -> str:
        """The name of the script."""
        return self.name

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on beside the request."""
        return {"kind": self.kind, "model": self.name}

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place."""
        for number, request in enumerate(requests):
            yield number, self.script(request)
