"""llama.cpp in this process: a GGUF file behind a server of its own on loopback, which answers several requests at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import openai

from builders.engines import given
from builders.engines.http import HttpEngine, HttpSettings, turns
from builders.engines.reading import no_template, too_long
from builders.engines.requests import NO_LOGPROBS, Answer, Chat, Failure, Outcome, Request, Score
from builders.engines.schemas import Schema, grammar
from builders.errors import MissingError, UserError, first_line
from builders.subjects import gguf, places

MOST = 4096  # tokens of prompt and answer together, unless the settings say otherwise: every slot keeps memory for so many
PATIENCE_S = 7 * 86400  # a slow model on a busy machine is no failure
# Sampling as the temperature alone decides it: llama.cpp's own samplers would cut off unlikely tokens before.
PLAIN = {"samplers": ["temperature"], "cache_prompt": True}
CALM = "OMP_WAIT_POLICY"


@dataclass(frozen=True)
class LlamaCppSettings:
    """Which GGUF file is run, and how: *slots* requests at once, each of at most *context* tokens of prompt and answer together.

    *threads* compute, and prompts are read *batch* tokens at a time. None: as many tokens as the model was trained on, but at most MOST;
    as many threads as OMP_NUM_THREADS says, or as this process has cores; and a slot for every four threads.
    With one slot the same requests get the same bits again; with several, a number depends on what else was answered at the time.
    """

    source: places.Source
    slots: int | None = None
    context: int | None = None
    threads: int | None = None
    batch: int = 512


class LlamaCppEngine(HttpEngine):
    """A GGUF file run by llama.cpp. Its server ends with this process, and no other machine can reach it."""

    kind = "llamacpp"

    def __init__(self, settings: LlamaCppSettings) -> None:
        source = settings.source
        if not (source.package or source.file or str(source.path).endswith(gguf.SUFFIX)):
            raise UserError(f"{source.label}: llama.cpp runs GGUF files; name one: `path` to it, or `file` in a `repo`")
        library = _library()
        path = places.fetch(source)
        metadata = gguf.header(path).metadata
        self._templated = "tokenizer.chat_template" in metadata
        self._revision = gguf.sha256(path)
        name = Path(source.path).name if source.path else source.label
        self._limit = _context(settings, name, metadata)
        threads = settings.threads or _threads()
        slots = settings.slots or max(1, threads // 4)
        self._server = _serve(library, path, name, _Size(slots, slots * self._limit, settings.batch, threads))
        self._root = str(self._server.listening_address)
        super().__init__(HttpSettings(f"{self._root}/v1", name, None, slots, PATIENCE_S, 0, PLAIN))

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on beside the request."""
        return {"kind": self.kind, "model": self.model, "revision": self._revision}

    def require_template(self) -> None:
        """Raise UserError if the model has no chat template: llama.cpp would then use one that the model does not know."""
        if not self._templated:
            raise no_template(self.model)

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every request with its place. Those that begin alike follow each other, so that beginnings are read once."""
        if any(isinstance(request, Chat) for request in requests):
            self.require_template()
        order = sorted(range(len(requests)), key=lambda place: _words(requests[place]))
        for number, outcome in super().run([requests[place] for place in order]):
            yield order[number], outcome

    def form(self, schema: Schema) -> dict[str, Any]:
        """Return the grammar of a JSON schema, or the schema itself where it is of a kind that has none here."""
        try:
            return {"grammar": grammar(schema)}
        except ValueError:
            return super().form(schema)

    async def _chat(self, client: openai.AsyncOpenAI, request: Chat) -> Outcome:
        counted = await _post(client, self._root, "/v1/chat/completions/input_tokens", {"messages": turns(request)})
        if counted["input_tokens"] + request.max_tokens > self._limit:
            return too_long(counted["input_tokens"], request.max_tokens, self.model, self._limit)
        outcome = await super()._chat(client, request)
        if isinstance(outcome, Failure) and outcome.status == NO_LOGPROBS:
            return Failure(NO_LOGPROBS, "the answer is half a character, of which llama.cpp tells no log-probabilities")
        return outcome

    async def _score(self, client: openai.AsyncOpenAI, request: Score) -> Outcome:
        post = partial(_post, client, self._root)
        tokens = await given.pieces(post, request.prompt + request.continuation)
        if len(tokens) + 1 > self._limit:
            return too_long(len(tokens), 1, self.model, self._limit)
        start = given.start_of(tokens, request.prompt, request.continuation)
        if start is None:
            return Failure("unreadable", "the model's tokenizer changes the text, so the continuation cannot be found in it")
        found, known = await given.scored(post, tokens, start, request.top_logprobs)
        return Answer(request.continuation, "stop", tuple(found), len(tokens), known, 0)


async def _post(client: openai.AsyncOpenAI, root: str, path: str, body: dict[str, Any]) -> Any:
    """Return what the server answers to a *body* at a path outside OpenAI's API."""
    return await client.post(f"{root}{path}", body=body, cast_to=object)


