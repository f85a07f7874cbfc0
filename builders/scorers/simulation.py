"""Simulation: a simulator predicts from the explanation how strongly the latent fires on each token.

The score is the Pearson correlation of predicted and true activations over all tokens of all windows, without special tokens. A
prediction that is the same for every token says nothing of where the latent fires: it scores 0, and a status says so.
Bills et al. 2023; see docs/science.md#simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Floats
from builders.contexts.contexts import Examples
from builders.engines.requests import Outcome, Request
from builders.scorers.judging import Judged, Task, nans
from builders.scorers.lexical import NO_CUE, LexicalJudge
from builders.scorers.statistics import Measures

Tokens = npt.NDArray[np.int32]
TOP = 10.0  # the level of the latent's largest activation
CONSTANT = "constant prediction"  # the status of a score of 0 that no correlation gave


@dataclass(frozen=True)
class Predicted:
    """Predicted levels, 0 to 10, of every token [n, window], and the status of each window [n]."""

    levels: Floats
    status: npt.NDArray[np.str_]


class Simulator(Protocol):
    """Predicts activations from the explanation and the windows' text alone."""

    @property
    def prompt_sha256(self) -> str | None: ...  # noqa: D102  # the hash of its prompts, if it has any

    def requests(self, explanation: str, tokens: Tokens) -> Sequence[Request]:
        """Return the requests to a language model about windows [n, window]; none where the simulator needs no language model."""
        ...

    def predicted(self, explanation: str, tokens: Tokens, outcomes: Sequence[Outcome]) -> Predicted:
        """Return the predictions, given the outcomes of the requests in the same order."""
        ...


@dataclass(frozen=True)
class LexicalSimulator:
    """Predicts ten times the reliability of the best cue that fits a token."""

    judge: LexicalJudge
    prompt_sha256 = None

    def requests(self, explanation: str, tokens: Tokens) -> tuple[()]:
        """Return nothing: no language model is asked."""
        return ()

    def predicted(self, explanation: str, tokens: Tokens, outcomes: Sequence[Outcome]) -> Predicted:
        """Return ten times the reliability of the best cue on each token; no levels where the explanation names no cue."""
        strengths = self.judge.strengths(explanation, tokens)
        if strengths is None:
            return Predicted(np.full(tokens.shape, np.nan), np.full(len(tokens), NO_CUE))
        return Predicted(TOP * strengths, np.full(len(tokens), "ok"))


@dataclass(frozen=True)
class SimulationScorer:
    """The score is the correlation of predicted and true activations on at most *windows* activating and as many silent windows.

    *special* [vocabulary] says which token ids are special; *largest* [latents] is each latent's largest activation in the whole corpus.
    """

    simulator: Simulator
    negatives: str
    windows: int
    special: Bools
    largest: Floats
    unit: str = "correlation"
    chance: float = 0.0

    @property
    def prompt_sha256(self) -> str | None:
        """The hash of the simulator's prompts, if it has any."""
        return self.simulator.prompt_sha256

    def shown(self, task: Task) -> Examples:
        """Return the windows to simulate: of each side at most *windows*, evenly over their order."""
        return task.examples.some(self.negatives, self.windows)

    def requests(self, task: Task) -> Sequence[Request]:
        """Return the simulator's requests."""
        return self.simulator.requests(task.explanation, self.shown(task).tokens)

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the simulated windows, each with the correlation within it as its value; measures are of all windows together."""
        shown = self.shown(task)
        found = self.simulator.predicted(task.explanation, shown.tokens, outcomes)
        truth = TOP * shown.activations.astype(np.float64) / self.largest[task.latent]
        known = found.status == "ok"
        weight = ~self.special[shown.tokens]
        moments = _moments(truth[known], found.levels[known], weight[known])
        value = nans(len(known))
        value[known] = correlation(moments)
        n = len(known)
        return Judged(shown.number, shown.activating, found.status, nans(n), nans(n), value, measures(moments))


def _moments(truth: Floats, levels: Floats, weight: Bools) -> Floats:
    """Return the moments of each window [n, 7]: its number of tokens and the sums of s, ŝ, s², ŝ², sŝ and |s − ŝ|."""
    columns = (np.ones_like(truth), truth, levels, truth**2, levels**2, truth * levels, np.abs(truth - levels))
    found: Floats = np.stack([(column * weight).sum(axis=1) for column in columns], axis=-1)
    return found


def _varies(n: Floats, total: Floats, squares: Floats) -> Bools:
    """Return whether *n* numbers with this sum and sum of squares differ by more than rounding."""
    found: Bools = n * squares - total**2 > 1e-9 * n * squares
    return found


def correlation(moments: Floats) -> Floats:
    """Return Pearson's r of each row of moments [..., 7]; 0 where the prediction is constant, NaN where the truth is."""
    n, s, p, ss, pp, sp, _ = np.moveaxis(moments, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (n * sp - s * p) / np.sqrt(n * ss - s**2) / np.sqrt(n * pp - p**2)
    found: Floats = np.where(_varies(n, s, ss), np.where(_varies(n, p, pp), np.clip(r, -1, 1), 0.0), np.nan)
    return found


def measures(moments: Floats) -> Measures:
    """Return SCORES columns from the moments of windows [n, 7]; the standard error is the jackknife's, which leaves out windows.

    Windows are left out, not single tokens, since tokens of one window depend on one another. A constant prediction has no error: without
    any one window it is as constant, so the jackknife's would be 0, as though other windows could not have had another prediction.
    """
    n = len(moments)
    if not n:
        return {"status": "no answers"}
    tokens, s, p, ss, pp, sp, off = whole = moments.sum(axis=0)
    if not _varies(tokens, s, ss):
        return {"status": "constant truth"}
    companions = {"r_squared": float(1 - (ss + pp - 2 * sp) / ss), "deviation_explained": float(1 - off / s)}
    if not _varies(tokens, p, pp):
        return {"status": CONSTANT, "score": 0.0, **companions}
    without = correlation(whole - moments)
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return {"status": "ok", "score": float(correlation(whole)), "score_se": None if np.isnan(error) or n == 1 else error, **companions}
