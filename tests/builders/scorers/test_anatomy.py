"""Breadth, positive predictive value, and all rates without a judge's errors: known answers, errors by numerical slopes, and draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.scorers.anatomy import ANATOMY, Estimate, anatomy_rows, breadth, corrected, corrected_score, ppv
from builders.scorers.statistics import rate_variance

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = {"sae": "toy", "explainer": "lexical", "negatives": "random", "judge": "reader"}
WAYS = {"detection": "detection", "fuzzing": "fuzzing", "near": "detection-cofiring"}
shares = st.floats(0.05, 0.95)


def known(*values: float, variance: float = 0.0) -> list[Estimate]:
    """Return an Estimate of each value, all with the same variance."""
    return [Estimate(np.array([value]), np.array([variance])) for value in values]


def test_breadth_and_what_is_right_of_it() -> None:
    """Of a latent that fires in a tenth of all windows, 0.8 accepted, and 0.05 of the others: 0.125 is accepted, 0.64 of it rightly."""
    recall, false = known(0.8, 0.05)

    assert breadth(recall, false, np.array([0.1])).value.tolist() == pytest.approx([0.125])
    assert ppv(recall, false, np.array([0.1])).value.tolist() == pytest.approx([0.64])


def test_a_judge_of_known_errors_is_undone() -> None:
    """A judge that says yes to 0.9 of what fits and to 0.2 of what does not has seen a share of 0.55 where one half fits."""
    share, hit, alarm = known(0.55, 0.9, 0.2)

    assert corrected(share, hit, alarm).value.tolist() == pytest.approx([0.5])
    assert corrected_score(known(0.675)[0], hit, alarm).value.tolist() == pytest.approx([0.75])  # ½ + 0.175 / 0.7


@given(shares, shares, st.floats(0.01, 0.9), st.floats(0.6, 1.0), st.floats(0.0, 0.4))
def test_errors_of_the_judge_leave_no_trace(r: float, f: float, prevalence: float, sensitivity: float, false: float) -> None:
    """From the rates that a judge of known errors sees, the true rates, breadth, predictive value and score come back."""
    seen = [sensitivity * share + false * (1 - share) for share in (r, f)]
    recall, silent, hit, alarm, score = known(*seen, sensitivity, false, (seen[0] + 1 - seen[1]) / 2)
    often = np.array([prevalence])
    accepted = prevalence * r + (1 - prevalence) * f

    assert corrected(recall, hit, alarm).value[0] == pytest.approx(r)
    assert corrected(silent, hit, alarm).value[0] == pytest.approx(f)
    assert corrected(breadth(recall, silent, often), hit, alarm).value[0] == pytest.approx(accepted)
    assert ppv(recall, silent, often, alarm).value[0] == pytest.approx(prevalence * r / accepted)
    assert corrected_score(score, hit, alarm).value[0] == pytest.approx((r + 1 - f) / 2)


OFTEN = np.array([0.3])
# Each formula of recall, false alarms, and the judge's rates of yes where it should say yes and where it should not.
FORMULAS: dict[str, Callable[[list[Estimate]], Estimate]] = {
    "breadth": lambda rates: breadth(rates[0], rates[1], OFTEN),
    "ppv": lambda rates: ppv(rates[0], rates[1], OFTEN),
    "corrected": lambda rates: corrected(rates[0], rates[2], rates[3]),
    "corrected ppv": lambda rates: ppv(rates[0], rates[1], OFTEN, rates[3]),
    "corrected score": lambda rates: corrected_score(rates[0], rates[2], rates[3]),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_errors_follow_the_slopes(name: str) -> None:
    """The variance is the sum over the four rates of squared slope times variance, the slopes taken numerically."""
    values, variances = [0.7, 0.25, 0.9, 0.15], [0.004, 0.002, 0.0007, 0.0005]
    formula = FORMULAS[name]

    def at(place: int, step: float) -> float:
        moved = [value + step * (place == here) for here, value in enumerate(values)]
        return float(formula(known(*moved)).value[0])

    slopes = [(at(place, 1e-6) - at(place, -1e-6)) / 2e-6 for place in range(4)]
    given_ = [known(value, variance=variance)[0] for value, variance in zip(values, variances, strict=True)]
    expected = sum(slope**2 * variance for slope, variance in zip(slopes, variances, strict=True))

    assert formula(given_).variance[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("r", "f", "alarm"), [(0.0, 0.0, 0.0), (0.1, 0.3, 0.2)])
def test_where_nothing_is_accepted_nothing_is_told(r: float, f: float, alarm: float) -> None:
    """Without accepted windows, or with fewer firing ones than false alarms alone, there is no predictive value and no error."""
    recall, false, beside = known(r, f, alarm)
    found = ppv(recall, false, np.array([0.1]), beside)

    assert np.isnan([found.value[0], found.variance[0]]).all()


def test_accepting_silent_windows_only_is_the_worst() -> None:
    """Where the judge accepts silent windows and no firing one, the predictive value is 0 and is told."""
    recall, false = known(0.0, 0.3)
    assert ppv(recall, false, np.array([0.1])).value.tolist() == [0.0]


def test_fewer_false_alarms_than_the_judge_s_own_are_none() -> None:
    """Where silent windows are accepted less often than the judge errs, all that is accepted is right, with an error."""
    found = ppv(*known(0.5, 0.1, variance=0.001), np.array([0.1]), known(0.2)[0])

    assert found.value[0] == 1
    assert found.variance[0] == pytest.approx((0.09 / 0.03**2 * 0.3) ** 2 * 0.001)


def score(scorer: str = "detection", n: tuple[int, int] = (50, 50), hits: tuple[int, int] = (40, 45), **more: Any) -> dict[str, Any]:
    """Return a score of a latent that has *hits* right answers of *n* among positives and negatives."""
    recall, specificity = hits[0] / n[0], hits[1] / n[1]
    own = {"scorer": scorer, "latent": 3, "score": (recall + specificity) / 2, "n": sum(n), "n_positive": n[0]}
    return {**KEY, **own, "recall": recall, "specificity": specificity, **more}


def judge(scorer: str, status: str = "ok", sensitivity: float = 0.9, specificity: float = 0.8, error: float = 0.02) -> dict[str, Any]:
    """Return what JUDGES says of a judge."""
    rates = {"sensitivity": sensitivity, "sensitivity_se": error, "specificity": specificity, "specificity_se": error}
    return {"judge": "reader", "scorer": scorer, "status": status, **(rates if status == "ok" else dict.fromkeys(rates))}


def rows_of(scores: list[dict[str, Any]], *judges: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ANATOMY rows of scores of latent 3, which fires in a tenth of all windows, judged by *judges*."""
    latents = pd.DataFrame({"sae": ["toy"], "latent": [3], "window_density": [0.1]})
    table = anatomy_rows(pd.DataFrame(scores), WAYS, latents, pd.DataFrame(judges, columns=list(judge("x"))))
    ANATOMY.validate(table)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_a_row_holds_the_anatomy_of_a_score() -> None:
    """Of 40 of 50 and 45 of 50 right answers by a known judge all follows, each with its error."""
    (row,) = rows_of([score()], judge("detection"))
    r, s = rate_variance(40, 50), rate_variance(45, 50)
    told = {"n_positive": 50, "n_negative": 50, "prevalence": 0.1, "recall": 0.8, "specificity": 0.9, "score": 0.85, "status": "ok"}
    values = {"breadth": 0.17, "ppv": 0.08 / 0.17, "corrected_recall": 0.6 / 0.7, "corrected_specificity": 0.8 / 0.7}
    values |= {"corrected_breadth": -0.03 / 0.7, "corrected_score": 0.5 + 0.35 / 0.7, "corrected_ppv": 1.0}
    errors = {"recall_se": math.sqrt(r), "specificity_se": math.sqrt(s), "score_se": math.sqrt(r + s) / 2}
    errors |= {"breadth_se": math.sqrt(0.01 * r + 0.81 * s), "ppv_se": 0.09 / 0.17**2 * math.sqrt(0.01 * r + 0.64 * s)}
    errors["corrected_score_se"] = math.sqrt((r + s) / 4 + 0.5**2 * 2 * 0.02**2) / 0.7
    errors["corrected_recall_se"] = math.sqrt(r + (0.1 / 0.7 * 0.02) ** 2 + (0.6 / 0.7 * 0.02) ** 2) / 0.7

    assert {name: row[name] for name in told} == pytest.approx(told)
    assert {name: row[name] for name in values} == pytest.approx(values)
    assert {name: row[name] for name in errors} == pytest.approx(errors)


