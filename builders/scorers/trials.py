"""Yes-or-no questions about windows: what a judge is shown, the truth that it does not see, and its verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Floats, Ints
from builders.contexts.contexts import Examples
from builders.engines.requests import Outcome, Request
from builders.scorers.judging import Judged, Task, nans
from builders.scorers.statistics import rates


@dataclass(frozen=True)
class Trials:
    """One latent's examples to judge: their numbers, the truth, and their status (`ok`, or why one cannot be judged), all [n].

    *tokens* [n, window] are token ids; *marks* [n, window] say which tokens the question is about, None where it is about the
    whole window.
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
    """A judge's answers to all trials [n]: *answer* is yes (1) or no (0), *probability* that of yes; both are NaN where missing.

    *status* is `ok`, or why there is no answer; *reason* says in words why the first missing answer is missing.
    """

    answer: Floats
    probability: Floats
    status: npt.NDArray[np.str_]
    reason: str = ""


class Judge(Protocol):
    """Answers trials from the explanation and the windows alone."""

    @property
    def prompt_sha256(self) -> str | None: ...  # noqa: D102  # the hash of its prompts, if it has any

    def requests(self, explanation: str, trials: Trials) -> Sequence[Request]:
        """Return the requests to a language model; none where the judge needs no language model."""
        ...

    def verdicts(self, explanation: str, trials: Trials, outcomes: Sequence[Outcome]) -> Verdicts:
        """Return the verdicts, given the outcomes of the requests in the same order; trials that cannot be judged keep their status."""
        ...


Draw = Callable[[Examples, Bools, int], Trials]


@dataclass(frozen=True)
class WindowScorer:
    """Detection and fuzzing: each window gets a yes or no; the score is balanced accuracy.

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
        """The hash of the judge's prompts, if it has any."""
        return self.judge.prompt_sha256

    def trials(self, task: Task) -> Trials:
        """Return the trials of a latent, which are the same for every explanation."""
        return self.draw(task.examples.against(self.negatives), self.special, self.seed)

    def requests(self, task: Task) -> Sequence[Request]:
        """Return the judge's requests."""
        return self.judge.requests(task.explanation, self.trials(task))

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the judged windows; measures are rates of right answers, and AUROC where there are probabilities."""
        trials = self.trials(task)
        said = self.judge.verdicts(task.explanation, trials, outcomes)
        measures = rates(trials.truth, said.answer, said.probability)
        unmeasured = nans(len(trials.number))
        return Judged(trials.number, trials.truth, said.status, said.answer, said.probability, unmeasured, measures, said.reason)
