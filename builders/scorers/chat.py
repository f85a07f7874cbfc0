"""The judge that is a language model: a prompt shows one or a few windows, and the model answers 1 or 0 for each.

Detection and fuzzing of Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#detection. Where the answer about some windows cannot
be read, they are asked about again in two halves, and then one by one. Where it gives the very list of a worked example, they are asked
about once more without that example.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builders.arrays import Ints
from builders.engines.prompts import MARKS, Marks, marked_text, remarked
from builders.engines.requests import NO_LOGPROBS, Chat, Failure, Message, Outcome
from builders.scorers.answers import answered, probabilities
from builders.scorers.forms import FORMS, LIST, Form
from builders.scorers.judging import PROMPTS, nans
from builders.scorers.trials import Trials, Verdicts
from builders.seeds import uniforms
from builders.text.vocabulary import text_of

ALTERNATIVES = 5  # the number of likeliest tokens to ask for at each place, where log-probabilities are asked for
SILENT = Failure(NO_LOGPROBS, "the engine gave no log-probabilities; set the judge's `logprobs` to false, or choose another engine")
NOT_ASKED = "not asked"  # the status of a window about which no outcome is known
COPIED = "copied"  # the status of windows about which two answers in turn are lists of worked examples
LARGE = ("too long", "empty", "refused")  # failures of a request that concern what it shows, so that a part of it may do better

Read = tuple[Any, Any] | Failure  # the answers and probabilities of a batch, or why they cannot be read
Pattern = tuple[bool, ...]  # a list of answers


@dataclass(frozen=True)
class Question:
    """What a prompt asks: a *batch* of windows, shown after all worked examples but those whose answers are *without*.

    If its answer cannot be read, the batch is asked about again in so many *parts*.
    """

    batch: Ints
    parts: int = 2
    without: Pattern | None = None


@dataclass(frozen=True)
class Reading:
    """How a language model judges: in one of FORMS, at most *shown* windows in one prompt, and an answer of *max_tokens* tokens.

    With *logprobs* the probability of each answer is read from the log-probabilities of its tokens.
    """

    shown: int = 5
    max_tokens: int = 100
    logprobs: bool = False
    form: str = LIST


@dataclass(frozen=True)
class ModelJudge:
    """A judge that asks a language model. *pieces* are the bytes of each token id; *seed* decides which windows share a prompt."""

    pieces: Sequence[bytes]
    reading: Reading
    seed: int

    @property
    def form(self) -> Form:
        """The form in which it asks."""
        return FORMS[self.reading.form]

    @property
    def prompt_sha256(self) -> str:
        """The hash of the prompt files."""
        return PROMPTS.sha256(self.form.files)

    def requests(self, explanation: str, trials: Trials) -> list[Chat]:
        """Return one conversation per batch; only the last turn differs between batches, so that engines can cache the rest."""
        return self._chats(explanation, trials, [Question(batch) for batch in self.batches(trials)])

    def again(self, explanation: str, trials: Trials, outcomes: Sequence[Outcome]) -> list[Chat]:
        """Return conversations about batches whose answers, among the *outcomes* so far, cannot be read or may be copies."""
        _, waiting = self._walk(trials, outcomes)
        return self._chats(explanation, trials, waiting)

    def batches(self, trials: Trials) -> list[Ints]:
        """Return batches of the places of answerable trials, in a random order that is the same for every explanation."""
        places = trials.answerable()
        places = places[np.argsort(uniforms(self.seed, trials.latent, trials.number[places]), kind="stable")]
        size = 1 if self.form.alone else self.reading.shown
        return [places[low : low + size] for low in range(0, len(places), size)]

    def _chats(self, explanation: str, trials: Trials, questions: Sequence[Question]) -> list[Chat]:
        marks = None if trials.marks is None else self.form.marks(text_of(window, self.pieces) for window in trials.tokens)
        system = self.form.system(marks)
        prefix = {gone: [system, *_shots(self.form, marks, gone)] for gone in {asked.without for asked in questions}}
        return [self._chat(prefix[asked.without], explanation, trials, marks, asked.batch) for asked in questions]

    def _chat(self, prefix: Sequence[Message], explanation: str, trials: Trials, marks: Marks | None, batch: Ints) -> Chat:
        marked = np.zeros(trials.tokens.shape, dtype=bool) if trials.marks is None else trials.marks
        texts = [marked_text(trials.tokens[place], marked[place], self.pieces, marks or MARKS) for place in batch]
        room, form = self.form.room(self.reading.max_tokens, len(batch)), self.form.form(len(batch))
        last = self.form.turn(explanation, texts)
        return Chat((*prefix, last), room, top_logprobs=ALTERNATIVES if self.reading.logprobs else 0, form=form)

    def verdicts(self, explanation: str, trials: Trials, outcomes: Sequence[Outcome]) -> Verdicts:
        """Return the verdicts from the outcomes of all requests, those of :meth:`again` last.

        Where no answer about a window can be read, it has the status of the last one.
        """
        answer, probability = nans(len(trials.number)), nans(len(trials.number))
        status = np.where(trials.status == "ok", NOT_ASKED, trials.status).astype(object)
        reasons = np.full(len(status), "", dtype=object)
        for batch, read in self._walk(trials, outcomes)[0]:
            if isinstance(read, Failure):
                answer[batch] = probability[batch] = np.nan
                status[batch], reasons[batch] = read.status, read.reason
            else:
                answer[batch], probability[batch] = read
                status[batch], reasons[batch] = "ok", ""
        return Verdicts(answer, probability, status.astype(np.str_), next(filter(None, reasons), ""))

    def _walk(self, trials: Trials, outcomes: Sequence[Outcome]) -> tuple[list[tuple[Ints, Read]], list[Question]]:
        """Return each batch that has an outcome with what is read from it, and the questions that are still to be asked, in order.

        A batch that cannot be read joins the queue in two halves, and a half in single windows. A batch whose answers may be those of a
        worked example joins it once more.
        """
        waiting = deque(map(Question, self.batches(trials)))
        patterns = self._patterns(marked=trials.marks is not None)
        read: list[tuple[Ints, Read]] = []
        for outcome in outcomes:
            asked = waiting.popleft()
            told = self._read(outcome, asked, patterns)
            read.append((asked.batch, told))
            if isinstance(told, Failure):
                if len(asked.batch) > 1 and _may_be_split(outcome, told):
                    waiting.extend(Question(part, len(part)) for part in np.array_split(asked.batch, asked.parts))
            elif asked.without is None and tuple(told[0]) in patterns:
                waiting.append(replace(asked, without=tuple(told[0])))
        return read, list(waiting)

    def _patterns(self, *, marked: bool) -> set[Pattern]:
        """Return the answers of worked examples that an answer may copy; all zeros, or all ones, are too often the truth to be one."""
        answers = [_right(shot, marked=marked) for shot in PROMPTS.shots(self.form.shots)]
        return {pattern for pattern in answers if len(set(pattern)) > 1}

    def _read(self, outcome: Outcome, asked: Question, patterns: set[Pattern]) -> Read:
        """Return the answers and probabilities [n] of a batch of n examples, or why they cannot be read."""
        if isinstance(outcome, Failure):
            return outcome
        n = len(asked.batch)
        said = answered(outcome, n)
        if isinstance(said, Failure):
            return said
        if asked.without not in (None, tuple(said)) and tuple(said) in patterns:
            return _copied(asked.without, said)
        if not self.reading.logprobs:
            return said, nans(n)
        return (said, probabilities(outcome.tokens, said)) if outcome.tokens else SILENT


def _may_be_split(outcome: Outcome, read: Read) -> bool:
    """Return whether fewer windows may be answered better: an answer cannot be read, or a request failed for what it shows."""
    if isinstance(outcome, Failure):
        return outcome.status in LARGE
    return isinstance(read, Failure) and read.status not in (NO_LOGPROBS, COPIED)


def _copied(first: Pattern, second: Sequence[bool]) -> Failure:
    """Return the failure of two answers in turn that are lists of worked examples."""
    lists = " and then ".join(str([int(yes) for yes in answers]) for answers in (first, second))
    mend = "choose a larger model, or set the judge's `form` to `single`"
    return Failure(COPIED, f"two answers in turn repeat the lists of worked examples, {lists}; {mend}")


def _right(shot: dict[str, Any], *, marked: bool) -> Pattern:
    """Return the right answers about the windows of a worked example."""
    return tuple(bool(example["right" if marked else "fires"]) for example in shot["examples"])


def _shots(form: Form, marks: Marks | None, without: Pattern | None) -> Iterator[Message]:
    """Yield the worked examples as turns: one for each list of windows or, where a question is about one window, one for each window.

    Those whose answers are *without* are left out.
    """
    for shot in PROMPTS.shots(form.shots):
        answers = _right(shot, marked=marks is not None)
        if answers == without:
            continue
        pairs = list(zip(shot["examples"], answers, strict=True))
        for group in [[pair] for pair in pairs] if form.alone else [pairs]:
            yield form.turn(shot["explanation"], [remarked(example["text"], marks) for example, _ in group])
            yield Message("assistant", form.write([int(answer) for _, answer in group]))
