"""Scorers: rates and areas with their errors, what is asked, what the lexical judge answers, and failures that stay failures."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from builders.contexts import Examples
from builders.explainers import cues
from builders.explainers.cues import Cue
from builders.scorers import SCORERS, detection, fuzzing
from builders.scorers.judgements import JUDGEMENTS, SCORES, Identity, judge_trials, score
from builders.scorers.lexical import LexicalJudge
from builders.scorers.statistics import Counts, auroc, count_outcomes
from builders.scorers.trials import Trials

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

WHO = Identity("toy", 3, "lexical", "detection", "lexical")

judged = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0])), min_size=2, max_size=30)


def both(pairs: list[tuple[bool, float]]) -> tuple[Bools, Floats]:
    """Return truths and values as arrays, where both classes are there."""
    truth, value = (np.array(column) for column in zip(*pairs, strict=True))
    assume(truth.any() and not truth.all())
    return truth, value


# Statistics


@given(judged)
@settings(max_examples=100)
def test_rates_are_those_of_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    """Accuracy, balanced accuracy, precision, recall and F1 are scikit-learn's; precision without a yes is none."""
    truth, value = both(pairs)
    answer = value >= 0.5
    counts = count_outcomes(truth, answer)
    assert counts.accuracy == pytest.approx(accuracy_score(truth, answer))
    assert counts.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, answer))
    assert counts.recall == pytest.approx(recall_score(truth, answer))
    assert counts.f1 == pytest.approx(f1_score(truth, answer, zero_division=0))
    assert counts.precision == (pytest.approx(precision_score(truth, answer)) if answer.any() else None)


@given(judged)
@settings(max_examples=100)
def test_the_area_is_that_of_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    """The AUROC is scikit-learn's, ties counted half."""
    truth, value = both(pairs)
    assert auroc(truth, value)[0] == pytest.approx(roc_auc_score(truth, value))


@given(judged)
@settings(max_examples=100)
def test_the_area_s_error_is_delong_s(pairs: list[tuple[bool, float]]) -> None:
    """The standard error is DeLong's: the variances of each example's mean comparison with the other class, over their numbers."""
    truth, value = both(pairs)
    positive, negative = value[truth], value[~truth]
    assume(min(len(positive), len(negative)) > 1)
    wins = {(i, j): (p > q) + 0.5 * (p == q) for (i, p), (j, q) in product(enumerate(positive), enumerate(negative))}
    v10 = [sum(wins[i, j] for j in range(len(negative))) / len(negative) for i in range(len(positive))]
    v01 = [sum(wins[i, j] for i in range(len(positive))) / len(positive) for j in range(len(negative))]
    expected = math.sqrt(np.var(v10, ddof=1) / len(positive) + np.var(v01, ddof=1) / len(negative))
    assert auroc(truth, value)[1] == pytest.approx(expected, abs=1e-12)


def test_the_area_s_error_is_what_resampling_shows() -> None:
    """On 60 positives and 50 negatives the standard error agrees with that of 400 bootstrap samples to a quarter."""
    rng = np.random.default_rng(0)
    truth = np.arange(110) < 60
    value = rng.normal(size=110) + truth
    areas = []
    for _ in range(400):
        index = np.concatenate([rng.integers(0, 60, 60), rng.integers(60, 110, 50)])
        areas.append(auroc(truth[index], value[index])[0])
    assert auroc(truth, value)[1] == pytest.approx(np.std(areas), rel=0.25)


def test_an_area_by_hand() -> None:
    """Positives 3, 1 and negatives 2, 0: three of four pairs right, V10 = (1, ½), V01 = (½, 1), so the error is √(⅛/2 + ⅛/2)."""
    area, error = auroc(np.array([True, True, False, False]), np.array([3.0, 1.0, 2.0, 0.0]))
    assert area == 0.75
    assert error == pytest.approx(math.sqrt(1 / 8))


@pytest.mark.parametrize(("value", "area"), [([2.0, 1.0, 0.0, 0.0], 1.0), ([0.0, 0.0, 1.0, 2.0], 0.0), ([1.0, 1.0, 1.0, 1.0], 0.5)])
def test_areas_at_the_ends_and_of_a_constant(value: list[float], area: float) -> None:
    """Perfect order is 1, perfect disorder 0, and one and the same value for all is ½."""
    assert auroc(np.array([True, True, False, False]), np.array(value))[0] == area


