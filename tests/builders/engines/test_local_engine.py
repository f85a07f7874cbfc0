"""The transformers engine, held against the model called by hand."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM

from builders.engines import local
from builders.engines.local import LocalEngine, LocalSettings
from builders.engines.requests import Answer, Chat, Failure, Message, Outcome, Request, Score
from builders.engines.schemas import fits, named, one_of, several
from builders.errors import UserError
from builders.subjects import places

if TYPE_CHECKING:
    from collections.abc import Sequence


TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
LIMIT = 128  # of the tiny checkpoint


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny checkpoint with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "tiny-chat"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> LocalEngine:
    """Return the engine on the CPU."""
    return LocalEngine(LocalSettings(places.Source(str(checkpoint)), "float32", "cpu"))


@pytest.fixture(scope="module")
def by_hand(checkpoint: Path) -> tuple[Any, Any]:
    """Return model and tokenizer without the engine."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(checkpoint)


def chat(*words: str, most: int = 12, **more: Any) -> Chat:
    """Return a conversation of a system message and the user's *words*."""
    return Chat((Message("system", "Be brief."), *(Message("user", text) for text in words)), most, **more)


def outcomes(engine: LocalEngine, requests: Sequence[Request]) -> list[Outcome]:
    """Return the outcome of every request, by place."""
    found = dict(engine.run(requests))
    return [found[place] for place in range(len(requests))]


def ids_of(tokenizer: Any, request: Chat) -> torch.Tensor:
    """Return the conversation as the library's own template call gives it."""
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return torch.tensor([tokenizer.encode(text, add_special_tokens=False)])


