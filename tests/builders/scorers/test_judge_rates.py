"""How often a judge is right about planted rules: rates over rules, their errors and intervals, and the ways of asking."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from builders.scorers.judges import JUDGES, judge_records, pooled, way
from builders.scorers.statistics import rate_variance


def test_a_judge_that_never_errs_is_not_certain() -> None:
    """Of 100 right answers over five rules the share is 1, its error that of 101 of 102, and the interval ends at 1."""
    rate = pooled(np.full(5, 20), np.full(5, 20))

    assert (rate.value, rate.high) == (1.0, 1.0)
    assert rate.se == pytest.approx(math.sqrt(rate_variance(100, 100)))
    assert 0.9 < rate.low < 0.97


def test_rules_are_the_independent_units() -> None:
    """Two rules, all right and all wrong, are a share of ½ with the error of two values; were windows independent, it would be 0.08."""
    rate = pooled(np.array([20, 0]), np.array([20, 20]))

    assert (rate.value, rate.se) == (0.5, pytest.approx(math.sqrt(2 * (10**2 + 10**2)) / 40))
    assert (rate.low, rate.high) == (pytest.approx(0.055, abs=0.002), pytest.approx(0.945, abs=0.002))


def test_a_rule_with_more_windows_counts_more() -> None:
    """The share is that of all windows together."""
    assert pooled(np.array([10, 0]), np.array([10, 30])).value == 0.25


def test_the_interval_is_wilson_s_where_windows_are_independent() -> None:
    """With one rule the interval is Wilson's for about as many windows."""
    rate = pooled(np.array([300]), np.array([400]))
    z, n, p = 1.96, 402, 0.75
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))

    assert (rate.low, rate.high) == (pytest.approx((centre - half) / (1 + z * z / n)), pytest.approx((centre + half) / (1 + z * z / n)))


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (("detection", "random"), "detection"),
        (("detection", "pool"), "detection"),
        (("detection", "similar"), "detection-similar"),
        (("fuzzing", "active"), "fuzzing-active"),
        (("fuzzing", "row", "random"), "fuzzing-row-random-marks"),
    ],
)
def test_a_way_of_asking_has_a_name(asked: tuple[str, ...], name: str) -> None:
    """Negatives that are drawn evenly from all silent windows are one way, whatever their number; other negatives and marks are others."""
    assert way(*asked) == name


def row(judge: str, scorer: str, recall: float | None, specificity: float | None, n: int = 20) -> dict[str, Any]:
    """Return what CALIBRATION says of a rule of which half the windows are positives."""
    known = recall is not None
    found = {"judge": judge, "scorer": scorer, "meaning": "true", "recall": recall, "specificity": specificity}
    found |= {"sae": "rules", "latent": 0, "score": None, "auroc": None}
    found |= {"n": n if known else 0, "n_positive": n // 2 if known else 0, "n_failed": 0 if known else n}
    return found | {"status": "ok" if known else "names no token"}


def test_rows_of_all_rules_become_one() -> None:
    """A judge has a row for each way of asking; explanations that are too broad do not count, and surprisal has no rates."""
    calibration = [
        row("reader", "detection", 0.8, 1.0),
        row("reader", "detection", 1.0, 0.7),
        row("reader", "detection", 0.1, 0.1) | {"meaning": "broad"},
        row("reader", "fuzzing-active", 0.5, 0.5),
        row("oracle", "surprisal", None, None),
        row("lexical", "detection", None, None),
        row("lexical", "detection", None, None),
    ]
    spent = {("reader", "detection"): {"model": "m", "prompt_sha256": "p", "prompt_tokens": 5, "cached_tokens": 1, "output_tokens": 2}}
    table = JUDGES.rows(list(judge_records(calibration, spent)))
    JUDGES.validate(table)
    found = {(one["judge"], one["scorer"]): one for one in table.to_pylist()}
    one, lexical = found["reader", "detection"], found["lexical", "detection"]

    assert set(found) == {("reader", "detection"), ("reader", "fuzzing-active"), ("oracle", "surprisal"), ("lexical", "detection")}
    assert (one["rules"], one["n_positive"], one["n_negative"], one["n_failed"], one["status"]) == (2, 20, 20, 0, "ok")
    assert (one["sensitivity"], one["specificity"], one["youden"]) == (0.9, 0.85, pytest.approx(0.75))
    assert one["youden_se"] == pytest.approx(math.hypot(one["sensitivity_se"], one["specificity_se"]))
    assert one["sensitivity_low"] < 0.9 < one["sensitivity_high"]
    assert (one["model"], one["prompt_tokens"], found["reader", "fuzzing-active"]["model"]) == ("m", 5, None)
    assert (lexical["status"], lexical["rules"], lexical["n_failed"]) == ("names no token", 2, 40)
    assert {lexical[name] for name in ("sensitivity", "specificity_low", "youden")} == {None}


def pair(latent: int, true: float, other: float | None, area: str = "auroc") -> list[dict[str, Any]]:
    """Return what CALIBRATION says of a rule's own truth and of another's, with an *area* under the ROC or, where that is `score`, none."""
    rows = [("true", true), ("other", other)]
    known = [(meaning, value) for meaning, value in rows if value is not None]
    return [
        row("reader", "surprisal", None, None) | {"latent": latent, "meaning": meaning, "status": "ok", area: value}
        for meaning, value in known
    ]


@pytest.mark.parametrize("area", ["auroc", "score"])
def test_true_explanations_are_told_from_false_ones(area: str) -> None:
    """`apart` is the share of pairs in which a true explanation has more than a false one, over the rules that have both."""
    rows = [*pair(0, 0.9, 0.5, area), *pair(1, 0.8, 0.6, area), *pair(2, 0.55, 0.7, area), *pair(3, 0.9, None, area)]
    (found,) = judge_records(rows, {})

    assert (found["apart"], found["apart_rules"], found["rules"]) == (pytest.approx(7 / 9), 3, 4)
    assert found["auroc"] == (pytest.approx(3.15 / 4) if area == "auroc" else None)
    assert (found["status"], found["sensitivity"]) == ("ok", None)


def test_a_judge_that_is_always_right_has_an_error_all_the_same() -> None:
    """Where every true explanation has more than every false one, the error is that of a share of as many rules, not zero."""
    (found,) = judge_records([one for latent in range(16) for one in pair(latent, 0.9, 0.5)], {})

    assert (found["apart"], found["apart_se"]) == (1.0, pytest.approx(math.sqrt(17 / 18 * 1 / 18 / 18)))


def test_one_rule_tells_nothing_apart() -> None:
    """With fewer than two rules that have both scores there is no `apart`."""
    (found,) = judge_records(pair(0, 0.9, 0.5), {})

    assert (found["apart"], found["apart_se"], found["apart_rules"]) == (None, None, 1)
