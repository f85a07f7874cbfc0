"""The judge that is a language model: so many windows in one prompt, each answered with 1 or 0. SCIENCE A7, A8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.engines.prompts import CLOSE, OPEN, marked_text
from builders.engines.requests import Chat, Failure, Message, Outcome
from builders.scorers.answers import answered, probabilities
from builders.scorers.judging import NO_LOGPROBS, PROMPTS, Ints, none
from builders.scorers.trials import Trials, Verdicts
from builders.seeds import uniforms

FILES = ("judge.j2", "windows.j2", "judge.yaml")
ALTERNATIVES = 5  # read at each token where probabilities are asked for
SILENT = Failure(NO_LOGPROBS, "the engine gave no log-probabilities; set the judge's `logprobs` to false, or choose another")


@dataclass(frozen=True)
class Reading:
    """How a language model judges: at most *shown* windows in one prompt, and an answer of at most *max_tokens*.

    With *logprobs* the probability of each answer is read from those of its tokens.
    """

    shown: int = 5
    max_tokens: int = 100
    logprobs: bool = False


@dataclass(frozen=True)
class ModelJudge:
    """Asks a language model. *pieces* are the bytes of each token id; *seed* addresses which windows share a prompt."""

    pieces: Sequence[bytes]
    reading: Reading
    seed: int

    @property
    def prompt_sha256(self) -> str:
        """The version of the prompts."""
        return PROMPTS.sha256(FILES)

    def requests(self, text: str, trials: Trials) -> list[Chat]:
        """Return one conversation for each batch; all but the last turn is the same for every latent."""
        prefix = _prefix(marked=trials.marks is not None)
        return [self._chat(prefix, text, trials, batch) for batch in self.batches(trials)]

    def batches(self, trials: Trials) -> list[Ints]:
        """Return the places of the trials that can be judged, so many at a time, in an order drawn by address, not by explainer."""
        places = trials.answerable()
        places = places[np.argsort(uniforms(self.seed, trials.latent, trials.number[places]), kind="stable")]
        return [places[low : low + self.reading.shown] for low in range(0, len(places), self.reading.shown)]

    def _chat(self, prefix: Sequence[Message], text: str, trials: Trials, batch: Ints) -> Chat:
        marks = np.zeros(trials.tokens.shape, dtype=bool) if trials.marks is None else trials.marks
        texts = [marked_text(trials.tokens[place], marks[place], self.pieces) for place in batch]
        last = turn(text, texts)
        return Chat((*prefix, last), self.reading.max_tokens, top_logprobs=ALTERNATIVES if self.reading.logprobs else 0)

    def verdicts(self, text: str, trials: Trials, outcomes: Sequence[Outcome]) -> Verdicts:
        """Return the answers; where one fails, its own examples have its status."""
        answer, probability = none(len(trials.number)), none(len(trials.number))
        status = trials.status.astype(object)
        reasons = []
        for batch, outcome in zip(self.batches(trials), outcomes, strict=True):
            read = self._read(outcome, len(batch))
            if isinstance(read, Failure):
                status[batch] = read.status
                reasons.append(read.reason)
            else:
                answer[batch], probability[batch] = read
        return Verdicts(answer, probability, status.astype(np.str_), next(iter(reasons), ""))

    def _read(self, outcome: Outcome, n: int) -> tuple[Any, Any] | Failure:
        """Return the answers and probabilities of a batch of *n*."""
        if isinstance(outcome, Failure):
            return outcome
        said = answered(outcome, n)
        if isinstance(said, Failure):
            return said
        if not self.reading.logprobs:
            return said, none(n)
        return (said, probabilities(outcome.tokens, said)) if outcome.tokens else SILENT


def turn(explanation: str | None, texts: Sequence[str]) -> Message:
    """Return a question: numbered examples, and the explanation where there is one."""
    return Message("user", PROMPTS.fill("windows.j2", {"explanation": explanation, "texts": texts}))


def _prefix(*, marked: bool) -> list[Message]:
    """Return the guidelines and the worked examples."""
    return [Message("system", PROMPTS.fill("judge.j2", {"marked": marked})), *_shots(marked=marked)]


def _shots(*, marked: bool) -> Iterator[Message]:
    for shot in PROMPTS.shots("judge.yaml"):
        texts = [example["text"] for example in shot["examples"]]
        yield turn(shot["explanation"], texts if marked else [text.replace(OPEN, "").replace(CLOSE, "") for text in texts])
        yield Message("assistant", str([int(example["right" if marked else "fires"]) for example in shot["examples"]]))
