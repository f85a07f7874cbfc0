"""Lineups for the intruder scorer: activating windows that belong together, and one window that does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Ints
from builders.contexts.contexts import Examples
from builders.seeds import seed_of, uniforms

TOO_FEW = "too few windows"


@dataclass(frozen=True)
class Lineups:
    """One latent's lineups: token ids and marks [lineups, shown, window], the intruder's slot (from 1) and the status [lineups]."""

    latent: int
    tokens: npt.NDArray[np.int32]
    marks: Bools
    slot: Ints
    status: npt.NDArray[np.str_]

    def answerable(self) -> Ints:
        """Return the places of the lineups that can be judged."""
        return np.flatnonzero(self.status == "ok")


def lineups(examples: Examples, marks: Bools, trials: int, shown: int, *, internal: bool, seed: int) -> Lineups:
    """Return *trials* lineups of *shown* windows each; *marks* [n, window] are the marks of the windows in *examples*.

    The windows that belong together are activating ones of one quantile; quantiles take turns. Where a quantile has too few
    windows, those of the nearest quantiles join them. The intruder is a silent window or, with *internal*, an activating window of a
    quantile that no other window of the lineup has. Where there are too few windows, the status is TOO_FEW.
    """
    number = np.arange(trials)
    slot = 1 + np.floor(shown * uniforms(seed_of(seed, "slots"), examples.latent, number)).astype(np.int64)
    if examples.activating.sum() < shown - 1:
        empty = np.zeros((trials, shown, examples.tokens.shape[1]), dtype=np.int32)
        return Lineups(examples.latent, empty, empty > 0, slot, np.full(trials, TOO_FEW))
    draw = uniforms(seed_of(seed, "windows"), examples.latent, number[:, None], examples.number)
    own = np.flatnonzero(examples.activating)
    turns = _turns(np.unique(examples.quantile[own]), examples.latent, trials, seed)
    nearest = np.argsort(np.abs(examples.quantile[own] - turns[:, None]) + draw[:, own], axis=1, kind="stable")
    group = own[nearest[:, : shown - 1]]
    free = _others(examples.quantile, group) if internal else np.broadcast_to(~examples.activating, draw.shape)
    odd = np.argmin(np.where(free, draw, np.inf), axis=1)
    places = _placed(group, odd, slot)
    status = np.where(free.any(axis=1), "ok", TOO_FEW)
    return Lineups(examples.latent, examples.tokens[places], marks[places], slot, status)


def _turns(quantiles: Ints, latent: int, trials: int, seed: int) -> Ints:
    """Return the quantile of each lineup: *quantiles* take turns, in a random order."""
    return np.resize(quantiles[np.argsort(uniforms(seed_of(seed, "quantiles"), latent, quantiles), kind="stable")], trials)


def _others(quantile: Ints, group: Ints) -> Bools:
    """Return which of n windows [lineups, n] have a quantile that no window of the lineup's *group* [lineups, windows] has."""
    taken: Bools = (quantile[:, None] == quantile[group][:, None, :]).any(axis=2)
    return ~taken


def _placed(group: Ints, odd: Ints, slot: Ints) -> Ints:
    """Return the windows of each lineup: *group* [lineups, windows] with the intruder *odd* [lineups] put into *slot* [lineups]."""
    column = np.arange(group.shape[1] + 1)
    intruder = column == slot[:, None] - 1
    before = np.minimum(column - (column >= slot[:, None]), group.shape[1] - 1)
    return np.where(intruder, odd[:, None], np.take_along_axis(group, before, axis=1))
