"""An engine behind a server that speaks OpenAI's API (vLLM, llama.cpp, Ollama, a cloud), with many requests in flight at once."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from builders.engines.requests import NO_LOGPROBS, Answer, Chat, Failure, Outcome, Request, Score, Token
from builders.engines.schemas import Schema
from builders.errors import UserError, first_line, one_of

# Sampling as the temperature alone decides it: a server may have defaults of its own, such as those of a checkpoint's generation_config.
PLAIN = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
NO_KEY = "none"  # local servers want a key, but any will do
LONG = ("context", "maximum model length")  # words of servers' errors about prompts that are too long
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # raised by an answer that does not keep the API's form


@dataclass(frozen=True)
class HttpSettings:
    """Where the server is and how it is asked. The key is read from the environment variable *key_variable* and is never stored.

    *extra* is added to what is asked of every conversation, such as settings that only one kind of server knows.
    The client retries on 429, 5xx, time-outs and broken connections only, at most *retries* times, and honours Retry-After.
    """

    base_url: str
    model: str
    key_variable: str | None = None
    concurrency: int = 32
    timeout_s: float = 120.0
    retries: int = 4
    extra: Mapping[str, Any] = field(default_factory=dict)


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
        """What an answer depends on beside the request. The server's address is no part of it: it may change while the model stays."""
        extra = {"extra": dict(self.settings.extra)} if self.settings.extra else {}
        return {"kind": self.kind, "model": self.settings.model, **extra}

    def reach(self) -> None:
        """Raise UserError if the server cannot be reached, refuses the key, or lists its models without this one."""
        settings = self.settings
        try:
            with openai.OpenAI(base_url=settings.base_url, api_key=self._key, timeout=10, max_retries=0) as client:
                names = [model.id for model in client.models.list()]
        except openai.AuthenticationError as error:
            advice = f"correct the key in {settings.key_variable}" if settings.key_variable else "name the key's variable in `key_variable`"
            raise UserError(f"{settings.base_url}: refuses the key ({self._without_key(first_line(error))}); {advice}") from error
        except openai.APIConnectionError as error:
            raise UserError(f"{settings.base_url}: cannot be reached; start the server, or correct `base_url`") from error
        except (openai.OpenAIError, *UNREADABLE):
            return  # not every server lists its models, and some list them in another form
        if names and settings.model not in names:
            raise UserError(f"{settings.base_url}: has no model {settings.model!r}; choose one that it has: {one_of(names)}")

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place, each as soon as it is there; at most *concurrency* are in flight.

        An answered request counts as in flight until the caller has asked for the next one, so a crash loses at most *concurrency* answers.
        """
        with asyncio.Runner() as runner:
            done: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()
            free = asyncio.Semaphore(self.settings.concurrency)
            work = runner.get_loop().create_task(self._all(requests, done, free))
            for _ in requests:
                yield done.get_nowait() if not done.empty() else runner.run(_next(done, work))
                free.release()
            runner.run(_finished(work))

    def form(self, schema: Schema) -> dict[str, Any]:
        """Return what is asked of a server that keeps its answer to a JSON schema."""
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}}

    async def _all(self, requests: Sequence[Request], done: asyncio.Queue[tuple[int, Outcome]], free: asyncio.Semaphore) -> None:
        settings = self.settings
        waiting = iter(enumerate(requests))
        client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=self._key,
            timeout=settings.timeout_s,
            max_retries=settings.retries,
            http_client=openai.DefaultAioHttpClient(),  # httpx walks through all connections for every request, which is slow
        )

        async def worker() -> None:
            for number, request in waiting:
                await free.acquire()
                await done.put((number, await self._outcome(client, request)))

        async with client:
            await asyncio.gather(*(worker() for _ in range(min(settings.concurrency, len(requests)))))

    async def _outcome(self, client: openai.AsyncOpenAI, request: Request) -> Outcome:
        try:
            outcome = await (self._chat(client, request) if isinstance(request, Chat) else self._score(client, request))
        except openai.OpenAIError as error:
            outcome = _failure(error)
        except UNREADABLE as error:
            outcome = Failure("unreadable", f"the server's answer cannot be read: {first_line(error)}")
        return Failure(outcome.status, self._without_key(outcome.reason)) if isinstance(outcome, Failure) else outcome

    def _without_key(self, said: str) -> str:
        """Return a server's message on one line, without the key, which some servers repeat."""
        said = " ".join(said.split())
        return said.replace(self._key, "…") if self.settings.key_variable else said

    async def _chat(self, client: openai.AsyncOpenAI, request: Chat) -> Outcome:
        asked: dict[str, Any] = {
            "model": self.settings.model,
            "messages": turns(request),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            **PLAIN,
            **self.settings.extra,
        }
        if request.top_logprobs:
            asked |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.form is not None:
            asked |= self.form(json.loads(request.form))
        answered = await client.post("/chat/completions", body=asked, cast_to=ChatCompletion)
        if not answered.choices:
            return Failure("empty", "the server answered without a choice")
        choice = answered.choices[0]
        said = choice.message.content or ""
        if choice.message.refusal:
            return Failure("refused", choice.message.refusal)
        if not said.strip():
            return Failure("empty", f"the server answered without text (it stopped for {choice.finish_reason!r})")
        listed = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
        tokens = tuple(Token(_text(t.token), t.logprob, tuple((_text(top.token), top.logprob) for top in t.top_logprobs)) for t in listed)
        if request.top_logprobs and not tokens:
            return Failure(NO_LOGPROBS, f"{self.settings.base_url} gives no log-probabilities; use an engine that does")
        return Answer(_text(said), str(choice.finish_reason), tokens, *_used(answered.usage))

    async def _score(self, client: openai.AsyncOpenAI, request: Score) -> Outcome:
        text = request.prompt + request.continuation
        answered = await client.completions.create(
            model=self.settings.model, prompt=text, echo=True, max_tokens=1, temperature=0, logprobs=max(1, request.top_logprobs)
        )
        found = answered.choices[0].logprobs if answered.choices else None
        if found is None or not found.tokens or found.token_logprobs is None:
            return Failure(NO_LOGPROBS, f"{self.settings.base_url} scores no text (`echo` with `logprobs`); use an engine that does")
        # The border is counted back from the end, because vLLM's `text_offset` counts a BOS token that is no part of the text.
        prompt = answered.usage.prompt_tokens if answered.usage else len(found.tokens) - 1
        ends = list(accumulate(len(token) for token in found.tokens[:prompt]))
        if not "".join(found.tokens[:prompt]).endswith(request.continuation):
            return Failure("unreadable", "the tokens that the server tells do not end with the continuation")
        border = ends[-1] - len(request.continuation)
        alternatives = found.top_logprobs or [{}] * len(found.tokens)
        tokens = tuple(
            Token(_text(token), logprob, tuple(sorted((top or {}).items(), key=lambda pair: -pair[1])[: request.top_logprobs]))
            for token, logprob, end, top in zip(found.tokens, found.token_logprobs, ends, alternatives, strict=False)
            if end - len(token) >= border and token and logprob is not None
        )
        return Answer(request.continuation, "stop", tokens, *_used(answered.usage))


