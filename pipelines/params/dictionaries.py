"""Sections about sparse dictionaries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.params.base import Count, Id, Pinned, Section


class InModel(Section):
    """A dictionary of what flows at a *hookpoint* of a subject, such as `layers.3` or `layers.3.mlp.down_proj.input`."""

    subject: Id
    hookpoint: str

    @property
    def reads(self) -> str:
        """The hookpoint it reads."""
        return self.hookpoint

    @property
    def rebuilds(self) -> str:
        """The hookpoint it writes: the same, but for transcoders."""
        return getattr(self, "writes", None) or self.hookpoint


class TrainedSae(InModel):
    """An SAE that the pipeline trains; *k* is TopK's L0 and JumpReLU's target L0, *l1* the penalty of ReLU."""

    source: Literal["train"]
    activation: Literal["topk", "jumprelu", "relu"]
    width: Count
    k: Count | None = None
    l1: Annotated[float, Field(gt=0)] | None = None
    multi_topk: bool = False
    auxk: Annotated[float, Field(ge=0)] = 1 / 32
    seed: int = 0

    @model_validator(mode="after")
    def _sparsity_fits(self) -> TrainedSae:
        needed, other = ("l1", "k") if self.activation == "relu" else ("k", "l1")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise ValueError(f"activation `{self.activation}` takes `{needed}`, not `{other}`")
        if self.k is not None and self.k > self.width:
            raise ValueError(f"`k` ({self.k}) is larger than `width` ({self.width})")
        if self.multi_topk and self.activation != "topk":
            raise ValueError("`multi_topk` belongs to activation `topk`")
        return self


class PretrainedSae(Pinned, InModel):
    """A published dictionary: a local folder (or .pt file), or a *folder* of a Hub repository; its format shows in its files.

    *writes* is where a transcoder writes; *input_scale* is the factor on activations that some SAELens releases want;
    *centered* says that it was trained on vectors less their mean (TransformerLens' `center_writing_weights`).
    """

    source: Literal["pretrained"]
    folder: str | None = None
    writes: str | None = None
    input_scale: Annotated[float, Field(gt=0)] | None = None
    centered: bool = False


class NeuronBasis(InModel):
    """The coordinates of the vectors themselves, the largest *k* kept; *rotated* is the control in a random basis."""

    source: Literal["neurons"]
    k: Count
    rotated: bool = False
    seed: int = 0


class RandomSae(InModel):
    """An untrained TopK SAE: Gaussian rows of unit norm, decoder and encoder the same."""

    source: Literal["random"]
    width: Count
    k: Count
    seed: int = 0


class PlantedRules(Section):
    """Rules over text, whose true explanations are known."""

    source: Literal["planted"]
    subject: Id


Sae = Annotated[TrainedSae | PretrainedSae | NeuronBasis | RandomSae | PlantedRules, Field(discriminator="source")]


class Training(Section):
    """What all SAE trainings share (*batch*, *buffer*, *dead_after* in tokens) and on how many rows SAEs are measured.

    At most *together* SAEs of a subject are trained in one pass over its activations.
    """

    together: Count
    batch: Count
    buffer: Count
    passes: Count
    lr: Annotated[float, Field(gt=0)]
    dead_after: Count
    batch_rows: Count
    measured_rows: Annotated[int, Field(ge=2)]
