"""Embedding: whether the explanation is nearer to windows in which the latent fires than to silent windows.

Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from builders.arrays import Floats
from builders.contexts.contexts import Examples
from builders.embedders.embedder import Embedder
from builders.engines.requests import Outcome
from builders.scorers.judging import Judged, Task, nans
from builders.scorers.statistics import area
from builders.text.vocabulary import texts


@dataclass(frozen=True)
class ByEmbedding:
    """What the scorers that embed windows share; *pieces* are the bytes of each token id, empty for special tokens."""

    embedder: Embedder
    pieces: Sequence[bytes]
    negatives: str
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
        """Return the windows to embed."""
        return task.examples.against(self.negatives)

    def vectors(self, windows: Examples) -> Floats:
        """Return the vectors [n, width] of windows, embedded as plain text without marks."""
        return self.embedder.embed(self._plain(windows)).astype(np.float64)

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Embed the windows of all *tasks* at once. With an embedder that keeps its vectors, this is faster than task by task."""
        plain = (self._plain(self.shown(task)) for task in tasks)
        self.embedder.embed(list(dict.fromkeys(text for some in plain for text in some)))

    def _plain(self, windows: Examples) -> list[str]:
        plain: list[str] = texts(windows.tokens, self._pieces).to_pylist()
        return plain


@dataclass(frozen=True)
class EmbeddingScorer(ByEmbedding):
    """The score is the AUROC of the cosine between explanation and window."""

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Embed the windows and the explanations of all *tasks*."""
        super().prepare(tasks)
        self.embedder.embed_queries([task.explanation for task in tasks])

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return each window's cosine with the explanation, and the AUROC of activating against silent windows."""
        windows = self.shown(task)
        vector = self.embedder.embed_queries([task.explanation]).astype(np.float64)
        # Not a matrix product: its last bits depend on the row, and equal windows must get exactly equal cosines.
        cosine = (self.vectors(windows) * vector).sum(axis=1)
        n, truth = len(cosine), windows.activating
        return Judged(windows.number, truth, np.full(n, "ok"), nans(n), nans(n), cosine, area(truth, cosine))
