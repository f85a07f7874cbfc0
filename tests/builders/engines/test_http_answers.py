"""What is asked of an OpenAI-compatible server, what its answers carry, and how it is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from clients import engine_of, outcome_of, question
from llm_server import MODEL, Reply, chat, error, listed, scored, serving, token, usage

from builders.engines.http import PLAIN, HttpEngine, HttpSettings
from builders.engines.requests import Answer, Chat, Failure, Message, Score, Token
from builders.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

FINE = chat("fine")
FORM = '{"type": "object"}'
HTML = Reply(b"<html>Welcome</html>", headers=(("Content-Type", "text/html"),))


def test_what_is_sent() -> None:
    """Everything that a request holds reaches the server, and nothing that was not asked for."""
    with serving(lambda *_: chat("fine", logprobs=[token("fine", -0.1)])) as server:
        outcome_of(engine_of(server), Chat((Message("system", "Be."), Message("user", "Hm")), 9, 0.5, 3, top_logprobs=2, form=FORM))
        outcome_of(engine_of(server), question())

    assert server.bodies[0] == {
        "model": MODEL,
        "messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hm"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 3,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}},
    }
    assert set(server.bodies[1]) == {"model", "messages", "max_tokens", "temperature", "seed", *PLAIN}


def test_what_one_kind_of_server_wants_is_sent_too() -> None:
    """Settings in `extra` reach the server and are part of what an answer depends on."""
    with serving(lambda *_: FINE) as server:
        engine = HttpEngine(HttpSettings(server.url, MODEL, extra={"repetition_penalty": 1.0, "top_k": 0}))
        outcome_of(engine, question())

    assert {name: server.bodies[0][name] for name in ("repetition_penalty", "top_k")} == {"repetition_penalty": 1.0, "top_k": 0}
    assert engine.identity == {"kind": "openai", "model": MODEL, "extra": {"repetition_penalty": 1.0, "top_k": 0}}


COUNTED = {
    "cached": (usage(10, 4, 6), (10, 6, 4)),
    "no word of a cache": (usage(10, 4, None), (10, 0, 4)),
    "cache unknown": (usage(10, 4, None) | {"prompt_tokens_details": {"cached_tokens": None}}, (10, 0, 4)),
    "not told": (None, (0, 0, 0)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_tokens_are_counted_as_the_server_tells(name: str) -> None:
    """Tokens read, those of them from the server's cache, and tokens written are the server's own counts."""
    told, expected = COUNTED[name]
    with serving(lambda *_: chat("fine", finish="length", usage=told)) as server:
        answer = outcome_of(engine_of(server), question())

    assert answer == Answer("fine", "length", (), *expected)


def test_log_probabilities_of_an_answer() -> None:
    """Each token of an answer comes with its log-probability and the alternatives, and their absence is a failure."""
    logprobs = [token("Ye", -0.25, ("No", -1.5)), token("s", -0.5)]
    with serving(lambda body, _: chat("Yes", logprobs=logprobs if body.get("logprobs") else None)) as server:
        answer = outcome_of(engine_of(server), question(top_logprobs=2))
    with serving(lambda *_: chat("Yes")) as server:
        without = outcome_of(engine_of(server), question(top_logprobs=2))

    assert isinstance(answer, Answer)
    assert answer.tokens == (Token("Ye", -0.25, (("Ye", -0.25), ("No", -1.5))), Token("s", -0.5, (("s", -0.5),)))
    assert getattr(without, "status", None) == "no log-probabilities"


ECHOED: dict[str, tuple[list[str], int]] = {
    "plain": (["The", " sky", " is", " blue", "ish"], 0),
    "a token across the border": (["The", " sky is bl", "ue", "ish"], 0),
    "a token of the tokenizer's own in front": (["<|begin_of_text|>", "The", " sky", " is", " blue", "ish"], 1),
}


@pytest.mark.parametrize("name", ECHOED)
def test_a_continuation_is_scored(name: str) -> None:
    """Of an echoed text the tokens that lie in the continuation are returned, not those before, nor the one that was added."""
    tokens, special = ECHOED[name]
    with serving(lambda *_: scored(tokens, special=special)) as server:
        answer = outcome_of(engine_of(server), Score("The sky is", " blueish", top_logprobs=2))
        bare = outcome_of(engine_of(server), Score("The sky is", " blueish"))

    expected = [(text, -0.5 * place) for place, text in enumerate(tokens)][-2:]
    assert isinstance(answer, Answer)
    assert isinstance(bare, Answer)
    assert answer.text == " blueish"
    assert [(found.text, found.logprob) for found in answer.tokens] == expected
    assert [found.top for found in answer.tokens] == [((text, value), ("?", value - 1)) for text, value in expected]
    assert [found.top for found in bare.tokens] == [(), ()]
    assert {key: server.bodies[0][key] for key in ("prompt", "echo", "max_tokens", "logprobs")} == {
        "prompt": "The sky is blueish", "echo": True, "max_tokens": 1, "logprobs": 2,
    }  # fmt: skip


@pytest.mark.parametrize("reply", [chat("x", choices=[]), chat("x"), error(404, "no such path")], ids=["nothing", "no logprobs", "404"])
def test_a_server_that_cannot_score(reply: Reply) -> None:
    """A server without `echo` is a failure that says so, not a crash."""
    with serving(lambda *_: reply) as server:
        outcome = outcome_of(engine_of(server), Score("a", "b"))

    assert isinstance(outcome, Failure)
    assert outcome.status in ("no log-probabilities", "no such model")


KEY = "sk-very-secret-0123456789"


def test_the_key_is_sent_and_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the environment goes out as a bearer token, and is in nothing that the engine says of itself or of failures."""
    monkeypatch.setenv("OUR_TEST_KEY", KEY)
    with serving(lambda *_: error(401, f"Incorrect API key provided: {KEY}.")) as server:
        engine = engine_of(server, key_variable="OUR_TEST_KEY")
        outcome = outcome_of(engine, question())

    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in f"{engine.settings} {engine.identity}"
    assert KEY not in str(outcome)


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """An engine whose key is not in the environment is one line that names the variable."""
    monkeypatch.delenv("OUR_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("OUR_TEST_KEY", value)

    with pytest.raises(UserError, match=r"^the environment variable OUR_TEST_KEY is not set; export the key of http://x in it$"):
        HttpEngine(HttpSettings("http://x", MODEL, "OUR_TEST_KEY"))


def refused(act: Callable[[], object]) -> str:
    """Return the one line with which *act* is refused."""
    with pytest.raises(UserError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nobody_there() -> None:
    """A server that cannot be reached is one line with its address and what to do, and requests to it fail one by one."""
    with serving(lambda *_: FINE) as server:
        pass
    engine = engine_of(server, retries=0)

    assert refused(engine.reach) == f"{server.url}: cannot be reached; start the server, or correct `base_url`"
    assert getattr(outcome_of(engine, question()), "status", None) == "connection"


def test_another_model() -> None:
    """A server that has other models only is one line that lists them."""
    with serving(lambda *_: FINE, listed("b-2", "a-1")) as server:
        said = refused(engine_of(server).reach)

    assert said == f"{server.url}: has no model {MODEL!r}; choose one that it has: a-1, b-2"


@pytest.mark.parametrize("variable", ["OUR_TEST_KEY", None])
def test_a_refused_key(monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
    """A key that the server refuses is one line that names the variable, or asks for one, and does not hold the key."""
    monkeypatch.setenv("OUR_TEST_KEY", KEY)
    with serving(lambda *_: FINE, error(401, f"Incorrect API key provided: {KEY}.")) as server:
        said = refused(engine_of(server, key_variable=variable).reach)

    assert said.startswith(f"{server.url}: ")
    assert (variable or "key_variable") in said
    assert "None" not in said.replace("'param': None", "")
    assert variable is None or KEY not in said


QUIET = {
    "here": listed("other", MODEL),
    "none listed": listed(),
    "no list": error(404, "no such path"),
    "broken list": error(500, "oops"),
    "a web page": HTML,
    "a bare list": Reply([{"id": MODEL}]),
}


@pytest.mark.parametrize("name", QUIET)
def test_a_server_that_may_do(name: str) -> None:
    """A server that has the model, or tells nothing readable of its models, is taken at its word."""
    with serving(lambda *_: FINE, QUIET[name]) as server:
        assert engine_of(server).reach() is None  # type: ignore[func-returns-value]  # it would raise
