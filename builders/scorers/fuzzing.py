"""Fuzzing: are these marked tokens those on which the latent fires? SCIENCE A8.

Positives mark the tokens of an activating window that reach 0.3 of its largest activation. A negative borrows the
marks of a positive of the same latent, so that it has as many marks, at positions drawn from the same distribution:
neither number nor place gives the answer away (SCIENCE D4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from builders.contexts import Examples
from builders.scorers.trials import Trials
from builders.seeds import uniforms

THRESHOLD = 0.3


def trials(examples: Examples, special: npt.NDArray[np.bool_], seed: int) -> Trials:
    """Return every test window with its marks; *special* says which token ids are special, which are never marked."""
    positive, negative = np.flatnonzero(examples.activating), np.flatnonzero(~examples.activating)
    marks = examples.activations >= THRESHOLD * examples.activations.max(axis=1, keepdims=True)
    lenders = positive[np.argsort(uniforms(seed, examples.latent, positive))]
    special_here = special[examples.tokens]
    status = ["ok"] * len(examples.number)
    marks[negative] = marks[np.resize(lenders, len(negative))]
    for turn in np.flatnonzero((marks & special_here)[negative].any(axis=1)):  # few: windows that hold a special token
        window = negative[turn]
        lent = marks[np.roll(lenders, -turn)]
        fits = np.flatnonzero(~(lent & special_here[window]).any(axis=1))
        marks[window] = lent[fits[0]] if len(fits) else False
        status[window] = "ok" if len(fits) else "no marks fit"
    return Trials(examples.latent, examples.number, examples.activating, examples.tokens, marks, status)
