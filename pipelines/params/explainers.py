"""Sections about explainers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.params.base import Count, Id, Section, Share


class BaseExplainerParams(Section):
    """What all explainers share: *baseline* `permuted` gives each explanation to another latent too."""

    baseline: Literal["permuted", "none"] = "permuted"


class LexicalExplainerParams(BaseExplainerParams):
    """Explains by token statistics; an explanation names at most *cues* cues."""

    kind: Literal["lexical"]
    cues: Count = 6


class ChatExplainerParams(BaseExplainerParams):
    """A language model that reads *examples* windows; of these, kind `contrastive` shows *silent* windows in which the latent is silent.

    At most *latents* latents are explained, drawn by address. The stage fails if more than *max_failed_share* of its requests fail. Answers
    are kept, so a second run makes only the failed requests again.
    """

    kind: Literal["default", "no-activations", "chain-of-thought", "logits", "contrastive", "single-token"]
    engine: Id
    examples: Count = 40
    silent: Count = 5
    max_tokens: Count = 500
    temperature: Annotated[float, Field(ge=0)] = 0.0
    latents: Count | None = None
    max_failed_share: Share = 0.05

    @model_validator(mode="after")
    def _some_active(self) -> ChatExplainerParams:
        if self.kind == "contrastive" and self.silent >= self.examples:
            raise ValueError(f"`silent` ({self.silent}) leaves no activating window among `examples` ({self.examples})")
        return self


class InterventionExplainerParams(BaseExplainerParams):
    """A language model that reads which tokens become likelier when a latent is pushed by *kl* nats, on *examples* beginnings."""

    kind: Literal["intervention"]
    engine: Id
    examples: Count = 10
    kl: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Count = 100
    temperature: Annotated[float, Field(ge=0)] = 0.0
    latents: Count | None = None
    max_failed_share: Share = 0.05


class ImportedExplainerParams(BaseExplainerParams):
    """Explanations made elsewhere for one SAE: a table, the JSON of the published release, or a folder with one file for each latent."""

    kind: Literal["import"]
    path: str


AskingExplainerParams = ChatExplainerParams | InterventionExplainerParams
ExplainerParams = Annotated[LexicalExplainerParams | AskingExplainerParams | ImportedExplainerParams, Field(discriminator="kind")]
