"""Lookalikes: silent windows whose text is nearest to that of a latent's strongest windows.

They are taken from one sample of the corpus's windows, which is embedded once for all latents. Every strong window takes its turn, so that
none uses up the whole quota. Source: the later scorers of Paulo et al. 2024 (arXiv:2410.13928); see docs/science.md#negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.arrays import Bools, Ints, among, ranks, sort_order
from builders.contexts.selection import Selected
from builders.text.rows import Corpus
from builders.text.vocabulary import texts

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]  # texts → vectors [n, d] of unit norm

STRONGEST = 10  # windows of a latent whose lookalikes are searched
BATCH = 4096  # texts embedded at a time
CELLS = 2**23  # similarities in memory at a time


@dataclass(frozen=True)
class Lookalikes:
    """A sample of windows, and the strongest windows of *latents*, whose lookalikes are searched in it.

    The sample: the windows' *number* [m] in the corpus's grid, and their *vectors* [m, d]. The strongest windows: their vectors *queries*
    [q, d], and for each latent its places in *queries*, strongest first: *standing* [latents, some].
    """

    number: Ints
    vectors: Vectors
    latents: Ints
    standing: Ints
    queries: Vectors

    def windows(self, latents: Ints, taken: Ints, total: int, n: int) -> tuple[Ints, Ints, Ints]:
        """Return up to *n* lookalikes for each of *latents*, as :class:`builders.contexts.negatives.WindowSource` says."""
        found = [(latents[:0], latents[:0])]
        # A product's rounding depends on its place in the block. So blocks are always cut from all latents, not from those asked for.
        step = max(1, CELLS // max(1, self.standing.shape[1] * len(self.number)))
        for low in range(0, len(self.latents), step):
            asked = among(latents, self.latents[low : low + step])
            if not asked.any():
                continue
            some, standing = self.latents[low : low + step][asked], self.standing[low : low + step]
            near = (self.queries[standing.reshape(-1)] @ self.vectors.T).reshape(*standing.shape, -1)[asked]
            place = in_turn(near, ~among(taken, some[:, None] * total + self.number), n)
            found.append((np.repeat(some, n)[place.reshape(-1) >= 0], self.number[place[place >= 0]]))
        latent, number = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return latent, number, np.full(len(latent), -1)


def in_turn(near: npt.NDArray[np.float32], free: Bools, n: int) -> Ints:
    """Let queries take turns: each takes its nearest free candidate, until *n* are taken; return their places [latents, n].

    *near* [latents, queries, candidates] are similarities, and *free* [latents, candidates] says which candidates may be taken. No
    candidate is taken twice; of equally near ones the first is taken; -1 stands where none is left.
    """
    left = np.where(free[:, None, :], near, -np.inf)
    latent = np.arange(len(near))
    found = np.full((len(near), n), -1, dtype=np.int64)
    for turn in range(min(n, near.shape[2])):
        row = left[:, turn % near.shape[1]]
        best = row.argmax(axis=1)
        found[:, turn] = np.where(row[latent, best] > -np.inf, best, -1)
        left[latent, :, best] = -np.inf
    return found


def standing(selected: Selected, corpus: Corpus) -> Ints:
    """Return where the strongest windows of each selected latent begin [latents, some], each as row · row length + start."""
    fires = np.flatnonzero(selected.rank >= 0)
    order = fires[sort_order(selected.latent[fires], selected.rank[fires])]
    order = order[ranks(selected.latent[order])[0] < STRONGEST]
    places = selected.row[order] * corpus.row_length + selected.start[order]
    latents = len(selected.latents)
    return places.reshape(latents, len(places) // max(latents, 1))  # every selected latent fills its quota, so all have equally many


def embedded(latents: Ints, places: Ints, corpus: Corpus, window: int, number: Ints, pieces: pa.Array, embed: Embed) -> Lookalikes:
    """Return Lookalikes: embed the sample of windows *number*, and the strongest windows of *latents* at *places* (:func:`standing`).

    The order and the batches in which texts are embedded do not depend on how latents are divided among files. *pieces* are the bytes of
    each token id; *window* is in tokens.
    """
    once, inverse = np.unique(places, return_inverse=True)

    def vectors(row: Ints, start: Ints) -> Vectors:
        ids = corpus.ids[row[:, None], start[:, None] + np.arange(window)]
        parts = [embed(texts(ids[low : low + BATCH], pieces).to_pylist()) for low in range(0, len(ids), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    sample = vectors(*corpus.grid(window).place(number))
    queries = vectors(*np.divmod(once, corpus.row_length))
    return Lookalikes(number, sample, latents, inverse.reshape(places.shape), queries)