def test_rates_by_hand() -> None:
    """Of 50 positives 40 and of 25 negatives 20 are right: balanced accuracy 0.8, precision 40 of 45, F1 80 of 95."""
    counts = Counts(true_positive=40, false_negative=10, true_negative=20, false_positive=5)
    assert (counts.recall, counts.specificity, counts.accuracy) == (0.8, 0.8, 0.8)
    assert counts.balanced_accuracy == pytest.approx(0.8)
    assert (counts.precision, counts.f1) == (40 / 45, 80 / 95)


def test_a_perfect_score_has_an_error() -> None:
    """50 of 50 and 50 of 50 are taken as 51 of 52 each, so their mean is not certain."""
    p = 51 / 52
    expected = math.sqrt(2 * p * (1 - p) / 52) / 2
    assert Counts(50, 0, 50, 0).balanced_accuracy_se == pytest.approx(expected)
    assert expected > 0.01


def test_the_error_of_balanced_accuracy_is_what_repetition_shows() -> None:
    """Over 2000 repetitions with true rates 0.8 and 0.6, the score spreads as its standard error says."""
    rng = np.random.default_rng(1)
    hits, rejections = rng.binomial(50, 0.8, 2000), rng.binomial(50, 0.6, 2000)
    counts = [Counts(int(h), int(50 - h), int(r), int(50 - r)) for h, r in zip(hits, rejections, strict=True)]
    spread = np.std([one.balanced_accuracy for one in counts])
    assert np.mean([one.balanced_accuracy_se for one in counts]) == pytest.approx(spread, rel=0.1)


# What is asked

SIZE, WINDOW = 12, 6
SPECIAL = np.arange(SIZE) == 0


@st.composite
def examples_of(draw: st.DrawFn, special: bool = True) -> Examples:
    """Draw test windows of one latent; it never fires on the special token 0, and in some windows not at all."""
    positive, negative = draw(st.integers(1, 6)), draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    tokens = rng.integers(0 if special else 1, SIZE, (positive + negative, WINDOW)).astype(np.int32)
    tokens[:positive, 2] = np.maximum(tokens[:positive, 2], 1)
    values = rng.exponential(size=tokens.shape) * (rng.random(tokens.shape) < 0.5)
    values[:, 2] += 0.01
    values[tokens == 0] = 0.0
    values[positive:] = 0.0
    truth = np.arange(positive + negative) < positive
    return Examples(draw(st.integers(0, 99)), np.arange(len(truth)) + 10, tokens, values.astype(np.float32), truth)


@given(examples_of())
def test_detection_asks_about_every_window_unmarked(examples: Examples) -> None:
    """Every window is asked about, without marks, and the truth is whether the latent fires in it."""
    trials = detection.trials(examples, SPECIAL, 0)
    assert trials.marks is None
    assert trials.status == ["ok"] * len(examples.number)
    assert trials.truth.tolist() == examples.activations.any(axis=1).tolist()
    assert (trials.latent, trials.number.tolist()) == (examples.latent, examples.number.tolist())
    assert np.array_equal(trials.tokens, examples.tokens)


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=150)
def test_positives_mark_the_tokens_near_the_largest(examples: Examples, seed: int) -> None:
    """In an activating window exactly the tokens that reach 0.3 of its largest activation are marked."""
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    for n in np.flatnonzero(examples.activating):
        values = examples.activations[n].tolist()
        assert trials.marks[n].tolist() == [value >= np.float32(0.3) * np.float32(max(values)) for value in values]
        assert trials.status[n] == "ok"


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=150)
def test_negatives_borrow_the_marks_of_a_positive(examples: Examples, seed: int) -> None:
    """A silent window has exactly the marks of some activating window, none on a special token, or none and a reason."""
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    patterns = {tuple(marks) for marks in trials.marks[examples.activating].tolist()}
    for n in np.flatnonzero(~examples.activating):
        special = SPECIAL[examples.tokens[n]].tolist()
        fits = {marks for marks in patterns if not any(mark and bad for mark, bad in zip(marks, special, strict=True))}
        if fits:
            assert (tuple(trials.marks[n].tolist()) in fits, trials.status[n]) == (True, "ok")
        else:
            assert not trials.marks[n].any()
            assert trials.status[n] != "ok"


@given(examples_of(), st.integers(0, 2**62))
@settings(max_examples=100)
def test_no_special_token_is_ever_marked(examples: Examples, seed: int) -> None:
    """Neither positives nor negatives mark a special token."""
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    assert not (trials.marks & SPECIAL[examples.tokens]).any()


