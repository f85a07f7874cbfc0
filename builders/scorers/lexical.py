"""The lexical judge: it reads the cues that an explanation names and looks for them in windows. Not a language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from builders.arrays import Floats
from builders.engines.requests import Outcome
from builders.explainers import cues
from builders.scorers.judging import nans
from builders.scorers.trials import Trials, Verdicts

NO_CUE = "names no token"  # the status where the explanation names no cue


class LexicalJudge:
    """Judges by the tokens that an explanation names and by how reliable it says they are.

    P(yes) = 1 − Π(1 − r) over the tokens of the window, where r is the reliability of the best cue that fits the token, or 0.
    In a marked window only the marked tokens count.
    """

    prompt_sha256 = None

    def __init__(self, pieces: list[str]) -> None:
        self.size = len(pieces)
        self.ids: dict[str, list[int]] = {}
        for token, piece in enumerate(pieces):
            self.ids.setdefault(piece, []).append(token)

    def requests(self, explanation: str, trials: Trials) -> tuple[()]:
        """Return nothing: no language model is asked."""
        return ()

    def verdicts(self, explanation: str, trials: Trials, outcomes: Sequence[Outcome]) -> Verdicts:
        """Return the probability that each example fits the explanation, and yes where it is at least a half."""
        strength = self.strengths(explanation, trials.tokens)
        if strength is None:
            return Verdicts(nans(len(trials.status)), nans(len(trials.status)), np.where(trials.status == "ok", NO_CUE, trials.status))
        if trials.marks is not None:
            strength = np.where(trials.marks, strength, 0.0)
        probability = np.where(trials.status == "ok", 1.0 - np.prod(1.0 - strength, axis=1), np.nan)
        answer = np.where(np.isnan(probability), np.nan, probability >= 0.5)
        return Verdicts(answer, probability, trials.status)

    def strengths(self, explanation: str, tokens: npt.NDArray[np.int32]) -> Floats | None:
        """Return the reliability of the best cue that fits each token [n, window], or None where the explanation names no cue."""
        named = cues.read(explanation)
        return cues.strengths(named, tokens, self.ids, self.size) if named else None
