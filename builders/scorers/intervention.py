"""Intervention: whether pushing the latent makes the subject write more of what the explanation says.

The subject continues a prompt x twice: cleanly, and with the latent pushed. A judge reads both passages. The
difference log p(z | pushed passage) − log p(z | clean passage), in nats summed over the tokens of the explanation z, says how much
likelier the push makes z. The quotation mark after z is not scored: its probability depends on the length of z.
Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#intervention-scoring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builders.engines.requests import Failure, Outcome, Score
from builders.interventions.generations import Passages
from builders.scorers.judging import PROMPTS, Judged, Task, nans
from builders.scorers.statistics import mean
from builders.scorers.surprisal import gain

FILES = ("intervention.j2", "intervention.yaml")
NO_DIRECTION = "no direction"
NOTHING = Passages(np.zeros(0, dtype=np.int64), NO_DIRECTION, [], [], None)


def prompt(passage: str) -> str:
    """Return the prompt that an explanation completes: worked examples, then the passage."""
    return PROMPTS.fill("intervention.j2", {"shots": PROMPTS.shots("intervention.yaml"), "passage": passage})


@dataclass(frozen=True)
class InterventionScorer:
    """The score is the mean difference, in nats, of the explanation's log-probability after pushed and after clean passages.

    *written* are the passages of each latent that was pushed. A latent without passages, such as a planted rule, gets no score.
    """

    written: Mapping[int, Passages]
    unit: str = "nats"
    chance: float = 0.0
    negatives: str = "none"

    @property
    def prompt_sha256(self) -> str:
        """The hash of the prompt files."""
        return PROMPTS.sha256(FILES)

    def requests(self, task: Task) -> list[Score]:
        """Return the explanation after every clean passage, then after every pushed one; nothing where the push missed its target KL."""
        own = self.written.get(task.latent, NOTHING)
        explanation = " ".join(task.explanation.split())
        passages = [*own.clean, *own.pushed] if own.status == "ok" else []
        return [Score(prompt(passage), explanation) for passage in passages]

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the difference in nats for each prompt, and the mean."""
        own = self.written.get(task.latent, NOTHING)
        n = len(own.number)
        value, status, measures = nans(n), np.full(n, own.status), {"status": own.status}
        if own.status == "ok":
            gains = [gain(pushed, clean) for clean, pushed in zip(outcomes[:n], outcomes[n:], strict=True)]
            value = np.array([math.nan if isinstance(one, Failure) else one for one in gains])
            status = np.array([one.status if isinstance(one, Failure) else "ok" for one in gains])
            measures = mean(value[status == "ok"])
        return Judged(own.number, np.ones(n, dtype=bool), status, nans(n), nans(n), value, {**measures, "kl": own.kl})
