"""Surprisal: how much likelier the explanation makes a window's text.

I(x) = log p(x | z) − log p(x | z₀) in nats, summed over the tokens of window x, where z is the explanation and z₀ is NOTHING, a
text that says nothing. Both prompts end alike, so the same tokens are scored after both; white space that a tokenizer joins to the
prompt's last line break is in neither sum. Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#surprisal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builders.engines.prompts import marked_text
from builders.engines.requests import NO_LOGPROBS, Failure, Outcome, Score
from builders.scorers.judging import PROMPTS, Judged, Task, nans
from builders.scorers.statistics import area

NOTHING = "Various unrelated sentences."  # z₀: the same for all explanations, so that each window is scored after it only once
FILES = ("surprisal.j2", "surprisal.yaml")
OTHER_TEXT = "other text scored"


def prompt(explanation: str) -> str:
    """Return the prompt that a window's text continues: worked examples, then the explanation."""
    facts = {"shots": PROMPTS.shots("surprisal.yaml"), "description": " ".join(explanation.split())}
    return PROMPTS.fill("surprisal.j2", facts) + "\n"


@dataclass(frozen=True)
class SurprisalScorer:
    """The score is the AUROC of I(x), each window's log-probability after the explanation less that after NOTHING.

    *pieces* are the bytes of each token id, empty for special tokens.
    """

    pieces: Sequence[bytes]
    negatives: str
    unit: str = "AUROC"
    chance: float = 0.5

    @property
    def prompt_sha256(self) -> str:
        """The hash of the prompt files."""
        return PROMPTS.sha256(FILES)

    def requests(self, task: Task) -> list[Score]:
        """Return every window after the explanation, then every window after NOTHING."""
        tokens = task.examples.against(self.negatives).tokens
        texts = [marked_text(window, np.zeros(len(window), dtype=bool), self.pieces) for window in tokens]
        return [Score(before, text) for before in (prompt(task.explanation), prompt(NOTHING)) for text in texts]

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return I(x) of each window in nats, and its AUROC of activating against silent windows."""
        examples = task.examples.against(self.negatives)
        n = len(examples.number)
        gains = [gain(explained, baseline) for explained, baseline in zip(outcomes[:n], outcomes[n:], strict=True)]
        value = np.array([math.nan if isinstance(one, Failure) else one for one in gains])
        status = np.array([one.status if isinstance(one, Failure) else "ok" for one in gains], dtype=np.str_)
        truth, known = examples.activating, status == "ok"
        return Judged(examples.number, truth, status, nans(n), nans(n), value, area(truth[known], value[known]))


def gain(outcome: Outcome, baseline: Outcome) -> float | Failure:
    """Return the log-probability of *outcome* less that of *baseline* in nats, or why it is not known.

    Both outcomes are scores of the same text, after two prompts.
    """
    if isinstance(outcome, Failure):
        return outcome
    if isinstance(baseline, Failure):
        return baseline
    text, other = ("".join(token.text for token in answer.tokens) for answer in (outcome, baseline))
    if not text or not other:
        return Failure(NO_LOGPROBS, "the engine gave no log-probabilities of the text; choose an engine that scores given text")
    if text != other:
        return Failure(OTHER_TEXT, "the engine scored different texts after the two prompts; choose another engine")
    nats = math.fsum(token.logprob for token in outcome.tokens) - math.fsum(token.logprob for token in baseline.tokens)
    return nats if math.isfinite(nats) else Failure(NO_LOGPROBS, "the engine gave infinite log-probabilities; choose another engine")
