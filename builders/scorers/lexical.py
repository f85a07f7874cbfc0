"""The lexical judge: it reads the cues in an explanation's words and looks for them. Not a language model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from builders.explainers import cues
from builders.scorers.trials import Trials


class LexicalJudge:
    """Judges by the tokens that an explanation names and by how reliable it says they are.

    A cue of reliability r speaks for the window with probability r wherever it occurs (noisy or over tokens). In a
    marked window only the marked tokens speak.
    """

    def __init__(self, pieces: list[str]) -> None:
        self.size = len(pieces)
        self.ids: dict[str, list[int]] = {}
        for token, piece in enumerate(pieces):
            self.ids.setdefault(piece, []).append(token)

    def __call__(self, text: str, trials: Trials) -> npt.NDArray[np.float64]:
        """Return the probability that each example fits *text* [n]; NaN where the text names no token."""
        named = cues.read(text)
        if not named:
            return np.full(len(trials.number), np.nan)
        strength = cues.strengths(named, trials.tokens, self.ids, self.size)
        if trials.marks is not None:
            strength = np.where(trials.marks, strength, 0.0)
        silence: npt.NDArray[np.float64] = np.prod(1.0 - strength, axis=1)
        return 1.0 - silence
