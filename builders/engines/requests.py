"""What can be asked of a language model, what comes back, and the address under which an answer is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Chat:
    """A conversation to be answered in at most *max_tokens* tokens.

    *form* is a JSON schema (as text) that the answer must fit. *top_logprobs* asks for that many alternatives at each token of the answer.
    *seed* matters only above temperature 0.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    top_logprobs: int = 0
    form: str | None = None


@dataclass(frozen=True)
class Score:
    """A *continuation* of *prompt* whose tokens' log-probabilities are wanted, with *top_logprobs* alternatives at each token."""

    prompt: str
    continuation: str
    top_logprobs: int = 0


Request = Chat | Score


@dataclass(frozen=True)
class Token:
    """A token's text, its log-probability in nats, and the likeliest tokens in its place with their log-probabilities."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a model said: its text, its tokens if log-probabilities were asked for, and how many tokens it read and wrote.

    *finish* is why it stopped: `stop`, or `length` if it was cut off. *cached_tokens* are the prompt's tokens that the engine had read
    before and bills at its price for those.
    """

    text: str
    finish: str = "stop"
    tokens: tuple[Token, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a request has no answer: a short *status* for counting, and the *reason* in words."""

    status: str
    reason: str


Outcome = Answer | Failure
NO_LOGPROBS = "no log-probabilities"  # the status of a request whose answer came without those asked for


class Engine(Protocol):
    """Answers requests. *identity* is what an answer depends on beside the request: kind, model, revision."""

    @property
    def kind(self) -> str: ...  # noqa: D102  # said above
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def identity(self) -> dict[str, Any]: ...  # noqa: D102

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place in *requests*, each as soon as it is there."""
        ...


def address(engine: Engine, request: Request) -> str:
    """Return the SHA-256 of the request and of the engine's identity: all that an answer depends on."""
    asked = {"engine": engine.identity, "kind": type(request).__name__, **asdict(request)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def to_json(answer: Answer) -> str:
    """Return an answer as JSON."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def from_json(text: str) -> Answer:
    """Return the answer that :func:`to_json` wrote."""
    fields = json.loads(text)
    tokens = tuple(Token(t["text"], t["logprob"], tuple((name, p) for name, p in t["top"])) for t in fields.pop("tokens"))
    return Answer(**fields, tokens=tokens)
