"""Asking through the cache: what is paid once, what an answer depends on, and what it all cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.engines.asking import Price, Usage, ask, usage
from builders.engines.cache import PART, Cache
from builders.engines.http import HttpEngine, HttpSettings
from builders.engines.requests import Answer, Chat, Failure, Message, Outcome, Request, Score, Token, address, from_json, to_json
from builders.engines.scripted import ScriptedEngine
from pipelines.graph.closure import ROOT

texts = st.text(st.characters(codec="utf-8"), max_size=20)
messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts)
counts = st.integers(0, 2**40)
chats = st.builds(
    Chat, st.lists(messages, min_size=1, max_size=3).map(tuple), counts, st.floats(0, 2), counts, st.integers(0, 20), st.none() | texts
)
scores = st.builds(Score, texts, texts, st.integers(0, 20))
logprobs = st.floats(max_value=0, allow_nan=False)
tokens = st.builds(Token, texts, logprobs, st.lists(st.tuples(texts, logprobs), max_size=3).map(tuple))
answers = st.builds(Answer, texts, st.sampled_from(["stop", "length"]), st.lists(tokens, max_size=3).map(tuple), counts, counts, counts)


def echo(request: Request) -> Outcome:
    """Answer with the question's own words."""
    return Answer(request.messages[-1].content if isinstance(request, Chat) else request.continuation)


ENGINE = ScriptedEngine(echo, "echo")


def chat(text: str) -> Chat:
    """Return a question."""
    return Chat((Message("user", text),), 5)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """Return an empty cache."""
    opened = Cache(tmp_path / "new/answers.sqlite")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a cache lies that many examples use one after another."""
    return tmp_path_factory.mktemp("cache") / "answers.sqlite"


def changed(request: Chat | Score) -> Iterator[tuple[str, Chat | Score]]:
    """Yield the request with each of its fields changed, by the field's name."""
    if isinstance(request, Score):
        yield "prompt", replace(request, prompt=request.prompt + "a")
        yield "continuation", replace(request, continuation=request.continuation + "a")
        yield "border", replace(request, prompt=request.prompt + "b", continuation="c" + request.continuation)
    else:
        first, *rest = request.messages
        other = "user" if first.role == "system" else "system"
        yield "role", replace(request, messages=(replace(first, role=other), *rest))
        yield "content", replace(request, messages=(replace(first, content=first.content + "a"), *rest))
        yield "one more", replace(request, messages=(*request.messages, Message("user", "")))
        yield "max_tokens", replace(request, max_tokens=request.max_tokens + 1)
        yield "temperature", replace(request, temperature=request.temperature + 0.5)
        yield "seed", replace(request, seed=request.seed + 1)
        yield "form", replace(request, form=(request.form or "") + "{}")
    yield "top_logprobs", replace(request, top_logprobs=request.top_logprobs + 1)


@given(chats | scores)
def test_an_address_depends_on_everything_asked(request: Chat | Score) -> None:
    """A change of any single field of a request changes its address, and an equal request has the same."""
    own = address(ENGINE, request)

    assert own == address(ENGINE, replace(request))
    assert {name for name, other in changed(request) if address(ENGINE, other) == own} == set()


def test_the_words_of_a_chat_and_of_a_score_are_apart() -> None:
    """A Score and a Chat are never taken for each other, nor are two messages for one."""
    asked: list[Request] = [
        Score("a", "b"),
        Score("ab", ""),
        chat("ab"),
        Chat((Message("user", "a"), Message("user", "b")), 5),
    ]

    assert len({address(ENGINE, request) for request in asked}) == len(asked)


SERVER = HttpSettings("http://127.0.0.1:1/v1", "small")
SAME = {
    "address of the server": replace(SERVER, base_url="http://10.0.0.7:8000/v1"),
    "requests in flight": replace(SERVER, concurrency=1),
    "patience": replace(SERVER, timeout_s=1.0, retries=0),
    "key": replace(SERVER, key_variable="PATH"),
}


@pytest.mark.parametrize("name", SAME)
def test_an_address_does_not_depend_on_the_way_there(name: str) -> None:
    """Where a server stands and how it is asked leave every address as it was."""
    assert address(HttpEngine(SAME[name]), chat("a")) == address(HttpEngine(SERVER), chat("a"))


def test_an_address_depends_on_who_is_asked() -> None:
    """Another model or another kind of engine has other addresses."""
    engines: list[Any] = [HttpEngine(SERVER), HttpEngine(replace(SERVER, model="large")), ENGINE, ScriptedEngine(echo, "small")]

    assert len({address(engine, chat("a")) for engine in engines}) == len(engines)


@given(answers)
def test_an_answer_survives_json(answer: Answer) -> None:
    """Any answer, with whatever characters and infinities, reads back as it was written."""
    assert from_json(to_json(answer)) == answer


@given(st.dictionaries(st.text("0123456789abcdef", min_size=1, max_size=64), answers, max_size=5))
def test_an_answer_survives_the_cache(file: Path, kept: dict[str, Answer]) -> None:
    """What was put into the cache, anew or in place of another, is found by the next reader of the file under its own address."""
    writer = Cache(file)
    for key, answer in kept.items():
        writer.put(key, "scripted", "m", answer)
    writer.close()
    reader = Cache(file)
    found = reader.find([*kept, "not there"])
    reader.close()

    assert found == kept


@pytest.mark.parametrize("count", [0, 1, PART - 1, PART, PART + 1, 2 * PART + 3])
def test_any_number_of_addresses_is_looked_up(cache: Cache, count: int) -> None:
    """However many addresses are asked about, those that are there are found."""
    for number in range(0, count, 7):
        cache.put(str(number), "scripted", "m", Answer(str(number)))

    found = cache.find(str(number) for number in range(count))

    assert found == {str(number): Answer(str(number)) for number in range(0, count, 7)}


