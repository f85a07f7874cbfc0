"""Language models that simulate a latent: all tokens at once, token by token, or as JSON.

The first two are those of Bills et al. 2023, as Paulo et al. 2024 (arXiv 2410.13928) use them; see docs/science.md#simulation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.engines.requests import NO_LOGPROBS, Answer, Chat, Failure, Message, Outcome, Request, Score, Token
from builders.scorers.judging import PROMPTS
from builders.scorers.simulation import TOP, Predicted, Tokens

SHOTS = "simulation.yaml"
ALTERNATIVES = 20  # likeliest tokens asked for at each place: the most that vLLM and OpenAI's API give
LEVELS = {str(level): level for level in range(int(TOP) + 1)}
UNKNOWN = "unknown"
DIGITS_SPLIT = "digits split"  # the status where the judge's tokenizer has no token for 10
Levels = list[float] | Failure


def expected(token: Token) -> float:
    """Return the expected level Σ n·p(n) / Σ p(n) over the levels n among a token's alternatives; NaN where none is a level."""
    weights: dict[int, float] = {}
    for text, logprob in token.top:
        level = LEVELS.get(text.strip())
        if level is not None:
            weights[level] = weights.get(level, 0.0) + math.exp(logprob)
    total = sum(weights.values())
    return sum(level * weight for level, weight in weights.items()) / total if total else math.nan


def _line(piece: str, level: str) -> str:
    # json.dumps writes ASCII: tokenizers may cut other characters in two.
    return f"{json.dumps(piece)}\t{level}\n"


def _all_at_once(explanation: str, pieces: list[str], template: str) -> list[Request]:
    prompt = PROMPTS.fill(template, {"explanation": explanation, "shots": PROMPTS.shots(SHOTS)}) + "\n"
    return [Score(prompt, "".join(_line(piece, UNKNOWN) for piece in pieces), ALTERNATIVES)]


def _read_at_once(pieces: list[str], outcomes: Sequence[Outcome]) -> Levels:
    """Return the level expected at each `unknown`. Its token is found by how many characters, without white space, stand before it."""
    (answer,) = outcomes
    if isinstance(answer, Failure):
        return answer
    if not answer.tokens or not any(token.top for token in answer.tokens):
        return Failure(NO_LOGPROBS, "the engine gave no log-probabilities of what was asked")
    starts, written = {}, 0
    for token in answer.tokens:
        bare = "".join(token.text.split())
        if bare:
            starts[written] = token
            written += len(bare)
    levels, written = [], 0
    for piece in pieces:
        written += len("".join(json.dumps(piece).split()))
        found = starts.get(written)
        if found is None:
            return Failure("not aligned", f"no token of the answer begins where the level of {piece!r} stands")
        levels.append(expected(found))
        written += len(UNKNOWN)
    return levels


def _chat(explanation: str, pieces: list[str], *, single: bool) -> Chat:
    messages = (*_opening(single), _turn(explanation, pieces))
    return Chat(messages, 1 if single else 40 + 24 * len(pieces), top_logprobs=ALTERNATIVES if single else 0)


@cache
def _opening(single: bool) -> tuple[Message, ...]:
    """Return the turns before the question: the instructions and the worked examples."""
    messages = [Message("system", PROMPTS.fill("simulate_chat.j2", {"single": single}))]
    for shot in PROMPTS.shots(SHOTS):
        tokens, levels = (list(some) for some in zip(*shot["tokens"], strict=True))
        # Token by token, the worked answers are those of the strongest token and of the last token, which is silent.
        ends = [levels.index(max(levels)) + 1, len(tokens)] if single else [len(tokens)]
        for end in ends:
            messages.append(_turn(shot["explanation"], tokens[:end]))
            right = str(levels[end - 1]) if single else json.dumps(shot["tokens"])
            messages.append(Message("assistant", right))
    return tuple(messages)


def _turn(explanation: str, pieces: Sequence[str]) -> Message:
    return Message("user", PROMPTS.fill("simulate_turn.j2", {"explanation": explanation, "tokens": json.dumps(list(pieces))}))


def _token_by_token(explanation: str, pieces: list[str]) -> list[Request]:
    return [_chat(explanation, pieces[: end + 1], single=True) for end in range(len(pieces))]


def _read_by_token(pieces: list[str], outcomes: Sequence[Outcome]) -> Levels:
    levels = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            return outcome
        if not outcome.tokens or not outcome.tokens[0].top:
            return Failure(NO_LOGPROBS, "the engine gave no log-probabilities of its answer")
        levels.append(expected(outcome.tokens[0]))
    return levels


def _json(explanation: str, pieces: list[str]) -> list[Request]:
    return [_chat(explanation, pieces, single=False)]


