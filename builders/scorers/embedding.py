"""Embedding: is the explanation nearer to windows in which the latent fires than to others? SCIENCE A9."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from builders.contexts.contexts import Examples
from builders.embedders.embedder import Embedder
from builders.engines.requests import Outcome
from builders.scorers.judging import Floats, Judged, Task, none
from builders.scorers.statistics import area
from builders.text.vocabulary import texts


@dataclass(frozen=True)
class ByEmbedding:
    """What scorers that embed windows share: they embed all, or at most *windows* activating ones and as many silent ones.

    *pieces* are the bytes of each token id, none of special ones.
    """

    embedder: Embedder
    pieces: Sequence[bytes]
    negatives: str
    windows: int | None = field(default=None, kw_only=True)
    unit = "AUROC"
    chance = 0.5
    prompt_sha256 = None

    @cached_property
    def _pieces(self) -> pa.Array:
        return pa.array(self.pieces, pa.binary())

    def requests(self, task: Task) -> tuple[()]:
        """Return nothing: no language model is asked."""
        return ()

    def shown(self, task: Task) -> Examples:
        """Return the windows to be embedded."""
        examples = task.examples
        return examples.against(self.negatives) if self.windows is None else examples.some(self.negatives, self.windows)

    def vectors(self, windows: Examples) -> Floats:
        """Return the vectors [n, width] of windows, which are read as plain text."""
        return self.embedder.embed(self._plain(windows)).astype(np.float64)

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Embed the windows of all *tasks*: with an embedder that keeps its vectors this is faster than one task at a time."""
        plain = (self._plain(self.shown(task)) for task in tasks)
        self.embedder.embed(list(dict.fromkeys(text for some in plain for text in some)))

    def _plain(self, windows: Examples) -> list[str]:
        plain: list[str] = texts(windows.tokens, self._pieces).to_pylist()
        return plain


@dataclass(frozen=True)
class EmbeddingScorer(ByEmbedding):
    """Scores by the AUROC of the cosine of explanation and window."""

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Embed the windows and the explanations of all *tasks*."""
        super().prepare(tasks)
        self.embedder.embed_queries([task.text for task in tasks])

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the cosine of each window with the explanation, and how well they tell activating windows."""
        windows = self.shown(task)
        query = self.embedder.embed_queries([task.text]).astype(np.float64)
        # Row by row, not as a matrix product, whose last bits depend on the row: equal windows shall tie.
        cosine = (self.vectors(windows) * query).sum(axis=1)
        n, truth = len(cosine), windows.activating
        return Judged(windows.number, truth, np.full(n, "ok"), none(n), none(n), cosine, area(truth, cosine))
