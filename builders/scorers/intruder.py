"""Intruder: a finder says which of a few windows does not belong with the others. It needs no explanation.

Each lineup shows activating windows of one rank quantile, with their tokens marked, and one intruder in a random slot. The
intruder is a silent window with the marks that fuzzing gives it or, with negatives `internal`, an activating window of another
quantile. The idea is that of the code of Paulo et al. (github.com/EleutherAI/delphi); see docs/science.md#intruder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Ints
from builders.engines.prompts import Marks, marked_text, remarked
from builders.engines.requests import Answer, Chat, Failure, Message, Outcome, Request
from builders.engines.schemas import named, one_of
from builders.scorers import fuzzing
from builders.scorers.answers import numbered, responded
from builders.scorers.forms import FREE, LIST, SINGLE, Form
from builders.scorers.judging import PROMPTS, Judged, Task, nans
from builders.scorers.lineups import Lineups, lineups
from builders.scorers.statistics import share
from builders.seeds import uniforms
from builders.text.vocabulary import text_of

INTERNAL = "internal"
NUMBER = Form(
    "intruder_number.j2",
    "intruder.yaml",
    write=lambda shot: json.dumps({"intruder": shot["intruder"]}),
    schema=lambda shown: named(intruder=one_of(range(1, shown + 1))),
    room=lambda most, _: max(most, 24),
)
SENTENCE = Form(
    "intruder.j2",
    "intruder.yaml",
    write=lambda shot: f"{shot['common']}\n[RESPONSE]: {shot['intruder']}",
    schema=None,
    room=lambda most, _: most,
)
# A question is about one lineup in every form: it is answered by a number or, in the free form, by a sentence and a number.
FORMS = {LIST: NUMBER, SINGLE: NUMBER, FREE: SENTENCE}
READERS: dict[str, Callable[[Answer, int], int | Failure]] = {LIST: numbered, SINGLE: numbered, FREE: responded}


@dataclass(frozen=True)
class Picks:
    """The *slot* named in each lineup (from 1; 0 where none was named) and the *status*, both [trials].

    *reason* says in words why the first missing slot is missing.
    """

    slot: Ints
    status: npt.NDArray[np.str_]
    reason: str = ""


class Finder(Protocol):
    """A way to find the intruder of each lineup."""

    @property
    def prompt_sha256(self) -> str | None: ...  # noqa: D102  # the hash of its prompts, if it has any

    def requests(self, lineups: Lineups) -> Sequence[Request]:
        """Return the requests to a language model; none where the finder needs no language model."""
        ...

    def picks(self, lineups: Lineups, outcomes: Sequence[Outcome]) -> Picks:
        """Return the slots in which the finder sees the intruders."""
        ...


@dataclass(frozen=True)
class IntruderScorer:
    """The score is the share of answered lineups in which the intruder was found, of *trials* lineups of *shown* windows each.

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
        """The share of intruders that guessing finds."""
        return 1 / self.shown

    @property
    def prompt_sha256(self) -> str | None:
        """The hash of the finder's prompts, if it has any."""
        return self.finder.prompt_sha256

    def lineups(self, task: Task) -> Lineups:
        """Return the lineups of a latent."""
        examples = task.examples.against(self.negatives)
        marked = fuzzing.trials(examples, self.special, self.seed)
        usable = marked.answerable()
        windows, marks = examples.take(usable), np.asarray(marked.marks)[usable]
        return lineups(windows, marks, self.trials, self.shown, internal=self.negatives == INTERNAL, seed=self.seed)

    def requests(self, task: Task) -> Sequence[Request]:
        """Return the finder's requests."""
        return self.finder.requests(self.lineups(task))

    def judged(self, task: Task, outcomes: Sequence[Outcome]) -> Judged:
        """Return an example per lineup: the answer is whether the intruder was found, the value is the slot that was named."""
        lineups = self.lineups(task)
        picks = self.finder.picks(lineups, outcomes)
        known, found = picks.status == "ok", picks.slot == lineups.slot
        number = np.arange(self.trials)
        answer, slot = np.where(known, found, np.nan), np.where(known, picks.slot, np.nan)
        measures = share(found[known], int((~known).sum()))
        return Judged(number, number >= 0, picks.status, answer, nans(self.trials), slot, measures, picks.reason)


