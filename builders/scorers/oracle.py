"""A judge that knows what the planted rules' explanations mean, and reads nothing but the prompt: it calibrates scorers.

It finds the explanation in the prompt's last turn, looks up the pattern that it describes, and answers by where the pattern
applies in the text that the prompt shows. A prompt in which it finds no explanation, or one that it does not know, it answers
as though nothing fitted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.engines.prompts import CLOSE, OPEN
from builders.engines.requests import Answer, Failure, Outcome, Request, Score, Token
from builders.saes.planted import Meaning
from builders.scorers.simulation import TOP

Floats = npt.NDArray[np.float64]
MARKED = re.compile(f"{OPEN}((?s:.+?)){CLOSE}")  # a >> alone is text, such as a prompt of Python's
NATS = 0.5  # by which a described byte is likelier than another


@dataclass(frozen=True)
class Oracle:
    """Answers requests of every scorer; *meanings* are the patterns by their words."""

    meanings: dict[str, Meaning]

    def __call__(self, request: Request) -> Outcome:
        """Return the answer to a request, or a failure where it is of no kind that scorers ask."""
        shown = request.prompt if isinstance(request, Score) else request.messages[-1].content
        for pattern, answer in SCORED if isinstance(request, Score) else TOLD:
            found = list(pattern.finditer(shown))
            if found:
                return answer(self, found[-1], request)
        return Failure("unknown prompt", f"the oracle finds no question in {shown[-80:]!r}")

    def inside(self, words: str, text: str) -> Floats:
        """Return for each character of *text* whether the meaning of *words* applies there (1 or 0)."""
        found = np.zeros(len(text))
        meaning = self.meanings.get(words.strip())
        if meaning is not None:
            whole = text.encode("utf-8", "replace")
            spans = list(meaning.spans(whole))
            if len(whole) > len(text) and spans:  # spans are of bytes, and some character has several
                starts = np.cumsum([0, *(len(character.encode("utf-8", "replace")) for character in text)])
                spans = [(int(low), int(high)) for low, high in np.searchsorted(starts, spans)]
            for low, high in spans:
                found[low:high] = 1
        return found

    def levels(self, words: str, pieces: list[str]) -> list[float]:
        """Return of each of *pieces*, which follow one another, ten times the share of it to which *words* apply."""
        inside = self.inside(words, "".join(pieces))
        ends = np.cumsum([0, *map(len, pieces)])
        return [TOP * float(inside[low:high].mean()) if high > low else 0.0 for low, high in pairwise(ends.tolist())]


def _level(level: float) -> Token:
    """Return a token whose expected level is *level*."""
    low = math.floor(level)
    above = level - low
    weights = {str(int(TOP)): 1e-9, str(min(low + 1, int(TOP))): max(above, 1e-9), str(low): max(1 - above, 1e-9)}
    top = tuple((text, math.log(weight)) for text, weight in weights.items())
    return Token(str(round(level)), math.log(max(above, 1 - above)), top)


def _windows(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    """Answer 1 where the explanation applies to anything in a window, or to most of what is marked in it."""
    answers = []
    for shown in _examples(found["examples"]):
        parts = MARKED.split(shown)  # the text between marks, and in them, in turns
        marked = np.concatenate([np.full(len(part), place % 2 == 1) for place, part in enumerate(parts)])
        inside = oracle.inside(found["words"], "".join(parts))
        answers.append(int(inside[marked].mean() >= 0.5 if marked.any() else inside.any()))
    return Answer(str(answers))


def _examples(text: str) -> Iterator[str]:
    """Yield the numbered examples of a turn, which may themselves hold line breaks."""
    number, start = 1, 0
    while True:
        head = f"Example {number}: "
        following = text.find(f"\nExample {number + 1}: ", start)
        yield text[start + len(head) : following if following >= 0 else None]
        if following < 0:
            return
        number, start = number + 1, following + 1


def _simulate_at_once(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    pieces = [json.loads(line.partition("\t")[0]) for line in request.continuation.splitlines()]
    tokens: list[Token] = []
    for piece, level in zip(pieces, oracle.levels(found["words"], pieces), strict=True):
        tokens += [Token(json.dumps(piece), 0.0), Token("\t", 0.0), replace(_level(level), text="unknown"), Token("\n", 0.0)]
    return Answer(request.continuation, tokens=tuple(tokens))


def _simulate_told(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    pieces = json.loads(found["tokens"])
    levels = oracle.levels(found["words"], pieces)
    if request.max_tokens == 1:
        token = _level(levels[-1])
        return Answer(token.text, tokens=(token,))
    return Answer(json.dumps([[piece, round(level)] for piece, level in zip(pieces, levels, strict=True)]))


def _likelihood(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    """Score a text: what the description speaks of is likelier, by NATS a byte."""
    inside = oracle.inside(found["words"], request.continuation)
    pairs = zip(request.continuation, inside.tolist(), strict=True)
    return Answer(request.continuation, tokens=tuple(Token(character, -1.0 + NATS * there) for character, there in pairs))


def _amplified(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    """Score an explanation after a passage: the likelier, the more of the passage it describes."""
    inside = oracle.inside(request.continuation, found["passage"])
    return Answer(request.continuation, tokens=(Token(request.continuation, -3.0 + 2.0 * float(inside.any())),))


Answering = Callable[[Oracle, re.Match[str], Any], Outcome]
# What the last turn of each scorer's prompt looks like, and how it is answered.
SCORED: tuple[tuple[re.Pattern[str], Answering], ...] = (
    (re.compile(r"\nResponds to: (?P<words>.+)\s*\Z"), _simulate_at_once),
    (re.compile(r"\nDescription: (?P<words>.+)\nSentences:\s*\Z"), _likelihood),
    (re.compile(r"(?s:.*)\nText: (?P<passage>(?s:.+))\nThis text holds an unusual amount of \"\Z"), _amplified),
)
TOLD: tuple[tuple[re.Pattern[str], Answering], ...] = (
    (re.compile(r"\AThe unit responds to: (?P<words>.+)\nTokens: (?P<tokens>.+)\Z"), _simulate_told),
    (re.compile(r"\AExplanation: (?P<words>.+)\n\n(?P<examples>(?s:.+))\Z"), _windows),
)


@dataclass(frozen=True)
class OracleEmbedder:
    """Embeds a text by the meanings that apply to it, and an explanation by its own: as an embedding model would that knew them."""

    meanings: dict[str, Meaning]
    name = "oracle"

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return for each text the share of it that each meaning describes, and one coordinate for all else [n, meanings + 1]."""
        oracle = Oracle(self.meanings)
        return _unit([[*(oracle.inside(words, text).mean() if text else 0.0 for words in self.meanings), 0.1] for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return for each explanation the coordinate of its own meaning."""
        return _unit([[*(float(words == text) for words in self.meanings), 0.1] for text in texts])


def _unit(rows: list[list[float]]) -> npt.NDArray[np.float32]:
    vectors = np.array(rows, dtype=np.float32)
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
