"""Trials about one word, a judge that asks a language model about them, and a script that judges rightly from the prompt alone."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from forms import windows_in, written

from builders.engines.requests import Answer, Chat, Outcome, Request
from builders.engines.scripted import ScriptedEngine
from builders.scorers.chat import ModelJudge, Reading
from builders.scorers.lineups import Lineups
from builders.scorers.trials import Trials, Verdicts

if TYPE_CHECKING:
    from collections.abc import Callable

PIECES = [f" w{token}" for token in range(50)]
BYTES = [piece.encode() for piece in PIECES]
WORD = "w7"  # what the oracle takes for the explanation's meaning
MARKED = re.compile(r"<<(.*?)>>")


def trials_of(n: int, *, marked: bool, seed: int = 0, latent: int = 3, without: tuple[int, ...] = ()) -> Trials:
    """Return *n* trials, in half of which the word stands; in marked ones two tokens are marked, in half of all the word among them.

    Those at the places *without* cannot be judged.
    """
    draw = np.random.default_rng(seed)
    tokens = draw.integers(10, 50, (n, 6)).astype(np.int32)
    there = draw.random(n) < 0.5
    place = draw.integers(0, 5, n)
    tokens[there, place[there]] = 7
    marks = np.zeros(tokens.shape, dtype=bool)
    marks[np.arange(n), place] = marks[np.arange(n), place + 1] = True
    status = np.where(np.isin(np.arange(n), without), "no marks fit", "ok")
    number = draw.permutation(10 * n)[:n]
    return Trials(latent, number, there, tokens, marks if marked else None, status)


def questions(request: Request) -> tuple[str, list[str]]:
    """Return the explanation and the examples of a request, read from its last message."""
    assert isinstance(request, Chat)
    last = request.messages[-1].content
    (explanation,) = re.findall(r"^Explanation: (.*)$", last, re.M)
    return explanation, windows_in(last, quoted=request.form is not None)


def schema(request: Request) -> Any:
    """Return the JSON schema that the answer to a request must fit, or None."""
    assert isinstance(request, Chat)
    return None if request.form is None else json.loads(request.form)


def fits(explanation: str, text: str) -> bool:
    """Return whether the explanation's word stands in a text, or between its marks where it has any."""
    seen = " ".join(MARKED.findall(text)) if "<<" in text else text
    return explanation in seen.split()


def oracle(request: Request) -> Answer:
    """Judge rightly, from the prompt's text alone."""
    explanation, texts = questions(request)
    text = written(schema(request), [int(fits(explanation, text)) for text in texts])
    return Answer(text, prompt_tokens=10, cached_tokens=4, output_tokens=2)


def judge_of(shown: int = 5, seed: int = 1, logprobs: bool = False, form: str = "free", pieces: list[bytes] = BYTES) -> ModelJudge:
    """Return a judge that shows *shown* windows."""
    return ModelJudge(pieces, Reading(shown, 77, logprobs, form), seed)


def verdicts_of(judge: ModelJudge, trials: Trials, script: Callable[[Request], Outcome] = oracle) -> Verdicts:
    """Return what a judge answers where *script* is the language model, which is asked once."""
    outcomes = dict(ScriptedEngine(script, "s").run(judge.requests(WORD, trials)))
    return judge.verdicts(WORD, trials, [outcomes[place] for place in sorted(outcomes)])


def lineup() -> Lineups:
    """Return one trial of the intruder scorer."""
    tokens = np.array([[[10, 7, 12], [7, 13, 14], [15, 16, 7]]], dtype=np.int32)
    return Lineups(3, tokens, tokens == 7, np.array([2]), np.array(["ok"]))


def failing(bad: set[str], failure: Outcome) -> Callable[[Request], Outcome]:
    """Return a script that judges rightly but for batches with one of the *bad* texts."""

    def script(request: Request) -> Outcome:
        return failure if bad & set(questions(request)[1]) else oracle(request)

    return script
