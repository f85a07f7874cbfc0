"""The recipe of the lab checkpoints, which lies beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from builders.errors import one_of
from pipelines.params.base import Count, Id, Section, Share, Whole

LessonName = Literal["short", "same", "free"]


class LabShapeParams(Section):
    """The sizes of a lab checkpoint."""

    architecture: Literal["llama", "mamba2", "rwkv"]
    width: Count
    layers: Count
    heads: Count = 1
    hidden: Whole = 0
    state: Whole = 0


class LabTrainingParams(Section):
    """How lab checkpoints are trained on text; *batch* is in rows."""

    batch: Count
    lr: Annotated[float, Field(gt=0)]
    dropout: Share
    weight_decay: Annotated[float, Field(ge=0)]


class LabLessonParams(LabTrainingParams):
    """How lab checkpoints are trained further on *talks* talks, mixed with a share of the documents so that these are not forgotten."""

    talks: Count
    documents: Share


class LabCheckpointParams(Section):
    """A new model of a *shape*, trained on the documents for *epochs* epochs and then on the lessons that *talks* names."""

    shape: LabShapeParams
    epochs: Count
    talks: tuple[LessonName, ...] = ()


class LabFurtherParams(Section):
    """The stored lab checkpoint *start*, trained further on the lessons that *talks* names."""

    start: Id
    talks: tuple[LessonName, ...]


def checkpoint_kind(spec: Any) -> str:
    """Return `further` for the params of a checkpoint that names its `start`, otherwise `new`."""
    return "further" if isinstance(spec, dict) and "start" in spec else "new"


LabCheckpointKind = Annotated[
    Annotated[LabCheckpointParams, Tag("new")] | Annotated[LabFurtherParams, Tag("further")], Discriminator(checkpoint_kind)
]


class LabParams(Section):
    """The recipe of the lab checkpoints, from the file beside them: Python's documentation, then talks; *length* is in tokens."""

    seed: int
    held_out: Share
    vocabulary: Count
    length: Count
    reading: LabTrainingParams
    talking: dict[LessonName, LabLessonParams]
    checkpoints: dict[Id, LabCheckpointKind]

    @model_validator(mode="after")
    def _names(self) -> LabParams:
        for checkpoint_id, spec in self.checkpoints.items():
            if unknown := set(spec.talks) - set(self.talking):
                lacking, known = one_of(unknown), one_of(self.talking)
                raise ValueError(f"checkpoints.{checkpoint_id}.talks: no lesson {lacking} in `talking`; it has {known}")
            if isinstance(spec, LabFurtherParams) and spec.start not in self.checkpoints:
                raise ValueError(f"checkpoints.{checkpoint_id}.start: no checkpoint {spec.start}; there are {one_of(self.checkpoints)}")
        return self
