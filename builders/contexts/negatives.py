"""Negatives beside random ones: windows of neighbours, windows whose text is alike, and (as in the paper) windows of silent rows.

The first two are hard, since they look like activating ones. A first pass over all firings keeps the strongest windows of every latent
(`strongest`). A second pass goes through the latents and takes windows in which a latent's neighbours fire and the latent itself is silent.
Each kind is drawn by itself, so asking for one more kind does not change the others. Source: Paulo et al. 2024 (arXiv:2410.13928) and
their later negatives; see docs/science.md#negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from builders.arrays import Ints, among
from builders.contexts.selection import KINDS, Selected
from builders.contexts.silent_rows import SilentRows
from builders.contexts.windows import Plan, activating_windows, window_activations
from builders.lake.failures import failure
from builders.saes.activations import Firings
from builders.text.rows import Corpus

Found = tuple[Ints, Ints, Ints]  # latent, window number, neighbour (-1 for none); sorted by latent
# Of every neighbour, DEPTH times as many windows are kept as one latent may take from it, because the latent fires in some of them.
DEPTH = 16
ROW = "row"  # the kind of windows of silent rows


class WindowSource(Protocol):
    """Gives up to *n* silent windows to each of *latents*: none twice, and none that is *taken*.

    *taken* are sorted keys latent · *total* + window number, where *total* is the number of windows in the corpus's grid.
    """

    def windows(self, latents: Ints, taken: Ints, total: int, n: int) -> Found: ...  # noqa: D102  # said above


@dataclass(frozen=True)
class Strongest:
    """The strongest windows of every latent: their *number* in the grid [latents, most], strongest first, -1 where there are fewer.

    *firings* are the activations in these windows, in key order.
    """

    number: npt.NDArray[np.int32]
    firings: Firings

    def activations(self, latent: Ints, number: Ints, corpus: Corpus, window: int) -> npt.NDArray[np.float32]:
        """Return the activations [n, window] of each *latent* [n] in its window *number* [n]; a pair may come more than once."""
        grid = corpus.grid(window)
        keys, inverse = np.unique(latent * grid.total + number, return_inverse=True)
        latent, number = np.divmod(keys, max(grid.total, 1))
        edges = np.searchsorted(self.firings.latent, np.unique(latent)[:, None] + np.arange(2))
        sizes = np.diff(edges)[:, 0]
        index = np.arange(sizes.sum()) + np.repeat(edges[:, 0] - np.cumsum(sizes) + sizes, sizes)
        return window_activations(latent, *grid.place(number), self.firings.take(index), corpus, window)[inverse]


def strongest(latents: Ints, firings: Firings, corpus: Corpus, plan: Plan, most: int, seed: int) -> Strongest:
    """Return the *most* strongest windows of the grid for each of *latents* (sorted); *firings* are all activations of these latents.

    *seed* addresses the draw that ranks windows of equal peaks.
    """
    grid = corpus.grid(plan.window)
    windows = activating_windows(firings, corpus, replace(plan, centered=False), seed)
    windows = windows.take(np.flatnonzero(windows.rank < most))
    number = np.full((len(latents), most), -1, dtype=np.int32)
    number[np.searchsorted(latents, windows.latent), windows.rank] = grid.number(windows.row, windows.start)
    keys = np.sort((latents[:, None] * grid.total + number)[number >= 0])
    where = grid.number(firings.row.astype(np.int64), firings.position.astype(np.int64))
    inside = np.flatnonzero((where >= 0) & among(keys, firings.latent * np.int64(grid.total) + where))
    return Strongest(number, firings.take(inside))


def together(parts: Sequence[Strongest]) -> Strongest:
    """Join the strongest windows of several files of latents, which come in order of latent."""
    firings = Firings(*(np.concatenate([getattr(part.firings, field.name) for part in parts]) for field in fields(Firings)))
    return Strongest(np.concatenate([part.number for part in parts]), firings)


@dataclass(frozen=True)
class Nearby:
    """Gives a latent the strongest windows of its *neighbours* [latents, most], nearest first, -1 where there are fewer."""

    neighbours: Ints
    strongest: Strongest
    per_neighbour: int

    def windows(self, latents: Ints, taken: Ints, total: int, n: int) -> Found:
        """Return up to *n* windows for each of *latents*, as :class:`WindowSource` says.

        The neighbours are gone through from the nearest on; each gives at most *per_neighbour* windows, its strongest first.
        """
        have = np.zeros(len(latents), dtype=np.int64)
        given = np.zeros(0, dtype=np.int64)
        parts: list[Found] = [(given, given, given)]
        for neighbour in self.neighbours[latents].T:
            numbers = np.where(neighbour[:, None] >= 0, self.strongest.number[neighbour], -1).astype(np.int64)
            keys = latents[:, None] * total + numbers
            free = (numbers >= 0) & ~among(taken, keys) & ~among(given, keys)
            free &= np.cumsum(free, axis=1) <= np.minimum(self.per_neighbour, n - have)[:, None]
            place, column = np.nonzero(free)
            parts.append((latents[place], numbers[place, column], neighbour[place]))
            have += free.sum(axis=1)
            given = np.sort(np.concatenate([given, keys[free]]))
        latent, number, near = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(latent, kind="stable")
        return latent[order], number[order], near[order]


@dataclass(frozen=True)
class Hard:
    """Hard windows, and those of silent rows, in order of latent, then kind.

    All arrays are [n], except the last: *latent*, *kind* (its place in KINDS), *row*, *start*, and *neighbour* (-1 for none).
    *neighbour_activations* [windows with a neighbour, window] are the activations of that neighbour.
    """

    latent: Ints
    kind: Ints
    row: Ints
    start: Ints
    neighbour: Ints
    neighbour_activations: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sources:
    """Where hard windows come from: *kinds* names, by kind, how many windows each of *latents* (sorted) gets, and their source.

    *rows* says the same of windows of silent rows.
    """

    latents: Ints
    kinds: Mapping[str, tuple[int, WindowSource]]
    strongest: Strongest | None = None
    rows: tuple[int, SilentRows] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many windows of each kind a latent gets."""
        found = {kind: n for kind, (n, _) in self.kinds.items()}
        return found if self.rows is None else {**found, ROW: self.rows[0]}

    def of(self, latents: Ints) -> Ints:
        """Return those of *latents* that get hard windows."""
        return latents[among(self.latents, latents)]


