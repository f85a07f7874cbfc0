"""Any server that speaks OpenAI's API (vLLM, llama.cpp, Ollama, a cloud), many requests in flight at once."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from builders.engines.requests import Answer, Chat, Failure, Outcome, Request, Score, Token
from builders.errors import UserError, first_line, one_of

NO_KEY = "none"  # local servers want some key, whichever


@dataclass(frozen=True)
class HttpSettings:
    """Where the server is and how it is asked; the key is read from the environment variable *key_variable*, and kept nowhere.

    *retries* are made by the client on 429, 5xx, time-outs and broken connections alone, and honour Retry-After.
    """

    base_url: str
    model: str
    key_variable: str | None = None
    concurrency: int = 32
    timeout_s: float = 120.0
    retries: int = 4


class HttpEngine:
    """An OpenAI-compatible server."""

    kind = "openai"

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._key = NO_KEY
        if settings.key_variable is not None:
            key = os.environ.get(settings.key_variable)
            if not key:
                raise UserError(f"the environment variable {settings.key_variable} is not set; export the key of {settings.base_url} in it")
            self._key = key

    @property
    def model(self) -> str:
        """The model that answers."""
        return self.settings.model

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on: not the address, which may change while the model stays."""
        return {"kind": self.kind, "model": self.settings.model}

    def reach(self) -> None:
        """Raise UserError where nobody answers, or the server has models but not this one."""
        settings = self.settings
        client = openai.OpenAI(base_url=settings.base_url, api_key=self._key, timeout=10, max_retries=0)
        try:
            names = [model.id for model in client.models.list()]
        except openai.AuthenticationError as error:
            raise UserError(f"{settings.base_url}: refuses the key in {settings.key_variable} ({first_line(error)})") from error
        except openai.APIConnectionError as error:
            raise UserError(f"{settings.base_url}: cannot be reached; start the server, or correct `base_url`") from error
        except openai.OpenAIError:
            return  # not every server lists its models
        if names and settings.model not in names:
            raise UserError(f"{settings.base_url}: has no model {settings.model!r}; it has {one_of(names)}")

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place, each as soon as it is there, at most *concurrency* in flight."""
        with asyncio.Runner() as runner:
            done: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()
            work = runner.get_loop().create_task(self._all(requests, done))
            for _ in requests:
                yield runner.run(_next(done, work))
            runner.run(_finished(work))

    async def _all(self, requests: Sequence[Request], done: asyncio.Queue[tuple[int, Outcome]]) -> None:
        settings = self.settings
        waiting = iter(enumerate(requests))
        client = openai.AsyncOpenAI(base_url=settings.base_url, api_key=self._key, timeout=settings.timeout_s, max_retries=settings.retries)

        async def worker() -> None:
            for number, request in waiting:
                await done.put((number, await self._outcome(client, request)))

        async with client:
            await asyncio.gather(*(worker() for _ in range(min(settings.concurrency, len(requests)))))

    async def _outcome(self, client: openai.AsyncOpenAI, request: Request) -> Outcome:
        try:
            return await (self._chat(client, request) if isinstance(request, Chat) else self._score(client, request))
        except openai.OpenAIError as error:
            return _failure(error)
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # an answer that is not what the API promises
            return Failure("unreadable", f"the server's answer cannot be read: {first_line(error)}")

    async def _chat(self, client: openai.AsyncOpenAI, request: Chat) -> Outcome:
        asked: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.top_logprobs:
            asked |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.form is not None:
            schema = {"name": "answer", "schema": json.loads(request.form), "strict": True}
            asked["response_format"] = {"type": "json_schema", "json_schema": schema}
        answered = await client.chat.completions.create(**asked)
        if not answered.choices:
            return Failure("empty", "the server answered without a choice")
        choice = answered.choices[0]
        if choice.message.refusal:
            return Failure("refused", choice.message.refusal)
        if not choice.message.content:
            return Failure("empty", f"the server answered without text (it stopped for {choice.finish_reason!r})")
        listed = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
        tokens = tuple(Token(t.token, t.logprob, tuple((top.token, top.logprob) for top in t.top_logprobs)) for t in listed)
        if request.top_logprobs and not tokens:
            return Failure("no log-probabilities", f"{self.settings.base_url} gives no log-probabilities; use an engine that does")
        return Answer(choice.message.content, str(choice.finish_reason), tokens, *_used(answered.usage))

    async def _score(self, client: openai.AsyncOpenAI, request: Score) -> Outcome:
        text = request.prompt + request.continuation
        answered = await client.completions.create(
            model=self.settings.model, prompt=text, echo=True, max_tokens=1, temperature=0, logprobs=max(1, request.top_logprobs)
        )
        found = answered.choices[0].logprobs if answered.choices else None
        if found is None or not found.tokens or found.text_offset is None or found.token_logprobs is None:
            return Failure(
                "no log-probabilities", f"{self.settings.base_url} scores no text (`echo` with `logprobs`); use an engine that does"
            )
        alternatives = found.top_logprobs or [{}] * len(found.tokens)
        tokens = tuple(
            Token(token, logprob, tuple(sorted((top or {}).items(), key=lambda pair: -pair[1]))[: request.top_logprobs])
            for token, logprob, offset, top in zip(found.tokens, found.token_logprobs, found.text_offset, alternatives, strict=True)
            if len(request.prompt) <= offset < len(text) and logprob is not None
        )
        return Answer(request.continuation, "stop", tokens, *_used(answered.usage))


def _used(usage: Any) -> tuple[int, int, int]:
    """Return tokens read, those of them that the server had read before, and tokens written."""
    if usage is None:
        return 0, 0, 0
    details = usage.prompt_tokens_details
    return usage.prompt_tokens, (details.cached_tokens or 0) if details else 0, usage.completion_tokens


def _failure(error: openai.OpenAIError) -> Failure:
    """Return what an error of the client means for the request that met it."""
    said = first_line(error)
    if isinstance(error, openai.APITimeoutError):
        return Failure("time-out", "the server gave no answer in time, however often it was asked")
    if isinstance(error, openai.APIConnectionError):
        return Failure("connection", f"the connection broke: {first_line(error.__cause__ or error)}")
    if isinstance(error, openai.RateLimitError):
        return Failure("rate limit", said)
    if isinstance(error, openai.NotFoundError):
        return Failure("no such model", said)
    if isinstance(error, openai.BadRequestError) and "context" in said.lower():
        return Failure("too long", said)
    if isinstance(error, openai.APIStatusError):
        return Failure(f"HTTP {error.status_code}", said)
    return Failure("unreadable", said)


async def _next(done: asyncio.Queue[tuple[int, Outcome]], work: asyncio.Task[None]) -> tuple[int, Outcome]:
    """Return the next outcome, or raise what ended the work before it."""
    waiting = asyncio.ensure_future(done.get())
    await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done() and done.empty():
        waiting.cancel()
        await work
    return await waiting


async def _finished(work: asyncio.Task[None]) -> None:
    await work
