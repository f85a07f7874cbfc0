"""What all scorers share: a task, its judged examples, and the interface that turns one into the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Floats, Ints
from builders.contexts.contexts import Examples
from builders.engines.prompts import Prompts
from builders.engines.requests import Outcome, Request

PROMPTS = Prompts(Path(__file__).parent / "prompts")


@dataclass(frozen=True)
class Task:
    """One latent's test windows, and the explanation to be scored on them (empty where the scorer needs none)."""

    examples: Examples
    explainer: str = "none"
    explanation: str = ""

    @property
    def latent(self) -> int:
        """The latent."""
        return self.examples.latent


@dataclass(frozen=True)
class Judged:
    """One task's judged examples: their numbers, the truth, and their status (`ok`, or why there is no answer), all [n].

    *answer* is 1 for yes and 0 for no; *probability* is the probability of yes; *value* is what the scorer measures, in its unit.
    All three are [n], with NaN where there is none. *measures* are columns of SCORES, `status` among them. *reason* says in words
    why the first missing answer is missing. *null* [n] is what the scorer measures without the latent, where it measures that too.
    """

    number: Ints
    truth: Bools
    status: npt.NDArray[np.str_]
    answer: Floats
    probability: Floats
    value: Floats
    measures: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    null: Floats | None = None

    @property
    def null_value(self) -> Floats:
        """What is measured without the latent [n], NaN where nothing is."""
        return nans(len(self.number)) if self.null is None else self.null


class Scorer(Protocol):
    """A way to score explanations, or latents without one.

    *unit* says what the score is; *chance* is the score of an explanation that says nothing; *negatives* is the kind of negative
    windows; *prompt_sha256* is the hash of the scorer's prompts, None where it has none.
    """

    @property
    def unit(self) -> str: ...  # noqa: D102  # said above
    @property
    def chance(self) -> float: ...  # noqa: D102
    @property
    def negatives(self) -> str: ...  # noqa: D102
    @property
    def prompt_sha256(self) -> str | None: ...  # noqa: D102

    def requests(self, task: Task) -> Sequence[Request]:
        """Return the requests to a language model; none where the scorer needs no language model."""
        ...

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the judged examples, given the outcomes of the task's requests in the same order."""
        ...


def nans(n: int) -> Floats:
    """Return *n* NaN: no number yet."""
    return np.full(n, np.nan)