@pytest.mark.parametrize(
    ("judges", "status"),
    [
        ([], "not calibrated"),
        ([judge("fuzzing")], "not calibrated"),
        ([judge("detection", "names no token")], "names no token"),
        ([judge("detection", sensitivity=0.55, specificity=0.5)], "no better than chance"),
        ([judge("detection", sensitivity=0.3, specificity=0.3)], "no better than chance"),
    ],
)
def test_without_a_judge_that_can_tell_nothing_is_corrected(judges: list[dict[str, Any]], status: str) -> None:
    """A judge that is not known, cannot read rules, or is within 1.96 errors of guessing corrects nothing; what is raw stays."""
    (row,) = rows_of([score()], *judges)

    assert row["status"] == status
    assert {row[name] for name in row if name.startswith("corrected")} == {None}
    assert row["breadth"] == pytest.approx(0.17)


def test_only_even_negatives_stand_for_all_windows() -> None:
    """Fuzzing and hard negatives have no breadth, a pool has; each scorer is corrected by the way in which it asks."""
    scores = [score("detection"), score("detection", (50, 400), (40, 380), negatives="pool", explainer="other")]
    scores += [
        score("fuzzing"),
        score("near", negatives="cofiring"),
        score("intruder", negatives="internal"),
        score("near") | {"score": None},
    ]
    rows = rows_of(scores, judge("detection"), judge("fuzzing", specificity=0.95), judge("detection-cofiring", specificity=0.7))
    by = {(row["scorer"], row["negatives"]): row for row in rows}

    assert set(by) == {("detection", "random"), ("detection", "pool"), ("fuzzing", "random"), ("near", "cofiring")}
    assert {key: row["breadth"] is None for key, row in by.items()} == {key: key[0] != "detection" for key in by}
    assert by["detection", "pool"]["breadth"] == pytest.approx(0.08 + 0.9 * 0.05)
    assert by["detection", "pool"]["ppv_se"] < by["detection", "random"]["ppv_se"]
    assert by["fuzzing", "random"]["corrected_score"] == pytest.approx(0.5 + 0.35 / 0.85)
    assert by["near", "cofiring"]["corrected_score"] == pytest.approx(0.5 + 0.35 / 0.6)


