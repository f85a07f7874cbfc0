"""Sections about text, subjects, and the windows cut from the text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.params.base import Count, Device, Id, PinnedModel, Revision, Section, Share, Whole


class PythonDocsParams(Section):
    """The documentation and docstrings of the Python that runs the pipeline, or their first *documents*: language topics come first."""

    source: Literal["python-docs"]
    documents: Count | None = None
    held_out: Share = 0.1


class FilesParams(Section):
    """Text, JSON-lines and parquet files, by path or glob; *column* is the field that holds the text."""

    source: Literal["files"]
    paths: Annotated[list[str], Field(min_length=1)]
    column: str = "text"
    held_out: Share = 0.1


class HubTextParams(Section):
    """The first *documents* rows of a dataset on the Hub, at a pinned commit."""

    source: Literal["hub"]
    repo: str
    revision: Revision
    documents: Count
    config: str | None = None
    split: str = "train"
    column: str = "text"
    held_out: Share = 0.1


class TownsfolkParams(Section):
    """Talks with generated people, who have dispositions and answer questions; there are *talks* of them."""

    source: Literal["townsfolk"]
    talks: Count
    held_out: Share = 0.1


CorpusParams = Annotated[PythonDocsParams | FilesParams | HubTextParams | TownsfolkParams, Field(discriminator="source")]


class SubjectParams(PinnedModel):
    """A language model under study; *template* puts a question to it and ends where its answer begins.

    If *reinitialised*, random weights take the place of the checkpoint's, as a control: the tokenizer and the sizes stay. *batch_rows*
    takes the place of `batch_rows` of all subjects: recurrent models that loop over time read many rows as fast as one. *norm* names the
    final norm inside the base model, for lenses, where it is not found by itself; `none` says that there is none.
    """

    corpus: Id
    template: str = "{question}\n\nAnswer:"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Device = "auto"
    trust_remote_code: bool = False
    reinitialised: bool = False
    batch_rows: Count | None = None
    norm: str | None = None

    @field_validator("template")
    @classmethod
    def _asks(cls, template: str) -> str:
        if (count := template.count("{question}")) != 1:
            raise ValueError(f"contains `{{question}}` {count} times; put it where the question belongs, exactly once")
        return template


class TokensParams(Section):
    """How text becomes rows of *length* tokens; see docs/science.md#corpus."""

    length: Count
    window: Count
    bos: Literal["row", "none"]
    packing: Literal["document", "joined"]
    partial: Literal["keep", "drop"]

    @model_validator(mode="after")
    def _whole_windows(self) -> TokensParams:
        if self.length % self.window:
            raise ValueError(f"`length` ({self.length}) must be a multiple of `window` ({self.window})")
        return self


class ActivationsParams(Section):
    """How activations are collected: *batch_rows* rows in a forward pass, *chunk_rows* rows in a chunk, *file_rows* activations in a file.

    A latent that fires in fewer than *rare_windows* windows is rare. *self_test* activations are recomputed as a check. One pass of a
    subject serves at most *together* dictionaries.
    """

    batch_rows: Count
    chunk_rows: Count
    file_rows: Count
    rare_windows: Count
    self_test: Count
    together: Count = 8


MEASURES = ("cofiring", "decoder", "encoder")  # of how near two latents are


class NeighboursParams(Section):
    """How neighbours are found: the *most* nearest latents of each latent by each measure; co-firing is counted on *rows* token rows."""

    measures: list[Literal["cofiring", "decoder", "encoder"]] = Field(default=["cofiring", "decoder", "encoder"])
    most: Count = 10
    rows: Count = 2048


class NegativesParams(Section):
    """How many silent windows, beside random ones, are added to each latent's test windows, by kind; see docs/science.md#negatives.

    At most *per_neighbour* windows come from one neighbour. The *embedder* searches similar windows in a sample of *index* windows. Windows
    of kind *row* begin at position *row_start* of rows in which the latent never fires, as in the paper. Windows of kind *decoy* come from
    the same sample, and hold tokens on which the latent fires elsewhere. With *latents*, only that many latents have such windows: those
    that explainers and scorers draw. Besides, all latents share a *pool* of so many windows from the whole corpus.
    """

    cofiring: Whole = 0
    decoder: Whole = 0
    encoder: Whole = 0
    similar: Whole = 0
    row: Whole = 0
    row_start: Whole = 10
    decoy: Whole = 0
    pool: Whole = 0
    per_neighbour: Count = 10
    index: Count = 8192
    embedder: Id | None = None
    latents: Count | None = None

    @property
    def counts(self) -> dict[str, int]:
        """The number of windows of each kind that each latent gets, without kinds of which there are none."""
        return {kind: count for kind in (*MEASURES, "similar", "row", "decoy") if (count := getattr(self, kind))}

    @property
    def measures(self) -> list[str]:
        """The kinds of windows of neighbours that are asked for."""
        return [kind for kind in self.counts if kind in MEASURES]

    @model_validator(mode="after")
    def _embedder_named(self) -> NegativesParams:
        if self.similar and self.embedder is None:
            raise ValueError("`similar` windows need an `embedder`, an id of `embedders`")
        return self


class LatentsSampleParams(Section):
    """A *sample* of each dictionary's latents with enough windows, drawn by address; only these get windows.

    *by* names the strata: `density` shares the sample evenly among tenths of the range of log density, `none` draws all latents alike.
    """

    sample: Annotated[int, Field(ge=10)]  # each of ten strata gives at least one
    by: Literal["density", "none"] = "density"


class ContextsParams(Section):
    """How many windows of each latent explainers (train) and scorers (test) see, and how they are drawn; see docs/science.md#contexts.

    A latent that fires in fewer than *at_least* windows is left out, even if it has enough windows to show. Without *latents* every latent
    gets windows.
    """

    at_least: Whole = 0
    train: Count
    test: Count
    train_random: Count
    test_random: Count
    quantiles: Count
    sampler: Literal["top", "random", "quantiles", "mix"]
    top_share: Share = 0.2
    windows: Literal["whole", "centered"]
    latents: LatentsSampleParams | None = None
    negatives: NegativesParams = NegativesParams()
