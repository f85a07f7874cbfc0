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
    positive = np.flatnonzero(examples.activating)
    marks = examples.activations >= THRESHOLD * examples.activations.max(axis=1, keepdims=True)
    lenders = positive[np.argsort(uniforms(seed, examples.latent, positive))]
    status = ["ok"] * len(examples.number)
    for turn, negative in enumerate(np.flatnonzero(~examples.activating)):
        lent = marks[np.roll(lenders, -turn)]
        fits = np.flatnonzero(~(lent & special[examples.tokens[negative]]).any(axis=1))
        if len(fits):
            marks[negative] = lent[fits[0]]
        else:
            marks[negative], status[negative] = False, "no marks fit"
    return Trials(examples.latent, examples.number, examples.activating, examples.tokens, marks, status)
