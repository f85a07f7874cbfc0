"""Sections about text, subjects and the windows cut from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.params.base import Count, Id, Pinned, Revision, Section, Share, Whole


class PythonDocs(Section):
    """The documentation and docstrings of the Python that runs the pipeline."""

    source: Literal["python-docs"]
    held_out: Share = 0.1


class Files(Section):
    """txt, jsonl and parquet files, by path or glob; *column* is the field that holds the text."""

    source: Literal["files"]
    paths: Annotated[list[str], Field(min_length=1)]
    column: str = "text"
    held_out: Share = 0.1


class HubText(Section):
    """The first *documents* rows of a dataset on the Hub, at a pinned commit."""

    source: Literal["hub"]
    repo: str
    revision: Revision
    documents: Count
    config: str | None = None
    split: str = "train"
    column: str = "text"
    held_out: Share = 0.1


class Townsfolk(Section):
    """So many *talks* with generated people who have dispositions and answer questions."""

    source: Literal["townsfolk"]
    talks: Count
    held_out: Share = 0.1


Corpus = Annotated[PythonDocs | Files | HubText | Townsfolk, Field(discriminator="source")]


class Subject(Pinned):
    """A language model under study; *template* is how it is asked a question, up to where its answer begins."""

    corpus: Id
    template: str = "{question}\n\nAnswer:"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    trust_remote_code: bool = False

    @field_validator("template")
    @classmethod
    def _asks(cls, template: str) -> str:
        if template.count("{question}") != 1:
            how = "more than once" if "{question}" in template else "nowhere, so it drops the question"
            raise ValueError(f"holds `{{question}}` {how}; put it where a question belongs, once")
        return template


class Tokens(Section):
    """How text becomes rows (SCIENCE C10): every choice is explicit."""

    length: Count
    window: Count
    bos: Literal["row", "none"]
    packing: Literal["document", "joined"]
    partial: Literal["keep", "drop"]

    @model_validator(mode="after")
    def _whole_windows(self) -> Tokens:
        if self.length % self.window:
            raise ValueError(f"`length` ({self.length}) must be a multiple of `window` ({self.window})")
        return self


class Activations(Section):
    """How the corpus is read: rows at a time, rows to a spilled chunk, activations to a file.

    One pass of a subject serves at most *together* dictionaries.
    """

    batch_rows: Count
    chunk_rows: Count
    file_rows: Count
    rare_windows: Count
    self_test: Count
    together: Count = 8


class Neighbours(Section):
    """By which measures the *most* nearest latents of each are sought; firings together are counted on *rows* token rows."""

    measures: list[Literal["cofiring", "decoder", "encoder"]] = Field(default=["cofiring", "decoder", "encoder"])
    most: Count = 10
    rows: Count = 2048


class Negatives(Section):
    """How many windows that are hard to tell from activating ones go to each latent's test windows, by kind.

    From one neighbour come at most *per_neighbour*; similar windows are looked for in a sample of *index*, by the *embedder*.
    With *latents*, only that many latents get them, the ones that explainers and scorers draw.
    """

    cofiring: Whole = 0
    decoder: Whole = 0
    encoder: Whole = 0
    similar: Whole = 0
    per_neighbour: Count = 10
    index: Count = 8192
    embedder: Id | None = None
    latents: Count | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many windows are asked for of each kind of which there shall be any."""
        return {kind: count for kind in ("cofiring", "decoder", "encoder", "similar") if (count := getattr(self, kind))}

    @model_validator(mode="after")
    def _embedder_named(self) -> Negatives:
        if self.similar and self.embedder is None:
            raise ValueError("`similar` windows need an `embedder`, an id of `embedders`")
        return self


class Contexts(Section):
    """How many windows explainers (train) and scorers (test) see of each latent, and how they are drawn.

    A latent that fires in fewer than *at_least* windows is left out, even if there are enough to show.
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
    negatives: Negatives = Negatives()
