"""The pool: windows drawn evenly from the whole corpus, the same for all dictionaries of a subject, with the latents that fire in each.

A latent is silent in most of them. So a judge can be asked about hundreds of silent windows of each latent, and every window is kept once.
See docs/science.md#negatives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.arrays import Ints, among
from builders.contexts.contexts import Examples
from builders.contexts.selection import Selected
from builders.lake.references import OF_ROW, OF_SAE
from builders.lake.table import Column, Table
from builders.saes.activations import Firings
from builders.text.rows import Corpus
from builders.text.vocabulary import texts

POOL = Table(
    name="pool",
    row="a window drawn evenly from the whole corpus, with the latents that fire in it",
    key=("sae", "window"),
    columns=(
        Column("sae", "string", "the dictionary; all dictionaries of a subject have the same windows", categorical=True),
        Column("window", "int32", "number within the pool, in the order of the corpus", low=0),
        Column("row", "int32", "the row of `tokens` that the window was cut from", low=0),
        Column("start", "int32", "position of the window's first token in that row", low=0),
        Column("text", "string", "the window's text"),
        Column("tokens", "list<int32>", "the window's token ids", low=0),
        Column("firing", "list<int32>", "the latents that fire in it", low=0),
        Column("drawn", "list<int32>", "silent latents that have it, or one that overlaps it, among their windows in `contexts`", low=0),
    ),
    references=(OF_SAE, OF_ROW),
)
KIND = "pool"  # of the windows, in Examples and in scores
ROOM = 2**32  # above every latent


@dataclass(frozen=True)
class Pairs:
    """Which latents fire in which of the pool's windows, and which have them already: keys place in the pool · ROOM + latent, sorted."""

    firing: Ints
    drawn: Ints


def pairs_of(number: Ints, selected: Selected, firings: Firings, corpus: Corpus, window: int) -> Pairs:
    """Return the Pairs of the latents whose *firings* are given; *number* [m] are the pool's windows in the corpus's grid, sorted.

    *selected* are the windows of those of the latents that get any; *window* is in tokens.
    """
    grid = corpus.grid(window)
    near = np.zeros(len(corpus.ids), dtype=bool)  # most firings are in other rows, and this look-up is cheap
    near[grid.place(number)[0]] = True
    some = firings.take(np.flatnonzero(near[firings.row]))
    held = grid.number(some.row.astype(np.int64), some.position.astype(np.int64))
    latent, taken = np.divmod(selected.taken, max(grid.total, 1))
    firing, closed = (_keys(number, *pair) for pair in ((held, some.latent.astype(np.int64)), (taken, latent)))
    return Pairs(firing, np.setdiff1d(closed, firing))


def _keys(number: Ints, held: Ints, latent: Ints) -> Ints:
    inside = among(number, held)
    return np.unique(np.searchsorted(number, held[inside]) * ROOM + latent[inside])


def pool_rows(sae: str, number: Ints, parts: list[Pairs], corpus: Corpus, window: int, pieces: pa.Array) -> pa.Table:
    """Return the POOL rows of the windows *number* [m], with the latents of all *parts*; *pieces* are the bytes of each token id."""
    row, start = corpus.grid(window).place(number)
    ids = corpus.ids[row[:, None], start[:, None] + np.arange(window)]
    lists = {name: np.sort(np.concatenate([getattr(part, name) for part in parts])) for name in ("firing", "drawn")}
    columns = {name: _lists(keys, len(number)) for name, keys in lists.items()}
    shown = {"row": row, "start": start, "text": texts(ids, pieces), "tokens": ids}
    return POOL.build({"sae": sae, "window": np.arange(len(number)), **shown, **columns})


def _lists(keys: Ints, m: int) -> pa.Array:
    """Return a list of latents for each of *m* windows, from their sorted *keys*."""
    place, latent = np.divmod(keys, ROOM)
    offsets = np.searchsorted(place, np.arange(m + 1))
    return pa.ListArray.from_arrays(offsets.astype(np.int32), latent.astype(np.int32))


@dataclass(frozen=True)
class Pool:
    """A dictionary's pool as arrays: *tokens* [m, window], *row* and *start* [m]; *closed* are sorted keys latent · m + place.

    A window is closed to a latent that fires in it or has it already.
    """

    tokens: npt.NDArray[np.int32]
    row: Ints
    start: Ints
    closed: Ints

    @staticmethod
    def of(rows: pa.Table) -> Pool:
        """Return the pool that POOL *rows* hold."""
        m = rows.num_rows
        row, start = (rows[name].to_numpy().astype(np.int64) for name in ("row", "start"))
        keys = []
        for name in ("firing", "drawn"):
            lists = rows[name].combine_chunks()
            place = np.repeat(np.arange(m), np.diff(lists.offsets.to_numpy()))
            keys.append(lists.flatten().to_numpy().astype(np.int64) * m + place)
        tokens = rows["tokens"].combine_chunks().flatten().to_numpy().reshape(m, -1 if m else 0)
        return Pool(tokens, row, start, np.sort(np.concatenate(keys)))

    def beside(self, examples: Examples) -> Examples:
        """Return *examples* and after them the windows that are open to their latent, numbered after all of them."""
        m, width = self.tokens.shape
        if not m:
            return examples
        some = np.flatnonzero(~among(self.closed, examples.latent * m + np.arange(m)))
        nothing = np.zeros((len(some), width), dtype=np.float32)
        more: dict[str, Any] = {
            "number": int(examples.number.max(initial=-1)) + 1 + some,
            "tokens": self.tokens[some],
            "activations": nothing,
            "kind": np.full(len(some), KIND),
            "quantile": np.full(len(some), -1),
            "neighbour": nothing,
            "row": self.row[some],
            "start": self.start[some],
        }
        return replace(examples, **{name: np.concatenate([getattr(examples, name), values]) for name, values in more.items()})
