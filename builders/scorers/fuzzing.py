"""Fuzzing: a judge says whether the latent fires on the marked tokens.

In a positive, an activating window, the tokens that reach 0.3 of the window's largest activation are marked. In a neighbour's
window, the tokens on which the neighbour fires are marked. Any other negative borrows the marks of a positive of the same latent:
so positives and negatives have equally many marks at equally distributed positions, and neither gives the answer away. Or, as in the
paper's code, it marks random tokens. In a decoy, tokens are marked on which the latent fires elsewhere.
Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#fuzzing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np

from builders.arrays import Bools, Floats, Ints
from builders.contexts.contexts import Examples, strong
from builders.scorers.trials import Trials
from builders.seeds import uniforms

NO_ROOM = "no marks fit"


def trials(examples: Examples, special: Bools, seed: int) -> Trials:
    """Return a trial for every window, with marks. *special* says which token ids are special: those are never marked."""
    truth = examples.activating
    draw = uniforms(seed, examples.latent, np.flatnonzero(truth))
    return _trials(examples, lambda silent: borrowed(strong(examples.activations[truth]), special[examples.tokens[silent]], draw))


def scattered(examples: Examples, special: Bools, seed: int) -> Trials:
    """Return the trials of :func:`trials`, where a negative that is not a neighbour's marks random tokens instead of borrowed positions.

    They are as many as tokens on which the latent fires in an activating window, on average, rounded up: more than positives mark, since
    these mark the strong ones only. It is what the code of Paulo et al. does.
    """
    fires = (examples.activations[examples.activating] > 0).sum(axis=1)
    n = ceil(fires.mean()) if len(fires) else 0

    def marks(silent: Ints) -> Bools:
        tokens = examples.tokens[silent]
        draw = uniforms(seed, examples.latent, examples.number[silent][:, None], np.arange(tokens.shape[1]))
        rank = np.where(special[tokens], np.inf, draw).argsort(axis=1).argsort(axis=1)
        found: Bools = (rank < n) & ~special[tokens]
        return found

    return _trials(examples, marks)


def repeated(examples: Examples, special: Bools, seed: int) -> Trials:
    """Return the trials of :func:`trials`, where a negative marks tokens that positives mark too; windows of kind `decoy` have such tokens.

    It marks as many as a positive, if it has so many; positives take turns.
    """
    right = strong(examples.activations[examples.activating])
    known = np.unique(examples.tokens[examples.activating][right])
    counts = right.sum(axis=1)[np.argsort(uniforms(seed, examples.latent, np.arange(len(right))))]

    def marks(silent: Ints) -> Bools:
        tokens = examples.tokens[silent]
        same = np.isin(tokens, known) & ~special[tokens]
        draw = uniforms(seed, examples.latent, examples.number[silent][:, None], np.arange(tokens.shape[1]))
        rank = np.where(same, draw, np.inf).argsort(axis=1).argsort(axis=1)
        found: Bools = same & (rank < np.resize(counts, len(silent))[:, None])
        return found

    return _trials(examples, marks)


MARKS = {"borrowed": trials, "random": scattered}


def _trials(examples: Examples, of_silent: Callable[[Ints], Bools]) -> Trials:
    """Return a trial for every window; *of_silent* returns the marks of windows, by their places, in which nothing fires."""
    truth = examples.activating
    marks = np.where(truth[:, None], strong(examples.activations), strong(examples.neighbour))
    unmarked = np.flatnonzero(~marks.any(axis=1))
    marks[unmarked] = of_silent(unmarked)
    status = np.where(marks.any(axis=1), "ok", NO_ROOM)
    return Trials(examples.latent, examples.number, truth, examples.tokens, marks, status)


def misplaced(examples: Examples, special: Bools, seed: int) -> Trials:
    """Return two trials per activating window: with its own marks, and with borrowed marks on tokens where the latent is silent.

    The second ones are numbered after all windows. This is fuzz type `active` of the code of Paulo et al.
    (github.com/EleutherAI/delphi).
    """
    own = examples.take(np.flatnonzero(examples.activating))
    right = strong(own.activations)
    draw = uniforms(seed, examples.latent, np.arange(len(right)))
    wrong = borrowed(right, special[own.tokens] | (own.activations > 0), draw)
    n = int(examples.number.max(initial=-1)) + 1
    status = np.where(np.concatenate([right, wrong]).any(axis=1), "ok", NO_ROOM)
    number = np.concatenate([own.number, n + own.number])
    truth = np.arange(2 * len(right)) < len(right)
    return Trials(examples.latent, number, truth, np.concatenate([own.tokens] * 2), np.concatenate([right, wrong]), status)


OWN = {"active": misplaced, "decoy": repeated}  # how kinds of negatives are marked that have marks of their own


def borrowed(marks: Bools, closed: Bools, draw: Floats) -> Bools:
    """Return marks [n, window] for n windows, each a row of *marks* [m, window] that marks none of the window's *closed* tokens.

    Rows take turns, in the order of *draw* [m]. Where a row does not fit a window, the next rows are tried; where none fits, the
    window gets no marks.
    """
    if not len(marks):
        return np.zeros_like(closed)
    order = np.argsort(draw)
    found = marks[np.resize(order, len(closed))]
    for turn in np.flatnonzero((found & closed).any(axis=1)):
        offered = marks[np.roll(order, -turn)]
        fits = np.flatnonzero(~(offered & closed[turn]).any(axis=1))
        found[turn] = offered[fits[0]] if len(fits) else False
    return found
