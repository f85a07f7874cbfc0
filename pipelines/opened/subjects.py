"""Subjects of params.yaml, opened: the place of the checkpoint, the model, and its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builders.subjects import checkpoints
from pipelines.params import Params, Pinned

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def source_of(spec: Pinned) -> checkpoints.Source:
    """Return where the checkpoint of a subject or of an engine lies."""
    further = {name: getattr(spec, name) for name in ("trust_remote_code", "file", "package") if hasattr(spec, name)}
    return checkpoints.Source(spec.path, spec.repo, spec.revision, **further)


@dataclass(frozen=True)
class Opened:
    """A subject's model, loaded, and the device it is on."""

    model: PreTrainedModel
    device: str


def open_subject(params: Params, subject_id: str) -> Opened:
    """Load a subject with the dtype and device that params ask for."""
    subject = params.subjects[subject_id]
    source = source_of(subject)
    checkpoint = checkpoints.fetch(source)
    device = checkpoints.resolve_device(subject.device)
    dtype = checkpoints.resolve_dtype(subject.dtype, device, checkpoints.config_of(source, checkpoint))
    return Opened(checkpoints.load(source, checkpoint, dtype, device), device)
