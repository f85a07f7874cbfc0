"""Intervention: whether pushing the latent makes the subject write more of what the explanation says.

The subject continues a prompt x cleanly, with the latent pushed, and with a random direction pushed to the same KL divergence. A judge
reads the passages. The difference log p(z | pushed passage) − log p(z | clean passage), in nats summed over the tokens of the explanation
z, says how much likelier the push makes z. The quotation mark after z is not scored: its probability depends on the length of z. The same
difference for the random direction is the null: what any push of this size does to z.
Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#intervention-scoring.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Floats
from builders.engines.requests import Failure, Outcome, Score
from builders.interventions.generations import Passages
from builders.scorers.judging import PROMPTS, Judged, Task, nans
from builders.scorers.statistics import Measures, mean
from builders.scorers.surprisal import gain

FILES = ("intervention.j2", "intervention.yaml")
NO_DIRECTION = "no direction"
NOTHING = Passages(np.zeros(0, dtype=np.int64), NO_DIRECTION, None, [], [], [])


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
        """Return the explanation after all clean passages, all pushed and all random ones; nothing where the push missed its KL."""
        own = self.written.get(task.latent, NOTHING)
        explanation = " ".join(task.explanation.split())
        passages = [*own.clean, *own.pushed, *own.random] if own.status == "ok" else []
        return [Score(prompt(passage), explanation) for passage in passages]

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the difference in nats for each prompt, and the mean; a prompt counts if all its passages have an answer."""
        own = self.written.get(task.latent, NOTHING)
        n = len(own.number)
        status, value, null = np.full(n, own.status), nans(n), None
        measures: Measures = {"status": own.status}
        if own.status == "ok":
            clean, *sides = (outcomes[low : low + n] for low in range(0, len(outcomes), n))
            status, (value, *nulls) = _gains(clean, sides)
            null = nulls[0] if nulls else None
            measures = _measures(value, null, status == "ok")
        return Judged(own.number, np.ones(n, dtype=bool), status, nans(n), nans(n), value, {**measures, "kl": own.kl}, null=null)


def _gains(clean: Sequence[Outcome], sides: Iterable[Sequence[Outcome]]) -> tuple[npt.NDArray[np.str_], list[Floats]]:
    """Return the status of each prompt [n], and for each of *sides* the nats that it gains over *clean* [n], NaN where any has failed."""
    gains = [[gain(outcome, plain) for outcome, plain in zip(side, clean, strict=True)] for side in sides]
    failed = [next((one for one in some if isinstance(one, Failure)), None) for some in zip(*gains, strict=True)]
    status = np.array(["ok" if one is None else one.status for one in failed])
    return status, [np.array([math.nan if bad else one for one, bad in zip(side, failed, strict=True)], dtype=np.float64) for side in gains]


def _measures(value: Floats, null: Floats | None, known: Bools) -> Measures:
    """Return the SCORES columns of what prompts gain [n] under the latent's push (*value*) and under the random one (*null*)."""
    measures = mean(value[known])
    if null is None or not known.any():
        return measures
    for name, some in (("null_score", null), ("over_null", value - null)):
        found = mean(some[known])
        measures |= {name: found["score"], f"{name}_se": found["score_se"]}
    return measures
