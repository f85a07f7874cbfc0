"""Rates, areas, shares and means, with their standard errors."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from builders.scorers.statistics import Counts, area, auroc, average_ranks, count_outcomes, mean, rates, share

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.float64]

judged = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0])), min_size=2, max_size=30)


def both(pairs: list[tuple[bool, float]]) -> tuple[Bools, Floats]:
    """Return truths and values as arrays, where both classes are there."""
    truth, value = (np.array(column) for column in zip(*pairs, strict=True))
    assume(truth.any() and not truth.all())
    return truth, value


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
    assert counts.specificity == rates(truth, answer * 1.0, value)["specificity"] == pytest.approx(recall_score(~truth, ~answer))
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
    assume(expected)
    assert auroc(truth, value)[1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("best", [True, False])
def test_perfect_separation_is_no_certainty(best: bool) -> None:
    """Where DeLong's error is zero, each side gets one more example that is half right: 9 and 4 give ½ √(1/10² + 1/5²)."""
    truth = np.arange(13) < 9
    area, error = auroc(truth, truth * 1.0 if best else 1.0 - truth)

    assert area == float(best)
    assert error == pytest.approx(0.5 * math.sqrt(1 / 100 + 1 / 25))


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
    found, error = auroc(np.array([True, True, False, False]), np.array([3.0, 1.0, 2.0, 0.0]))
    assert found == 0.75
    assert error == pytest.approx(math.sqrt(1 / 8))


@given(st.lists(st.sampled_from([-1.5, -0.0, 0.0, 0.1, 0.2, 7.0])))
def test_ranks_are_those_of_scipy(values: list[float]) -> None:
    """Bit for bit, equal values share the mean of their ranks."""
    assert average_ranks(np.array(values)).tolist() == rankdata(values).tolist()


@pytest.mark.parametrize(("value", "expected"), [([2.0, 1.0, 0.0, 0.0], 1.0), ([0.0, 0.0, 1.0, 2.0], 0.0), ([1.0, 1.0, 1.0, 1.0], 0.5)])
def test_areas_at_the_ends_and_of_a_constant(value: list[float], expected: float) -> None:
    """Perfect order is 1, perfect disorder 0, and one and the same value for all is ½."""
    assert auroc(np.array([True, True, False, False]), np.array(value))[0] == expected


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


# Columns of SCORES

MAYBE = st.one_of(st.none(), st.floats(0, 1))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), MAYBE), max_size=20))
@settings(max_examples=150)
def test_columns_of_yes_and_no(answers: list[tuple[bool, bool, float | None]]) -> None:
    """The score is balanced accuracy; the area is that of examples with a probability; one class alone has no score."""
    truth, answer = (np.array([row[place] for row in answers], dtype=bool) for place in (0, 1))
    probability = np.array([math.nan if p is None else p for _, _, p in answers], dtype=np.float64)
    found = rates(truth, answer.astype(np.float64), probability)
    if not truth.any() or truth.all():
        assert found == {"status": "one class only" if answers else "no answers"}
        return
    assert found["status"] == "ok"
    assert found["score"] == pytest.approx(balanced_accuracy_score(truth, answer))
    assert found["score_low"] == found["score_high"] == found["score"]
    sure = ~np.isnan(probability)
    assert found.get("auroc_n", 0) == sure.sum()
    assert ("auroc" in found) == (len(set(truth[sure].tolist())) == 2)
    assert "auroc" not in found or found["auroc"] == pytest.approx(roc_auc_score(truth[sure], probability[sure]))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 1.0, math.nan])), min_size=1, max_size=20))
@settings(max_examples=150)
def test_bounds_hold_whatever_the_missing_answers_are(answers: list[tuple[bool, float]]) -> None:
    """The bounds are the scores with all missing answers wrong and all right; the score lies between them, as with any answers."""
    truth, answer = (np.array(column) for column in zip(*answers, strict=True))
    known = ~np.isnan(answer)
    nothing = np.full(len(truth), math.nan)
    found = rates(truth, answer, nothing)
    assume(found["status"] == "ok")
    filled = [np.where(known, answer, fill) for fill in (~truth, truth, np.arange(len(truth)) % 2)]
    low, high, some = (rates(truth, fill, nothing)["score"] for fill in filled)
    assert (found["score_low"], found["score_high"]) == (pytest.approx(low), pytest.approx(high))
    assert low - 1e-12 <= min(some, found["score"]) <= max(some, found["score"]) <= high + 1e-12
    assert found["score"] == rates(truth[known], answer[known], nothing[known])["score"]


