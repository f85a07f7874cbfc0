"""Intervention: does a pushed model write more of what the explanation says? SCIENCE A10.

A judge reads what was written after a beginning, cleanly and with the latent pushed; log p(z | x, pushed) − log p(z | x, clean)
is by how many nats the push makes the explanation z less of a surprise, summed over its tokens. The quotation mark after z is not
scored: it would say how long explanations are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from builders.engines.requests import Failure, Outcome, Score
from builders.interventions.generations import Passages
from builders.scorers.judging import PROMPTS, Judged, Task, none
from builders.scorers.statistics import mean
from builders.scorers.surprisal import gain

FILES = ("intervention.j2", "intervention.yaml")
NO_DIRECTION = "no direction"
NOTHING = Passages(np.zeros(0, dtype=np.int64), NO_DIRECTION, [], [], None)


def prompt(passage: str) -> str:
    """Return what stands before an explanation: worked examples, and the passage that it shall fit."""
    return PROMPTS.fill("intervention.j2", {"shots": PROMPTS.shots("intervention.yaml"), "passage": passage})


@dataclass(frozen=True)
class InterventionScorer:
    """Asks how likely the explanation is after each pushed and each clean passage; the score is the mean difference in nats.

    *written* are the passages of each latent that was pushed; one that has none, as a rule over text, gets no score.
    """

    written: Mapping[int, Passages]
    unit: str = "nats"
    chance: float = 0.0
    negatives: str = "none"

    @property
    def prompt_sha256(self) -> str:
        """The version of the prompt."""
        return PROMPTS.sha256(FILES)

    def requests(self, task: Task) -> list[Score]:
        """Return the explanation after every clean passage, then after every pushed one; nothing where the push missed its aim."""
        own = self.written.get(task.latent, NOTHING)
        text = " ".join(task.text.split())
        passages = [*own.clean, *own.pushed] if own.status == "ok" else []
        return [Score(prompt(passage), text) for passage in passages]

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the nats that the push gives to the explanation after each beginning, and their mean."""
        own = self.written.get(task.latent, NOTHING)
        n = len(own.number)
        value, status, measures = none(n), np.full(n, own.status), {"status": own.status}
        if own.status == "ok":
            gains = [gain(pushed, clean) for clean, pushed in zip(outcomes[:n], outcomes[n:], strict=True)]
            value = np.array([math.nan if isinstance(one, Failure) else one for one in gains])
            status = np.array([one.status if isinstance(one, Failure) else "ok" for one in gains])
            measures = mean(value[status == "ok"])
        return Judged(own.number, np.ones(n, dtype=bool), status, none(n), none(n), value, {**measures, "kl": own.kl})
