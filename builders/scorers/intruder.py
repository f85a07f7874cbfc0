"""Intruder: which of these windows does not belong? It needs no explanation. SCIENCE A11.

Each trial shows activating windows of one rank quantile, their tokens marked, and in a slot drawn by address one window more:
a silent one with the marks that fuzzing gives it, or (negatives `internal`) an activating one of another quantile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from builders.engines.prompts import marked_text
from builders.engines.requests import Chat, Failure, Message, Outcome, Request
from builders.scorers import fuzzing
from builders.scorers.answers import responded
from builders.scorers.chat import turn
from builders.scorers.judging import PROMPTS, Bools, Ints, Judged, Task, none
from builders.scorers.lineups import Lineups, lineups
from builders.scorers.statistics import share
from builders.seeds import uniforms

FILES = ("intruder.j2", "windows.j2", "intruder.yaml")
INTERNAL = "internal"


@dataclass(frozen=True)
class Picks:
    """The slots that were named, from 1 on, and their status [trials]; 0 where there is none. *reason* says why the first is missing."""

    slot: Ints
    status: npt.NDArray[np.str_]
    reason: str = ""


class Finder(Protocol):
    """Looks for the intruder."""

    @property
    def prompt_sha256(self) -> str | None: ...  # noqa: D102  # the version of its prompts, if it has any

    def requests(self, trials: Lineups) -> Sequence[Request]:
        """Return what is to be asked of a language model; nothing where none is needed."""
        ...

    def picks(self, trials: Lineups, outcomes: Sequence[Outcome]) -> Picks:
        """Return the slots that it takes for the intruder's."""
        ...


@dataclass(frozen=True)
class IntruderScorer:
    """So many *trials* of *shown* windows; the score is the share of those answered in which the intruder was found.

    *special* [vocabulary] says which token ids are special; *seed* addresses what is drawn.
    """

    finder: Finder
    trials: int
    shown: int
    negatives: str
    special: Bools
    seed: int
    unit: str = "accuracy"

    @property
    def chance(self) -> float:
        """The share that guessing finds."""
        return 1 / self.shown

    @property
    def prompt_sha256(self) -> str | None:
        """The version of the finder's prompts."""
        return self.finder.prompt_sha256

    def lineups(self, task: Task) -> Lineups:
        """Return the trials of a latent."""
        examples = task.examples.against(self.negatives)
        windows = fuzzing.trials(examples, self.special, self.seed)
        fit = windows.answerable()
        fine, marks = examples.take(fit), np.asarray(windows.marks)[fit]
        return lineups(fine, marks, self.trials, self.shown, internal=self.negatives == INTERNAL, seed=self.seed)

    def requests(self, task: Task) -> Sequence[Request]:
        """Return what the finder asks."""
        return self.finder.requests(self.lineups(task))

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return the trials: whether the intruder was found, and as their value the slot that was named."""
        trials = self.lineups(task)
        picks = self.finder.picks(trials, outcomes)
        known, found = picks.status == "ok", picks.slot == trials.slot
        number = np.arange(self.trials)
        answer, slot = np.where(known, found, np.nan), np.where(known, picks.slot, np.nan)
        return Judged(number, number >= 0, picks.status, answer, none(self.trials), slot, share(found[known]), picks.reason)


@dataclass(frozen=True)
class LexicalFinder:
    """Takes for the intruder the window whose marked tokens are least like those of the others. Not a language model."""

    seed: int
    prompt_sha256: None = None

    def requests(self, trials: Lineups) -> tuple[()]:
        """Return nothing: it looks for itself."""
        return ()

    def picks(self, trials: Lineups, outcomes: Sequence[Outcome]) -> Picks:
        """Return the slot whose set of marked tokens has the smallest mean Jaccard index with the others; ties are drawn by address."""
        n, shown, _ = trials.marks.shape
        trial, slot, _ = np.nonzero(trials.marks)
        ids, place = np.unique(trials.tokens[trials.marks], return_inverse=True)
        holds = np.zeros((n, shown, len(ids)))
        holds[trial, slot, place] = 1
        shared = holds @ holds.transpose(0, 2, 1)
        sizes = holds.sum(axis=2)
        either = sizes[:, :, None] + sizes[:, None, :] - shared
        alike = (shared / np.maximum(either, 1)).sum(axis=2).round(9)  # with itself too, which is 1 for all
        ties = uniforms(self.seed, trials.latent, np.arange(n)[:, None], np.arange(shown))
        least = np.lexsort((ties, alike), axis=1)[:, 0]
        return Picks(np.where(trials.status == "ok", 1 + least, 0), trials.status)


@dataclass(frozen=True)
class ModelFinder:
    """Asks a language model, one trial in a prompt. *pieces* are the bytes of each token id."""

    pieces: Sequence[bytes]
    max_tokens: int = 100

    @property
    def prompt_sha256(self) -> str:
        """The version of the prompts."""
        return PROMPTS.sha256(FILES)

    def requests(self, trials: Lineups) -> list[Chat]:
        """Return one conversation for each trial; all but the last turn is the same for every latent."""
        prefix = [Message("system", PROMPTS.fill("intruder.j2", {}))]
        for shot in PROMPTS.shots("intruder.yaml"):
            prefix += [turn(None, shot["examples"]), Message("assistant", f"{shot['common']}\n[RESPONSE]: {shot['intruder']}")]
        return [Chat((*prefix, self._turn(trials, trial)), self.max_tokens) for trial in trials.able()]

    def _turn(self, trials: Lineups, trial: int) -> Message:
        windows = zip(trials.tokens[trial], trials.marks[trial], strict=True)
        return turn(None, [marked_text(tokens, marks, self.pieces) for tokens, marks in windows])

    def picks(self, trials: Lineups, outcomes: Sequence[Outcome]) -> Picks:
        """Return the slots that were answered; a trial without an answer has the status of what went wrong."""
        slot, status, reasons = np.zeros(len(trials.slot), dtype=np.int64), trials.status.astype(object), []
        for trial, outcome in zip(trials.able(), outcomes, strict=True):
            said = outcome if isinstance(outcome, Failure) else responded(outcome, trials.tokens.shape[1])
            if isinstance(said, Failure):
                status[trial] = said.status
                reasons.append(said.reason)
            else:
                slot[trial] = said
        return Picks(slot, status.astype(np.str_), next(iter(reasons), ""))
