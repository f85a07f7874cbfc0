"""Engines of params.yaml, opened; where their answers are kept; what they cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from builders import subjects
from builders.engines.asking import Price, ask, usage
from builders.engines.cache import Cache
from builders.engines.requests import Answer, Engine, Outcome, Request
from builders.errors import UserError
from builders.explainers.explanations import EXPLANATIONS
from builders.progress import track
from builders.shards import Shards, write_atomic
from pipelines.params import EngineSpec, OpenAiEngine, TransformersEngine, VllmEngineSpec
from pipelines.stage import BUILD, USAGE

if TYPE_CHECKING:
    from builders.engines.http import HttpEngine

CACHE = Path(".interplake/answers.sqlite")


def http_engine(spec: OpenAiEngine) -> HttpEngine:
    """Return the client of a server."""
    from builders.engines.http import HttpEngine, HttpSettings  # a second of import that most stages never need

    return HttpEngine(HttpSettings(**spec.model_dump(exclude={"kind", "price"})))


def _http(spec: Any) -> Engine:
    engine = http_engine(spec)
    engine.reach()
    return engine


def _vllm(spec: VllmEngineSpec) -> Engine:
    from builders.engines.vllm import VllmEngine, VllmSettings

    kept = spec.model_dump(exclude={"kind", "price", "path", "repo"})
    return VllmEngine(VllmSettings(model=str(spec.path or spec.repo), **kept))


def _transformers(spec: TransformersEngine) -> Engine:
    from builders.engines.local import LocalEngine, LocalSettings

    return LocalEngine(LocalSettings(subjects.Source(spec.path, spec.repo, spec.revision), spec.dtype, spec.device))


OPEN: dict[str, Callable[[Any], Engine]] = {"openai": _http, "vllm": _vllm, "transformers": _transformers}


def open_engine(spec: EngineSpec) -> Engine:
    """Return an engine of params, ready to answer."""
    return OPEN[spec.kind](spec)


def asked(engine: Engine, requests: Sequence[Request], what: str) -> list[tuple[str, Outcome]]:
    """Return address and outcome of every request, in order; what is in the cache is not asked again."""
    cache = Cache(CACHE)
    found: dict[int, tuple[str, Outcome]] = {}
    for place, key, outcome in track(ask(engine, requests, cache), what, total=len(requests)):
        found[place] = (key, outcome)
    cache.close()
    return [found[place] for place in range(len(requests))]


def account(shards: Shards, outcomes: Iterable[Outcome], spec: EngineSpec) -> None:
    """Write what a stage's answers cost beside its tables."""
    spent = usage([outcome for outcome in outcomes if isinstance(outcome, Answer)], Price(**spec.price.model_dump()))
    path = shards.folder / USAGE
    write_atomic(path, (json.dumps(asdict(spent), indent=1, sort_keys=True) + "\n").encode())
    shards.enter(path)


def require_share(stage: str, records: Sequence[Mapping[str, Any]], most: float) -> None:
    """Say how many latents failed and of what; raise UserError where their share is more than *most*."""
    failed = [record for record in records if record["status"] != "ok"]
    counts = Counter(record["status"] for record in failed).most_common()
    kinds = ", ".join(f"{status} {number}" for status, number in counts)
    said = f"{stage}: {len(failed)} of {len(records)} latents failed" + (f" ({kinds})" if kinds else "")
    if len(failed) > most * len(records):
        mend = f"the first: {failed[0]['reason']}; mend the cause and run it again: answers are kept, only what failed is asked"
        raise UserError(f"{said}, more than max_failed_share {most:g}; {mend}")
    print(said)


def sizes() -> list[tuple[str, str, int, int]]:
    """Return engine, model, number of answers and their bytes; raise UserError where there is no cache."""
    cache = _existing()
    found = cache.sizes()
    cache.close()
    return found


def prune_cache() -> int:
    """Drop every answer that no row of the build uses; return how many."""
    used: set[str] = set()
    for path in sorted(BUILD.glob(f"explanations/*/*/{EXPLANATIONS.name}-*.parquet")):
        used.update(pq.read_table(path, columns=["request_sha256"])["request_sha256"].drop_null().to_pylist())
    cache = _existing()
    dropped = cache.prune(used)
    cache.close()
    return dropped


def _existing() -> Cache:
    if not CACHE.exists():
        raise UserError(f"{CACHE}: no answers are kept yet; they come with the first explainer that asks an engine")
    return Cache(CACHE)