def test_without_scores_there_are_no_rows() -> None:
    """A run whose scorers ask no judge has an empty table."""
    assert rows_of([score("intruder")]) == []


def test_the_errors_told_are_those_of_repeated_draws() -> None:
    """Over 4,000 draws of windows and of the judge's rates, estimates spread as their mean error says, within a tenth, around the truth."""
    rng, n = np.random.default_rng(0), 4000
    r, f, hit, alarm, often = 0.7, 0.04, 0.9, 0.1, np.full(n, 0.1)
    seen = [hit * share + alarm * (1 - share) for share in (r, f)]
    sizes = {"recall": (seen[0], 50), "false": (seen[1], 450), "hit": (hit, 320), "alarm": (alarm, 320)}
    drawn = {name: rng.binomial(m, p, n) for name, (p, m) in sizes.items()}
    found = {name: Estimate(k / sizes[name][1], rate_variance(k, sizes[name][1])) for name, k in drawn.items()}
    judged = found["hit"], found["alarm"]
    told = {
        "recall": (corrected(found["recall"], *judged), r),
        "breadth": (corrected(breadth(found["recall"], found["false"], often), *judged), 0.1 * r + 0.9 * f),
        "raw ppv": (ppv(found["recall"], found["false"], often), 0.1 * seen[0] / (0.1 * seen[0] + 0.9 * seen[1])),
    }
    for name, (estimate, truth) in told.items():
        spread = estimate.value.std()
        assert abs(estimate.value.mean() - truth) < 0.1 * spread, name
        assert spread == pytest.approx(np.sqrt(estimate.variance).mean(), rel=0.1), name
