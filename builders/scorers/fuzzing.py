"""Fuzzing: are these marked tokens those on which the latent fires? SCIENCE A8.

Positives mark the tokens of an activating window that reach 0.3 of its largest activation. Of negatives, one in a neighbour's
window marks the tokens on which the neighbour fires; any other borrows the marks of a positive of the same latent, so that it
has as many marks, at positions drawn from the same distribution: neither number nor place gives the answer away (SCIENCE D4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from builders.contexts.contexts import Examples
from builders.scorers.judging import Bools, Floats
from builders.scorers.trials import Trials
from builders.seeds import uniforms

THRESHOLD = 0.3
NO_ROOM = "no marks fit"


def strong(activations: npt.NDArray[np.float32]) -> Bools:
    """Return which tokens reach 0.3 of the largest activation of their window; none in a silent one."""
    marked: Bools = (activations >= THRESHOLD * activations.max(axis=1, keepdims=True)) & (activations > 0)
    return marked


def trials(examples: Examples, special: Bools, seed: int) -> Trials:
    """Return every test window with its marks; *special* says which token ids are special, which are never marked."""
    truth = examples.activating
    marks = np.where(truth[:, None], strong(examples.activations), strong(examples.neighbour))
    bare = np.flatnonzero(~marks.any(axis=1))
    marks[bare] = lent(marks[truth], special[examples.tokens][bare], uniforms(seed, examples.latent, np.flatnonzero(truth)))
    status = np.where(marks.any(axis=1), "ok", NO_ROOM)
    return Trials(examples.latent, examples.number, truth, examples.tokens, marks, status)


def misplaced(examples: Examples, special: Bools, seed: int) -> Trials:
    """Return the activating windows twice: with their marks, and with as many on tokens where the latent is silent.

    The second of each is numbered after all windows. SCIENCE A8, fuzz type active.
    """
    own = examples.take(np.flatnonzero(examples.activating))
    right = strong(own.activations)
    draw = uniforms(seed, examples.latent, np.arange(len(right)))
    wrong = lent(right, special[own.tokens] | (own.activations > 0), draw)
    n = int(examples.number.max(initial=-1)) + 1
    status = np.where(np.concatenate([right, wrong]).any(axis=1), "ok", NO_ROOM)
    number = np.concatenate([own.number, n + own.number])
    truth = np.arange(2 * len(right)) < len(right)
    return Trials(examples.latent, number, truth, np.concatenate([own.tokens] * 2), np.concatenate([right, wrong]), status)


def lent(marks: Bools, closed: Bools, draw: Floats) -> Bools:
    """Return for each of the windows whose *closed* tokens [n, window] cannot be marked the marks of one of *marks*.

    Lenders take turns in the order of *draw*; where a lender's do not fit the next ones are tried, and none fitting, none are lent.
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
