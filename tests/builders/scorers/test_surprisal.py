"""Surprisal: nats that follow from known log-probabilities, failures that stay failures, and a real model that reads descriptions."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from contexts import windows_of
from hypothesis import assume, given
from hypothesis import strategies as st
from judged import scored
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer

from builders.engines.asking import ask
from builders.engines.cache import Cache
from builders.engines.local import LocalEngine, LocalSettings
from builders.engines.requests import NO_LOGPROBS, Answer, Failure, Outcome, Score, Token
from builders.engines.scripted import ScriptedEngine
from builders.scorers.judging import Task
from builders.scorers.surprisal import NOTHING, OTHER_TEXT, SurprisalScorer, gain, prompt
from builders.subjects import places
from builders.text.vocabulary import token_bytes

if TYPE_CHECKING:
    from builders.contexts.contexts import Examples
    from builders.engines.requests import Request

GOLDEN = Path(__file__).parent / "prompts/surprisal.txt"
PIECES = [b"", b"The", b" boats", b" lie", b" at", "é".encode()[:1], "é".encode()[1:], b"\n"]  # 0 is special
WORDS = "words about boats"


def task(tokens: list[list[int]], activating: list[bool], explanation: str = WORDS) -> Task:
    """Return windows, some of them activating, with an explanation."""
    ids = np.array(tokens, dtype=np.int32)
    return Task(windows_of(3, ids, np.zeros(ids.shape, dtype=np.float32), activating, first=10), "me", explanation)


def described(request: Request) -> str:
    """Return the explanation in a request's prompt."""
    assert isinstance(request, Score)
    return request.prompt.splitlines()[-2].removeprefix("Description: ")


def engine_of(nats: dict[str, tuple[list[float], list[float]]]) -> ScriptedEngine:
    """Return an engine that knows the log-probabilities of each window's tokens after an explanation and after none."""

    def script(request: Request) -> Outcome:
        assert isinstance(request, Score)
        values = nats[request.continuation][described(request) == NOTHING]
        parts = np.array_split(list(request.continuation), len(values))
        return Answer(request.continuation, tokens=tuple(Token("".join(part), value) for part, value in zip(parts, values, strict=True)))

    return ScriptedEngine(script, "known")


def answer(*logprobs: float, text: str = "x") -> Answer:
    """Return an answer that scored as many tokens."""
    return Answer("window", tokens=tuple(Token(text, value) for value in logprobs))


def test_what_is_asked() -> None:
    """Every window is scored after the explanation, then every window after NOTHING; special tokens are left out."""
    scorer = SurprisalScorer(PIECES, "random")

    requests = scorer.requests(task([[0, 1, 2], [4, 5, 6], [3, 7, 5]], [True, False, False]))

    texts = ["The boats", " até", " lie\n\ufffd"]
    assert requests == [Score(prompt(explanation), window) for explanation in (WORDS, NOTHING) for window in texts]
    assert [described(request) for request in requests] == [WORDS] * 3 + ["Various unrelated sentences."] * 3


def test_the_prompt_is_known() -> None:
    """The prompt of a small explanation is, letter by letter, the one on record."""
    assert prompt(WORDS) == GOLDEN.read_text(encoding="utf-8")


def test_prompts_differ_in_the_description_alone() -> None:
    """All prompts begin and end alike, so that engines read the beginning once and the same tokens are scored after each."""
    asked = [prompt(explanation) for explanation in (WORDS, NOTHING, "of two\nlines ")]

    assert all(
        text.endswith(f"\nDescription: {words}\nSentences:\n") for text, words in zip(asked, (WORDS, NOTHING, "of two lines"), strict=True)
    )
    assert len({text.rpartition("\nDescription: ")[0] for text in asked}) == 1
    assert f"Description: {NOTHING}\n" in asked[0], "what nothing is like is shown, too"


def test_a_known_score() -> None:
    """I is the difference of the sums over all tokens, the first included; of four pairs three are in order."""
    tokens = [[1, 2], [2, 3], [3, 4], [4, 1]]
    nats = {
        "The boats": ([-1.0, -2.0], [-3.0, -4.0]),  # + 4
        " boats lie": ([-1.0, -1.0, -1.0], [-1.5, -2.0]),  # + 0.5, from other numbers of tokens
        " lie at": ([-0.5, -0.25], [-1.0, -1.25]),  # + 1.5
        " atThe": ([-9.0, -1.0], [-2.0, -3.0]),  # − 5
    }

    rows, record = scored(SurprisalScorer(PIECES, "random"), task(tokens, [True, True, False, False]), engine_of(nats))

    assert rows["value"].to_pylist() == [4.0, 0.5, 1.5, -5.0]
    assert rows["example"].to_pylist() == [10, 11, 12, 13]
    assert [rows[name].to_pylist() for name in ("answer", "probability")] == [[None] * 4] * 2
    assert [record[name] for name in ("score", "auroc", "chance", "unit", "status")] == [0.75, 0.75, 0.5, "AUROC", "ok"]
    assert [record[name] for name in ("n", "n_failed", "n_positive", "model")] == [4, 0, 2, "known"]
    assert len(record["prompt_sha256"]) == 64


