"""Engines of params.yaml, opened; the cache of their answers; what the answers cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from builders.engines.absent import ABSENT, AbsentEngine
from builders.engines.asking import Price, ask, usage
from builders.engines.cache import Cache
from builders.engines.requests import Answer, Chat, Engine, Failure, Outcome, Request, Score
from builders.engines.schemas import fits
from builders.errors import MissingError, UserError
from builders.lake.shards import Shards, write_atomic
from builders.progress import track
from builders.scorers.answers import THOUGHT
from pipelines.graph.stage import BUILD, USAGE, USED
from pipelines.opened.subjects import source_of
from pipelines.params import (
    EngineParams,
    LlamaCppEngineParams,
    OpenAiEngineParams,
    SkippableParams,
    TransformersEngineParams,
    VllmEngineParams,
)

if TYPE_CHECKING:
    from builders.engines.http import HttpEngine
    from builders.engines.llamacpp import LlamaCppEngine

CACHE = Path(".interplake/answers.sqlite")
REJECTED = ("HTTP 400", "HTTP 422", "HTTP 501")  # a server does not take what is asked of it


def http_engine(spec: OpenAiEngineParams) -> HttpEngine:
    """Return the client of a server."""
    from builders.engines.http import HttpEngine, HttpSettings  # this import takes a second, and most stages do not need it

    return HttpEngine(HttpSettings(**spec.model_dump(exclude={"kind", "price"})))


def _http(spec: Any) -> Engine:
    engine = http_engine(spec)
    engine.reach()
    return engine


def _vllm(spec: VllmEngineParams) -> Engine:
    from builders.engines.vllm import VllmEngine, VllmSettings

    kept = spec.model_dump(exclude={"kind", "price", "path", "repo"})
    return VllmEngine(VllmSettings(model=str(spec.path or spec.repo), **kept))


def _transformers(spec: TransformersEngineParams) -> Engine:
    from builders.engines.local import LocalEngine, LocalSettings

    return LocalEngine(LocalSettings(source_of(spec), spec.dtype, spec.device, spec.batch_tokens))


def llamacpp_engine(spec: LlamaCppEngineParams) -> LlamaCppEngine:
    """Return a GGUF file run by llama.cpp."""
    from builders.engines.llamacpp import LlamaCppEngine, LlamaCppSettings

    return LlamaCppEngine(LlamaCppSettings(source_of(spec), spec.slots, spec.context, spec.threads, spec.batch))


OPEN: dict[str, Callable[[Any], Engine]] = {
    "openai": _http,
    "vllm": _vllm,
    "transformers": _transformers,
    "llamacpp": llamacpp_engine,
}


def open_engine(spec: EngineParams) -> Engine:
    """Return an engine of params, ready to answer."""
    return OPEN[spec.kind](spec)


class Engines:
    """The engines of a stage, each opened when it is first needed, so that a model is loaded once for all dictionaries."""

    def __init__(self) -> None:
        self._opened: dict[str, Engine] = {}

    def open(self, spec: EngineParams) -> Engine:
        """Return an engine of params, ready to answer; one that is missing and may be skipped says so in a line, and answers nothing."""
        key = spec.model_dump_json()
        if key not in self._opened:
            try:
                self._opened[key] = open_engine(spec)
            except MissingError as error:
                if not may_be_skipped(spec):
                    raise
                print(f"{error}; without it, rows say so")
                self._opened[key] = AbsentEngine(spec.place, str(error))
        return self._opened[key]


def may_be_skipped(spec: EngineParams) -> TypeGuard[SkippableParams]:
    """Return whether rows may do without the answers of an engine that is not there."""
    return isinstance(spec, SkippableParams) and spec.missing == "skip"


def asked(engine: Engine, requests: Sequence[Request], what: str) -> list[tuple[str, Outcome]]:
    """Return the address and outcome of every request, in order; a request whose answer is in the cache is not made."""
    cache = Cache(CACHE)
    found: dict[int, tuple[str, Outcome]] = {}
    for place, key, outcome in track(ask(engine, requests, cache), what, total=len(requests)):
        found[place] = (key, outcome)
    cache.close()
    return [found[place] for place in range(len(requests))]


def require_logprobs(engine: Engine, judge_id: str) -> None:
    """Raise UserError where *engine* cannot score given text; one request tries it before hundreds are made."""
    if isinstance(engine, AbsentEngine):
        return
    ((_, outcome),) = asked(engine, [Score("The river", " flows to the sea.")], f"log-probabilities of {judge_id}")
    if isinstance(outcome, Answer) and outcome.tokens:
        return
    why = outcome.reason if isinstance(outcome, Failure) else "its answer holds none"
    mend = (
        "where that stays so, choose an engine of kind llamacpp, vllm or transformers, or a server that scores given text, such as vLLM's"
    )
    raise UserError(f"judges.{judge_id}: no log-probabilities from {engine.model} ({engine.kind} engine): {why}; {mend}")


def require_form(engine: Engine, request: Request, judge_id: str) -> None:
    """Raise UserError where *engine* takes no JSON schema or does not keep to it; *request* tries it before others like it are made."""
    if not isinstance(request, Chat) or request.form is None or isinstance(engine, AbsentEngine):
        return
    ((_, outcome),) = asked(engine, [request], f"the form of {judge_id}'s answers")
    if isinstance(outcome, Failure):
        why = outcome.reason if outcome.status in REJECTED else None
    else:
        why = None if outcome.finish == "length" or _fits(outcome.text, request.form) else f"its answer is {outcome.text.strip()[:60]!r}"
    if why is not None:
        mend = "choose an engine of kind llamacpp or vllm, or a server that does, such as vLLM's, or set the judge's `form` to `free`"
        raise UserError(f"judges.{judge_id}.form: {engine.model} ({engine.kind} engine) keeps to no JSON schema: {why}; {mend}")


def _fits(text: str, form: str) -> bool:
    """Return whether an answer's *text*, without what was thought before, is JSON that fits the schema *form*."""
    try:
        return fits(json.loads(form), json.loads(text.rpartition(THOUGHT)[2]))
    except (ValueError, RecursionError):
        return False


