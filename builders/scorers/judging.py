"""What every scorer is: questions about a latent's test windows, and what follows from the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from builders.contexts.contexts import Examples
from builders.engines.prompts import Prompts
from builders.engines.requests import Failure, Outcome, Request

NO_LOGPROBS = "no log-probabilities"  # the status of an answer without those that were asked for
PROMPTS = Prompts(Path(__file__).parent / "prompts")
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """A latent's test windows, and the explanation that shall predict them (empty where a scorer needs none)."""

    examples: Examples
    explainer: str = "none"
    text: str = ""

    @property
    def latent(self) -> int:
        """The latent."""
        return self.examples.latent


@dataclass(frozen=True)
class Judged:
    """One task's judged examples: their numbers, truth, and status, `ok` or why there is no answer, all [n].

    *answer* is 1 for yes, 0 for no; *probability* that of yes; *value* what the scorer measures, in its unit: all [n], NaN where
    there is none. *measures* are columns of SCORES, the status among them; *reason* says in words why the first answer is missing.
    """

    number: Ints
    truth: Bools
    status: npt.NDArray[np.str_]
    answer: Floats
    probability: Floats
    value: Floats
    measures: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


class Scorer(Protocol):
    """A way to score explanations (or latents). *unit* says what its score is, *chance* the score of a text that says nothing.

    *negatives* is where its silent windows come from; *prompt_sha256* the version of its prompts, if it has any.
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
        """Return what is to be asked of a language model; nothing where none is needed."""
        ...

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return what follows from the outcomes of the task's requests, which come in their order."""
        ...


def none(n: int) -> Floats:
    """Return *n* times no number."""
    return np.full(n, np.nan)


def statuses(outcomes: Sequence[Outcome]) -> npt.NDArray[np.str_]:
    """Return `ok`, or the status of the failure, of each outcome."""
    return np.array([outcome.status if isinstance(outcome, Failure) else "ok" for outcome in outcomes], dtype=np.str_)
