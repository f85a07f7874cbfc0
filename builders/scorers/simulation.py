"""Simulation: how strongly does the latent fire on each token? SCIENCE A6, after Bills et al. 2023.

The score is the correlation of predicted and true activations over all tokens of all windows, special ones left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from builders.contexts.contexts import Examples
from builders.engines.requests import Outcome, Request
from builders.scorers.judging import Bools, Floats, Judged, Task, none
from builders.scorers.lexical import NO_CUE, LexicalJudge
from builders.scorers.statistics import Measures

Tokens = npt.NDArray[np.int32]
TOP = 10.0  # the level of a latent's largest activation


@dataclass(frozen=True)
class Predicted:
    """Predicted levels from 0 to 10 of every token [n, window], and the status of each window [n]."""

    levels: Floats
    status: npt.NDArray[np.str_]


class Simulator(Protocol):
    """Predicts activations from an explanation's words alone."""

    @property
    def prompt_sha256(self) -> str | None: ...  # noqa: D102  # the version of its prompts, if it has any

    def requests(self, text: str, tokens: Tokens) -> Sequence[Request]:
        """Return what is to be asked of a language model about windows [n, window]; nothing where none is needed."""
        ...

    def predicted(self, text: str, tokens: Tokens, outcomes: Sequence[Outcome]) -> Predicted:
        """Return what follows from the outcomes of the requests, which come in their order."""
        ...


@dataclass(frozen=True)
class LexicalSimulator:
    """Predicts ten times the reliability of the best cue that fits a token."""

    judge: LexicalJudge
    prompt_sha256 = None

    def requests(self, text: str, tokens: Tokens) -> tuple[()]:
        """Return nothing: it reads the words itself."""
        return ()

    def predicted(self, text: str, tokens: Tokens, outcomes: Sequence[Outcome]) -> Predicted:
        """Return the levels that the explanation's cues give."""
        strengths = self.judge.strengths(text, tokens)
        if strengths is None:
            return Predicted(np.full(tokens.shape, np.nan), np.full(len(tokens), NO_CUE))
        return Predicted(TOP * strengths, np.full(len(tokens), "ok"))


@dataclass(frozen=True)
class SimulationScorer:
    """Scores by the correlation of predicted and true activations on *windows* activating windows and as many silent ones.

    *special* [vocabulary] says which token ids are special.
    """

    simulator: Simulator
    negatives: str
    windows: int
    special: Bools
    unit: str = "correlation"
    chance: float = 0.0

    @property
    def prompt_sha256(self) -> str | None:
        """The version of the simulator's prompts."""
        return self.simulator.prompt_sha256

    def shown(self, task: Task) -> Examples:
        """Return the windows to be simulated: activating ones evenly over their order, silent ones the same."""
        return task.examples.some(self.negatives, self.windows)

    def requests(self, task: Task) -> Sequence[Request]:
        """Return what the simulator asks."""
        return self.simulator.requests(task.text, self.shown(task).tokens)

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the simulated windows, each with the correlation within it, and the whole's measures."""
        shown = self.shown(task)
        found = self.simulator.predicted(task.text, shown.tokens, outcomes)
        truth = TOP * shown.activations.astype(np.float64) / max(float(shown.activations.max(initial=0.0)), 1e-30)
        known = found.status == "ok"
        weight = ~self.special[shown.tokens]
        moments = _moments(truth[known], found.levels[known], weight[known])
        value = none(len(known))
        value[known] = correlation(moments)
        n = len(known)
        return Judged(shown.number, shown.activating, found.status, none(n), none(n), value, measures(moments))


def _moments(truth: Floats, levels: Floats, weight: Bools) -> Floats:
    """Return of each window [n, 7]: tokens counted, sums of s, ŝ, s², ŝ², sŝ, and of |s − ŝ|."""
    columns = (np.ones_like(truth), truth, levels, truth**2, levels**2, truth * levels, np.abs(truth - levels))
    found: Floats = np.stack([(column * weight).sum(axis=1) for column in columns], axis=-1)
    return found


def _varies(n: Floats, total: Floats, squares: Floats) -> npt.NDArray[np.bool_]:
    """Return whether numbers with these sums are not all the same, as far as rounding lets see."""
    found: npt.NDArray[np.bool_] = n * squares - total**2 > 1e-9 * n * squares
    return found


def correlation(moments: Floats) -> Floats:
    """Return Pearson's r of each row of moments [..., 7]; NaN where one side is constant."""
    n, s, p, ss, pp, sp, _ = np.moveaxis(moments, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (n * sp - s * p) / np.sqrt(n * ss - s**2) / np.sqrt(n * pp - p**2)
    found: Floats = np.where(_varies(n, s, ss) & _varies(n, p, pp), np.clip(r, -1, 1), np.nan)
    return found


def measures(moments: Floats) -> Measures:
    """Return SCORES columns of windows' moments [n, 7]; the standard error is the jackknife's over windows.

    Tokens of one window depend on one another, so a window, not a token, is the unit that is left out.
    """
    n = len(moments)
    if not n:
        return {"status": "no answers"}
    tokens, s, p, ss, pp, sp, off = whole = moments.sum(axis=0)
    if not _varies(tokens, s, ss):
        return {"status": "constant truth"}
    companions = {"r_squared": float(1 - (ss + pp - 2 * sp) / ss), "deviation_explained": float(1 - off / s)}
    if not _varies(tokens, p, pp):
        return {"status": "constant prediction", **companions}
    without = correlation(whole - moments)
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return {"status": "ok", "score": float(correlation(whole)), "score_se": None if np.isnan(error) or n == 1 else error, **companions}
