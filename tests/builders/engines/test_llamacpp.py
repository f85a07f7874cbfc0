"""The llama.cpp engine on a tiny file with float32 weights, held against the same model in transformers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from ggufs import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from builders.engines.asking import ask
from builders.engines.cache import Cache
from builders.engines.llamacpp import CALM, LlamaCppEngine, LlamaCppSettings
from builders.engines.requests import Answer, Chat, Engine, Failure, Message, Outcome, Request, Score
from builders.engines.schemas import fits, named, one_of, several
from builders.errors import MissingError, UserError
from builders.lake.shards import file_sha256
from builders.subjects.places import Source
from pipelines.graph.closure import ROOT
from pipelines.opened.engines import CACHE, open_engine, require_logprobs
from pipelines.params import LlamaCppEngineParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp needs `pip install 'interplake[local]'`")

TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
LIMIT = 512
CLOSE = 1e-3  # in nats; weights are float32 on both sides, but llama.cpp keeps keys and values in float16


@pytest.fixture(scope="module")
def file(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny checkpoint as a GGUF file with a chat template."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, tiny_checkpoint, tokenizer__chat_template=TEMPLATE, llama__context_length=LIMIT)


def opened(path: Path, **settings: Any) -> LlamaCppEngine:
    """Return the engine of a file, on one thread unless *settings* say otherwise."""
    return LlamaCppEngine(LlamaCppSettings(Source(str(path)), **{"slots": 1, "threads": 1, **settings}))


@pytest.fixture(scope="module")
def engine(file: Path) -> LlamaCppEngine:
    """Return the engine with one slot."""
    return opened(file)


@pytest.fixture(scope="module")
def by_hand(tiny_checkpoint: Path) -> tuple[Any, Any]:
    """Return model and tokenizer of the transformers library."""
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(tiny_checkpoint)


def chat(*words: str, most: int = 12, **more: Any) -> Chat:
    """Return a conversation of a system message and the user's *words*."""
    return Chat((Message("system", "Be brief."), *(Message("user", text) for text in words)), most, **more)


def outcomes(engine: Engine, requests: Sequence[Request]) -> list[Outcome]:
    """Return the outcome of every request, by place."""
    found = dict(engine.run(requests))
    return [found[place] for place in range(len(requests))]


def answers(engine: Engine, requests: Sequence[Request]) -> list[Answer]:
    """Return the answer to every request; none may fail."""
    found = outcomes(engine, requests)
    assert [outcome for outcome in found if isinstance(outcome, Failure)] == []
    return [outcome for outcome in found if isinstance(outcome, Answer)]


