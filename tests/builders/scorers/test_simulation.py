"""Simulation: known correlations, their errors, constants, and what language models are asked and answer."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contexts import windows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from builders.engines.requests import Answer, Chat, Failure, Score, Token
from builders.explainers import cues
from builders.explainers.cues import Cue
from builders.scorers.judgements import SCORES, Identity, score_record
from builders.scorers.judging import Task
from builders.scorers.lexical import NO_CUE, LexicalJudge
from builders.scorers.simulation import LexicalSimulator, Predicted, SimulationScorer, correlation, measures
from builders.scorers.simulators import FORMS, ModelSimulator, expected

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from builders.contexts.contexts import Examples
    from builders.engines.requests import Outcome

PIECES = ["<s>", " the", " cat", '"', "\n", " né", "\t", "�"]
SPECIAL = np.arange(len(PIECES)) == 0
SCORER = SimulationScorer(LexicalSimulator(LexicalJudge(PIECES)), "random", 100, SPECIAL, np.ones(1))
WORDS = cues.write([Cue(" cat", None, 1.0, 0.8)])


class Fixed:
    """A simulator that predicts given levels; NaN rows have no answer."""

    prompt_sha256 = None

    def __init__(self, levels: npt.NDArray[np.float64]) -> None:
        self.levels = levels

    def requests(self, explanation: str, tokens: Any) -> tuple[()]:
        """Ask nothing."""
        return ()

    def predicted(self, explanation: str, tokens: Any, outcomes: Sequence[Outcome]) -> Predicted:
        """Return the given levels."""
        return Predicted(self.levels, np.where(np.isnan(self.levels).any(axis=1), "silent", "ok"))


def windows(activations: npt.NDArray[np.float64], tokens: npt.NDArray[np.int32] | None = None) -> Examples:
    """Return test windows with these activations, of token 1 where no tokens are given."""
    ids = np.ones(activations.shape, dtype=np.int32) if tokens is None else tokens
    return windows_of(0, ids, activations.astype(np.float32))


def scored(activations: npt.NDArray[np.float64], levels: npt.NDArray[np.float64], largest: float = 0.0, **more: Any) -> Any:
    """Return what a scorer makes of given predictions for all windows; *largest* is the latent's largest activation (0: that shown)."""
    most = np.array([largest or activations.max()])
    return SimulationScorer(Fixed(levels), "random", 100, SPECIAL, most).judged(Task(windows(activations, **more), "me", "words"), ())


