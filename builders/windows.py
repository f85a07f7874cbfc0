"""Which windows a latent fires in, which it is silent in, and which of them are drawn. SCIENCE A4.

Nothing loops over activations: every step is an array operation over all latents of a shard at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.activations import Firings
from builders.seeds import uniforms

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """How many windows of what kind: counts are per latent; *sampler* chooses the training windows.

    A latent that fires in fewer than *at_least* windows is left out.
    """

    train: int
    test: int
    train_random: int
    test_random: int
    quantiles: int
    sampler: str
    top_share: float  # of the mix sampler
    centered: bool
    window: int
    at_least: int = 0


@dataclass(frozen=True)
class Corpus:
    """The token rows: ids [rows, length] (padded), and how many tokens each row has."""

    ids: npt.NDArray[np.int32]
    lengths: Ints

    @property
    def row_length(self) -> int:
        """Length of the longest row."""
        return int(self.ids.shape[1])

    def grid(self, window: int) -> Grid:
        """Return the grid of whole, non-overlapping windows of all rows."""
        return Grid(self.lengths // window, window)


@dataclass(frozen=True)
class Grid:
    """All whole windows of a corpus, numbered row by row; *per_row* says how many each row has."""

    per_row: Ints
    window: int

    @cached_property
    def first(self) -> Ints:
        """The number of each row's first window."""
        return np.cumsum(self.per_row) - self.per_row

    @property
    def total(self) -> int:
        """How many windows there are."""
        return int(self.per_row.sum())

    def number(self, row: Ints, position: Ints) -> Ints:
        """Return the number of the window at *position* of *row*; -1 where the row's rest is shorter than a window."""
        block = position // self.window
        return np.where(block < self.per_row[row], self.first[row] + block, -1)

    def place(self, number: Ints) -> tuple[Ints, Ints]:
        """Return the row and the first position of windows by *number*."""
        row = np.searchsorted(self.first, number, side="right") - 1
        # Rows without a window share their neighbour's number; the last of equal entries is the one that has it.
        return row, (number - self.first[row]) * self.window


@dataclass(frozen=True)
class Windows:
    """Candidate windows in order of (latent, descending peak): all arrays are [n]."""

    latent: Ints
    row: Ints
    start: Ints
    peak: Floats
    rank: Ints  # among the latent's windows, 0 the strongest
    count: Ints  # how many windows the latent has

    def take(self, index: npt.NDArray[Any]) -> Windows:
        """Return the windows at *index*."""
        return Windows(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def _ranks(groups: Ints) -> tuple[Ints, Ints]:
    """Return each element's place within its run of equal *groups* (sorted), and the length of that run."""
    new = np.concatenate([[True], groups[1:] != groups[:-1]]) if len(groups) else np.zeros(0, dtype=bool)
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(groups)))
    return np.arange(len(groups)) - np.repeat(starts, lengths), np.repeat(lengths, lengths)


def _order(groups: Ints, value: npt.NDArray[Any], *, descending: bool = False) -> Ints:
    """Return the stable order by *groups* (below 2³²), then by *value* (not negative, as float32).

    Both are packed into one integer, whose sort is several times as fast as one by two keys.
    """
    bits = value.astype(np.float32).view(np.uint32)
    key = (groups.astype(np.uint64) << np.uint64(32)) | (~bits if descending else bits)
    return np.argsort(key, kind="stable")


