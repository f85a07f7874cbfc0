"""Work done ahead: what one stage reads of a subject serves its companions too, whose own stages then find that work done.

What lies ready decides no byte of any output: it is named after all that decides it (inputs, params, code), and a stage that
finds nothing under that name does the work itself. So is what a finished stage notes here: it only saves work.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.shards import is_current, write_atomic
from pipelines.stage import BUILD, folder

READY = BUILD / ".ready"


@dataclass(frozen=True, eq=False)
class Job:
    """What stage *kind* is to do for *name*, and all that decides it."""

    kind: str
    name: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    code: str

    @property
    def address(self) -> str:
        """The hash of all that decides it."""
        return hashlib.sha256(json.dumps([self.inputs, self.settings, self.code], sort_keys=True).encode()).hexdigest()

    @property
    def ready(self) -> Path:
        """The folder in which its work, done ahead, waits for its stage."""
        return self._place / self.address[:16]

    def note_done(self) -> None:
        """Note that its stage is finished, and throw away what waited for it."""
        shutil.rmtree(self._place, ignore_errors=True)
        write_atomic(self._note, self.address.encode())

    @property
    def done(self) -> bool:
        """Whether its stage is finished: noted, or else, as after a fetch from a remote, by whatever code."""
        if self._note.exists():
            return self._note.read_text() == self.address
        return is_current(folder(self.kind, self.name), self.inputs, self.settings)

    @property
    def _place(self) -> Path:
        return READY / self.kind / self.name

    @property
    def _note(self) -> Path:
        return self._place / "done"
