"""The best of several explanations: figures with known answers, and what luck makes of the largest score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.scorers.agreement import LEAST
from builders.scorers.best import BEST, FIGURES, OF_PART, READ, best_records, figures, half_scores, halves
from builders.scorers.judgements import JUDGEMENTS
from builders.scorers.statistics import area, rates

WINDOWS = 8  # of each side


def told(answers: dict[str, list[bool | None]], latent: int = 3, first: int = 0) -> list[dict[str, Any]]:
    """Return judgements by explainer: the first half of *answers* is about activating windows, numbered from *first* on."""
    return [
        {"latent": latent, "explainer": name, "example": first + n, "truth": n < len(said) // 2, "answer": answer, "value": None}
        for name, said in answers.items()
        for n, answer in enumerate(said)
    ]


def table(records: list[dict[str, Any]]) -> pa.Table:
    """Return judgements with the columns that are read."""
    schema = pa.schema([JUDGEMENTS.schema.field(name) for name in READ])
    return pa.Table.from_pylist(records, schema=schema)


def test_either_half_chooses_and_the_other_reports() -> None:
    """Of a latent with scores (.6, .5), (.9, .4) and (.7, .8) on both halves: .65 at most, .85 as the paper takes it, .55 first."""
    scores = np.array([[[0.6, 0.5], [0.9, 0.4], [0.7, 0.8]]])
    # The first half chooses the second explanation, which has 0.4 on the other; the second half chooses the third, which has 0.7.
    assert figures(scores).tolist() == [pytest.approx([0.55, 0.55, 0.85, 0.0, 0.3])]
    assert list(FIGURES) == ["first", "chosen", "maximum", "gain", "optimism"]


def test_a_better_explanation_is_found() -> None:
    """An explanation that is best on both halves is chosen by both: the strict figure is the largest, and there is no optimism."""
    scores = np.array([[[0.6, 0.5], [0.9, 0.8]], [[0.9, 0.8], [0.6, 0.5]]])
    assert figures(scores).tolist() == [pytest.approx([0.55, 0.85, 0.85, 0.3, 0.0]), pytest.approx([0.85, 0.85, 0.85, 0.0, 0.0])]


@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 10**6))
def test_the_largest_score_is_never_below_the_chosen_one(latents: int, samples: int, seed: int) -> None:
    """The paper's figure is at least the strict one and at least the first."""
    first, chosen, maximum, gain, optimism = figures(np.random.default_rng(seed).random((latents, samples, 2))).T
    assert (maximum >= chosen).all()
    assert (maximum >= first).all()
    assert gain == pytest.approx(chosen - first)
    assert optimism == pytest.approx(maximum - chosen)


def test_luck_alone_is_optimism() -> None:
    """Of five coins the chosen one has what the first has, while the largest score promises 1.163 standard deviations more."""
    scores = np.random.default_rng(0).normal(0.5, 0.1, (20_000, 5, 2))
    _, _, _, gain, optimism = figures(scores).mean(axis=0)
    assert gain == pytest.approx(0, abs=0.002)
    assert optimism == pytest.approx(0.1163, abs=0.002)


@given(st.integers(0, 99), st.integers(1, 15), st.integers(1, 15), st.integers(0, 2**62))
def test_halves_are_even_on_either_side(latent: int, positive: int, negative: int, seed: int) -> None:
    """Positives and negatives are each divided evenly, and an example's half does not depend on the order of the rows."""
    truth, example = np.arange(positive + negative) < positive, np.arange(positive + negative)
    half = halves(np.full(len(example), latent), truth, example, seed)
    for side in (truth, ~truth):
        assert abs(int((half[side] == 0).sum()) - int((half[side] == 1).sum())) <= 1
    back = example[::-1]
    assert halves(np.full(len(example), latent), truth[back], back, seed).tolist() == half[back].tolist()