@dataclass(frozen=True)
class LexicalFinder:
    """Picks the window whose marked tokens are least like those of the others. Not a language model."""

    seed: int
    prompt_sha256: None = None

    def requests(self, lineups: Lineups) -> tuple[()]:
        """Return nothing: no language model is asked."""
        return ()

    def picks(self, lineups: Lineups, outcomes: Sequence[Outcome]) -> Picks:
        """Return the slots whose marked tokens have the smallest mean Jaccard index with those of the others; ties are drawn."""
        n, shown, _ = lineups.marks.shape
        lineup, slot, _ = np.nonzero(lineups.marks)
        ids, place = np.unique(lineups.tokens[lineups.marks], return_inverse=True)
        holds = np.zeros((n, shown, len(ids)))
        holds[lineup, slot, place] = 1
        shared = holds @ holds.transpose(0, 2, 1)
        sizes = holds.sum(axis=2)
        either = sizes[:, :, None] + sizes[:, None, :] - shared
        alike = (shared / np.maximum(either, 1)).sum(axis=2).round(9)  # each window's likeness to itself is included: it is 1 for all
        ties = uniforms(self.seed, lineups.latent, np.arange(n)[:, None], np.arange(shown))
        least = np.lexsort((ties, alike), axis=1)[:, 0]
        return Picks(np.where(lineups.status == "ok", 1 + least, 0), lineups.status)


@dataclass(frozen=True)
class ModelFinder:
    """Asks a language model about one lineup per prompt, in one of FORMS. *pieces* are the bytes of each token id."""

    pieces: Sequence[bytes]
    max_tokens: int = 100
    form: str = LIST

    @property
    def prompt_sha256(self) -> str:
        """The hash of the prompt files."""
        return PROMPTS.sha256(FORMS[self.form].files)

    def requests(self, lineups: Lineups) -> list[Chat]:
        """Return one conversation per lineup; only the last turn differs, so that engines can cache the rest."""
        form, shown = FORMS[self.form], lineups.tokens.shape[1]
        marks = form.marks(text_of(window, self.pieces) for lineup in lineups.tokens for window in lineup)
        prefix = [form.system(marks)]
        for shot in PROMPTS.shots(form.shots):
            texts = [remarked(text, marks) for text in shot["examples"]]
            prefix += [form.turn(None, texts), Message("assistant", form.write(shot))]
        turns = [form.turn(None, self._texts(lineups, place, marks)) for place in lineups.answerable()]
        return [Chat((*prefix, turn), form.room(self.max_tokens, shown), form=form.form(shown)) for turn in turns]

    def _texts(self, lineups: Lineups, place: int, marks: Marks) -> list[str]:
        windows = zip(lineups.tokens[place], lineups.marks[place], strict=True)
        return [marked_text(tokens, marked, self.pieces, marks) for tokens, marked in windows]

    def picks(self, lineups: Lineups, outcomes: Sequence[Outcome]) -> Picks:
        """Return the slots that were answered. Where an answer fails, the lineup has no slot and the failure's status."""
        slot, status, reasons = np.zeros(len(lineups.slot), dtype=np.int64), lineups.status.astype(object), []
        for place, outcome in zip(lineups.answerable(), outcomes, strict=True):
            said = outcome if isinstance(outcome, Failure) else READERS[self.form](outcome, lineups.tokens.shape[1])
            if isinstance(said, Failure):
                status[place] = said.status
                reasons.append(said.reason)
            else:
                slot[place] = said
        return Picks(slot, status.astype(np.str_), next(iter(reasons), ""))
