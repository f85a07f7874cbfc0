"""The client of OpenAI-compatible servers, against one that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from clients import RETRIES, engine_of, outcome_of, question
from llm_server import RESET, Reply, chat, error, serving

from builders.engines.requests import Answer, Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

FINE = chat("fine")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the client's waits before a retry take no time, and return what they would have been."""
    waits: list[float] = []
    real = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr("openai._base_client.anyio.sleep", note)
    return waits


@dataclass(frozen=True)
class Fault:
    """What a server does (the last reply from then on), and what becomes of the request: *said* is in answer or reason."""

    replies: Sequence[Reply]
    status: str
    said: str
    asked: int


HANG = Reply(None, hold=Event())  # never set
VLLM_LONG = "This model's maximum context length is 4096 tokens. However, you requested 4600 tokens (4100 in the messages, 500 in the "
OTHER_LONG = "The decoder prompt (length 4600) is longer than the maximum model length of 4096. Make sure that `max_model_len` is not"
HTML = Reply(b"<html>Welcome</html>", headers=(("Content-Type", "text/html"),))
FAULTS: dict[str, Fault] = {
    "busy, then fine": Fault([error(429, "slow down"), FINE], "ok", "fine", 2),
    "always busy": Fault([error(429, "slow down")], "rate limit", "slow down", 1 + RETRIES),
    "broken, then fine": Fault([error(500, "oops"), error(503, "loading"), FINE], "ok", "fine", 3),
    "always broken": Fault([error(500, "oops")], "HTTP 500", "oops", 1 + RETRIES),
    "always away": Fault([error(502, "bad gateway")], "HTTP 502", "bad gateway", 1 + RETRIES),
    "reset, then fine": Fault([RESET, FINE], "ok", "fine", 2),
    "always reset": Fault([RESET], "connection", "the connection broke: ", 1 + RETRIES),
    "hung up early, then fine": Fault([Reply({}, fault="short"), FINE], "ok", "fine", 2),
    "always hung up early": Fault([Reply({}, fault="short")], "connection", "the connection broke: ", 1 + RETRIES),
    "half an answer": Fault([Reply(FINE.content[:40])], "unreadable", "the server's answer cannot be read", 1),
    "a web page": Fault([HTML], "unreadable", "the server's answer cannot be read", 1),
    "a list": Fault([Reply([])], "unreadable", "the server's answer cannot be read", 1),
    "no choices": Fault([chat("", choices=[])], "empty", "without a choice", 1),
    "choices missing": Fault([Reply({"id": "1"})], "empty", "without a choice", 1),
    "no message": Fault([chat("", choices=[{"index": 0, "finish_reason": "stop"}])], "unreadable", "cannot be read", 1),
    "no text": Fault([chat(None, finish="length")], "empty", "'length'", 1),
    "empty text": Fault([chat("")], "empty", "'stop'", 1),
    "white space": Fault([chat(" \n")], "empty", "'stop'", 1),
    "half a character": Fault([Reply(b'{"choices": [{"message": {"content": "a \\ud83d"}, "finish_reason": "stop"}]}')], "ok", "a ", 1),
    "refusal": Fault([chat(None, refusal="I must not.")], "refused", "I must not.", 1),
    "refusal of two lines": Fault([chat(None, refusal="I must not.\nNever.")], "refused", "I must not.", 1),
    "refusal in words": Fault([chat("I'm sorry, I can't help.")], "ok", "I'm sorry", 1),
    "too long": Fault([error(400, VLLM_LONG)], "too long", "4096 tokens. However, you requested 4600", 1),
    "too long in other words": Fault([error(400, OTHER_LONG)], "too long", "4096", 1),
    "bad request": Fault([error(400, "top_k must be positive")], "HTTP 400", "top_k must be positive", 1),
    "wrong key": Fault([error(401, "Incorrect API key")], "HTTP 401", "Incorrect API key", 1),
    "no such model": Fault([error(404, "The model `x` does not exist.")], "no such model", "does not exist", 1),
    "unprocessable": Fault([error(422, "no such role")], "HTTP 422", "no such role", 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_becomes_an_answer_or_a_reason(name: str, slept: list[float]) -> None:
    """Passing faults are tried again, lasting ones end as a failure of one line with a status, and hopeless ones are asked once."""
    fault = FAULTS[name]
    with serving(lambda _, attempt: fault.replies[min(attempt, len(fault.replies) - 1)]) as server:
        outcome = outcome_of(engine_of(server), question())
        said = (outcome.text, "ok") if isinstance(outcome, Answer) else (outcome.reason, outcome.status)

    assert (said[1], len(server.bodies)) == (fault.status, fault.asked), outcome
    assert fault.said in said[0]
    assert isinstance(outcome, Answer) or "\n" not in outcome.reason
    assert len(slept) == fault.asked - 1
    assert said[0].encode()  # whatever came can be written to a file


@pytest.mark.parametrize(("timeout", "replies", "status", "asked"), [(0.02, [HANG], "time-out", 3), (0.5, [HANG, FINE], "ok", 2)])
def test_a_server_that_hangs(slept: list[float], timeout: float, replies: list[Reply], status: str, asked: int) -> None:
    """A request that gets no answer in time is tried again, and fails as a time-out in the end."""
    with serving(lambda _, attempt: replies[min(attempt, len(replies) - 1)]) as server:
        outcome = outcome_of(engine_of(server, timeout_s=timeout), question())

    assert (getattr(outcome, "status", "ok"), len(server.bodies)) == (status, asked)


@pytest.mark.parametrize(("name", "value"), [("Retry-After", "7"), ("retry-after-ms", "7000")])
def test_the_server_says_when_to_come_back(slept: list[float], name: str, value: str) -> None:
    """Retry-After is honoured to the second."""
    with serving(lambda _, attempt: FINE if attempt else error(429, "slow down", (name, value))) as server:
        outcome = outcome_of(engine_of(server), question())

    assert isinstance(outcome, Answer)
    assert slept == [7.0]


def test_as_many_in_flight_as_allowed_and_no_more() -> None:
    """The engine fills its concurrency and never goes beyond it, over as many connections."""
    full = Event()

    def held(_: dict[str, Any], __: int) -> Reply:
        if server.in_flight >= 8:
            full.set()
        return Reply(FINE.body, hold=full)

    with serving(held) as server:
        outcomes = dict(engine_of(server, concurrency=8).run([question(str(number)) for number in range(50)]))

    assert full.is_set()
    assert server.most_in_flight == 8
    assert server.connections == 8
    assert sorted(outcomes) == list(range(50))


def test_results_carry_their_place_whatever_comes_first() -> None:
    """Answers that come in another order than the questions still stand at their questions' places."""
    count = 12
    arrived = [Event() for _ in range(count + 1)]
    arrived[count].set()

    def backwards(body: dict[str, Any], _: int) -> Reply:
        number = int(body["messages"][0]["content"])
        return Reply(chat(f"answer {number}").body, hold=arrived[number + 1])

    with serving(backwards) as server:
        order = []
        for place, outcome in engine_of(server, concurrency=count).run([question(str(number)) for number in range(count)]):
            order.append((place, outcome.text if isinstance(outcome, Answer) else outcome.reason))
            arrived[place].set()

    assert order == [(number, f"answer {number}") for number in reversed(range(count))]


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_no_more_is_asked_than_the_caller_takes(concurrency: int) -> None:
    """What was answered and not yet handed over is never more than what may be in flight: a crash loses no more than that."""
    with serving(lambda body, _: chat(body["messages"][0]["content"])) as server:
        ahead = []
        for taken, _ in enumerate(engine_of(server, concurrency=concurrency).run([question(str(number)) for number in range(200)]), 1):
            ahead.append(len(server.answered) - taken)

    assert max(ahead) <= concurrency


def test_an_abandoned_run_stops_asking() -> None:
    """Whoever stops taking outcomes leaves no request behind, and the engine can run again."""
    with serving(lambda *_: FINE) as server:
        engine = engine_of(server, concurrency=2)
        taken = list(itertools.islice(engine.run([question(str(number)) for number in range(100)]), 3))
        before = len(server.bodies)
        again = outcome_of(engine, question())

    assert len(taken) == 3
    assert before < 30
    assert isinstance(again, Answer)


def test_one_failure_does_not_stop_the_others() -> None:
    """Failures and answers come side by side, each at its place."""
    with serving(lambda body, _: error(400, "no") if body["messages"][0]["content"] in "159" else FINE) as server:
        outcomes = dict(engine_of(server, concurrency=3).run([question(str(number)) for number in range(10)]))

    assert {place for place, outcome in outcomes.items() if isinstance(outcome, Failure)} == {1, 5, 9}


def test_no_requests_no_client() -> None:
    """Nothing asked is nothing sent."""
    with serving(lambda *_: FINE) as server:
        assert list(engine_of(server).run([])) == []
        assert server.bodies == []
