"""The section about how alike dictionaries are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.params.base import Count, Id, Section, Share

Relation = Literal["seed", "layer", "recipe", "hookpoint", "subject", "reinitialised"]
SameHookpoint = Literal["seed", "recipe"]  # only what stands at one place can take the other's
Measure = Literal["decoder", "encoder", "pearson", "jaccard", "explanation"]


class SimilarityParams(Section):
    """How pairs of dictionaries are compared, on *rows* rows of a text that both of their subjects read; see docs/science.md#similarity.

    All dictionaries are compared with one another, or only *saes*; of sisters, which differ by their seed only, the first is compared with
    others. Two latents whose measure is at least *threshold* are shared, and `similarity` counts them at each of *thresholds*, too. Above
    16,384 latents, the *most* nearest ones are candidates for one-to-one partners. Measure `explanation` compares the explanations of
    *explainer* by their vectors of *embedder*. What takes longer is done for the relations listed only: *geometry* compares whole sets of
    latents; *spliced* pairs are put in each other's place while the subject reads *splice_rows* held-out rows; for *transferred* ones
    *scorer* judges the explanations of *transfers* latents on the windows of their partners.
    """

    measures: list[Measure] = Field(default=["decoder", "encoder", "pearson", "jaccard"])
    saes: list[Id] | None = None
    rows: Count = 512
    most: Count = 32
    threshold: Share = 0.7
    thresholds: list[Share] = Field(default=[0.3, 0.5, 0.7, 0.9], min_length=1)
    explainer: Id | None = None
    embedder: Id | None = None
    geometry: list[Relation] = Field(default=["seed"])
    spliced: list[SameHookpoint] = Field(default=["seed"])
    splice_rows: Annotated[int, Field(ge=2)] = 32
    transferred: list[Relation] = Field(default=[])
    scorer: Id | None = None
    transfers: Count = 50

    @model_validator(mode="after")
    def _explained(self) -> SimilarityParams:
        if "explanation" in self.measures and (self.explainer is None or self.embedder is None):
            raise ValueError("measure `explanation` needs an `explainer` and an `embedder`; name both, or leave the measure out")
        if self.transferred and (self.explainer is None or self.scorer is None):
            raise ValueError("`transferred` pairs need an `explainer` and a `scorer`; name both, or leave it empty")
        return self
