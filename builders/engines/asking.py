"""Asking: put to an engine only what the cache does not hold, keep every answer as it comes, and add up the cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from builders.engines.cache import Cache
from builders.engines.requests import Answer, Engine, Outcome, Request, address


def ask(engine: Engine, requests: Sequence[Request], cache: Cache) -> Iterator[tuple[int, str, Outcome]]:
    """Yield (place, address, outcome) of every request, answers from the cache first.

    Equal requests are asked once. Failures are not kept, so a rerun asks them again.
    """
    addresses = [address(engine, request) for request in requests]
    known = cache.find(addresses)
    places: dict[str, list[int]] = {}
    for place, key in enumerate(addresses):
        if key in known:
            yield place, key, known[key]
        else:
            places.setdefault(key, []).append(place)
    keys = list(places)
    for number, outcome in engine.run([requests[places[key][0]] for key in keys]):
        key = keys[number]
        if isinstance(outcome, Answer):
            cache.put(key, engine.kind, engine.model, outcome)
        for place in places[key]:
            yield place, key, outcome


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens: *prompt* tokens read anew, *cached* ones read before (by the engine), and *output* tokens written."""

    prompt: float = 0.0
    cached: float = 0.0
    output: float = 0.0


@dataclass(frozen=True)
class Usage:
    """What answers cost: how many there are, their tokens, and US dollars. Cached tokens are part of the prompt tokens."""

    answers: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    dollars: float


def usage(answers: Iterable[Answer], price: Price) -> Usage:
    """Return what *answers* cost at a price. Answers from our own cache count like the rest: they were paid for once."""
    counted = list(answers)
    prompt, cached, output = (sum(getattr(answer, f"{name}_tokens") for answer in counted) for name in ("prompt", "cached", "output"))
    dollars = ((prompt - cached) * price.prompt + cached * price.cached + output * price.output) / 1e6
    return Usage(len(counted), prompt, cached, output, round(dollars, 6))