def _read_json(pieces: list[str], outcomes: Sequence[Outcome]) -> Levels:
    (answer,) = outcomes
    if isinstance(answer, Failure):
        return answer
    pairs = _last_list(answer)
    if pairs is None:
        return Failure("no list", f"the answer holds no list of [token, level] pairs (it begins {answer.text.strip()[:60]!r})")
    if len(pairs) != len(pieces):
        return Failure("wrong number", f"the answer has {len(pairs)} levels for {len(pieces)} tokens")
    if [token for token, _ in pairs] != pieces:
        return Failure("other tokens", "the answer's tokens are not those that were shown")
    return [float(level) for _, level in pairs]


def _last_list(answer: Answer) -> list[tuple[str, float]] | None:
    """Return the last JSON list of pairs in an answer, or None."""
    decoder, text, end = json.JSONDecoder(), answer.text, 0
    found = None
    while (start := text.find("[", end)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
            continue
        if isinstance(value, list) and value and all(_is_pair(entry) for entry in value):
            found = [(str(token), float(level)) for token, level in value]
    return found


def _is_pair(entry: Any) -> bool:
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
        return False
    level = entry[1]
    return isinstance(level, (int, float)) and not isinstance(level, bool) and 0 <= level <= TOP


@dataclass(frozen=True)
class Form:
    """A form of simulation: *ask* makes the requests of one window, *read* reads their outcomes, *files* are the prompt files."""

    ask: Callable[[str, list[str]], list[Request]]
    read: Callable[[list[str], Sequence[Outcome]], Levels]
    files: tuple[str, ...]
    scores_text: bool  # whether the engine must give log-probabilities of given text
    first_token: bool = True  # whether each level is read from a single token


def _at_once(template: str) -> Form:
    """Return the form all-at-once with the prompt that *template* makes."""
    return Form(partial(_all_at_once, template=template), _read_at_once, (template, SHOTS), scores_text=True)


CHAT_FILES = ("simulate_chat.j2", "simulate_turn.j2", SHOTS)
FORMS = {
    "all-at-once": _at_once("all_at_once.j2"),
    "token-by-token": Form(_token_by_token, _read_by_token, CHAT_FILES, scores_text=False),
    "json": Form(_json, _read_json, CHAT_FILES, scores_text=False, first_token=False),
}
# As in the original, worked examples begin with tokens whose level is `unknown`, as the levels of all tokens that are asked about are.
UNKNOWN_FIRST = _at_once("all_at_once_unknown.j2")


def form_of(form: str, shots: str) -> Form:
    """Return one of FORMS; where *shots* is `unknown`, all-at-once with worked examples that begin with unknown levels."""
    return UNKNOWN_FIRST if shots == UNKNOWN else FORMS[form]


def _digits_split(outcomes: Sequence[Outcome]) -> bool:
    """Return whether the judge's tokenizer splits 10: then 1 is among the alternatives and 10 never is, and a 1 may begin a 10."""
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    listed = {text.strip() for answer in answers for token in answer.tokens for text, _ in token.top}
    return "1" in listed and str(int(TOP)) not in listed


@dataclass(frozen=True)
class ModelSimulator:
    """A language model that simulates in a form of :func:`form_of`; *pieces* are the texts of the subject's token ids."""

    form: str
    pieces: Sequence[str]
    shots: str = "known"

    @property
    def how(self) -> Form:
        """The form in which it is asked."""
        return form_of(self.form, self.shots)

    @property
    def prompt_sha256(self) -> str:
        """The hash of the form's prompt files."""
        return PROMPTS.sha256(self.how.files)

    def requests(self, explanation: str, tokens: Tokens) -> list[Request]:
        """Return the requests of all windows, window by window."""
        return [request for window in tokens for request in self.how.ask(explanation, self._texts(window))]

    def predicted(self, explanation: str, tokens: Tokens, outcomes: Sequence[Outcome]) -> Predicted:
        """Return the levels of all windows. A window that lacks any level gets none, and a status that says why."""
        each = len(outcomes) // max(len(tokens), 1)
        split = self.how.first_token and _digits_split(outcomes)
        levels, status = np.full(tokens.shape, np.nan), np.full(len(tokens), "ok", dtype=object)
        for place, window in enumerate(tokens):
            found = self.how.read(self._texts(window), outcomes[place * each : (place + 1) * each])
            if isinstance(found, Failure):
                status[place] = found.status
            elif np.isnan(found).any():
                status[place] = "no level"
            elif split:
                status[place] = DIGITS_SPLIT
            else:
                levels[place] = found
        return Predicted(levels, status.astype(np.str_))

    def _texts(self, window: npt.NDArray[np.int32]) -> list[str]:
        return [self.pieces[token] for token in window]
