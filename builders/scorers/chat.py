"""The judge that is a language model: a prompt shows one or a few windows, and the model answers 1 or 0 for each.

Detection and fuzzing of Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#detection. Where the answer about some windows cannot
be read, they are asked about again in two halves, and then one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.arrays import Ints
from builders.engines.prompts import MARKS, Marks, marked_text, remarked
from builders.engines.requests import Chat, Failure, Message, Outcome
from builders.scorers.answers import answered, probabilities
from builders.scorers.forms import FORMS, LIST, Form
from builders.scorers.judging import NO_LOGPROBS, PROMPTS, nans
from builders.scorers.trials import Trials, Verdicts
from builders.seeds import uniforms
from builders.text.vocabulary import text_of

ALTERNATIVES = 5  # the number of likeliest tokens to ask for at each place, where log-probabilities are asked for
SILENT = Failure(NO_LOGPROBS, "the engine gave no log-probabilities; set the judge's `logprobs` to false, or choose another engine")
NOT_ASKED = "not asked"  # the status of a window about which no outcome is known
LARGE = ("too long", "empty", "refused")  # failures of a request that concern what it shows, so that a part of it may do better

Read = tuple[Any, Any] | Failure  # the answers and probabilities of a batch, or why they cannot be read


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
        return self._chats(explanation, trials, self.batches(trials))

    def again(self, explanation: str, trials: Trials, outcomes: Sequence[Outcome]) -> list[Chat]:
        """Return conversations about parts of those batches whose answers, among the *outcomes* so far, cannot be read."""
        _, waiting = self._walk(trials, outcomes)
        return self._chats(explanation, trials, waiting)

    def batches(self, trials: Trials) -> list[Ints]:
        """Return batches of the places of answerable trials, in a random order that is the same for every explanation."""
        places = trials.answerable()
        places = places[np.argsort(uniforms(self.seed, trials.latent, trials.number[places]), kind="stable")]
        size = 1 if self.form.alone else self.reading.shown
        return [places[low : low + size] for low in range(0, len(places), size)]

    def _chats(self, explanation: str, trials: Trials, batches: Iterable[Ints]) -> list[Chat]:
        marks = None if trials.marks is None else self.form.marks(text_of(window, self.pieces) for window in trials.tokens)
        prefix = [self.form.system(marks), *_shots(self.form, marks)]
        return [self._chat(prefix, explanation, trials, marks, batch) for batch in batches]

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
                status[batch], reasons[batch] = read.status, read.reason
            else:
                answer[batch], probability[batch] = read
                status[batch], reasons[batch] = "ok", ""
        return Verdicts(answer, probability, status.astype(np.str_), next(filter(None, reasons), ""))

    def _walk(self, trials: Trials, outcomes: Sequence[Outcome]) -> tuple[list[tuple[Ints, Read]], list[Ints]]:
        """Return each batch that has an outcome with what is read from it, and the batches that are still to be asked about, in order.

        A batch that cannot be read joins the queue in two halves, and a half in single windows.
        """
        waiting = deque((batch, 2) for batch in self.batches(trials))
        read: list[tuple[Ints, Read]] = []
        for outcome in outcomes:
            batch, parts = waiting.popleft()
            read.append((batch, self._read(outcome, len(batch))))
            if len(batch) > 1 and _may_be_split(outcome, read[-1][1]):
                waiting.extend((part, len(part)) for part in np.array_split(batch, parts))
        return read, [batch for batch, _ in waiting]

    def _read(self, outcome: Outcome, n: int) -> Read:
        """Return the answers and probabilities [n] of a batch of *n* examples, or why they cannot be read."""
        if isinstance(outcome, Failure):
            return outcome
        said = answered(outcome, n)
        if isinstance(said, Failure):
            return said
        if not self.reading.logprobs:
            return said, nans(n)
        return (said, probabilities(outcome.tokens, said)) if outcome.tokens else SILENT


def _may_be_split(outcome: Outcome, read: Read) -> bool:
    """Return whether fewer windows may be answered better: an answer cannot be read, or a request failed for what it shows."""
    if isinstance(outcome, Failure):
        return outcome.status in LARGE
    return isinstance(read, Failure) and read is not SILENT


def _shots(form: Form, marks: Marks | None) -> Iterator[Message]:
    """Yield the worked examples as turns: one for each list of windows or, where a question is about one window, one for each window."""
    right = "fires" if marks is None else "right"
    for shot in PROMPTS.shots(form.shots):
        examples = shot["examples"]
        for group in [[example] for example in examples] if form.alone else [examples]:
            yield form.turn(shot["explanation"], [remarked(example["text"], marks) for example in group])
            yield Message("assistant", form.write([int(example[right]) for example in group]))
