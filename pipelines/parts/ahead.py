"""Work done ahead, and work that is done: what decides a stage's output for one dictionary, and what its folder was left with.

What one stage reads of a subject serves its companions too, whose own stages then find that work done. What lies ready decides no
byte of any output: it is named after all that decides it (inputs, params, code), and a stage that finds nothing under that name does
the work itself. So is what a finished stage notes here: it only saves work.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.lake.shards import Shards, is_current, is_whole, manifest_sha256, write_atomic
from pipelines.graph.stage import BUILD, folder

READY = BUILD / ".ready"


@dataclass(frozen=True, eq=False)
class Job:
    """What stage *kind* is to do for *ids*, the dictionary's first, and all that decides it."""

    kind: str
    ids: tuple[str, ...]
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    code: str

    @property
    def name(self) -> str:
        """The dictionary's id."""
        return self.ids[0]

    @property
    def folder(self) -> Path:
        """Its output folder."""
        return folder(self.kind, *self.ids)

    @property
    def address(self) -> str:
        """The hash of all that decides it."""
        return hashlib.sha256(json.dumps([self.inputs, self.settings, self.code], sort_keys=True).encode()).hexdigest()

    @property
    def ready(self) -> Path:
        """The folder in which its work, done ahead, waits for its stage."""
        return self._place / self.address[:16]

    def shards(self) -> Shards:
        """Open its output folder to be filled."""
        return Shards(self.folder, self.inputs, self.settings, self.code)

    def note_done(self) -> None:
        """Note that it is finished, and throw away what waited for it."""
        shutil.rmtree(self._place, ignore_errors=True)
        write_atomic(self._note, self._signature)

    @property
    def noted(self) -> bool:
        """Whether its output folder is what this very job left."""
        return self._note.exists() and self._note.read_bytes() == self._signature

    @property
    def done(self) -> bool:
        """Whether it is finished: noted, or else, as after a fetch from a remote, by whatever code."""
        return self.noted if self._note.exists() else is_current(self.folder, self.inputs, self.settings)

    def fill(self, work: Callable[[Shards], bool]) -> None:
        """Let *work* fill its output folder, unless that is whole and what this very job left.

        It says whether another try would find the same: where requests failed, they are made again the next time that the stage runs.
        """
        if self.noted and is_whole(self.folder):
            return
        shards = self.shards()
        settled = work(shards)
        shards.finish()
        if settled:
            self.note_done()

    @property
    def _place(self) -> Path:
        return READY.joinpath(self.kind, *self.ids)

    @property
    def _signature(self) -> bytes:
        return f"{self.address} {manifest_sha256(self.folder)}".encode()

    @property
    def _note(self) -> Path:
        return self._place / "done"
