"""Subjects of params.yaml, opened: the place of the checkpoint, the model, and its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builders.subjects import checkpoints, places
from pipelines.params import Params, Pinned

if TYPE_CHECKING:
    from transformers import PreTrainedModel


FURTHER = ("trust_remote_code", "file", "package", "reinitialised")  # what some kinds of params say beside the place


def source_of(spec: Pinned) -> places.Source:
    """Return where the checkpoint of a subject or of an engine lies."""
    further = {name: getattr(spec, name) for name in FURTHER if hasattr(spec, name)}
    return places.Source(spec.path, spec.repo, spec.revision, **further)


@dataclass(frozen=True)
class Opened:
    """A subject's model, loaded, the device it is on, and how many rows it reads at once where params say so (None: as for all)."""

    model: PreTrainedModel
    device: str
    batch: int | None


class Subjects:
    """The subjects of params, each loaded when it is first asked for; only the last one stays in memory."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self._last: tuple[str, Opened] | None = None

    def open(self, subject_id: str) -> Opened:
        """Return a subject, loaded."""
        if self._last is None or self._last[0] != subject_id:
            self._last = None  # one model in memory at a time
            self._last = subject_id, open_subject(self.params, subject_id)
        return self._last[1]


def open_subject(params: Params, subject_id: str) -> Opened:
    """Load a subject with the dtype and device that params ask for."""
    subject = params.subjects[subject_id]
    source = source_of(subject)
    checkpoint = places.fetch(source)
    device = checkpoints.resolve_device(subject.device)
    dtype = checkpoints.resolve_dtype(subject.dtype, device, checkpoints.config_of(source, checkpoint))
    return Opened(checkpoints.load(source, checkpoint, dtype, device), device, subject.batch_rows)