@given(examples_of(special=False), st.integers(0, 2**62))
@settings(max_examples=50)
def test_negatives_borrow_from_all_positives_in_turn(examples: Examples, seed: int) -> None:
    """Where nothing stands in the way, no positive lends its marks twice before each has lent them once."""
    trials = fuzzing.trials(examples, SPECIAL, seed)
    assert trials.marks is not None
    lenders = sorted(map(tuple, trials.marks[examples.activating].tolist()))
    borrowed = sorted(map(tuple, trials.marks[~examples.activating].tolist()))
    for pattern in set(lenders):
        rounds, rest = divmod(len(borrowed), len(lenders))
        assert rounds * lenders.count(pattern) <= borrowed.count(pattern) <= (rounds + bool(rest)) * lenders.count(pattern)


def test_marks_are_lent_by_seed() -> None:
    """The same seed lends the same marks; over seeds a negative gets different ones."""
    tokens = np.ones((9, WINDOW), dtype=np.int32)
    values = np.vstack([np.eye(WINDOW), np.zeros((3, WINDOW))]).astype(np.float32)
    examples = Examples(1, np.arange(9), tokens, values, values.max(axis=1) > 0)
    lent = [marks[6:].tobytes() for seed in (1, 1, 2, 3, 4) if (marks := fuzzing.trials(examples, SPECIAL, seed).marks) is not None]
    assert len(lent) == 5
    assert lent[0] == lent[1]
    assert len(set(lent)) > 1


