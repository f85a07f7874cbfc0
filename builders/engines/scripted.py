"""An engine whose answers come from a function: for tests, and for oracles that read nothing but the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builders.engines.requests import Outcome, Request


@dataclass(frozen=True)
class ScriptedEngine:
    """Answers with what *script* makes of a request; *name* tells one script from another."""

    script: Callable[[Request], Outcome]
    name: str
    kind: str = "scripted"

    @property
    def model(self) -> str:
        """What is answered by."""
        return self.name

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on."""
        return {"kind": self.kind, "model": self.name}

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place."""
        for number, request in enumerate(requests):
            yield number, self.script(request)