def _words(request: Request) -> tuple[str, ...]:
    """Return a request's texts in the order in which the model reads them."""
    if isinstance(request, Chat):
        return tuple(message.content for message in request.messages)
    return request.prompt, request.continuation


def _library() -> ModuleType:
    """Return xllamacpp. Its threads wait for each other asleep: awake, they take the cores from those that they wait for.

    On a machine with other work that is up to seventy times slower.
    """
    try:
        with _set(CALM, "PASSIVE"):  # read once, when the library is loaded
            return import_module("xllamacpp")
    except ImportError as error:
        told = "" if isinstance(error, ModuleNotFoundError) else f" ({first_line(error)})"
        raise MissingError(f"llama.cpp is not installed{told}; run `pip install 'interplake[local]'`, or use another engine") from error


@contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside this context, unless it has a value already."""
    before = os.environ.get(name)
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _context(settings: LlamaCppSettings, name: str, metadata: Mapping[str, Any]) -> int:
    """Return the most tokens of prompt and answer together; raise UserError where the model was trained on fewer than are asked for."""
    trained = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if settings.context is None:
        return min(MOST, int(trained or MOST))
    if trained is not None and settings.context > trained:
        raise UserError(f"{name}: reads {trained} tokens at most, but `context` is {settings.context}; lower it")
    return settings.context


def _threads() -> int:
    told = os.environ.get("OMP_NUM_THREADS", "")  # pinned with all that decides how sums are split: see pipelines/kernels.py
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return int(told) if told.isdigit() else usable or 1


@dataclass(frozen=True)
class _Size:
    """How much a server does at once: requests, tokens of all of them, tokens read at a time, and threads."""

    slots: int
    tokens: int
    batch: int
    threads: int


def _serve(library: ModuleType, path: Path, name: str, size: _Size) -> Any:
    """Return a running server; raise UserError where llama.cpp cannot load the file. It writes nothing to standard error."""
    asked = library.CommonParams()
    asked.model.path, asked.model_alias = str(path), {name}
    asked.n_parallel, asked.n_ctx, asked.n_batch, asked.n_ubatch = size.slots, size.tokens, size.batch, size.batch
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = size.threads
    asked.hostnames, asked.port, asked.ui, asked.verbosity = ["127.0.0.1"], 0, False, 0
    asked.cache_ram_mib = 0  # prompts that left their slots would be kept in up to eight gigabytes; sorted, none is wanted again
    asked.reasoning_format = library.common_reasoning_format.COMMON_REASONING_FORMAT_NONE  # what is thought stays in the text
    try:
        server = library.Server(asked)
    except RuntimeError as error:
        known = "choose a file of an architecture that it knows, install a newer xllamacpp, or fetch the file again"
        raise UserError(f"{path}: llama.cpp cannot load it (its architecture is {gguf.header(path).architecture}); {known}") from error
    server.handle_completions({"prompt": "a", "max_tokens": 1})  # one that was never asked may not be running yet, and then never ends
    return server