def test_an_example_without_marks_is_no_answer() -> None:
    """A negative on which no positive's marks fit is counted as failed, neither right nor wrong."""
    tokens = np.array([[1, 2], [3, 0]], dtype=np.int32)
    values = np.array([[0.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    trials = fuzzing.trials(Examples(0, np.arange(2), tokens, values, np.array([True, False])), SPECIAL, 0)
    judge = LexicalJudge([f"w{token}" for token in range(SIZE)])
    rows, record = judge_trials(WHO, cues.write([Cue("w2", None, 1.0, 0.9)]), trials, judge)
    assert (record["n"], record["n_failed"], record["score"], record["status"]) == (1, 1, None, "one class only")
    assert [(row["answer"], row["probability"]) for row in rows.to_pylist()] == [(True, pytest.approx(0.9)), (None, None)]
    assert rows["status"].to_pylist() == ["ok", "no marks fit"]


# What is answered


def trials_of(tokens: list[list[int]], truth: list[bool], marks: list[list[bool]] | None = None) -> Trials:
    """Return trials of these windows."""
    shown = None if marks is None else np.array(marks)
    return Trials(3, np.arange(len(tokens)), np.array(truth), np.array(tokens, dtype=np.int32), shown, ["ok"] * len(tokens))


def test_the_lexical_judge_is_a_noisy_or_over_tokens() -> None:
    """A window with a cue of reliability 0.6 twice fits with 1 − 0.4², one without with 0."""
    judge = LexicalJudge(["a", "b", "c"])
    text = cues.write([Cue("a", None, 0.7, 0.6), Cue("b", "c", 0.3, 0.5)])
    probability = judge(text, trials_of([[0, 1, 0], [1, 1, 1], [2, 1, 2]], [True, False, True]))
    assert probability.tolist() == pytest.approx([1 - 0.4**2, 0.0, 0.5])


def test_in_a_marked_window_only_the_marked_tokens_speak() -> None:
    """A cue outside the marks counts for nothing."""
    judge = LexicalJudge(["a", "b"])
    marks = [[True, False, False], [False, True, True]]
    probability = judge(cues.write([Cue("a", None, 1.0, 0.8)]), trials_of([[0, 1, 0], [0, 1, 1]], [True, False], marks))
    assert probability.tolist() == pytest.approx([0.8, 0.0])


def test_pieces_that_several_ids_share_are_one_cue() -> None:
    """Two ids with the same text are both what the explanation names."""
    judge = LexicalJudge(["a", "b", "a"])
    assert judge(cues.write([Cue("a", None, 1.0, 0.8)]), trials_of([[0, 1], [1, 2]], [True, True])).tolist() == pytest.approx([0.8, 0.8])


@pytest.mark.parametrize("text", ["", "Fires on verbs of motion.", 'Fires on "a".'])
def test_a_text_that_names_nothing_is_never_half(text: str) -> None:
    """A text the judge cannot read gives null answers, all counted as failed, and no score: not 0, not 0.5."""
    trials = trials_of([[0, 1], [1, 1], [1, 0]], [True, False, True])
    rows, record = judge_trials(WHO, text, trials, LexicalJudge(["a", "b"]))
    JUDGEMENTS.validate(rows)
    SCORES.validate(SCORES.rows([record]))
    assert rows["answer"].to_pylist() == rows["probability"].to_pylist() == [None] * 3
    assert rows["truth"].to_pylist() == [True, False, True]
    assert "ok" not in rows["status"].to_pylist()
    assert (record["n"], record["n_failed"], record["status"]) == (0, 3, "no answers")
    assert [record[name] for name in ("score", "score_se", "auroc", "auroc_se", "accuracy", "precision", "recall", "f1")] == [None] * 8


@given(st.lists(st.tuples(st.booleans(), st.one_of(st.none(), st.floats(0, 1))), min_size=1, max_size=20))
@settings(max_examples=100)
def test_a_score_rests_on_the_answered_examples_alone(answers: list[tuple[bool, float | None]]) -> None:
    """Unanswered examples are null rows, counted in n_failed; the score is that of the others, if both classes are among them."""
    truth = [is_true for is_true, _ in answers]
    given_ = np.array([math.nan if p is None else p for _, p in answers])

    def judge(text: str, trials: Trials) -> Floats:
        return given_

    rows, record = judge_trials(WHO, "words", trials_of([[0]] * len(answers), truth), judge)
    JUDGEMENTS.validate(rows)
    SCORES.validate(SCORES.rows([record]))
    assert rows["answer"].to_pylist() == [None if p is None else p >= 0.5 for _, p in answers]
    fine = [(is_true, p) for is_true, p in answers if p is not None]
    assert (record["n"], record["n_failed"]) == (len(fine), len(answers) - len(fine))
    assert record["n_positive"] == sum(is_true for is_true, _ in fine)
    assert record["chance"] == 0.5
    if len({is_true for is_true, _ in fine}) == 2:
        kept, values = [is_true for is_true, _ in fine], [p for _, p in fine]
        assert record["status"] == "ok"
        assert record["score"] == pytest.approx(balanced_accuracy_score(kept, np.array(values) >= 0.5))
        assert record["auroc"] == pytest.approx(roc_auc_score(kept, values))
    else:
        assert record["score"] is None
        assert record["status"] == ("one class only" if fine else "no answers")


def test_judgements_and_score_say_whose_they_are() -> None:
    """Every row carries the SAE, latent, explainer, scorer and judge; examples keep their numbers."""
    trials = trials_of([[0, 1], [1, 1]], [True, False])
    rows, record = judge_trials(WHO, cues.write([Cue("a", None, 1.0, 0.9)]), trials, LexicalJudge(["a", "b"]))
    for found in (*rows.to_pylist(), record):
        assert [found[name] for name in ("sae", "latent", "explainer", "scorer", "judge")] == ["toy", 3, "lexical", "detection", "lexical"]
    assert rows["example"].to_pylist() == [0, 1]
    assert (record["score"], record["auroc"], record["f1"], record["status"]) == (1.0, 1.0, 1.0, "ok")


def test_a_score_by_hand() -> None:
    """Positives at 0.9, 0.4 and negatives at 0.6, 0.1: recall ½, specificity ½, three of four pairs in order."""
    record = score(WHO, np.array([True, True, False, False]), np.array([0.9, 0.4, 0.6, 0.1]), 1)
    names = ("score", "accuracy", "precision", "recall", "f1", "auroc", "n", "n_failed", "n_positive")
    assert [record[name] for name in names] == [0.5, 0.5, 0.5, 0.5, 0.5, 0.75, 4, 1, 2]


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_right_explanation_scores_and_a_wrong_one_does_not(scorer: str) -> None:
    """On a latent that fires on one token, naming it scores above 0.9 and naming another about chance, by either scorer."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(3, SIZE, (100, WINDOW)).astype(np.int32)
    place = rng.integers(0, WINDOW, 50)
    tokens[np.arange(50), place] = 2
    examples = Examples(0, np.arange(100), tokens, (tokens == 2).astype(np.float32), np.arange(100) < 50)
    trials = SCORERS[scorer](examples, SPECIAL, 0)
    judge = LexicalJudge([f"w{token}" for token in range(SIZE)])
    scores = {name: judge_trials(WHO, cues.write([Cue(name, None, 1.0, 0.9)]), trials, judge)[1]["score"] for name in ("w2", "w7")}
    assert scores["w2"] > 0.9
    assert abs(scores["w7"] - 0.5) < 0.2