def test_one_probability_less_is_no_area_less() -> None:
    """Where one of five examples has no probability, the area is that of the other four."""
    probability = np.array([0.9, 0.4, 0.6, 0.1, math.nan])
    found = rates(np.array([True, True, False, False, False]), np.array([1.0, 0.0, 1.0, 0.0, 0.0]), probability)
    assert (found["auroc"], found["auroc_n"]) == (0.75, 4)


def test_bounds_by_hand() -> None:
    """Of two positives one is right and one missing, of two negatives one is right and one wrong: ¾ − ½ · ½ below and ¾ above."""
    found = rates(np.array([True, True, False, False]), np.array([1.0, math.nan, 0.0, 1.0]), np.full(4, math.nan))
    assert (found["score_low"], found["score"], found["score_high"]) == (0.5, 0.75, 0.75)


def test_columns_by_hand() -> None:
    """Positives at 0.9, 0.4 and negatives at 0.6, 0.1: recall ½, specificity ½, three of four pairs in order."""
    probability = np.array([0.9, 0.4, 0.6, 0.1])
    found = rates(np.array([True, True, False, False]), (probability >= 0.5).astype(np.float64), probability)
    assert [found[name] for name in ("score", "accuracy", "precision", "recall", "f1", "auroc")] == [0.5, 0.5, 0.5, 0.5, 0.5, 0.75]


@given(judged)
def test_columns_of_an_area(pairs: list[tuple[bool, float]]) -> None:
    """Where the area is the score, both columns hold it, with its error."""
    truth, value = both(pairs)
    score, error = auroc(truth, value)
    expected = {"status": "ok", "score": score, "score_se": error, "auroc": score, "auroc_se": error, "auroc_n": len(truth)}
    assert area(truth, value) == expected


@pytest.mark.parametrize(("truth", "status"), [([], "no answers"), ([True], "one class only"), ([False, False], "one class only")])
def test_one_class_has_no_area(truth: list[bool], status: str) -> None:
    """Without both classes there is a status and no number: not 0, not ½."""
    assert area(np.array(truth, dtype=bool), np.zeros(len(truth))) == {"status": status}


def test_a_share_by_hand() -> None:
    """Three of four found are 0.75; the error is that of 4 of 6, so that four of four is not certain."""
    p, all_of_four = 4 / 6, 5 / 6
    assert share(np.array([True, True, False, True])) == {
        "status": "ok", "score": 0.75, "score_se": pytest.approx(math.sqrt(p * (1 - p) / 6)), "accuracy": 0.75,
        "score_low": 0.75, "score_high": 0.75,
    }  # fmt: skip
    assert share(np.ones(4, dtype=bool))["score_se"] == pytest.approx(math.sqrt(all_of_four * (1 - all_of_four) / 6))


def test_bounds_of_a_share() -> None:
    """Three of four found and two not answered are three of six at least, and five of six at most."""
    found = share(np.array([True, True, False, True]), 2)
    assert (found["score_low"], found["score"], found["score_high"]) == (3 / 6, 3 / 4, 5 / 6)


def test_the_error_of_a_share_is_what_repetition_shows() -> None:
    """Over 2000 repetitions of 50 trials at a true share of 0.7, the score spreads as its standard error says."""
    found = np.random.default_rng(2).random((2000, 50)) < 0.7
    columns = [share(row) for row in found]
    assert np.mean([one["score_se"] for one in columns]) == pytest.approx(np.std([one["score"] for one in columns]), rel=0.1)


def test_a_mean_by_hand() -> None:
    """The mean of 1, 2 and 6 is 3, its error √7/√3; one value alone has a mean and no error."""
    assert mean(np.array([1.0, 2.0, 6.0])) == {"status": "ok", "score": 3.0, "score_se": pytest.approx(math.sqrt(7 / 3))}
    assert mean(np.array([2.5])) == {"status": "ok", "score": 2.5, "score_se": None}


@pytest.mark.parametrize("columns", [share(np.zeros(0, dtype=bool)), mean(np.zeros(0))])
def test_nothing_has_no_number(columns: dict[str, Any]) -> None:
    """Where nothing was answered there is a status, and no score of 0."""
    assert columns == {"status": "no answers"}
