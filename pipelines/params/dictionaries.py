"""Sections about dictionaries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.params.base import Count, Id, Pinned, Section


class DictionaryParams(Section):
    """A dictionary of a *subject*; if it is not *scored*, it has explanations, but no scorer works on it and it has no hard negatives."""

    subject: Id
    scored: bool = True


class InModelParams(DictionaryParams):
    """A dictionary for the vectors at a *hookpoint* of a subject, such as `layers.3` or `layers.3.mlp.down_proj.input`."""

    hookpoint: str

    @property
    def reads(self) -> str:
        """The hookpoint that it reads."""
        return self.hookpoint

    @property
    def rebuilds(self) -> str:
        """The hookpoint that it writes: the one that it reads, except for transcoders."""
        return getattr(self, "writes", None) or self.hookpoint


class TrainedSaeParams(InModelParams):
    """An SAE that the pipeline trains; *k* is the L0 of TopK and the target L0 of JumpReLU, *l1* the penalty of ReLU."""

    source: Literal["train"]
    activation: Literal["topk", "jumprelu", "relu"]
    width: Count
    k: Count | None = None
    l1: Annotated[float, Field(gt=0)] | None = None
    multi_topk: bool = False
    auxk: Annotated[float, Field(ge=0)] = 1 / 32
    seed: int = 0

    @model_validator(mode="after")
    def _sparsity_fits(self) -> TrainedSaeParams:
        needed, other = ("l1", "k") if self.activation == "relu" else ("k", "l1")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise ValueError(f"activation `{self.activation}` takes `{needed}`, not `{other}`")
        if self.k is not None and self.k > self.width:
            raise ValueError(f"`k` ({self.k}) is larger than `width` ({self.width})")
        if self.multi_topk and self.activation != "topk":
            raise ValueError("`multi_topk` belongs to activation `topk`")
        return self


class PretrainedSaeParams(Pinned, InModelParams):
    """A published dictionary: a local folder (or .pt file), or a *folder* of a Hub repository; its files show its format.

    *writes* is the hookpoint that a transcoder writes. *input_scale* is the factor on activations that some SAELens releases need.
    *centered* says that it was trained on vectors minus the mean of their own entries (TransformerLens' `center_writing_weights`).
    """

    source: Literal["pretrained"]
    folder: str | None = None
    writes: str | None = None
    input_scale: Annotated[float, Field(gt=0)] | None = None
    centered: bool = False


class NeuronBasisParams(InModelParams):
    """The coordinates of the vectors themselves, of which the largest *k* are kept; *rotated* is the control in a random basis."""

    source: Literal["neurons"]
    k: Count
    rotated: bool = False
    seed: int = 0


class RandomSaeParams(InModelParams):
    """An untrained TopK SAE: its rows are Gaussian with unit norm, and decoder and encoder are equal."""

    source: Literal["random"]
    width: Count
    k: Count
    seed: int = 0


class PlantedRulesParams(DictionaryParams):
    """Planted rules over text, whose true explanations are known."""

    source: Literal["planted"]


SaeParams = Annotated[
    TrainedSaeParams | PretrainedSaeParams | NeuronBasisParams | RandomSaeParams | PlantedRulesParams, Field(discriminator="source")
]


def are_sisters(a: DictionaryParams, b: DictionaryParams) -> bool:
    """Return whether two dictionaries differ in nothing but their `seed`; whether they are scored decides none of their latents."""
    return decisive(a) == decisive(b)


def decisive(spec: DictionaryParams) -> dict[str, object]:
    """Return the params that decide what a dictionary is, without its seed."""
    return spec.model_dump(exclude={"seed", "scored"})


class TrainingParams(Section):
    """What all SAE trainings share; *batch*, *buffer* and *dead_after* are in tokens.

    At most *together* SAEs of a subject are trained in one pass over its activations. Every dictionary is measured on *measured_rows* rows.
    """

    together: Count
    batch: Count
    buffer: Count
    passes: Count
    lr: Annotated[float, Field(gt=0)]
    dead_after: Count
    batch_rows: Count
    measured_rows: Annotated[int, Field(ge=2)]