def test_scores_of_halves_are_those_of_their_windows() -> None:
    """Each explanation has the balanced accuracy of its answers about each half; missing answers count neither way."""
    rng = np.random.default_rng(1)
    answers: dict[str, list[bool | None]] = {
        name: [None if rng.random() < 0.1 else bool(rng.random() < 0.6) for _ in range(2 * WINDOWS)] for name in ("me", "me-sample-1")
    }
    other = told({"me-permuted": [True] * 16, "you": [False] * 16})
    (found,) = half_scores(table(told(answers) + other), "me", 2, "balanced accuracy", 5)
    truth = np.arange(2 * WINDOWS) < WINDOWS
    half = halves(np.full(2 * WINDOWS, 3), truth, np.arange(2 * WINDOWS), 5)
    for sample, said in enumerate(answers.values()):
        values = np.array([math.nan if answer is None else float(answer) for answer in said])
        expected = [rates(truth[half == side], values[half == side], np.full((half == side).sum(), math.nan))["score"] for side in (0, 1)]
        assert found[sample].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("unit", ["AUROC", "nats"])
def test_values_have_scores_of_halves_too(unit: str) -> None:
    """An AUROC and a mean of nats follow from the values of a half, those that are there."""
    rng = np.random.default_rng(2)
    truth = np.arange(20) < 10
    values = [None if place in {4, 13} else float(value) for place, value in enumerate(rng.normal(size=20) + truth)]
    records = [
        {"latent": 0, "explainer": name, "example": n, "truth": bool(truth[n]), "answer": None, "value": values[n]}
        for name in ("me", "me-sample-1")
        for n in range(20)
    ]
    (found,) = half_scores(table(records), "me", 2, unit, 0)
    half, known = halves(np.zeros(20, dtype=np.int64), truth, np.arange(20), 0), np.array([value is not None for value in values])
    for side in (0, 1):
        there = (half == side) & known
        some = np.array([values[place] for place in np.flatnonzero(there)], dtype=np.float64)
        assert found[0, side] == pytest.approx(area(truth[there], some)["score"] if unit == "AUROC" else some.mean())
    assert found[0].tolist() == found[1].tolist()


def test_a_latent_that_lacks_a_score_is_left_out() -> None:
    """A latent of which one explanation is missing, or was not answered about one side, does not count."""
    fine, silent = [True, False] * WINDOWS, [None] * WINDOWS + [False] * WINDOWS
    records = told({"me": fine, "me-sample-1": fine}, 1) + told({"me": fine}, 2) + told({"me": fine, "me-sample-1": silent}, 4)
    records += told({"me": fine, "me-sample-1": fine}, 7)

    assert half_scores(table(records), "me", 2, "balanced accuracy", 0).shape == (2, 2, 2)
    assert half_scores(table([]), "me", 2, "balanced accuracy", 0).shape == (0, 2, 2)
    assert "correlation" not in OF_PART  # a simulation's score does not follow from what is kept of each window


def test_records_are_of_each_dictionary_and_of_all_of_a_kind() -> None:
    """Means and intervals are over latents; there are none below LEAST latents, and no record of a dictionary without any."""
    rng = np.random.default_rng(0)
    of_sae = {name: figures(rng.random((n, 3, 2))) for name, n in (("a", 30), ("b", 40), ("few", LEAST - 1), ("none", 0))}
    kinds = {"a": "trained", "b": "trained", "few": "random", "none": "planted"}
    own = {"explainer": "me", "scorer": "detection", "unit": "balanced accuracy", "chance": 0.5, "samples": 3}
    records = list(best_records(own, of_sae, kinds, 0))
    found = {(record["kind"], record["sae"]): record for record in records}
    BEST.validate(BEST.rows(records))

    assert {key: record["n"] for key, record in found.items()} == {
        ("random", "all"): LEAST - 1,
        ("random", "few"): LEAST - 1,
        ("trained", "all"): 70,
        ("trained", "a"): 30,
        ("trained", "b"): 40,
    }
    for place, name in enumerate(FIGURES):
        record = found["trained", "a"]
        assert record[name] == pytest.approx(of_sae["a"][:, place].mean())
        assert record[f"{name}_low"] < record[name] < record[f"{name}_high"]
        error = of_sae["a"][:, place].std(ddof=1) / math.sqrt(30)
        assert record[f"{name}_high"] - record[f"{name}_low"] == pytest.approx(2 * 1.96 * error, rel=0.25)
        assert found["random", "few"][name] is found["random", "few"][f"{name}_low"] is None
    assert records == list(best_records(own, of_sae, kinds, 0))