def test_only_the_asked_kind_of_silence_counts() -> None:
    """Silent windows of another kind are neither asked about nor judged."""
    scorer = SurprisalScorer(PIECES, "similar")
    mixed = task([[1, 2], [3, 4], [4, 1]], [True, False, False])
    mixed.examples.kind[2] = "similar"

    requests = scorer.requests(mixed)
    judged = scorer.judged(mixed, [answer(-1.0)] * 4)

    assert {request.continuation for request in requests} == {"The boats", " atThe"}
    assert judged.number.tolist() == [10, 12]


@given(st.lists(st.tuples(st.booleans(), st.integers(-40, 40), st.integers(-40, 0)), min_size=2, max_size=12))
def test_the_score_is_the_area_of_the_differences(windows: list[tuple[bool, int, int]]) -> None:
    """Whatever the log-probabilities, the score is scikit-learn's AUROC of their differences."""
    truth = [fires for fires, _, _ in windows]
    assume(len(set(truth)) == 2)
    found = [
        Answer("x", tokens=(Token("x", value / 8),)) for value in [told for _, told, _ in windows] + [other for _, _, other in windows]
    ]

    judged = SurprisalScorer(PIECES, "random").judged(task([[1]] * len(windows), truth), found)

    assert judged.value.tolist() == [(told - other) / 8 for _, told, other in windows]
    assert judged.measures["score"] == pytest.approx(roc_auc_score(truth, judged.value))


GONE = Failure("time-out", "the server gave no answer in time")
NO_GAIN = [
    (GONE, answer(-1.0), "time-out"),
    (answer(-1.0), GONE, "time-out"),
    (answer(), answer(-1.0), NO_LOGPROBS),
    (answer(-1.0), answer(), NO_LOGPROBS),
    (answer(), answer(), NO_LOGPROBS),
    (answer(-math.inf), answer(-1.0), NO_LOGPROBS),
    (answer(-math.inf), answer(-math.inf), NO_LOGPROBS),
    (answer(-1.0, text="boat"), answer(-1.0, text="boats"), OTHER_TEXT),
]


@pytest.mark.parametrize(("told", "untold", "status"), NO_GAIN)
def test_a_window_without_both_numbers_has_none(told: Outcome, untold: Outcome, status: str) -> None:
    """A request that failed, an answer without tokens, with infinite ones or of another text is a status, never a 0."""
    found = gain(told, untold)

    assert isinstance(found, Failure)
    assert found.status == status


@pytest.mark.parametrize(("told", "untold", "status"), NO_GAIN)
def test_failures_count_neither_for_nor_against(told: Outcome, untold: Outcome, status: str) -> None:
    """A failed window has no value and is counted; the score is that of the others, and none where one side is gone."""
    windows = [(True, answer(-1.0), answer(-3.0)), (False, answer(-2.0), answer(-1.0)), (True, told, untold)]

    def judged(some: list[tuple[bool, Outcome, Outcome]]) -> Any:
        outcomes = [one for _, one, _ in some] + [other for _, _, other in some]
        return SurprisalScorer(PIECES, "random").judged(task([[1]] * len(some), [fires for fires, _, _ in some]), outcomes)

    found, rest = judged(windows), judged(windows[1:])

    assert found.status.tolist() == ["ok", "ok", status]
    assert found.value[:2].tolist() == [2.0, -1.0]
    assert math.isnan(found.value[2])
    assert (found.measures["status"], found.measures["score"]) == ("ok", 1.0)
    assert rest.measures == {"status": "one class only"}


def test_what_says_nothing_is_asked_once(tmp_path: Path) -> None:
    """Over two explanations of a latent, each window is asked about once after each and once after the text that says nothing."""
    asked: Counter[tuple[str, str]] = Counter()

    def script(request: Request) -> Outcome:
        assert isinstance(request, Score)
        asked[described(request), request.continuation] += 1
        return Answer(request.continuation, tokens=(Token(request.continuation, -1.0),))

    scorer, cache = SurprisalScorer(PIECES, "random"), Cache(tmp_path / "answers.sqlite")
    explanations = ("of boats", "of mills", "of boats")  # the last by another explainer
    requests = [request for one in explanations for request in scorer.requests(task([[1, 2], [3, 4]], [True, False], one))]
    together = list(ask(ScriptedEngine(script, "counting"), requests, cache))
    again = list(ask(ScriptedEngine(script, "counting"), scorer.requests(task([[3, 4]], [True], "of rivers")), cache))
    cache.close()

    windows, read = ["The boats", " lie at"], ["of boats", "of mills", NOTHING]
    assert len(together) == 12
    assert len(again) == 2
    assert asked == Counter({**{(text, window): 1 for text in read for window in windows}, ("of rivers", " lie at"): 1})


