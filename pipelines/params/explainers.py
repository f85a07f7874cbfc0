"""Sections about explainers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Count, Id, Section, Share


class BaseExplainerParams(Section):
    """What all explainers share: *baseline* `permuted` gives each explanation to another latent too."""

    baseline: Literal["permuted", "none"] = "permuted"


class LexicalExplainerParams(BaseExplainerParams):
    """Explains by token statistics; an explanation names at most *cues* cues."""

    kind: Literal["lexical"]
    cues: Count = 6


class SampledExplainerParams(BaseExplainerParams):
    """What explainers share that ask a language model: they ask *samples* times about each latent, each time with a seed of its own.

    At most *latents* latents are explained, drawn by address, and with *saes* those of these dictionaries only. The stage fails if more
    than *max_failed_share* of its requests fail. Answers are kept, so a second run makes only the failed requests again.
    """

    engine: Id
    temperature: Annotated[float, Field(ge=0)] = 0.0
    samples: Count = 1
    latents: Count | None = None
    saes: list[Id] | None = None
    max_failed_share: Share = 0.05

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"{self.samples} `samples` at `temperature` 0 are all the same; raise it (the paper: 0.7)")
        return self


class ChatExplainerParams(SampledExplainerParams):
    """A language model that reads *examples* windows; of these, kind `contrastive` shows *silent* windows in which the latent is silent.

    Kind `short` shows the strongest piece of each window with a little text around it.
    """

    kind: Literal["default", "no-activations", "chain-of-thought", "logits", "contrastive", "single-token", "short"]
    examples: Count = 40
    silent: Count = 5
    max_tokens: Count = 500

    @model_validator(mode="after")
    def _some_active(self) -> ChatExplainerParams:
        if self.kind == "contrastive" and self.silent >= self.examples:
            raise ValueError(f"`silent` ({self.silent}) leaves no activating window among `examples` ({self.examples})")
        return self


class InterventionExplainerParams(SampledExplainerParams):
    """A language model that reads which tokens become likelier when a latent is pushed by *kl* nats, on *examples* beginnings."""

    kind: Literal["intervention"]
    examples: Count = 10
    kl: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Count = 100


class ImportedExplainerParams(BaseExplainerParams):
    """Explanations made elsewhere for one SAE: a table, the JSON of the published release, or a folder with one file for each latent."""

    kind: Literal["import"]
    path: str


AskingExplainerParams = ChatExplainerParams | InterventionExplainerParams
ExplainerParams = Annotated[LexicalExplainerParams | AskingExplainerParams | ImportedExplainerParams, Field(discriminator="kind")]