@given(st.integers(2, 12), st.integers(0, 10**6))
@settings(max_examples=50)
def test_the_score_is_the_correlation_over_all_tokens(n: int, seed: int) -> None:
    """The score is scipy's Pearson correlation of all tokens together, whatever the scale; each window's value is its own."""
    rng = np.random.default_rng(seed)
    truth, levels = rng.exponential(size=(n, 6)), rng.uniform(0, 10, (n, 6))
    truth[n // 2 :] = 0
    judged = scored(truth, levels)

    assert judged.measures["score"] == pytest.approx(pearsonr(truth.ravel(), levels.ravel())[0], abs=1e-6)
    assert judged.value[0] == pytest.approx(pearsonr(truth[0], levels[0])[0])
    assert np.isnan(judged.value[n // 2 :]).all()


def test_companions_have_known_values() -> None:
    """R² is 1 − mean squared error / mean square of the truth, and likewise with absolute values, both on the scale of levels."""
    truth, levels = np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([[8.0, 1.0], [0.0, 1.0]])
    found = scored(truth, levels).measures

    assert found["r_squared"] == pytest.approx(1 - (4 + 1 + 1) / 100)
    assert found["deviation_explained"] == pytest.approx(1 - (2 + 1 + 1) / 10)


def test_level_ten_is_the_latents_largest_activation() -> None:
    """Of a latent that reaches 4 elsewhere, an activation of 2 is level 5: companions move, the correlation and its error do not."""
    truth, levels = np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([[8.0, 1.0], [0.0, 1.0]])
    found, shown = (scored(truth, levels, largest).measures for largest in (4.0, 2.0))

    assert found["r_squared"] == pytest.approx(1 - (9 + 1 + 1) / 25)
    assert found["deviation_explained"] == pytest.approx(1 - (3 + 1 + 1) / 5)
    assert [found[name] for name in ("score", "score_se")] == pytest.approx([shown[name] for name in ("score", "score_se")])


@given(st.integers(3, 10), st.integers(0, 10**6))
@settings(max_examples=30)
def test_the_error_is_the_jackknife_over_windows(n: int, seed: int) -> None:
    """The standard error is that of leaving out one window at a time."""
    rng = np.random.default_rng(seed)
    truth, levels = rng.exponential(size=(n, 5)), rng.uniform(0, 10, (n, 5))
    left = np.array([pearsonr(np.delete(truth, i, 0).ravel(), np.delete(levels, i, 0).ravel())[0] for i in range(n)])
    expected_error = math.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())

    assert scored(truth, levels).measures["score_se"] == pytest.approx(expected_error)


@pytest.mark.parametrize(
    ("truth", "levels", "status"),
    [
        ([[1.0, 1.0], [1.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]], "constant truth"),
        ([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], "constant truth"),
        ([[1.0, 0.0], [0.0, 0.0]], [[math.nan, 1.0], [math.nan, 1.0]], "no answers"),
    ],
)
def test_nothing_to_predict_is_a_status(truth: list[list[float]], levels: list[list[float]], status: str) -> None:
    """Where the truth does not vary, or nothing was answered, there is a status and no score: never 0 and never NaN."""
    found = scored(np.array(truth), np.array(levels)).measures

    assert found["status"] == status
    assert "score" not in found


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_a_constant_prediction_scores_nothing_above_chance(level: float) -> None:
    """A simulation that is the same for every token was answered and says nothing: its score is 0, without an error, and it has R²."""
    truth = np.array([[1.0, 0.0], [0.0, 0.0]])
    judged = scored(truth, np.full((2, 2), level))
    record = score_record(Identity("toy", 0, "me", "simulation", "random", "fixed"), SCORER, judged, None, ())

    assert [record[name] for name in ("status", "score", "score_se", "chance", "n")] == ["constant prediction", 0.0, None, 0.0, 2]
    assert record["r_squared"] == pytest.approx(1 - ((10 - level) ** 2 + 3 * level**2) / 100)
    assert judged.value[0] == 0
    assert math.isnan(judged.value[1])
    assert SCORES.rows([record]).num_rows == 1


def test_a_prediction_of_one_window_alone_has_an_error_as_large_as_itself() -> None:
    """Without the one window for which anything is predicted the correlation is 0, so the jackknife's error is near the score."""
    truth, levels = np.zeros((20, 4)), np.zeros((20, 4))
    truth[:10, 0], levels[0, 0] = 1, 7
    found = scored(truth, levels).measures
    r = pearsonr(truth.ravel(), levels.ravel())[0]
    left = np.array([0.0, *(pearsonr(np.delete(truth, i, 0).ravel(), np.delete(levels, i, 0).ravel())[0] for i in range(1, 20))])

    assert found["score"] == pytest.approx(r)
    assert found["score_se"] == pytest.approx(math.sqrt(19 / 20 * ((left - left.mean()) ** 2).sum()))
    assert found["score_se"] == pytest.approx(r, rel=0.1)


def test_windows_without_an_answer_count_neither_way() -> None:
    """A window whose prediction failed is left out of the score and keeps its status."""
    truth = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    levels = np.array([[9.0, 1.0, 0.0], [math.nan, 0.0, 0.0], [0.0, 0.0, 1.0]])
    judged = scored(truth, levels)

    assert judged.status.tolist() == ["ok", "silent", "ok"]
    assert judged.measures["score"] == pytest.approx(pearsonr(truth[[0, 2]].ravel(), levels[[0, 2]].ravel())[0])


def test_special_tokens_do_not_count() -> None:
    """What is predicted on special tokens changes nothing."""
    truth, ids = np.array([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]), np.array([[0, 1, 2], [0, 1, 2]], dtype=np.int32)
    levels = np.array([[0.0, 4.0, 9.0], [0.0, 1.0, 0.0]])
    loud = levels.copy()
    loud[:, 0] = 10

    assert scored(truth, levels, tokens=ids).measures == scored(truth, loud, tokens=ids).measures


def test_as_many_windows_as_asked_are_spread_over_the_order() -> None:
    """Of ten activating and ten silent windows, three each are shown, including the first and the last."""
    activations = np.zeros((20, 4))
    activations[:10, 0] = np.arange(10, 0, -1)
    scorer = SimulationScorer(Fixed(np.zeros((6, 4))), "random", 3, SPECIAL, np.array([10.0]))

    assert scorer.shown(Task(windows(activations))).number.tolist() == [0, 4, 9, 10, 14, 19]


def test_moments_of_all_windows_are_the_sum() -> None:
    """A correlation is scale free: doubling every moment, as by showing every window twice, does not change it."""
    moments = np.array([[4.0, 3, 10, 5, 40, 13, 6], [4.0, 0, 2, 0, 2, 0, 2]])

    assert measures(np.concatenate([moments, moments]))["score"] == pytest.approx(float(correlation(moments.sum(axis=0))))


def test_the_lexical_simulator_reads_its_cues() -> None:
    """A token that a cue names gets ten times its reliability; an explanation without a cue predicts nothing."""
    simulator = LexicalSimulator(LexicalJudge(PIECES))
    tokens = np.array([[1, 2, 2]], dtype=np.int32)

    assert simulator.predicted(WORDS, tokens, ()).levels.tolist() == [[0.0, 8.0, 8.0]]
    assert simulator.predicted("something vague", tokens, ()).status.tolist() == [NO_CUE]


# What language models are asked, and how their answers are read


def test_expected_levels_weigh_only_levels() -> None:
    """The expected level is Σ n·p(n) / Σ p(n) over whole numbers from 0 to 10; what is no level does not count."""
    top = ((" 10", math.log(0.3)), ("0", math.log(0.1)), ("\t10", math.log(0.1)), ("unknown", math.log(0.4)), ("11", math.log(0.1)))

    assert expected(Token("unknown", 0.0, top)) == pytest.approx((4 + 0) / 0.5)
    assert math.isnan(expected(Token("unknown", 0.0, (("x", -1.0),))))


def answered(request: Score, levels: list[int], cut: Any) -> Answer:
    """Return the answer of an engine whose tokens are what *cut* makes of the text, with each level certain at its place."""
    lines = request.continuation.splitlines()
    tokens = []
    for line, level in zip(lines, levels, strict=True):
        before, after = cut(line.removesuffix("unknown"))
        tokens += [Token(text, 0.0, (("x", -1.0),)) for text in before]
        tokens += [Token(f"{after}unknown", -5.0, ((f"{after}{level}", -0.1), ("the", -2.0)))]
        tokens += [Token("\n", 0.0)]
    return Answer(request.continuation, tokens=tuple(tokens))


CUTS = {
    "whole": lambda head: ([head.rstrip("\t"), "\t"], ""),
    "tab kept with what follows": lambda head: ([head.rstrip("\t")], "\t"),
    "characters": lambda head: (list(head), ""),
    "spaces lost": lambda head: ([part.strip() for part in (head[:2], head[2:])], ""),
    "tab kept with what precedes": lambda head: ([head], ""),
}


@pytest.mark.parametrize("cut", CUTS)
def test_levels_are_found_however_the_text_is_cut(cut: str) -> None:
    """Whatever the judge's tokeniser joins or drops around white space, each level is read at its own token."""
    simulator = ModelSimulator("all-at-once", PIECES)
    tokens = np.array([[1, 2, 3, 4, 5, 6, 7, 0]], dtype=np.int32)
    (request,) = simulator.requests("cats", tokens)
    assert isinstance(request, Score)
    found = simulator.predicted("cats", tokens, [answered(request, [0, 9, 1, 2, 3, 4, 5, 10], CUTS[cut])])

    assert found.status.tolist() == ["ok"]
    assert found.levels[0] == pytest.approx([0, 9, 1, 2, 3, 4, 5, 10])


def test_what_does_not_line_up_is_a_failure() -> None:
    """An answer that lost a line, or came without log-probabilities, is a status for its window alone."""
    simulator = ModelSimulator("all-at-once", PIECES)
    tokens = np.array([[1, 2], [2, 1], [1, 1]], dtype=np.int32)
    first, _, third = simulator.requests("cats", tokens)
    assert isinstance(first, Score)
    whole = answered(first, [0, 9], CUTS["whole"])
    found = simulator.predicted("cats", tokens, [whole, replace(whole, tokens=whole.tokens[3:]), Answer(third.continuation)])

    assert found.status.tolist() == ["ok", "not aligned", "no log-probabilities"]
    assert np.isnan(found.levels[1:]).all()


def test_each_token_is_asked_about_in_its_context_so_far() -> None:
    """Token by token, a request for every token shows the window up to that token, and one level is read from its answer."""
    simulator = ModelSimulator("token-by-token", PIECES)
    tokens = np.array([[1, 2, 4]], dtype=np.int32)
    requests = simulator.requests("cats", tokens)
    shown = [request.messages[-1].content.partition("Tokens: ")[2] for request in requests if isinstance(request, Chat)]
    outcomes = [Answer("7", tokens=(Token("7", 0.0, ((str(level), 0.0), ("10", -math.inf))),)) for level in (0, 7, 1)]

    assert [json.loads(tokens) for tokens in shown] == [[" the"], [" the", " cat"], [" the", " cat", "\n"]]
    assert simulator.predicted("cats", tokens, outcomes).levels.tolist() == [[0, 7, 1]]
    assert simulator.predicted("cats", tokens, [*outcomes[:2], Answer("1")]).status.tolist() == ["no log-probabilities"]
    assert simulator.predicted("cats", tokens, [*outcomes[:2], Failure("timeout", "")]).status.tolist() == ["timeout"]


@pytest.mark.parametrize("form", ["all-at-once", "token-by-token"])
def test_a_judge_that_writes_digit_by_digit_is_a_failure(form: str) -> None:
    """Where 1 is listed and 10 never is, a 1 may begin a 10, so that no level is read from one token."""
    simulator = ModelSimulator(form, PIECES)
    tokens = np.array([[1, 2]], dtype=np.int32)
    requests = simulator.requests("cats", tokens)
    one = Token("1", 0.0, (("1", -0.1), ("9", -2.5)))
    outcomes = [Answer("1", tokens=(one,)) for _ in requests]
    if isinstance(requests[0], Score):
        whole = answered(requests[0], [1, 9], CUTS["whole"])
        outcomes = [replace(whole, tokens=tuple(token for token in whole.tokens if token.text != "10"))]

    assert simulator.predicted("cats", tokens, outcomes).status.tolist() == ["digits split"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("[" * 5000, "no list"),
        ('[[" the", 0], [" cat", 9.5]]', "ok"),
        ('Here you are:\n```json\n[[" the", 0],\n [" cat", 9.5]]\n```\nDone.', "ok"),
        ('First [[" the", 1]] but better [[" the", 0], [" cat", 9.5]]', "ok"),
        ('[[" the", 0]]', "wrong number"),
        ('[[" the", 0], [" cat", 9.5], [".", 0]]', "wrong number"),
        ('[["the", 0], ["cat", 9.5]]', "other tokens"),
        ('[[" cat", 9.5], [" the", 0]]', "other tokens"),
        ('[[" the", 0], [" cat", 11]]', "no list"),
        ('[[" the", -1], [" cat", 3]]', "no list"),
        ('[[" the", true], [" cat", 3]]', "no list"),
        ("[0, 9.5]", "no list"),
        ('[[" the", 0], [" cat"', "no list"),
        ("I cannot do that.", "no list"),
    ],
)
def test_json_answers_are_read_strictly(answer: str, status: str) -> None:
    """A list with one level for each token as it was shown is read; anything else is a failure, never shifted or filled up."""
    simulator = ModelSimulator("json", PIECES)
    found = simulator.predicted("cats", np.array([[1, 2]], dtype=np.int32), [Answer(answer)])

    assert found.status.tolist() == [status]
    assert found.levels.tolist() == ([[0, 9.5]] if status == "ok" else [[pytest.approx(math.nan, nan_ok=True)] * 2])


@pytest.mark.parametrize("shots", ["known", "unknown"])
def test_all_at_once_is_asked_in_these_words(shots: str) -> None:
    """The prompt is the text beside the tests, to the letter: with `unknown`, worked examples begin with levels that are not told."""
    (request,) = ModelSimulator("all-at-once", PIECES, shots).requests("cats", np.array([[1, 2]], dtype=np.int32))

    assert isinstance(request, Score)
    assert request.prompt + request.continuation == (Path(__file__).parent / f"prompts/simulation-{shots}.txt").read_text()


def test_shots_are_a_version_of_the_prompt_and_change_no_reading() -> None:
    """Prompts with other worked examples have another hash; what is scored after them, and how it is read, is the same."""
    known, unknown = (ModelSimulator("all-at-once", PIECES, shots) for shots in ("known", "unknown"))
    tokens = np.array([[1, 2, 4]], dtype=np.int32)
    ((one,), (other,)) = (simulator.requests("cats", tokens) for simulator in (known, unknown))
    assert isinstance(one, Score)
    assert isinstance(other, Score)
    outcome = answered(one, [0, 9, 3], CUTS["whole"])

    assert known.prompt_sha256 != unknown.prompt_sha256
    assert (one.continuation, one.top_logprobs) == (other.continuation, other.top_logprobs)
    assert unknown.predicted("cats", tokens, [outcome]).levels.tolist() == known.predicted("cats", tokens, [outcome]).levels.tolist()


@pytest.mark.parametrize(("form", "shots"), [*((form, "known") for form in FORMS), ("all-at-once", "unknown")])
def test_prompts_share_all_but_their_end(form: str, shots: str) -> None:
    """The prompts of two explanations differ only from the explanation on, so that engines read the beginning once."""
    simulator = ModelSimulator(form, PIECES, shots)
    tokens = np.array([[1, 2]], dtype=np.int32)
    one, other = (simulator.requests(explanation, tokens)[-1] for explanation in ("cats", "dogs"))
    if isinstance(one, Score) and isinstance(other, Score):
        assert one.prompt.replace("cats", "") == other.prompt.replace("dogs", "")
        assert one.prompt.rstrip().endswith("cats")
    else:
        assert isinstance(one, Chat)
        assert isinstance(other, Chat)
        assert one.messages[:-1] == other.messages[:-1]
    assert len(simulator.prompt_sha256) == 64
