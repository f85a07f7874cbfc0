"""Jobs: what decides a stage's output for one dictionary, work done ahead for it, and whether its output folder is finished.

One pass of a subject serves several dictionaries: work is done ahead for those whose turn has not come. It lies under the hash of
everything that decides it (inputs, params, code), and a dictionary that finds none does the work itself. So neither ready work nor the note
that a finished job leaves here changes any byte of an output: they only save time.
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
from pipelines.graph.lock import ran_with_this_code
from pipelines.graph.stage import BUILD, folder

READY = BUILD / ".ready"


@dataclass(frozen=True, eq=False)
class Job:
    """The work that fills the output folder *kind* for *ids* (the dictionary's id first), and everything that decides that output."""

    kind: str
    ids: tuple[str, ...]
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    code: str

    @property
    def sae_id(self) -> str:
        """The dictionary's id."""
        return self.ids[0]

    @property
    def folder(self) -> Path:
        """Its output folder."""
        return folder(self.kind, *self.ids)

    @property
    def address(self) -> str:
        """The hash of everything that decides its output."""
        return hashlib.sha256(json.dumps([self.inputs, self.settings, self.code], sort_keys=True).encode()).hexdigest()

    @property
    def ready(self) -> Path:
        """The folder in which work done ahead waits for its stage."""
        return self._place / self.address[:16]

    def shards(self) -> Shards:
        """Open its output folder to be filled."""
        return Shards(self.folder, self.inputs, self.settings, self.code)

    def note_done(self) -> None:
        """Note that the output folder is finished, and remove the work that waited for it."""
        shutil.rmtree(self._place, ignore_errors=True)
        write_atomic(self._note, self._signature)

    @property
    def noted(self) -> bool:
        """Whether its output folder is exactly what this job left.

        Where nothing is noted, as after a fetch from a remote, dvc.lock says whether this code has made the folder.
        """
        if self._note.exists():
            return self._note.read_bytes() == self._signature
        return is_current(self.folder, self.inputs, self.settings) and ran_with_this_code()

    def fill(self, work: Callable[[Shards], bool]) -> None:
        """Let *work* fill the output folder, unless the folder is whole and exactly what this job left.

        *work* returns whether another try would give the same rows. After failed requests it returns False, so that the stage makes them
        again when it next runs.
        """
        if self.noted and is_whole(self.folder):
            return
        shards = self.shards()
        settled = work(shards)
        shards.finish()
        if settled:
            self.note_done()
        else:
            write_atomic(self._note, b"failed requests are to be made again")

    @property
    def _place(self) -> Path:
        return READY.joinpath(self.kind, *self.ids)

    @property
    def _signature(self) -> bytes:
        return f"{self.address} {manifest_sha256(self.folder)}".encode()

    @property
    def _note(self) -> Path:
        return self._place / "done"