# A real model


def local(folder: Path, batch_tokens: int = 8192) -> LocalEngine:
    """Return the engine of a checkpoint."""
    return LocalEngine(LocalSettings(places.Source(str(folder)), "float32", "cpu", batch_tokens))


ACTIVATING = ["日本 and 日本", "in 日本 the", "🙂 日本", "日本, 日本."]
SILENT = ["The river carried", "past the mill", "def rows(table)", "or empty.\n  X"]


@pytest.fixture(scope="module")
def windows(echoing_checkpoint: Path) -> tuple[list[bytes], Examples]:
    """Return the tokenizer's pieces, and windows of eight tokens: four that speak of Japan and four that do not."""
    tokenizer = AutoTokenizer.from_pretrained(echoing_checkpoint)
    ids = [(tokenizer(text)["input_ids"] + [0] * 8)[:8] for text in ACTIVATING + SILENT]
    pieces = [b"" if token < 2 else piece for token, piece in enumerate(token_bytes(tokenizer, len(tokenizer)))]
    return pieces, task(ids, [True] * 4 + [False] * 4).examples


def test_a_description_that_fits_tells_windows_apart(echoing_checkpoint: Path, windows: tuple[list[bytes], Examples]) -> None:
    """A model that expects what it has read finds Japanese windows likelier after 日本, and the others after their own words."""
    pieces, examples = windows
    texts = {"日本 日本 日本": 1.0, "The river carried rows past the empty mill": 0.0}

    found = {text: scored(SurprisalScorer(pieces, "random"), Task(examples, "me", text), local(echoing_checkpoint)) for text in texts}

    assert {text: record["score"] for text, (_, record) in found.items()} == texts
    assert all(value > 1 for value in found["日本 日本 日本"][0]["value"].to_pylist()[:4])


def test_values_are_those_of_plain_forward_passes(echoing_checkpoint: Path, windows: tuple[list[bytes], Examples]) -> None:
    """Each window's value is the sum of log-softmaxes over its own tokens after one prompt, less that after the other."""
    pieces, examples = windows
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(echoing_checkpoint, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(echoing_checkpoint),
    )

    def nats(description: str, window: list[int]) -> float:
        before = tokenizer(prompt(description))["input_ids"]
        own = [token for token in window if token > 1]
        with torch.no_grad():
            logprobs = model(torch.tensor([before + own])).logits[0].double().log_softmax(-1)
        return float(sum(logprobs[len(before) - 1 + place, token] for place, token in enumerate(own)))

    expected = [nats("日本", window) - nats(NOTHING, window) for window in examples.tokens.tolist()]
    rows, record = scored(SurprisalScorer(pieces, "random"), Task(examples, "me", "日本"), local(echoing_checkpoint))

    assert rows["value"].to_pylist() == pytest.approx(expected, abs=1e-4)
    assert rows["status"].to_pylist() == ["ok"] * 8
    assert record["output_tokens"] == 0
    assert record["prompt_tokens"] > 8 * 2 * 300


def test_batches_do_not_change_the_score(echoing_checkpoint: Path, windows: tuple[list[bytes], Examples]) -> None:
    """One window at a time gives the values of all at once."""
    pieces, examples = windows
    scorer = SurprisalScorer(pieces, "random")

    together, alone = (scored(scorer, Task(examples, "me", "日本"), local(echoing_checkpoint, tokens))[0] for tokens in (10**6, 1))

    assert together["value"].to_pylist() == pytest.approx(alone["value"].to_pylist(), abs=1e-4)


def test_what_does_not_fit_fails_by_itself(tiny_checkpoint: Path, windows: tuple[list[bytes], Examples]) -> None:
    """A judge that reads 128 tokens fails every window by name, with no score and no value."""
    pieces, examples = windows

    rows, record = scored(SurprisalScorer(pieces, "random"), Task(examples, "me", "日本"), local(tiny_checkpoint))

    assert rows["status"].to_pylist() == ["too long"] * 8
    assert rows["value"].to_pylist() == [None] * 8
    assert (record["status"], record["score"], record["n"], record["n_failed"]) == ("no answers", None, 0, 8)
