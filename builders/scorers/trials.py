"""Yes-or-no questions about windows: what a judge is shown, and the truth it does not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from builders.contexts.contexts import Examples
from builders.engines.requests import Outcome, Request
from builders.scorers.judging import Bools, Floats, Ints, Judged, Task, none
from builders.scorers.statistics import rates


@dataclass(frozen=True)
class Trials:
    """One latent's judged examples: their numbers, truth and reasons for which one cannot be judged [n].

    *tokens* [n, window] are token ids; *marks* [n, window] are the tokens in question, or None where the question
    is about the whole window.
    """

    latent: int
    number: Ints
    truth: Bools
    tokens: npt.NDArray[np.int32]
    marks: Bools | None
    status: npt.NDArray[np.str_]

    def answerable(self) -> Ints:
        """Return the places of the examples that can be judged."""
        return np.flatnonzero(self.status == "ok")


@dataclass(frozen=True)
class Verdicts:
    """A judge's answers to all trials [n]: yes (1) or no (0), the probability of yes (both NaN where there is none), and status.

    *reason* says in words why the first answer is missing.
    """

    answer: Floats
    probability: Floats
    status: npt.NDArray[np.str_]
    reason: str = ""


class Judge(Protocol):
    """Decides from an explanation's words alone."""

    @property
    def prompt_sha256(self) -> str | None: ...  # noqa: D102  # the version of its prompts, if it has any

    def requests(self, text: str, trials: Trials) -> Sequence[Request]:
        """Return what is to be asked of a language model; nothing where none is needed."""
        ...

    def verdicts(self, text: str, trials: Trials, outcomes: Sequence[Outcome]) -> Verdicts:
        """Return the answers to all trials that can be judged; the status of the others stays theirs."""
        ...


Draw = Callable[[Examples, Bools, int], Trials]


@dataclass(frozen=True)
class WindowScorer:
    """Detection and fuzzing: each window gets yes or no; the score is balanced accuracy (SCIENCE A7, A8).

    *special* [vocabulary] says which token ids are special; *seed* addresses what is drawn.
    """

    draw: Draw
    judge: Judge
    negatives: str
    special: Bools
    seed: int
    unit: str = "balanced accuracy"
    chance: float = 0.5

    @property
    def prompt_sha256(self) -> str | None:
        """The version of the judge's prompts."""
        return self.judge.prompt_sha256

    def trials(self, task: Task) -> Trials:
        """Return what is asked about a latent, whatever the explanation."""
        return self.draw(task.examples.against(self.negatives), self.special, self.seed)

    def requests(self, task: Task) -> Sequence[Request]:
        """Return what the judge asks."""
        return self.judge.requests(task.text, self.trials(task))

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the judged windows and their rates."""
        trials = self.trials(task)
        said = self.judge.verdicts(task.text, trials, outcomes)
        known = said.status == "ok"
        measures = rates(trials.truth[known], said.answer[known] == 1, said.probability[known])
        unmeasured = none(len(known))
        return Judged(trials.number, trials.truth, said.status, said.answer, said.probability, unmeasured, measures, said.reason)