def ids_of(tokenizer: Any, request: Chat) -> list[int]:
    """Return the conversation as the transformers library reads it."""
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    text = tokenizer.apply_chat_template(messages, chat_template=TEMPLATE, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


class TestAnswers:
    """Conversations."""

    def test_a_greedy_answer_is_the_models_own(self, engine: LlamaCppEngine, by_hand: tuple[Any, Any]) -> None:
        """At temperature 0 the likeliest token follows each time, as in a plain forward pass, and tokens are counted."""
        model, tokenizer = by_hand
        request = chat("The river", top_logprobs=3)
        ids = ids_of(tokenizer, request)

        (answer,) = answers(engine, [request])

        with torch.no_grad():
            made = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=12, pad_token_id=1)[0]
            logprobs = model(made[None]).logits[0].log_softmax(-1)[len(ids) - 1 : -1]
        written = made[len(ids) :].tolist()
        assert answer.text == tokenizer.decode(written, skip_special_tokens=True)
        assert (answer.prompt_tokens, answer.output_tokens, answer.finish) == (len(ids), 12, "length")
        own = {tokenizer.decode([name]): float(row[name]) for name, row in zip(written, logprobs, strict=True)}
        told = {token.text: token.logprob for token in answer.tokens if token.text in own}  # llama.cpp tells no half characters
        assert told == pytest.approx({name: own[name] for name in told}, abs=CLOSE)
        assert len(told) >= 5
        assert all(len(token.top) == 3 and token.top[0][1] == max(value for _, value in token.top) for token in answer.tokens)

    def test_the_same_request_gets_the_same_answer(self, engine: LlamaCppEngine, file: Path) -> None:
        """With one slot answers are equal to the last bit, in this engine and in another that runs the file."""
        requests: list[Request] = [
            chat("The river", top_logprobs=2),
            chat("Count", temperature=1.0),
            Score("The river", " carried the boats"),
        ]
        first, second = ([(one.text, one.tokens) for one in answers(engine, requests)] for _ in range(2))

        assert first == second == [(one.text, one.tokens) for one in answers(opened(file), requests)]

    @pytest.mark.parametrize("temperature", [0.7, 1.0])
    def test_a_seed_fixes_the_sample(self, engine: LlamaCppEngine, temperature: float) -> None:
        """Above temperature 0 the same seed gives the same answer, whatever was asked before, and another seed another."""
        sampled = [chat("The river", temperature=temperature, seed=seed) for seed in (1, 2, 1)]
        first = answers(engine, sampled)
        alone = answers(engine, [chat("something else", temperature=1.0), sampled[1]])

        assert first[0].text == first[2].text != first[1].text == alone[1].text

    def test_sampling_is_by_temperature_alone(self, engine: LlamaCppEngine, by_hand: tuple[Any, Any]) -> None:
        """Tokens beyond the forty likeliest are drawn as their probabilities say: llama.cpp's own cuts are off."""
        model, tokenizer = by_hand
        with torch.no_grad():
            shares = model(torch.tensor([ids_of(tokenizer, chat("The river"))])).logits[0, -1].softmax(-1)
        told = [(tokenizer.decode([name]), float(shares[name])) for name in shares.argsort(descending=True).tolist()]
        whole = [(text, share, place < 40) for place, (text, share) in enumerate(told) if text.strip() and "�" not in text]
        expected = sum(share for _, share, likely in whole if not likely) / sum(share for _, share, _ in whole)

        found = outcomes(engine, [chat("The river", most=1, temperature=1.0, seed=seed) for seed in range(200)])
        likely = {text: among for text, _, among in whole}
        drawn = [likely[outcome.text] for outcome in found if isinstance(outcome, Answer) and outcome.text in likely]

        assert len(drawn) > 50
        assert 1 - np.mean(drawn) == pytest.approx(expected, abs=0.15)
        assert expected > 0.5

    def test_half_a_character_has_no_log_probabilities(self, engine: LlamaCppEngine) -> None:
        """An answer that is cut off inside a character fails alone, with the reason."""
        cut = [chat("The river", most=1, temperature=1.0, seed=seed, top_logprobs=2) for seed in range(40)]
        failures = [outcome for outcome in outcomes(engine, cut) if isinstance(outcome, Failure) and outcome.status != "empty"]

        assert 0 < len(failures) < 40
        assert {failure.status for failure in failures} == {"no log-probabilities"}
        assert {failure.reason for failure in failures} == {"the answer is half a character, of which llama.cpp tells no log-probabilities"}

    def test_requests_keep_their_own_sampling(self, file: Path) -> None:
        """A request for one token beside requests for many shortens none of them, nor does its temperature or form reach them."""
        requests = [chat("a"), chat("b", most=1, temperature=2.0, top_logprobs=2), chat("c", form=json.dumps(one_of([0, 1]))), chat("d")]
        several_slots = opened(file, slots=3)

        together = answers(several_slots, requests)

        assert [one.text for one in together] == [answers(several_slots, [request])[0].text for request in requests]
        assert [one.output_tokens for one in together] == [12, 1, 2, 12]
        assert together[2].text in {"0", "1"}


FEW: dict[str, Any] = {
    "a digit": one_of([0, 1]),
    "a list": several(one_of([0, 1]), 5),
    "an empty list": several(one_of([0]), 0),
    "an object": named(answers=several(one_of([0, 1]), 3), **{'a "name"': one_of([7])}),
    "words": {"type": "string", "enum": ["日本", "the river", 'a "quote" and a \\']},
    "a number": one_of(range(1, 13)),  # 1 begins 12
}


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_an_answer_keeps_to_its_form(engine: LlamaCppEngine, name: str, temperature: float) -> None:
    """However it is sampled, the answer is one that the schema allows, written as json.dumps writes it, and it ends there."""
    requests = [chat("The river", most=80, temperature=temperature, seed=seed, form=json.dumps(FEW[name])) for seed in range(4)]

    for answer in answers(engine, requests):
        assert fits(FEW[name], json.loads(answer.text))
        assert answer.text == json.dumps(json.loads(answer.text), ensure_ascii=False)
        assert answer.finish == "stop"


def test_a_schema_of_another_kind_is_llamacpps_own_affair(engine: LlamaCppEngine) -> None:
    """A schema that is no enum, fixed list or object of such is kept to by llama.cpp's own translation."""
    form = {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}
    (answer,) = answers(engine, [chat("The river", most=200, form=json.dumps(form))])

    assert all(value in (True, False) for value in json.loads(answer.text))


