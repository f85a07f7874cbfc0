"""Who stands in a lineup: activating windows that belong together, and one that does not. SCIENCE A11."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.contexts.contexts import Examples
from builders.scorers.judging import Bools, Ints
from builders.seeds import seed_of, uniforms

TOO_FEW = "too few windows"


@dataclass(frozen=True)
class Lineups:
    """One latent's trials: token ids and marks [trials, shown, window], the intruder's slot (from 1 on) and the status [trials]."""

    latent: int
    tokens: npt.NDArray[np.int32]
    marks: Bools
    slot: Ints
    status: npt.NDArray[np.str_]

    def able(self) -> Ints:
        """Return the trials that can be judged."""
        return np.flatnonzero(self.status == "ok")


def lineups(examples: Examples, marks: Bools, trials: int, shown: int, *, internal: bool, seed: int) -> Lineups:
    """Return *trials* trials of *shown* of the windows, whose marks are *marks* [n, window].

    The windows that belong together are activating ones of one quantile, each quantile taking its turn, and where it has too few,
    of the nearest. The intruder is a silent window; an *internal* one is an activating window of a quantile that the others are not of.
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
    """Return the quantile of each trial: all take turns, in an order drawn by address."""
    return np.resize(quantiles[np.argsort(uniforms(seed_of(seed, "quantiles"), latent, quantiles), kind="stable")], trials)


def _others(quantile: Ints, group: Ints) -> Bools:
    """Return which windows are of a quantile that none of a *group* [trials, windows] is of."""
    taken: Bools = (quantile[:, None] == quantile[group][:, None, :]).any(axis=2)
    return ~taken


def _placed(group: Ints, odd: Ints, slot: Ints) -> Ints:
    """Return each group with its intruder put into its slot."""
    column = np.arange(group.shape[1] + 1)
    intruder = column == slot[:, None] - 1
    before = np.minimum(column - (column >= slot[:, None]), group.shape[1] - 1)
    return np.where(intruder, odd[:, None], np.take_along_axis(group, before, axis=1))
