"""Surprisal: how much likelier does the explanation make a window's text? SCIENCE A9.

I(x) = log p(x | z) − log p(x | z₀) in nats, summed over the tokens of window x, z being the explanation and z₀ a text that says
nothing. Both prompts end alike, so both times the same tokens are scored; white space that a tokenizer joins to the prompt's
last line break is in neither sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builders.engines.prompts import marked_text
from builders.engines.requests import Failure, Outcome, Score
from builders.scorers.judging import NO_LOGPROBS, PROMPTS, Judged, Task, none
from builders.scorers.statistics import area

NOTHING = "Various unrelated sentences."  # z₀: the same for all, so that it is asked once for each window
FILES = ("surprisal.j2", "surprisal.yaml")
OTHER_TEXT = "other text scored"


def prompt(description: str) -> str:
    """Return what stands before a window: worked examples, and the description that it shall fit."""
    facts = {"shots": PROMPTS.shots("surprisal.yaml"), "description": " ".join(description.split())}
    return PROMPTS.fill("surprisal.j2", facts) + "\n"


@dataclass(frozen=True)
class SurprisalScorer:
    """Asks how likely each window is after the explanation and after none; the score is the AUROC of the difference.

    *pieces* are the bytes of each token id, none of special ones.
    """

    pieces: Sequence[bytes]
    negatives: str
    unit: str = "AUROC"
    chance: float = 0.5

    @property
    def prompt_sha256(self) -> str:
        """The version of the prompt."""
        return PROMPTS.sha256(FILES)

    def requests(self, task: Task) -> list[Score]:
        """Return every window after the explanation, then every window after the text that says nothing."""
        tokens = task.examples.against(self.negatives).tokens
        texts = [marked_text(window, np.zeros(len(window), dtype=bool), self.pieces) for window in tokens]
        return [Score(before, text) for before in (prompt(task.text), prompt(NOTHING)) for text in texts]

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the nats that the explanation gives to each window, and how well they tell activating windows."""
        examples = task.examples.against(self.negatives)
        n = len(examples.number)
        gains = [gain(told, untold) for told, untold in zip(outcomes[:n], outcomes[n:], strict=True)]
        value = np.array([math.nan if isinstance(one, Failure) else one for one in gains])
        status = np.array([one.status if isinstance(one, Failure) else "ok" for one in gains], dtype=np.str_)
        truth, known = examples.activating, status == "ok"
        return Judged(examples.number, truth, status, none(n), none(n), value, area(truth[known], value[known]))


def gain(told: Outcome, untold: Outcome) -> float | Failure:
    """Return log p(x | z) − log p(x | z₀) of a window's two outcomes in nats, or why it is not known."""
    if isinstance(told, Failure):
        return told
    if isinstance(untold, Failure):
        return untold
    text, other = ("".join(token.text for token in answer.tokens) for answer in (told, untold))
    if not text or not other:
        return Failure(NO_LOGPROBS, "the engine gave no log-probabilities of the window")
    if text != other:
        return Failure(OTHER_TEXT, "the engine scored not the same text after both prompts")
    nats = math.fsum(token.logprob for token in told.tokens) - math.fsum(token.logprob for token in untold.tokens)
    return nats if math.isfinite(nats) else Failure(NO_LOGPROBS, "the engine gave infinite log-probabilities")