SCORED = [
    ("The river carried", " the boats"),
    ("", "The river"),
    ("日本 and ", "café 🙂 at"),
    ("def rows(", "table)"),
    ("The ri", "ver <s> of"),
    ("<s>Ελλάδα", "\n\n🙂"),
]


class TestScores:
    """Log-probabilities of given continuations."""

    @pytest.mark.parametrize(("prompt", "continuation"), SCORED)
    def test_a_score_is_a_forward_pass(self, engine: LlamaCppEngine, by_hand: tuple[Any, Any], prompt: str, continuation: str) -> None:
        """Tokens, numbers and alternatives are those of one forward pass, also where tokens begin and end inside characters."""
        model, tokenizer = by_hand
        encoded = tokenizer(prompt + continuation, return_offsets_mapping=True, split_special_tokens=True)
        ids = encoded["input_ids"]
        places = [place for place, (low, high) in enumerate(encoded["offset_mapping"]) if place and low >= len(prompt) and high > low]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)[[place - 1 for place in places]]

        answer, bare = answers(engine, [Score(prompt, continuation, 3), Score(prompt, continuation)])

        assert [token.text for token in answer.tokens] == [tokenizer.decode([ids[place]]) for place in places]
        own = [float(row[ids[place]]) for row, place in zip(logprobs, places, strict=True)]
        assert [token.logprob for token in answer.tokens] == pytest.approx(own, abs=CLOSE)
        best = logprobs.topk(3).values.tolist()
        assert [[value for _, value in token.top] for token in answer.tokens] == [pytest.approx(row, abs=CLOSE) for row in best]
        assert [token.logprob for token in bare.tokens] == pytest.approx(own, abs=CLOSE)
        assert {token.top for token in bare.tokens} == {()}
        assert (answer.text, answer.prompt_tokens, answer.output_tokens) == (continuation, len(ids), 0)

    def test_a_long_continuation(self, engine: LlamaCppEngine, by_hand: tuple[Any, Any]) -> None:
        """Hundreds of tokens at once have the log-probabilities of one forward pass."""
        model, tokenizer = by_hand
        text = "The river carried the boats past the mill, and the miller counted the boats. Naïve café, 日本! " * 8
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)

        (answer,) = answers(engine, [Score("", text)])

        error = np.array([token.logprob for token in answer.tokens]) - np.array(
            [float(logprobs[place - 1, ids[place]]) for place in range(1, len(ids))]
        )
        assert len(error) > 200
        assert (np.abs(error).mean(), np.abs(error).max()) < (CLOSE / 4, CLOSE)

    def test_nothing_to_score(self, engine: LlamaCppEngine) -> None:
        """A continuation without tokens of its own is an answer without tokens."""
        found = answers(engine, [Score("The river", ""), Score("", ""), Score("", "x"), Score("The ri", "v")])

        assert [(one.text, one.tokens) for one in found] == [("", ()), ("", ()), ("x", ()), ("v", ())]

    def test_a_model_that_begins_with_bos(self, tiny_checkpoint: Path, by_hand: tuple[Any, Any], tmp_path: Path) -> None:
        """Where the file says so, BOS stands before the text, predicts its first token, and is no part of the continuation."""
        path = write_gguf(tmp_path / "bos.gguf", tiny_checkpoint, tokenizer__ggml__add_bos_token=True)
        model, tokenizer = by_hand
        ids = [tokenizer.bos_token_id, *tokenizer("The river")["input_ids"]]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)

        (answer,) = answers(opened(path), [Score("", "The river")])

        own = [float(logprobs[place - 1, ids[place]]) for place in range(1, len(ids))]
        assert [token.logprob for token in answer.tokens] == pytest.approx(own, abs=CLOSE)
        assert "".join(token.text for token in answer.tokens) == "The river"

    def test_a_vocabulary_of_sentence_pieces(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """Where a tokenizer puts BOS and a space before every text, the continuation's tokens are found all the same."""
        words = ["▁", "t", "h", "e", "c", "a", "th", "the", "▁the", "at", "cat", "▁cat", "▁c"]
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
        tokens += [f"[PAD{number}]" for number in range(len(tokens), 384)]
        path = write_gguf(
            tmp_path / "pieces.gguf",
            tiny_checkpoint,
            tokenizer__ggml__model="llama",
            tokenizer__ggml__pre=None,
            tokenizer__ggml__merges=None,
            tokenizer__ggml__tokens=tokens,
            tokenizer__ggml__scores=[0.0] * 259
            + [-float(number) for number in range(len(words), 0, -1)]
            + [-1000.0] * (384 - 259 - len(words)),
            tokenizer__ggml__token_type=[2, 3, 3] + [6] * 256 + [1] * len(words) + [5] * (384 - 259 - len(words)),
            tokenizer__ggml__bos_token_id=1,
            tokenizer__ggml__eos_token_id=2,
        )
        found = answers(opened(path), [Score("the", " cat"), Score("", "the cat"), Score("the c", "at the"), Score("the", " 🙂 cat")])

        pieces = [[token.text for token in one.tokens] for one in found]
        assert pieces == [[" cat"], [" the", " cat"], [" the"], [" ", *"����", " cat"]]
        assert [one.prompt_tokens for one in found] == [3, 3, 4, 8]

    def test_a_judge_can_be_asked(self, engine: LlamaCppEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The request that tries whether an engine scores text is answered, and its answer is kept."""
        monkeypatch.chdir(tmp_path)
        require_logprobs(engine, "m")

        assert [row[:3] for row in Cache(CACHE).sizes()] == [("llamacpp", "tiny.gguf", 1)]


def test_too_long_is_a_failure_beside_answers(engine: LlamaCppEngine) -> None:
    """A prompt that leaves no room for its answer fails with both numbers, and those around it are answered."""
    requests: list[Request] = [chat("a"), chat("word " * 900), chat("b", most=LIMIT), Score("x" * 3 * LIMIT, "y"), chat("c")]

    found = outcomes(engine, requests)

    assert [type(outcome) for outcome in found] == [Answer, Failure, Failure, Failure, Answer]
    failures = [outcome for outcome in found if isinstance(outcome, Failure)]
    assert {failure.status for failure in failures} == {"too long"}
    assert all(f"tiny.gguf reads {LIMIT} together; show fewer examples" in failure.reason for failure in failures)
    assert f"and {LIMIT} for the answer" in failures[1].reason
    assert failures[2].reason.startswith(f"the prompt has {3 * LIMIT + 1} tokens and 1 for the answer, ")


def test_a_full_context_is_not_too_long(engine: LlamaCppEngine, by_hand: tuple[Any, Any]) -> None:
    """Prompt and answer may fill the context to the last token."""
    room = LIMIT - len(ids_of(by_hand[1], chat("a")))

    found = outcomes(engine, [chat("a", most=room), chat("a", most=room + 1)])

    assert [type(outcome) for outcome in found] == [Answer, Failure]


class TestOrder:
    """Requests that begin alike follow each other."""

    def test_what_requests_share_is_read_once(self, engine: LlamaCppEngine) -> None:
        """However they are mixed, only the first request with a beginning reads it; all have their own places."""
        stems = ["The river carried the boats. " * 12, "Return the rows of the table. " * 12]
        requests = [Score(stems[number % 2], f"now {number} and no more") for number in range(16)]

        found = answers(engine, requests)

        assert [one.text for one in found] == [one.continuation for one in requests]
        anew = sorted(one.prompt_tokens - len(one.tokens) - one.cached_tokens for one in found)
        assert anew[:14] == [1] * 14  # the last token of a prompt is always read: it predicts
        assert anew[14] > 50

    def test_an_abandoned_run_leaves_the_engine_free(self, engine: LlamaCppEngine) -> None:
        """Whoever stops taking outcomes can ask again at once."""
        assert len(list(islice(engine.run([chat(str(number)) for number in range(20)]), 2))) == 2
        assert len(answers(engine, [chat("a")])) == 1


@dataclass
class Counting:
    """An engine that counts the requests that reach it."""

    inner: LlamaCppEngine
    kind: str = "llamacpp"
    asked: Counter[Request] = field(default_factory=Counter)

    @property
    def model(self) -> str:
        """Return the inner engine's model."""
        return self.inner.model

    @property
    def identity(self) -> dict[str, Any]:
        """Return the inner engine's identity."""
        return self.inner.identity

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Yield the inner engine's outcomes."""
        self.asked.update(requests)
        return self.inner.run(requests)


ASKING = """
import sys
from pathlib import Path
from builders.engines.asking import ask
from builders.engines.cache import Cache
from builders.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
from builders.engines.requests import Chat, Message
from builders.subjects.places import Source
engine = LlamaCppEngine(LlamaCppSettings(Source(sys.argv[1]), slots=2, threads=1))
requests = [Chat((Message("user", f"Say {number}"),), 400) for number in range(40)]
for place, *_ in ask(engine, requests, Cache(Path(sys.argv[2]))):
    print(place, flush=True)
"""


def test_a_kill_costs_only_what_was_in_flight(engine: LlamaCppEngine, file: Path, tmp_path: Path) -> None:
    """A process that is killed while it asks ends its server too; whatever came before is not asked again, and then nothing is."""
    path = tmp_path / "answers.sqlite"
    command = [sys.executable, "-c", ASKING, str(file), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}) as asking:
        assert asking.stdout is not None
        told = [int(asking.stdout.readline()) for _ in range(9)]
        asking.send_signal(signal.SIGKILL)
        told += [int(line) for line in asking.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    counting, requests = Counting(engine), [Chat((Message("user", f"Say {number}"),), 400) for number in range(40)]
    cache = Cache(path)

    again = {place: outcome for place, _, outcome in ask(counting, requests, cache)}
    asked = Counter(counting.asked)
    once_more = {place: outcome for place, _, outcome in ask(counting, requests, cache)}
    cache.close()

    assert asking.returncode == -signal.SIGKILL
    assert 9 <= len(told) < 40
    assert not {requests[place] for place in told} & asked.keys()
    assert 0 < asked.total() <= 40 - len(told)
    assert counting.asked == asked
    assert {type(outcome) for outcome in again.values()} == {Answer}
    assert once_more == again


class TestMistakes:
    """What a person can do wrong is one line."""

    def test_the_extra_is_not_installed(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        monkeypatch.setitem(sys.modules, "xllamacpp", None)
        with pytest.raises(MissingError) as caught:
            opened(file)
        assert str(caught.value) == "llama.cpp is not installed; run `pip install 'interplake[local]'`, or use another engine"

    def test_an_unknown_architecture(self, tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """The error names it, and llama.cpp's own log is silent."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, general__architecture="unheard-of")
        with pytest.raises(UserError) as caught:
            opened(path)
        assert str(caught.value) == (
            f"{path}: llama.cpp cannot load it (its architecture is unheard-of); "
            "choose a file of an architecture that it knows, install a newer xllamacpp, or fetch the file again"
        )
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("lacking", [("output_norm.weight",), ("blk.1.ffn_up.weight",)])
    def test_weights_are_missing(self, tiny_checkpoint: Path, tmp_path: Path, lacking: tuple[str, ...]) -> None:
        """A file without some of its weights is refused."""
        path = write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint, lacking=lacking)
        with pytest.raises(UserError, match=r"llama.cpp cannot load it \(its architecture is llama\); "):
            opened(path)

    def test_a_file_that_is_cut_off(self, file: Path, tmp_path: Path) -> None:
        """It is named with both sizes before llama.cpp sees it."""
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(UserError, match=r"cut.gguf: has [\d,]+ bytes, but .* the file is cut off; fetch it again$"):
            opened(cut)

    def test_a_checkpoints_folder(self, tiny_checkpoint: Path) -> None:
        """A folder of safetensors is no GGUF file."""
        with pytest.raises(UserError, match=r"^tiny-llama: llama.cpp runs GGUF files; name one: `path` to it, or `file` in a `repo`$"):
            opened(tiny_checkpoint)

    def test_more_context_than_the_model_knows(self, file: Path) -> None:
        """The error gives both numbers."""
        with pytest.raises(UserError, match=rf"^tiny.gguf: reads {LIMIT} tokens at most, but `context` is 4096; lower it$"):
            opened(file, context=4096)

    def test_no_chat_template(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """A model that holds no conversations is one line once a conversation is asked for; it still scores text."""
        engine = opened(write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint))
        with pytest.raises(UserError, match=r"^tiny.gguf: its tokenizer has no chat template; choose an instruction-tuned model$"):
            outcomes(engine, [chat("a")])
        assert answers(engine, [Score("The", " river")])[0].tokens

    def test_text_that_is_no_text(self, engine: LlamaCppEngine) -> None:
        """Half a character in a continuation fails alone."""
        found = outcomes(engine, [Score("a", "\ud83d"), Score("The", " river")])
        assert isinstance(found[0], Failure)
        assert isinstance(found[1], Answer)


def test_an_engine_says_what_an_answer_depends_on(file: Path) -> None:
    """Its identity holds the file's name and SHA-256; slots, threads, batch and context are no part of it."""
    spec = LlamaCppEngineParams(kind="llamacpp", path=str(file), slots=2, threads=1, context=256, batch=64)
    engine = open_engine(spec)

    assert engine.identity == {"kind": "llamacpp", "model": "tiny.gguf", "revision": file_sha256(file)}
    assert isinstance(outcomes(engine, [chat("a", most=250)])[0], Failure)


def test_defaults_are_those_of_the_machine(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots follow from the threads, and these from OMP_NUM_THREADS; nothing is left in the environment."""
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.delenv(CALM, raising=False)

    assert LlamaCppEngine(LlamaCppSettings(Source(str(file)))).settings.concurrency == 2
    assert CALM not in os.environ
