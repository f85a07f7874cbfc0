"""Silent windows whose text is nearest to a latent's strongest windows, among a sample embedded once for all. SCIENCE A4, D1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.arrays import Ints, among, ranks, sort_order
from builders.contexts.selection import Selected
from builders.text.rows import Corpus
from builders.text.vocabulary import texts

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]  # texts → vectors [n, d] of unit norm

STRONGEST = 10  # windows that stand for a latent
BATCH = 4096  # texts embedded at a time
CELLS = 2**23  # similarities in memory at a time


@dataclass(frozen=True)
class Lookalikes:
    """A sample of windows by number [m] and their *vectors* [m, d]; the windows that stand for *latents*, as places in *queries* [q, d].

    *standing* [latents, some] are the strongest windows of each, strongest first.
    """

    number: Ints
    vectors: Vectors
    latents: Ints
    standing: Ints
    queries: Vectors

    def windows(self, latents: Ints, taken: Ints, total: int, n: int) -> tuple[Ints, Ints, Ints]:
        """Return (latent, window number, -1) of up to *n* windows of the sample for each of *latents*, none *taken* (sorted keys)."""
        found = [(latents[:0], latents[:0])]
        # Products round by their place in a block, so blocks are cut from all latents, whichever of them are asked for.
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


def in_turn(near: npt.NDArray[np.float32], free: npt.NDArray[np.bool_], n: int) -> Ints:
    """Return which of m things [k, n] some queries take in turn, each the nearest left to it by *near* [k, queries, m].

    Only *free* ones [k, m] are taken, none twice; -1 where none is left. Of equals the first is taken.
    """
    left = np.where(free[:, None, :], near, -np.inf)
    each = np.arange(len(near))
    found = np.full((len(near), n), -1, dtype=np.int64)
    for turn in range(min(n, near.shape[2])):
        row = left[:, turn % near.shape[1]]
        best = row.argmax(axis=1)
        found[:, turn] = np.where(row[each, best] > -np.inf, best, -1)
        left[each, :, best] = -np.inf
    return found


def standing(selected: Selected, corpus: Corpus) -> Ints:
    """Return the places of the strongest windows of each latent *selected* [latents, some], as row · length of a row + start."""
    fires = np.flatnonzero(selected.peak > 0)
    order = fires[sort_order(selected.latent[fires], selected.peak[fires], descending=True)]
    order = order[ranks(selected.latent[order])[0] < STRONGEST]
    places = selected.row[order] * corpus.row_length + selected.start[order]
    latents = len(selected.latents)
    return places.reshape(latents, len(places) // max(latents, 1))  # all have as many, since they fill their quota


def embedded(latents: Ints, places: Ints, corpus: Corpus, window: int, number: Ints, pieces: pa.Array, embed: Embed) -> Lookalikes:
    """Return the windows by *number* as a sample, and those at *places* (of :func:`standing`) that stand for *latents*.

    Texts are embedded in an order and in batches that do not depend on how latents lie in files. *pieces* are the bytes of
    each token id.
    """
    once, inverse = np.unique(places, return_inverse=True)

    def vectors(row: Ints, start: Ints) -> Vectors:
        ids = corpus.ids[row[:, None], start[:, None] + np.arange(window)]
        parts = [embed(texts(ids[low : low + BATCH], pieces).to_pylist()) for low in range(0, len(ids), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    sample = vectors(*corpus.grid(window).place(number))
    queries = vectors(*np.divmod(once, corpus.row_length))
    return Lookalikes(number, sample, latents, inverse.reshape(places.shape), queries)
