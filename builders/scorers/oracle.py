"""The oracle: a judge for calibration that knows what the planted rules' explanations mean, and reads only the prompt.

It finds the explanation in the prompt's last turn, looks up the pattern that the explanation describes, and answers by where the
pattern applies in the text of the prompt. It answers an explanation that it does not know as though nothing fitted it.
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

from builders.arrays import Floats
from builders.engines.prompts import CLOSE, OPEN
from builders.engines.requests import Answer, Failure, Outcome, Request, Score, Token
from builders.saes.planted import Meaning
from builders.scorers.simulation import TOP

MARKED = re.compile(f"{OPEN}((?s:.+?)){CLOSE}")  # >> without << is plain text, such as a Python prompt
BETWEEN = re.compile(r"stand between (\S+) and (\S+)\.")  # the marks that guidelines tell
NATS = 0.5  # how much likelier, per character, described text is than other text


@dataclass(frozen=True)
class Oracle:
    """Answers the requests of every scorer; *meanings* holds the meaning of each explanation."""

    meanings: dict[str, Meaning]

    def __call__(self, request: Request) -> Outcome:
        """Return the answer to a request, or a failure where its prompt is not that of a scorer."""
        shown = request.prompt if isinstance(request, Score) else request.messages[-1].content
        for pattern, answer in SCORE_PROMPTS if isinstance(request, Score) else CHAT_PROMPTS:
            found = list(pattern.finditer(shown))
            if found:
                return answer(self, found[-1], request)
        return Failure("unknown prompt", f"the oracle finds no question in {shown[-80:]!r}")

    def inside(self, explanation: str, text: str) -> Floats:
        """Return 1 for each character of *text* to which the explanation applies, else 0."""
        found = np.zeros(len(text))
        meaning = self.meanings.get(explanation.strip())
        if meaning is not None:
            whole = text.encode("utf-8", "replace")
            spans = list(meaning.spans(whole))
            if len(whole) > len(text) and spans:  # spans count bytes, and some characters have several
                starts = np.cumsum([0, *(len(character.encode("utf-8", "replace")) for character in text)])
                spans = [(int(low), int(high)) for low, high in np.searchsorted(starts, spans)]
            for low, high in spans:
                found[low:high] = 1
        return found

    def levels(self, explanation: str, pieces: list[str]) -> list[float]:
        """Return the level, 0 to 10, of each of consecutive *pieces*: ten times the share of its characters that fit."""
        inside = self.inside(explanation, "".join(pieces))
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
    """Answer for each of some windows, in the form that the request asks for."""
    shown = list(_examples(found["examples"]))
    if request.form is None:
        return Answer(str([_applies(oracle, found["explanation"], text, MARKED) for text in shown]))
    marked = _marked(request)
    return Answer(json.dumps({"answers": [_applies(oracle, found["explanation"], json.loads(text), marked) for text in shown]}))


def _window(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    return Answer(str(_applies(oracle, found["explanation"], json.loads(found["text"]), _marked(request))))


def _marked(request: Any) -> re.Pattern[str] | None:
    """Return the pattern of marked text, with the marks that the guidelines of a request tell; None where they tell none."""
    marks = BETWEEN.search(request.messages[0].content)
    return re.compile(f"{re.escape(marks[1])}((?s:.+?)){re.escape(marks[2])}") if marks else None


def _applies(oracle: Oracle, explanation: str, shown: str, marked: re.Pattern[str] | None) -> int:
    """Return 1 where the explanation applies to anything in a window or, if it is marked, to at least half of the marked text, else 0."""
    parts = marked.split(shown) if marked else [shown]  # unmarked and marked text in turns
    there = np.concatenate([np.full(len(part), place % 2 == 1) for place, part in enumerate(parts)])
    inside = oracle.inside(explanation, "".join(parts))
    return int(inside[there].mean() >= 0.5 if there.any() else inside.any())


def _examples(text: str) -> Iterator[str]:
    """Yield the numbered examples of a turn. An example may itself hold line breaks."""
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
    for piece, level in zip(pieces, oracle.levels(found["explanation"], pieces), strict=True):
        tokens += [Token(json.dumps(piece), 0.0), Token("\t", 0.0), replace(_level(level), text="unknown"), Token("\n", 0.0)]
    return Answer(request.continuation, tokens=tuple(tokens))


def _simulate_chat(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    pieces = json.loads(found["tokens"])
    levels = oracle.levels(found["explanation"], pieces)
    if request.max_tokens == 1:
        token = _level(levels[-1])
        return Answer(token.text, tokens=(token,))
    return Answer(json.dumps([[piece, round(level)] for piece, level in zip(pieces, levels, strict=True)]))


def _likelihood(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    """Score a text: each character to which the explanation applies is likelier by NATS."""
    inside = oracle.inside(found["explanation"], request.continuation)
    pairs = zip(request.continuation, inside.tolist(), strict=True)
    return Answer(request.continuation, tokens=tuple(Token(character, -1.0 + NATS * there) for character, there in pairs))


def _amplified(oracle: Oracle, found: re.Match[str], request: Any) -> Outcome:
    """Score an explanation after a passage: it is likelier where it applies to anything in the passage."""
    inside = oracle.inside(request.continuation, found["passage"])
    return Answer(request.continuation, tokens=(Token(request.continuation, -3.0 + 2.0 * float(inside.any())),))


Answering = Callable[[Oracle, re.Match[str], Any], Outcome]
# The last turn of each scorer's prompts, and the function that answers it.
SCORE_PROMPTS: tuple[tuple[re.Pattern[str], Answering], ...] = (
    (re.compile(r"\nResponds to: (?P<explanation>.+)\s*\Z"), _simulate_at_once),
    (re.compile(r"\nDescription: (?P<explanation>.+)\nSentences:\s*\Z"), _likelihood),
    (re.compile(r"(?s:.*)\nText: (?P<passage>(?s:.+))\nThis text holds an unusual amount of \"\Z"), _amplified),
)
CHAT_PROMPTS: tuple[tuple[re.Pattern[str], Answering], ...] = (
    (re.compile(r"\AThe unit responds to: (?P<explanation>.+)\nTokens: (?P<tokens>.+)\Z"), _simulate_chat),
    (re.compile(r"\AExplanation: (?P<explanation>.+)\n\nText: (?P<text>\".*\")\Z"), _window),
    (re.compile(r"\AExplanation: (?P<explanation>.+)\n\n(?P<examples>(?s:.+))\Z"), _windows),
)


@dataclass(frozen=True)
class OracleEmbedder:
    """Embeds a text by the meanings that apply to it, and an explanation by its own meaning: the ideal embedding model."""

    meanings: dict[str, Meaning]
    name = "oracle"

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors [n, meanings + 1]: for each meaning the share of the text that it applies to, and a constant."""
        oracle = Oracle(self.meanings)
        return _unit([[*(oracle.inside(known, text).mean() if text else 0.0 for known in self.meanings), 0.1] for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors [n, meanings + 1]: for each explanation its own meaning's coordinate, and a constant."""
        return _unit([[*(float(explanation == known) for known in self.meanings), 0.1] for explanation in texts])


def _unit(rows: list[list[float]]) -> npt.NDArray[np.float32]:
    vectors = np.array(rows, dtype=np.float32)
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