def activating_windows(firings: Firings, corpus: Corpus, plan: Plan) -> Windows:
    """Return every window that holds an activation: whole windows of the grid, or windows around the peaks."""
    latent, row, position = (a.astype(np.int64) for a in (firings.latent, firings.row, firings.position))
    blocks = -(-corpus.row_length // plan.window)
    block = (latent * len(corpus.ids) + row) * blocks + position // plan.window
    starts = np.flatnonzero(np.concatenate([[True], block[1:] != block[:-1]])) if len(block) else np.zeros(0, dtype=np.int64)
    peak = np.maximum.reduceat(firings.value, starts).astype(np.float64) if len(starts) else np.zeros(0)
    first = (position[starts] // plan.window) * plan.window
    if plan.centered:
        # The peak stands at three quarters of the window, as in the paper's code: what comes before explains more.
        lengths = np.diff(np.append(starts, len(block)))
        at_peak = np.flatnonzero(firings.value == np.repeat(peak, lengths).astype(np.float32))
        owner = np.repeat(np.arange(len(starts)), lengths)[at_peak]
        centre = position[at_peak[np.unique(owner, return_index=True)[1]]]
        room = corpus.lengths[row[starts]] - plan.window
        first = np.clip(centre - min(plan.window - plan.window // 4, plan.window - 1), 0, np.maximum(room, 0))
    fits = first + plan.window <= corpus.lengths[row[starts]]
    found = _ranked(latent[starts][fits], row[starts][fits], first[fits], peak[fits])
    return _with_peaks(_without_overlaps(found, plan.window), firings, corpus, plan.window) if plan.centered else found


def _with_peaks(windows: Windows, firings: Firings, corpus: Corpus, length: int) -> Windows:
    """Return the windows ranked anew by the largest activation that each shows."""
    if not len(windows.latent):
        return windows
    at = (firings.latent.astype(np.int64) * len(corpus.ids) + firings.row) * corpus.row_length + firings.position
    place = (windows.latent * len(corpus.ids) + windows.row) * corpus.row_length + windows.start
    windows, place = windows.take(np.argsort(place)), np.sort(place)
    bounds = np.searchsorted(at, np.stack([place, place + length], axis=1)).reshape(-1)
    peak = np.maximum.reduceat(np.append(firings.value, 0), bounds)[::2].astype(np.float64)
    return _ranked(windows.latent, windows.row, windows.start, peak)


def _ranked(latent: Ints, row: Ints, start: Ints, peak: Floats) -> Windows:
    """Return windows given in order of place, in order of latent and strength; of equals the first place comes first."""
    order = _order(latent, peak, descending=True)
    rank, count = _ranks(latent[order])
    return Windows(latent[order], row[order], start[order], peak[order], rank, count)


def _without_overlaps(windows: Windows, length: int) -> Windows:
    """Keep, of overlapping windows of one latent and row, the strongest first; one round per window of a row."""
    open_ = np.ones(len(windows.latent), dtype=bool)
    kept = np.zeros_like(open_)
    line = windows.latent * (windows.row.max(initial=0) + 1) + windows.row
    while open_.any():
        candidates = np.flatnonzero(open_)
        leaders = candidates[np.unique(line[candidates], return_index=True)[1]]  # strongest left: order is by peak
        kept[leaders] = True
        leader_start = _looked_up(line[leaders], windows.start[leaders])
        near = np.abs(windows.start[candidates] - leader_start(line[candidates])) < length
        open_[candidates[near]] = False
    chosen = windows.take(np.flatnonzero(kept))
    return _ranked(chosen.latent, chosen.row, chosen.start, chosen.peak)


def _looked_up(keys: Ints, values: Ints) -> Callable[[Ints], Ints]:
    """Return a look-up of *values* by sorted unique *keys*."""
    return lambda asked: values[np.searchsorted(keys, asked)]


def quantile_of(windows: Windows, quantiles: int) -> Ints:
    """Return the rank quantile of each window: equal numbers in each, 0 the strongest, none left over."""
    quantile: Ints = windows.rank * quantiles // np.maximum(windows.count, 1)
    return quantile


def _turn(windows: Windows, quantiles: int, draw: Floats) -> Floats:
    """Return the priority by which windows are taken in turn from each quantile, at random within it."""
    cell = windows.latent * quantiles + quantile_of(windows, quantiles)
    order = _order(cell, draw)
    turn = np.empty(len(order))
    turn[order] = _ranks(cell[order])[0]
    return turn + 0.999 * draw  # below the next turn, also once rounded to float32


def _top(windows: Windows, plan: Plan, draw: Floats) -> Floats:
    return windows.rank.astype(np.float64)


def _random(windows: Windows, plan: Plan, draw: Floats) -> Floats:
    return draw


def _quantiles(windows: Windows, plan: Plan, draw: Floats) -> Floats:
    return _turn(windows, plan.quantiles, draw)


def _mix(windows: Windows, plan: Plan, draw: Floats) -> Floats:
    strongest = _ranks(windows.latent)[0] < round(plan.train * plan.top_share)
    return np.where(strongest, 0.0, 1.0 + _turn(windows, plan.quantiles, draw))


# A sampler gives every window a priority, not negative; a latent takes its n windows of lowest priority.
SAMPLERS: dict[str, Callable[[Windows, Plan, Floats], Floats]] = {
    "top": _top,
    "random": _random,
    "quantiles": _quantiles,
    "mix": _mix,
}


def _first(windows: Windows, priority: Floats, n: int) -> npt.NDArray[np.bool_]:
    """Return which windows are the *n* of lowest priority of their latent."""
    order = _order(windows.latent, priority)
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[_ranks(windows.latent[order])[0] < n]] = True
    return chosen


def choose(windows: Windows, plan: Plan, seed: int) -> tuple[Windows, npt.NDArray[np.bool_], Ints]:
    """Return the chosen windows, which of them are for training, and their quantiles.

    The test windows are drawn first, evenly from all quantiles, so they are the same whatever the sampler. Latents
    with fewer than train + test windows are left out.
    """
    draw = uniforms(seed, windows.latent, windows.row, windows.start)
    quantile = quantile_of(windows, plan.quantiles)
    test = _first(windows, _turn(windows, plan.quantiles, draw), plan.test)
    again = uniforms(seed + 1, windows.latent, windows.row, windows.start)
    left = np.flatnonzero(~test)
    rest = np.full(len(test), np.inf)
    rest[left] = SAMPLERS[plan.sampler](windows.take(left), plan, again[left])
    train = _first(windows, rest, plan.train) & ~test
    enough = windows.count >= plan.train + plan.test
    index = np.flatnonzero((test | train) & enough)
    return windows.take(index), train[index], quantile[index]


def silent_windows(latents: Ints, touched: Ints, grid: Grid, n: int, seed: int) -> tuple[Ints, Ints]:
    """Return (latent, window number) of up to *n* random windows for each of *latents*, none twice, none *touched*.

    *touched* are sorted keys latent · grid.total + number. Every latent has its own sequence of draws, by address;
    one that is still short after many draws goes through all windows in a random order instead.
    """
    found: list[tuple[Ints, Ints]] = []
    draws, asking = 2 * n + 16, latents
    while len(asking):
        exhaustive = draws >= grid.total
        short = []
        for part in np.array_split(asking, -(-len(asking) * min(draws, grid.total) // 2**24)):
            latent, number = _fresh(part, touched, grid.total, draws, seed, exhaustive)
            place, _ = _ranks(latent)
            full = np.bincount(np.searchsorted(part, latent), minlength=len(part)) >= n
            full |= exhaustive
            done = (place < n) & full[np.searchsorted(part, latent)]
            found.append((latent[done], number[done]))
            short.append(part[~full])
        asking, draws = np.concatenate(short), draws * 4
    if not found:
        return latents, latents
    latent = np.concatenate([part for part, _ in found])
    order = np.argsort(latent, kind="stable")
    return latent[order], np.concatenate([number for _, number in found])[order]


def _fresh(latents: Ints, touched: Ints, total: int, draws: int, seed: int, exhaustive: bool) -> tuple[Ints, Ints]:
    """Return the windows drawn for *latents*, in order of draw, without repetitions and touched ones."""
    if exhaustive:
        drawn = np.argsort(uniforms(seed, latents[:, None], np.arange(total)[None, :]), axis=1)
    else:
        drawn = (uniforms(seed, latents[:, None], np.arange(draws)[None, :]) * total).astype(np.int64)
    latent = np.repeat(latents, drawn.shape[1])
    key = latent * total + drawn.reshape(-1)
    new = np.zeros(len(key), dtype=bool)
    new[np.unique(key, return_index=True)[1]] = True
    at = np.minimum(np.searchsorted(touched, key), max(len(touched) - 1, 0))
    keep = new & (touched[at] != key) if len(touched) else new
    return latent[keep], drawn.reshape(-1)[keep]


def touched_windows(firings: Firings, chosen: Windows, grid: Grid) -> Ints:
    """Return the sorted keys latent · grid.total + number of windows that hold a firing or overlap a chosen window."""
    fired = _keys(firings.latent.astype(np.int64), firings.row.astype(np.int64), firings.position.astype(np.int64), grid)
    fired = fired[np.concatenate([[True], fired[1:] != fired[:-1]])] if len(fired) else fired  # in order already
    edges = [_keys(chosen.latent, chosen.row, chosen.start + edge, grid) for edge in (0, grid.window - 1)]
    return np.sort(np.concatenate([fired, *edges]), kind="stable")


def _keys(latent: Ints, row: Ints, position: Ints, grid: Grid) -> Ints:
    number = grid.number(row, position)
    keys: Ints = (latent * grid.total + number)[number >= 0]
    return keys