def account(shards: Shards, outcomes: Mapping[str, Outcome], spec: EngineParams) -> None:
    """Write beside a stage's tables what its answers cost, and their addresses; *outcomes* are by address, so equal requests count once."""
    account_all(shards, [(outcomes, spec)])


def account_all(shards: Shards, bills: Sequence[tuple[Mapping[str, Outcome], EngineParams]]) -> None:
    """Write the same of the answers of several engines, each with its outcomes by address."""
    spent, used = Counter[str](), set[str]()
    for outcomes, spec in bills:
        answers = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Answer)}
        spent.update(asdict(usage(answers.values(), Price(**spec.price.model_dump()))))
        used.update(answers)
    keys = "".join(f"{key}\n" for key in sorted(used))
    for name, text in ((USAGE, json.dumps(spent, indent=1, sort_keys=True) + "\n"), (USED, keys)):
        write_atomic(shards.folder / name, text.encode())
        shards.enter(shards.folder / name)


def require_share(stage: str, records: Sequence[Mapping[str, Any]], most: float, what: str = "latents") -> None:
    """Print how many latents (or *what*) failed, and why; raise UserError where their share is more than *most*.

    What an engine was asked that is not installed counts among neither.
    """
    records = [record for record in records if record["status"] != ABSENT]
    failed = [record for record in records if record["status"] != "ok"]
    counts = Counter(record["status"] for record in failed).most_common()
    kinds = ", ".join(f"{status} {number}" for status, number in counts)
    said = f"{stage}: {len(failed)} of {len(records)} {what} failed" + (f" ({kinds})" if kinds else "")
    if len(failed) > most * len(records):
        mend = f"the first: {failed[0]['reason']}; mend the cause and run it again: answers are kept, only what failed is asked"
        raise UserError(f"{said}, more than max_failed_share {most:g}; {mend}")
    print(said)


def sizes() -> list[tuple[str, str, int, int]]:
    """Return (engine, model, number of answers, bytes) for each model in the cache; raise UserError where there is no cache."""
    cache = _existing()
    found = cache.sizes()
    cache.close()
    return found


def prune_cache() -> int:
    """Drop every answer that no row of the build uses; return how many were dropped."""
    used: set[str] = set()
    for path in sorted(BUILD.glob(f"*/**/{USED}")):
        used.update(path.read_text().split())
    cache = _existing()
    dropped = cache.prune(used)
    cache.close()
    return dropped


def _existing() -> Cache:
    if not CACHE.exists():
        raise UserError(f"{CACHE}: no answers are kept yet; they come with the first explainer that asks an engine")
    return Cache(CACHE)
