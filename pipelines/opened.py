"""A subject of params.yaml, opened: where its checkpoint lies, its model, its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builders import subjects
from pipelines.params import Params, Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def source_of(subject: Subject) -> subjects.Source:
    """Return where a subject's checkpoint lies, as the builders know it."""
    return subjects.Source(subject.path, subject.repo, subject.revision, subject.trust_remote_code)


@dataclass(frozen=True)
class Opened:
    """A subject's model, loaded, and the device it is on."""

    model: PreTrainedModel
    device: str


def open_subject(params: Params, name: str) -> Opened:
    """Load a subject with the dtype and device that params ask for."""
    subject = params.subjects[name]
    source = source_of(subject)
    checkpoint = subjects.fetch(source)
    device = subjects.resolve_device(subject.device)
    dtype = subjects.resolve_dtype(subject.dtype, device, subjects.config_of(source, checkpoint))
    return Opened(subjects.load(source, checkpoint, dtype, device), device)