def greedy(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the prompt and twelve tokens more, always the likeliest."""
    with torch.no_grad():
        made: torch.Tensor = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=1)
    return made[0]


WORDS = [("The river",), ("Count the rows.", "And again: 日本 🙂"), ("",)]


@pytest.mark.parametrize("words", WORDS)
def test_a_greedy_answer_is_the_models_own(engine: LocalEngine, by_hand: tuple[Any, Any], words: tuple[str, ...]) -> None:
    """At temperature 0 the answer is what `generate` writes after the template, and tokens are counted."""
    model, tokenizer = by_hand
    request = chat(*words)
    ids = ids_of(tokenizer, request)
    written = greedy(model, ids)[ids.shape[1] :]

    (answer,) = outcomes(engine, [request])

    assert isinstance(answer, Answer)
    assert answer.text == tokenizer.decode(written, skip_special_tokens=True)
    assert (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens) == (ids.shape[1], 0, len(written))
    assert answer.finish == ("length" if len(written) == 12 else "stop")


def test_log_probabilities_are_the_models_own(engine: LocalEngine, by_hand: tuple[Any, Any]) -> None:
    """Each written token has the log-probability of a plain forward pass over all, and the likeliest come first."""
    model, tokenizer = by_hand
    request = chat("The river", top_logprobs=3)
    ids = ids_of(tokenizer, request)
    with torch.no_grad():
        whole = greedy(model, ids)
        logprobs = model(whole[None]).logits[0].log_softmax(-1)[ids.shape[1] - 1 : -1]

    (answer,) = outcomes(engine, [request])

    assert isinstance(answer, Answer)
    written = whole[ids.shape[1] :].tolist()
    best = logprobs.topk(3)
    own = [float(row[token]) for row, token in zip(logprobs, written, strict=True)]
    names = [[tokenizer.decode([token]) for token in row] for row in best.indices.tolist()]
    assert [token.text for token in answer.tokens] == [tokenizer.decode([token]) for token in written]
    assert [token.logprob for token in answer.tokens] == pytest.approx(own, abs=1e-4)
    assert [[name for name, _ in token.top] for token in answer.tokens] == names
    assert [[value for _, value in token.top] for token in answer.tokens] == [pytest.approx(row, abs=1e-4) for row in best.values.tolist()]


SCORED = [("The river carried", " the boats"), ("", "The river"), ("日本 and ", "café 🙂 at"), ("def rows(", "table)")]


@pytest.mark.parametrize(("prompt", "continuation"), SCORED)
def test_a_score_is_a_forward_pass(engine: LocalEngine, by_hand: tuple[Any, Any], prompt: str, continuation: str) -> None:
    """The continuation's tokens have the log-probabilities of one forward pass over prompt and continuation."""
    model, tokenizer = by_hand
    encoded = tokenizer(prompt + continuation, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    places = [place for place, (low, high) in enumerate(encoded["offset_mapping"]) if place and low >= len(prompt) and high > low]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)

    answer, bare = outcomes(engine, [Score(prompt, continuation, top_logprobs=2), Score(prompt, continuation)])

    assert isinstance(answer, Answer)
    assert isinstance(bare, Answer)
    own = [float(logprobs[place - 1, ids[place]]) for place in places]
    assert [token.logprob for token in answer.tokens] == pytest.approx(own, abs=1e-5)
    assert [token.top[0][1] for token in answer.tokens] == pytest.approx([float(logprobs[place - 1].max()) for place in places], abs=1e-5)
    assert [token.logprob for token in bare.tokens] == [token.logprob for token in answer.tokens]
    assert [len(token.top) for token in answer.tokens + bare.tokens] == [2] * len(places) + [0] * len(places)
    assert (answer.text, answer.prompt_tokens, answer.output_tokens) == (continuation, len(ids), 0)


WINDOWS = [
    "the mill",
    " and the miller counted",
    "café",
    " 🙂",
    "x",
    ". Return the rows",
    "日本",
    " past the mill, and",
    " boats",
    "def rows(table)",
]
PROMPT = "The river carried the boats:\n"


@pytest.fixture(scope="module")
def recurrent(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    """Return the engine of a random Mamba with the same tokenizer."""
    folder = tmp_path_factory.mktemp("recurrent") / "tiny-mamba"
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MambaForCausalLM(MambaConfig(vocab_size=384, hidden_size=32, num_hidden_layers=2, state_size=8)).save_pretrained(folder)
    return LocalEngine(LocalSettings(places.Source(str(folder)), "float32", "cpu"))


@pytest.mark.parametrize("name", ["engine", "recurrent"])
def test_a_batch_of_requests_is_as_many_requests(name: str, request: pytest.FixtureRequest) -> None:
    """Continuations at once, whatever their prompts, have the tokens, numbers and alternatives of each asked for by itself."""
    engine: LocalEngine = request.getfixturevalue(name)
    asked = [Score(PROMPT, text, number % 3) for number, text in enumerate(WINDOWS)] + [Score(text, " the end") for text in WINDOWS[:3]]

    together = outcomes(engine, asked)
    alone = [outcomes(engine, [one])[0] for one in asked]

    for mine, theirs, one in zip(together, alone, asked, strict=True):
        assert isinstance(mine, Answer)
        assert isinstance(theirs, Answer)
        assert replace(mine, tokens=()) == replace(theirs, tokens=())
        assert [(token.text, len(token.top)) for token in mine.tokens] == [(token.text, one.top_logprobs) for token in theirs.tokens]
        assert [token.logprob for token in mine.tokens] == pytest.approx([token.logprob for token in theirs.tokens], abs=1e-4)
    assert "".join(token.text for answer in together[:2] if isinstance(answer, Answer) for token in answer.tokens) == "".join(WINDOWS[:2])


def test_every_place_gets_its_own_answer(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversations, continuations, what is too long and what holds nothing keep their places, also where they are read in parts."""
    requests: list[Request] = [Score(PROMPT, text) for text in WINDOWS]
    requests[3:3] = [chat("a"), Score(PROMPT, ""), Score(PROMPT, "x" * 3 * LIMIT), chat("b")]
    whole = outcomes(engine, requests)
    monkeypatch.setattr(local, "TOGETHER", 4)

    parts = outcomes(engine, requests)

    assert [type(outcome) for outcome in whole] == [Failure if place == 5 else Answer for place in range(len(requests))]
    for outcome, part, asked in zip(whole, parts, requests, strict=True):
        if isinstance(outcome, Answer) and isinstance(part, Answer) and isinstance(asked, Score):
            assert (outcome.text, part.text) == (asked.continuation, asked.continuation)
            assert bool(outcome.tokens) == bool(asked.continuation)
            assert [token.logprob for token in part.tokens] == pytest.approx([token.logprob for token in outcome.tokens], abs=1e-4)
        else:
            assert part == outcome


def test_answers_come_batch_by_batch(checkpoint: Path) -> None:
    """What is asked for first is there before the last batch is read, so that a crash loses one batch."""
    engine = LocalEngine(LocalSettings(places.Source(str(checkpoint)), "float32", "cpu", batch_tokens=1))
    seen: list[int] = []
    hook = engine._model.register_forward_hook(lambda *_: seen.append(1))
    coming = engine.run([Score(PROMPT, text) for text in WINDOWS])

    counts = [len(seen) for _ in coming]
    hook.remove()

    assert [b - a for a, b in itertools.pairwise(counts)] == [1] * (len(WINDOWS) - 1)


def test_too_long_is_a_failure_beside_answers(engine: LocalEngine) -> None:
    """A prompt that leaves no room for its answer fails with both numbers, and those around it are answered."""
    requests: list[Request] = [chat("a"), chat("word " * 200), chat("b", most=LIMIT), Score("x" * 3 * LIMIT, "y"), chat("c")]

    found = outcomes(engine, requests)

    assert [type(outcome) for outcome in found] == [Answer, Failure, Failure, Failure, Answer]
    failures = [outcome for outcome in found if isinstance(outcome, Failure)]
    assert {failure.status for failure in failures} == {"too long"}
    assert all(f"tiny-chat reads {LIMIT} together" in failure.reason for failure in failures)
    assert f"and {LIMIT} for the answer" in failures[1].reason
    assert "the prompt has " in failures[0].reason


def test_a_full_context_is_not_too_long(engine: LocalEngine, by_hand: tuple[Any, Any]) -> None:
    """Prompt and answer may fill the context to the last token."""
    room = LIMIT - ids_of(by_hand[1], chat("a")).shape[1]

    found = outcomes(engine, [chat("a", most=room), chat("a", most=room + 1)])

    assert [type(outcome) for outcome in found] == [Answer, Failure]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_a_seed_fixes_the_sample(engine: LocalEngine, temperature: float) -> None:
    """Above temperature 0 the same seed gives the same answer, whatever was asked before, and another seed another."""
    sampled = [chat("The river", temperature=temperature, seed=seed) for seed in (1, 2, 1)]

    first = outcomes(engine, sampled)
    alone = outcomes(engine, [chat("something else", temperature=1.0), sampled[1]])

    assert first[0] == first[2]
    assert first[0] != first[1]
    assert alone[1] == first[1]


HOSTILE = {
    "do_sample": True,
    "repetition_penalty": 5.0,
    "temperature": 0.01,
    "top_k": 1,
    "top_p": 0.1,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 9,
    "max_new_tokens": 10,
    "num_beams": 2,
}


def test_a_checkpoints_own_sampling_settings_do_not_count(checkpoint: Path, engine: LocalEngine, tmp_path: Path) -> None:
    """Answers are what the request asks for, whatever penalties and limits the checkpoint's generation_config has."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / checkpoint.name))
    first = outcomes(engine, [chat("The river", most=12, top_logprobs=1)])[0]
    assert isinstance(first, Answer)
    ends = [engine._model.config.eos_token_id, engine._reader.tokenizer.convert_tokens_to_ids("zzz") or 0]
    (folder / "generation_config.json").write_text(json.dumps({**HOSTILE, "eos_token_id": ends}))
    hostile = LocalEngine(LocalSettings(places.Source(str(folder)), "float32", "cpu"))
    requests = [chat("The river", most=12, top_logprobs=1), *(chat("The sea", temperature=1.0, seed=seed, most=8) for seed in range(3))]

    plain, found = outcomes(engine, requests), outcomes(hostile, requests)

    assert [getattr(outcome, "text", outcome) for outcome in found] == [getattr(outcome, "text", outcome) for outcome in plain]
    assert all(token.logprob == max(value for _, value in token.top) for token in first.tokens)  # greedy means the likeliest


def test_sampling_leaves_the_generator_alone(engine: LocalEngine) -> None:
    """Answering does not touch the random numbers of whoever asks."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        outcomes(engine, [chat("a", temperature=1.0, seed=9)])
        drawn = torch.rand(3)

    assert torch.equal(drawn, expected)


def test_no_chat_template(tiny_checkpoint: Path) -> None:
    """A checkpoint that holds no conversations is one line once a conversation is asked for."""
    engine = LocalEngine(LocalSettings(places.Source(str(tiny_checkpoint)), "float32", "cpu"))

    with pytest.raises(UserError, match=r"^tiny-llama: its tokenizer has no chat template; choose an instruction-tuned model$"):
        outcomes(engine, [chat("a")])
    assert isinstance(outcomes(engine, [Score("The", " river")])[0], Answer)


FEW: dict[str, Any] = {
    "a digit": one_of([0, 1]),
    "a list": several(one_of([0, 1]), 5),
    "an object": named(answers=several(one_of([0, 1]), 3)),
    "words": {"type": "string", "enum": ["日本", "the river"]},
    "a number": one_of(range(1, 13)),  # 1 begins 12
}


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_an_answer_keeps_to_its_form(engine: LocalEngine, name: str, temperature: float) -> None:
    """Whatever the model would rather say, and however it is sampled, the answer is one that the JSON schema allows, and it ends."""
    requests = [chat("The river", most=40, temperature=temperature, seed=seed, form=json.dumps(FEW[name])) for seed in range(4)]

    for answer in outcomes(engine, requests):
        assert isinstance(answer, Answer)
        assert fits(FEW[name], json.loads(answer.text))
        assert answer.finish == "stop"


def test_the_likeliest_answer_of_a_form_is_given(engine: LocalEngine, by_hand: tuple[Any, Any]) -> None:
    """Of two digits that is the one with the larger logit, and log-probabilities are those of the model without the schema."""
    model, tokenizer = by_hand
    request = chat("Count the rows.", top_logprobs=400, form=json.dumps(one_of([0, 1])))
    with torch.no_grad():
        logprobs = model(ids_of(tokenizer, request)).logits[0, -1].log_softmax(-1)
    digits = {digit: float(logprobs[tokenizer.encode(digit, add_special_tokens=False)[0]]) for digit in ("0", "1")}

    (answer,) = outcomes(engine, [request])

    assert isinstance(answer, Answer)
    assert answer.text == max(digits, key=lambda digit: digits[digit])
    assert {digit: dict(answer.tokens[0].top)[digit] for digit in digits} == pytest.approx(digits, abs=1e-4)


@pytest.mark.parametrize("form", [{}, {"type": "string"}, several(one_of([0, 1]), 13)])
def test_a_form_that_allows_too_much_is_refused(engine: LocalEngine, form: Any) -> None:
    """A schema whose answers cannot all be listed is one line that names the engines that can do it."""
    with pytest.raises(UserError, match=r"cannot keep to a JSON schema with more than 4096 answers; use engine vllm or openai$"):
        outcomes(engine, [chat("a", form=json.dumps(form))])


def test_an_engine_says_what_an_answer_depends_on(engine: LocalEngine, checkpoint: Path) -> None:
    """Its model is named without the way to it, and number format and weights are part of its identity."""
    assert engine.identity == {
        "kind": "transformers",
        "model": "tiny-chat",
        "revision": places.fingerprint(checkpoint),
        "dtype": "float32",
    }


def test_a_fingerprint_tells_weights_apart(checkpoint: Path, tmp_path: Path) -> None:
    """Other weights of the same size in the same place have another fingerprint, a copy has the same."""
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    same = places.fingerprint(copy)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))

    assert same == places.fingerprint(checkpoint) != places.fingerprint(copy)
