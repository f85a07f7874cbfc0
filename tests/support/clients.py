"""The client of the scripted server, with few retries."""

from __future__ import annotations

from typing import Any

from llm_server import MODEL, Server

from builders.engines.http import HttpEngine, HttpSettings
from builders.engines.requests import Chat, Message, Outcome, Score

RETRIES = 2


def question(text: str = "Why?", **more: Any) -> Chat:
    """Return a short question."""
    return Chat((Message("user", text),), 5, **more)


def engine_of(server: Server, **more: Any) -> HttpEngine:
    """Return the client of a server, which tries again twice."""
    return HttpEngine(HttpSettings(**({"base_url": server.url, "model": MODEL, "retries": RETRIES} | more)))


def outcome_of(engine: HttpEngine, request: Chat | Score) -> Outcome:
    """Return the outcome of one request."""
    ((place, outcome),) = engine.run([request])
    assert place == 0
    return outcome
