"""The judge that is a language model: a prompt shows a few windows, and the model answers 1 or 0 for each.

Detection and fuzzing of Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#detection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.arrays import Ints
from builders.engines.prompts import CLOSE, OPEN, marked_text
from builders.engines.requests import Chat, Failure, Message, Outcome
from builders.scorers.answers import answered, probabilities
from builders.scorers.judging import NO_LOGPROBS, PROMPTS, nans
from builders.scorers.trials import Trials, Verdicts
from builders.seeds import uniforms

FILES = ("judge.j2", "windows.j2", "judge.yaml")
ALTERNATIVES = 5  # the number of likeliest tokens to ask for at each place, where log-probabilities are asked for
SILENT = Failure(NO_LOGPROBS, "the engine gave no log-probabilities; set the judge's `logprobs` to false, or choose another engine")


@dataclass(frozen=True)
class Reading:
    """How a language model judges: at most *shown* windows in one prompt, and an answer of at most *max_tokens* tokens.

    With *logprobs* the probability of each answer is read from the log-probabilities of its tokens.
    """

    shown: int = 5
    max_tokens: int = 100
    logprobs: bool = False


@dataclass(frozen=True)
class ModelJudge:
    """A judge that asks a language model. *pieces* are the bytes of each token id; *seed* decides which windows share a prompt."""

    pieces: Sequence[bytes]
    reading: Reading
    seed: int

    @property
    def prompt_sha256(self) -> str:
        """The hash of the prompt files."""
        return PROMPTS.sha256(FILES)

    def requests(self, explanation: str, trials: Trials) -> list[Chat]:
        """Return one conversation per batch; only the last turn differs between latents, so that engines can cache the rest."""
        prefix = _prefix(marked=trials.marks is not None)
        return [self._chat(prefix, explanation, trials, batch) for batch in self.batches(trials)]

    def batches(self, trials: Trials) -> list[Ints]:
        """Return batches of the places of answerable trials, in a random order that is the same for every explanation."""
        places = trials.answerable()
        places = places[np.argsort(uniforms(self.seed, trials.latent, trials.number[places]), kind="stable")]
        return [places[low : low + self.reading.shown] for low in range(0, len(places), self.reading.shown)]

    def _chat(self, prefix: Sequence[Message], explanation: str, trials: Trials, batch: Ints) -> Chat:
        marks = np.zeros(trials.tokens.shape, dtype=bool) if trials.marks is None else trials.marks
        texts = [marked_text(trials.tokens[place], marks[place], self.pieces) for place in batch]
        last = turn(explanation, texts)
        return Chat((*prefix, last), self.reading.max_tokens, top_logprobs=ALTERNATIVES if self.reading.logprobs else 0)

    def verdicts(self, explanation: str, trials: Trials, outcomes: Sequence[Outcome]) -> Verdicts:
        """Return the verdicts. Where the answer to a batch fails, the examples of that batch get the failure's status."""
        answer, probability = nans(len(trials.number)), nans(len(trials.number))
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
        """Return the answers and probabilities [n] of a batch of *n* examples, or why they cannot be read."""
        if isinstance(outcome, Failure):
            return outcome
        said = answered(outcome, n)
        if isinstance(said, Failure):
            return said
        if not self.reading.logprobs:
            return said, nans(n)
        return (said, probabilities(outcome.tokens, said)) if outcome.tokens else SILENT


def turn(explanation: str | None, texts: Sequence[str]) -> Message:
    """Return the user's turn: the explanation, where there is one, and the numbered examples."""
    return Message("user", PROMPTS.fill("windows.j2", {"explanation": explanation, "texts": texts}))


def _prefix(*, marked: bool) -> list[Message]:
    """Return the turns before the question: the guidelines and the worked examples."""
    return [Message("system", PROMPTS.fill("judge.j2", {"marked": marked})), *_shots(marked=marked)]


def _shots(*, marked: bool) -> Iterator[Message]:
    for shot in PROMPTS.shots("judge.yaml"):
        texts = [example["text"] for example in shot["examples"]]
        yield turn(shot["explanation"], texts if marked else [text.replace(OPEN, "").replace(CLOSE, "") for text in texts])
        yield Message("assistant", str([int(example["right" if marked else "fires"]) for example in shot["examples"]]))
