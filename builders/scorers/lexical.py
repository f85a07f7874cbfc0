"""The lexical judge: it reads the cues in an explanation's words and looks for them. Not a language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from builders.engines.requests import Outcome
from builders.explainers import cues
from builders.scorers.judging import Floats, none
from builders.scorers.trials import Trials, Verdicts

NO_CUE = "names no token"  # what the lexical judge cannot read


class LexicalJudge:
    """Judges by the tokens that an explanation names and by how reliable it says they are.

    A cue of reliability r speaks for the window with probability r wherever it occurs (noisy or over tokens). In a
    marked window only the marked tokens speak.
    """

    prompt_sha256 = None

    def __init__(self, pieces: list[str]) -> None:
        self.size = len(pieces)
        self.ids: dict[str, list[int]] = {}
        for token, piece in enumerate(pieces):
            self.ids.setdefault(piece, []).append(token)

    def requests(self, text: str, trials: Trials) -> tuple[()]:
        """Return nothing: it reads the words itself."""
        return ()

    def verdicts(self, text: str, trials: Trials, outcomes: Sequence[Outcome]) -> Verdicts:
        """Return the probability that each example fits *text*, and yes where it is at least a half."""
        strength = self.strengths(text, trials.tokens)
        if strength is None:
            return Verdicts(none(len(trials.status)), none(len(trials.status)), np.where(trials.status == "ok", NO_CUE, trials.status))
        if trials.marks is not None:
            strength = np.where(trials.marks, strength, 0.0)
        probability = np.where(trials.status == "ok", 1.0 - np.prod(1.0 - strength, axis=1), np.nan)
        answer = np.where(np.isnan(probability), np.nan, probability >= 0.5)
        return Verdicts(answer, probability, trials.status)

    def strengths(self, text: str, tokens: npt.NDArray[np.int32]) -> Floats | None:
        """Return for every token of the windows [n, window] how reliably *text* says the latent fires there; None where it names none."""
        named = cues.read(text)
        return cues.strengths(named, tokens, self.ids, self.size) if named else None
