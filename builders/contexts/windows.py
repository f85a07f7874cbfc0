"""Windows: how they are cut from token rows, and in which of them a latent fires.

Nothing loops over activations: every step is an array operation over all latents of a shard at once.
Source: Paulo et al. 2024 (arXiv:2410.13928); see docs/science.md#contexts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Floats, Ints, ranks, sort_order
from builders.saes.activations import Firings
from builders.seeds import seed_of, uniforms
from builders.text.rows import Corpus


@dataclass(frozen=True)
class Plan:
    """How many windows of each kind a latent gets, and how they are cut; *sampler* names how training windows are chosen.

    *window* is in tokens; *centered* windows are cut around peaks, others from a grid. A latent that fires in fewer than *at_least* windows
    is left out.
    """

    train: int
    test: int
    train_random: int
    test_random: int
    quantiles: int
    sampler: str
    top_share: float  # of the training windows, for the sampler mix
    centered: bool
    window: int
    at_least: int = 0


@dataclass(frozen=True)
class Windows:
    """Candidate windows, sorted by latent, then from the largest peak to the smallest, equal ones as drawn; all arrays are [n]."""

    latent: Ints
    row: Ints
    start: Ints
    peak: Floats  # the largest activation in the window
    rank: Ints  # among the latent's windows, 0 the strongest
    count: Ints  # how many windows the latent has

    def take(self, index: npt.NDArray[Any]) -> Windows:
        """Return the windows at *index*."""
        return Windows(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def activating_windows(firings: Firings, corpus: Corpus, plan: Plan, seed: int) -> Windows:
    """Return every window that holds an activation: windows of the grid, or, if *plan* is centered, windows around the peaks.

    *seed* addresses the draw that ranks windows of equal peaks.
    """
    latent, row, position = (a.astype(np.int64) for a in (firings.latent, firings.row, firings.position))
    blocks = -(-corpus.row_length // plan.window)
    block = (latent * len(corpus.ids) + row) * blocks + position // plan.window
    starts = np.flatnonzero(np.concatenate([[True], block[1:] != block[:-1]])) if len(block) else np.zeros(0, dtype=np.int64)
    peak = np.maximum.reduceat(firings.value, starts).astype(np.float64) if len(starts) else np.zeros(0)
    first = (position[starts] // plan.window) * plan.window
    if plan.centered:
        # The peak stands at three quarters of the window, as in the paper's code: the text before a peak explains more than the text after.
        lengths = np.diff(np.append(starts, len(block)))
        at_peak = np.flatnonzero(firings.value == np.repeat(peak, lengths).astype(np.float32))
        owner = np.repeat(np.arange(len(starts)), lengths)[at_peak]
        centre = position[at_peak[np.unique(owner, return_index=True)[1]]]
        room = corpus.lengths[row[starts]] - plan.window
        first = np.clip(centre - min(plan.window - plan.window // 4, plan.window - 1), 0, np.maximum(room, 0))
    fits = first + plan.window <= corpus.lengths[row[starts]]
    found = _ranked(latent[starts][fits], row[starts][fits], first[fits], peak[fits], seed)
    return _with_peaks(_without_overlaps(found, plan.window), firings, corpus, plan.window, seed) if plan.centered else found


def _with_peaks(windows: Windows, firings: Firings, corpus: Corpus, length: int, seed: int) -> Windows:
    """Return the windows, ranked anew by the largest activation that each one shows."""
    if not len(windows.latent):
        return windows
    at = (firings.latent.astype(np.int64) * len(corpus.ids) + firings.row) * corpus.row_length + firings.position
    place = (windows.latent * len(corpus.ids) + windows.row) * corpus.row_length + windows.start
    windows, place = windows.take(np.argsort(place)), np.sort(place)
    bounds = np.searchsorted(at, np.stack([place, place + length], axis=1)).reshape(-1)
    peak = np.maximum.reduceat(np.append(firings.value, 0), bounds)[::2].astype(np.float64)
    return _ranked(windows.latent, windows.row, windows.start, peak, seed)


def _ranked(latent: Ints, row: Ints, start: Ints, peak: Floats, seed: int) -> Windows:
    """Return windows sorted by latent, then strength; equally strong ones in an order that is drawn, whatever their place in the corpus."""
    order = sort_order(latent, peak, descending=True)
    again = np.zeros(len(order) + 1, dtype=bool)  # whether a window equals the one before it
    again[1:-1] = (latent[order][1:] == latent[order][:-1]) & (peak[order][1:] == peak[order][:-1])
    tied = np.flatnonzero(again[:-1] | again[1:])
    some = order[tied]
    draw = uniforms(seed_of(seed, "ties"), latent[some], row[some], start[some])
    order[tied] = some[sort_order(np.cumsum(~again[:-1])[tied], draw)]
    rank, count = ranks(latent[order])
    return Windows(latent[order], row[order], start[order], peak[order], rank, count)


def _without_overlaps(windows: Windows, length: int) -> Windows:
    """Keep the strongest of overlapping windows of one latent and row; every round keeps one window of each latent and row."""
    open_: Bools = np.ones(len(windows.latent), dtype=bool)
    kept = np.zeros_like(open_)
    line = windows.latent * (windows.row.max(initial=0) + 1) + windows.row
    while open_.any():
        candidates = np.flatnonzero(open_)
        leaders = candidates[np.unique(line[candidates], return_index=True)[1]]  # the strongest one left, since windows are sorted by peak
        kept[leaders] = True
        leader_start = _looked_up(line[leaders], windows.start[leaders])
        near = np.abs(windows.start[candidates] - leader_start(line[candidates])) < length
        open_[candidates[near]] = False
    chosen = windows.take(np.flatnonzero(kept))
    return Windows(chosen.latent, chosen.row, chosen.start, chosen.peak, *ranks(chosen.latent))


def _looked_up(keys: Ints, values: Ints) -> Callable[[Ints], Ints]:
    """Return a function that looks up *values* by their *keys*, which are sorted and unique."""
    return lambda asked: values[np.searchsorted(keys, asked)]


def window_activations(latent: Ints, row: Ints, start: Ints, firings: Firings, corpus: Corpus, window: int) -> npt.NDArray[np.float32]:
    """Return the activations [n, window] of each *latent* [n] in its window; no two windows of one latent may overlap."""
    if not len(latent):
        return np.zeros((0, window), dtype=np.float32)
    length = corpus.row_length
    place = (latent * len(corpus.ids) + row) * length + start
    order = np.argsort(place)
    at = (firings.latent.astype(np.int64) * len(corpus.ids) + firings.row) * length + firings.position
    owner = np.searchsorted(place[order], at, side="right") - 1
    offset = at - place[order][np.maximum(owner, 0)]
    # A window never leaves its row, so a firing in a later row has an offset of at least a whole window.
    inside = np.flatnonzero((owner >= 0) & (offset < window))
    values = np.zeros((len(place), window), dtype=np.float32)
    values[order[owner[inside]], offset[inside]] = firings.value[inside]
    return values