@dataclass
class Counting:
    """An engine that counts what it is asked; whatever contains *bad* fails."""

    bad: str = "!"
    kind: str = "scripted"
    model: str = "counting"
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def identity(self) -> dict[str, Any]:
        """Return what an answer depends on."""
        return {"kind": self.kind, "model": self.model}

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield outcomes, the last request's first."""
        for number, request in reversed(list(enumerate(requests))):
            said = echo(request)
            assert isinstance(said, Answer)
            self.asked[said.text] += 1
            yield number, Failure("bad", "it is") if self.bad and self.bad in said.text else said


@given(st.lists(st.sampled_from(["a", "b", "c", "d!", "e!"]), max_size=12))
def test_equal_requests_are_asked_once(file: Path, words: list[str]) -> None:
    """Every place gets the outcome of its own request, each distinct request is asked once, and only failures again."""
    cache = Cache(file)
    cache.prune(())
    engine = Counting()
    first = {place: outcome for place, _, outcome in ask(engine, [chat(word) for word in words], cache)}
    once = Counter(engine.asked)
    second = {place: (key, outcome) for place, key, outcome in ask(engine, [chat(word) for word in words], cache)}
    cache.close()

    assert first == {place: Failure("bad", "it is") if "!" in word else Answer(word) for place, word in enumerate(words)}
    assert once == Counter(set(words))
    assert engine.asked == once + Counter(word for word in set(words) if "!" in word)
    assert second == {place: (address(engine, chat(word)), first[place]) for place, word in enumerate(words)}


def test_what_failed_can_succeed_later(cache: Cache) -> None:
    """Failures are not kept: once the cause is mended the same request gets its answer."""
    failed = list(ask(Counting(), [chat("a!")], cache))
    mended = list(ask(Counting(bad=""), [chat("a!")], cache))

    assert [type(outcome) for _, _, outcome in failed + mended] == [Failure, Answer]


def test_an_engine_that_dies_leaves_its_answers(cache: Cache) -> None:
    """Answers that came before an engine broke are known to the next run."""

    def breaks(request: Request) -> Outcome:
        if request == chat("c"):
            raise RuntimeError("gone")
        return echo(request)

    requests = [chat(word) for word in "abcd"]
    with pytest.raises(RuntimeError, match="gone"):
        list(ask(ScriptedEngine(breaks, "echo"), requests, cache))

    assert set(cache.find(address(ENGINE, request) for request in requests).values()) == {Answer("a"), Answer("b")}


def test_what_nothing_uses_is_dropped(cache: Cache) -> None:
    """Pruning drops every answer but those used, returns how many, and can be done again."""
    for key in "abcde":
        cache.put(key, "scripted", "m", Answer(key))

    assert cache.prune({"a", "c", "unknown"}) == 3
    assert cache.prune({"a", "c"}) == 0
    assert cache.find("abcde") == {"a": Answer("a"), "c": Answer("c")}


def test_the_cache_tells_what_it_holds(cache: Cache) -> None:
    """Sizes are told by engine and model, in their order, and an answer that is put again counts once."""
    for engine, model, key in (("vllm", "m", "a"), ("openai", "n", "b"), ("openai", "m", "c"), ("openai", "m", "d"), ("openai", "m", "d")):
        cache.put(key, engine, model, Answer("x"))
    size = len(to_json(Answer("x")))

    assert cache.sizes() == [("openai", "m", 2, 2 * size), ("openai", "n", 1, size), ("vllm", "m", 1, size)]


PRICES = [
    (Price(), 0.0),
    (Price(prompt=1), 1.2),
    (Price(cached=1), 0.3),
    (Price(output=1), 0.05),
    (Price(0.13, 0.013, 0.4), round(1.2 * 0.13 + 0.3 * 0.013 + 0.05 * 0.4, 6)),
]


@pytest.mark.parametrize(("price", "dollars"), PRICES)
def test_usage_is_added_up(price: Price, dollars: float) -> None:
    """Tokens add up, and each kind is paid at its own price, cached ones not twice."""
    spent = usage([Answer("a", "stop", (), 1_000_000, 300_000, 20_000), Answer("b", "stop", (), 500_000, 0, 30_000)], price)

    assert spent == Usage(2, 1_500_000, 300_000, 50_000, pytest.approx(dollars, abs=1e-9))


def test_nothing_costs_nothing() -> None:
    """No answers cost no dollars."""
    assert usage([], Price(1, 1, 1)) == Usage(0, 0, 0, 0, 0.0)


WRITER = """
import sys
from pathlib import Path
from builders.engines.cache import Cache
from builders.engines.requests import Answer
cache = Cache(Path(sys.argv[1]))
number = 0
while True:
    cache.put(str(number), "scripted", "m", Answer(f"answer {number} " * 50))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("after", [1, 100, 1500])
def test_answers_survive_a_kill(tmp_path: Path, after: int) -> None:
    """A process that is killed outright leaves every answer whose `put` had returned, and a cache that can be used."""
    path = tmp_path / "answers.sqlite"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        kept = [int(writer.stdout.readline()) for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        kept += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]

    cache = Cache(path)
    found = cache.find(str(number) for number in kept)
    cache.put("more", "scripted", "m", Answer("more"))
    cache.close()

    assert writer.returncode == -signal.SIGKILL
    assert found == {str(number): Answer(f"answer {number} " * 50) for number in kept}