def turns(request: Chat) -> list[dict[str, str]]:
    """Return the messages of a conversation as servers take them."""
    return [{"role": message.role, "content": message.content} for message in request.messages]


def _text(said: str) -> str:
    """Return text that can be encoded: half a character (a lone surrogate, which JSON allows) becomes a question mark."""
    return said.encode("utf-8", "replace").decode()


def _used(usage: Any) -> tuple[int, int, int]:
    """Return the numbers of tokens read, of those the server had read before, and of tokens written."""
    if usage is None:
        return 0, 0, 0
    details = usage.prompt_tokens_details
    return usage.prompt_tokens, (details.cached_tokens or 0) if details else 0, usage.completion_tokens


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _failure(error: openai.OpenAIError) -> Failure:
    """Return the failure of a request that ended in this error of the client."""
    said = first_line(error)
    if isinstance(error, openai.APIConnectionError):  # the client calls some broken connections time-outs, so their causes decide
        causes = list(_causes(error))
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return Failure("time-out", "the server gave no answer in time, however often it was asked")
        return Failure("connection", f"the connection broke: {first_line(causes[-1])}")
    if isinstance(error, openai.RateLimitError):
        return Failure("rate limit", said)
    if isinstance(error, openai.NotFoundError):
        return Failure("no such model", said)
    if isinstance(error, openai.BadRequestError) and any(word in said.lower() for word in LONG):
        return Failure("too long", said)
    if isinstance(error, openai.APIStatusError):
        return Failure(f"HTTP {error.status_code}", said)
    return Failure("unreadable", said)


async def _next(done: asyncio.Queue[tuple[int, Outcome]], work: asyncio.Task[None]) -> tuple[int, Outcome]:
    """Return the next outcome, or raise the error that ended the work before it came."""
    waiting = asyncio.ensure_future(done.get())
    await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done() and done.empty():
        waiting.cancel()
        await work
    return await waiting


async def _finished(work: asyncio.Task[None]) -> None:
    await work
