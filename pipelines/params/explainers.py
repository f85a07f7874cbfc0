"""Sections about who explains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.params.base import Count, Id, Section, Share


class Explainer(Section):
    """What all explainers share: whether each text is also given to another latent, as a baseline."""

    baseline: Literal["permuted", "none"] = "permuted"


class LexicalExplainer(Explainer):
    """Token statistics in words; *cues* is how many it names at most."""

    kind: Literal["lexical"]
    cues: Count = 6


class ChatExplainer(Explainer):
    """A language model reads windows; of *examples* windows contrastive ones show *silent* silent ones.

    At most *latents* latents are explained, drawn by address. The stage fails where more than *max_failed_share* of
    the requests do; answers are kept, so that running it again asks only what failed.
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
    def _some_active(self) -> ChatExplainer:
        if self.kind == "contrastive" and self.silent >= self.examples:
            raise ValueError(f"`silent` ({self.silent}) leaves no activating window among `examples` ({self.examples})")
        return self


class InterventionExplainer(Explainer):
    """A language model reads what becomes likelier when a latent's direction is pushed, by *kl* nats, on *examples* beginnings."""

    kind: Literal["intervention"]
    engine: Id
    examples: Count = 10
    kl: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Count = 100
    temperature: Annotated[float, Field(ge=0)] = 0.0
    latents: Count | None = None
    max_failed_share: Share = 0.05


class ImportedExplainer(Explainer):
    """Somebody's explanations of one SAE, from a table, the JSON of the published release, or a folder of one file a latent."""

    kind: Literal["import"]
    path: str


AskingExplainer = ChatExplainer | InterventionExplainer
ExplainerSpec = Annotated[LexicalExplainer | AskingExplainer | ImportedExplainer, Field(discriminator="kind")]