NOTHING = Sources(np.zeros(0, dtype=np.int64), {})


def hard_windows(sources: Sources, selected: Selected, firings: Firings, corpus: Corpus, window: int) -> Hard:
    """Return the hard windows of the selected latents, whose *firings* are given: none that is taken, none twice within a kind."""
    grid, wanted = corpus.grid(window), sources.of(selected.latents)
    nothing = np.zeros(0, dtype=np.int64)
    parts = [(nothing, nothing, nothing, nothing, nothing)]
    for kind, (n, source) in sources.kinds.items():
        latent, number, neighbour = source.windows(wanted, selected.taken, grid.total, n)
        parts.append((latent, *grid.place(number), neighbour, np.full(len(latent), KINDS.index(kind))))
    if sources.rows is not None:
        n, rows = sources.rows
        found = rows.windows(wanted, n, firings, selected)
        parts.append((*found, np.full(len(found[0]), -1), np.full(len(found[0]), KINDS.index(ROW))))
    columns = [np.concatenate(part) for part in zip(*parts, strict=True)]
    order = np.lexsort((columns[-1], columns[0]))
    latent, row, start, neighbour, kinds = (column[order] for column in columns)
    shown = np.zeros((0, window), dtype=np.float32)
    if sources.strongest is not None:
        near = np.flatnonzero(neighbour >= 0)
        shown = sources.strongest.activations(neighbour[near], grid.number(row[near], start[near]), corpus, window)
    return Hard(latent, kinds, row, start, neighbour, shown)


def shortfalls(sae: str, sources: Sources, selected: Selected, hard: Hard) -> list[dict[str, Any]]:
    """Return a FAILURES record for every latent and kind with fewer windows than asked for."""
    latents = sources.of(selected.latents)
    found = []
    for kind, n in sources.counts.items():
        own = hard.latent[hard.kind == KINDS.index(kind)]
        have = np.searchsorted(own, latents, side="right") - np.searchsorted(own, latents)
        short = zip(latents[have < n].tolist(), have[have < n].tolist(), strict=True)
        found += [failure(sae, latent, "contexts", kind, f"{count} of {n} windows of this kind") for latent, count in short]
    return found
