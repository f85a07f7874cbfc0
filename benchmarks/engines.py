"""Measures the time that our client of a server adds to the server's own: CPU and wall time per request, and the ratio to a bare client.

`python -m benchmarks.engines`: the server answers at once and lives in a process of its own, so that its work does not
count. The bar is 2 ms of CPU per request at 64 in flight.
"""

from __future__ import annotations

import asyncio
import cProfile
import multiprocessing
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import httpx2
import openai

from builders.engines.asking import ask
from builders.engines.cache import Cache
from builders.engines.http import HttpEngine, HttpSettings
from builders.engines.requests import Answer, Chat, Message
from tests.support.llm_server import MODEL, chat, serving

WARM = 64  # requests before the clock starts
PROMPT = "word " * 1500  # about what 40 windows take
Work = Callable[[list[Chat]], int]


def serve(pipe: Any) -> None:
    """Answer until told to stop."""
    reply = chat("[EXPLANATION]: the ending -er of adjectives in the comparative")
    with serving(lambda *_: reply) as server:
        pipe.send(server.url)
        pipe.recv()


def questions(first: int, count: int) -> list[Chat]:
    """Return distinct questions of a usual length."""
    return [Chat((Message("system", PROMPT), Message("user", f"latent {number}")), 100) for number in range(first, first + count)]


def ours(url: str, flight: int) -> Work:
    """Return the engine's own loop."""
    engine = HttpEngine(HttpSettings(url, MODEL, concurrency=flight))
    return lambda asked: sum(isinstance(outcome, Answer) for _, outcome in engine.run(asked))


def kept(url: str, flight: int, folder: Path) -> Work:
    """Return the engine's loop with every answer kept on disk as it comes."""
    engine = HttpEngine(HttpSettings(url, MODEL, concurrency=flight))
    return lambda asked: sum(isinstance(outcome, Answer) for _, _, outcome in ask(engine, asked, Cache(folder / "answers.sqlite")))


def gathered(flight: int, one: Callable[[Any, dict[str, Any]], Any], open_client: Callable[[], Any]) -> Work:
    """Return a loop of *flight* workers that does nothing but ask."""

    async def all_of(asked: list[Chat]) -> int:
        waiting = iter(asked)
        answered = 0

        async def worker(client: Any) -> None:
            nonlocal answered
            for request in waiting:
                await one(client, {"model": MODEL, "messages": [vars(message) for message in request.messages], "max_tokens": 100})
                answered += 1

        async with open_client() as client:
            await asyncio.gather(*(worker(client) for _ in range(flight)))
        return answered

    return lambda asked: asyncio.run(all_of(asked))


def bare(url: str, flight: int) -> dict[str, Work]:
    """Return loops that use only the openai library, which our client uses, and only the HTTP library below it."""

    async def by_openai(client: Any, body: dict[str, Any]) -> None:
        await client.chat.completions.create(**body)

    async def by_httpx(client: Any, body: dict[str, Any]) -> None:
        (await client.post(f"{url}/chat/completions", json=body)).json()

    return {
        "openai": gathered(flight, by_openai, lambda: openai.AsyncOpenAI(base_url=url, api_key="none")),
        "httpx": gathered(flight, by_httpx, lambda: httpx2.AsyncClient(limits=httpx2.Limits(max_connections=flight))),
    }


def measured(work: Work, count: int, first: int) -> tuple[float, float]:
    """Return milliseconds of this process' CPU and of wall time per request."""
    work(questions(first, WARM))
    asked = questions(first + WARM, count)
    cpu, wall = time.process_time(), time.perf_counter()
    answered = work(asked)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if answered != count:
        raise click.ClickException(f"{count - answered} of {count} requests were not answered")
    return 1e3 * cpu / count, 1e3 * wall / count


@click.command()
@click.option("--requests", "count", default=2000, help="Requests per loop.", show_default=True)
@click.option("--flight", default=64, help="Requests in flight.", show_default=True)
@click.option("--repeats", default=3, help="Times each loop runs; the median is told.", show_default=True)
@click.option("--profile", is_flag=True, help="Say where the engine's CPU time goes.")
def main(count: int, flight: int, repeats: int, profile: bool) -> None:
    """Print milliseconds per request of each loop, and the engine's ratio to the bare ones."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=serve, args=(other,), daemon=True)
    process.start()
    url = pipe.recv()
    with tempfile.TemporaryDirectory() as folder:
        loops = {"engine": ours(url, flight), "engine and cache": kept(url, flight, Path(folder)), **bare(url, flight)}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
        for number in range(repeats):  # in turns, so that other load on the machine falls on all of them
            for name, work in loops.items():
                found[name].append(measured(work, count, number * (count + WARM)))
    middle = {name: [sorted(values)[repeats // 2] for values in zip(*pairs, strict=True)] for name, pairs in found.items()}
    for name, (cpu, wall) in middle.items():
        ratios = ", ".join(f"{cpu / middle[other][0]:.2f} of {other}" for other in ("openai", "httpx"))
        click.echo(f"{name}: {cpu:.2f} ms CPU and {wall:.2f} ms wall per request ({ratios})")
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(loops["engine"], questions(10**6, count))
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    pipe.send("stop")
    process.join(5)


if __name__ == "__main__":
    main()
