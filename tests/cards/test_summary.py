"""Figures of a release against known answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from builders.explainers.explanations import EXPLANATIONS
from builders.lake.table import Column, Table
from builders.saes.latents import LATENTS
from builders.scorers.judgements import SCORES
from cards.render import decimal, figure, gained, measured, ranged
from cards.summary import by_scorer, calibration_summary, difference_summary, margin_summary, score_summary, status_summary

if TYPE_CHECKING:
    import numpy.typing as npt

BOTH = {"random": "random", "trained": "trained"}
TABLE = Table("numbers", "a number", ("n",), (Column("n", "int32", "the number"),))


def scores_of(saes: dict[str, float | None], explainer: str, failed: int = 0, **more: float) -> pa.Table:
    """Return a score of latent 0 of each of some dictionaries, with *more* columns."""
    same: dict[str, Any] = {"latent": 0, "explainer": explainer, "scorer": "detection", "negatives": "random", "judge": "lexical"}
    same |= {"unit": "balanced accuracy", "chance": 0.5, "n": 10, "n_failed": failed, "auroc_n": 10} | more
    return pa.Table.from_pylist([{"sae": sae, **same, "score": score, "auroc": score} for sae, score in saes.items()], SCORES.schema)


def latents_of(counts: dict[tuple[str, int], int], inclusion: Sequence[float] | None = None) -> pa.Table:
    """Return how often latents fire, and at what probability they were drawn: 1 if nothing is said."""
    drawn = inclusion or [1.0] * len(counts)
    rows = [{"sae": sae, "latent": latent, "count": count} for (sae, latent), count in counts.items()]
    return pa.Table.from_pylist([{**row, "inclusion": one} for row, one in zip(rows, drawn, strict=True)], LATENTS.schema)


def of_latents(rows: pa.Table) -> pa.Table:
    """Return scores as those of latents from 0 on, one each."""
    place = rows.schema.get_field_index("latent")
    return rows.set_column(place, "latent", pa.array(range(rows.num_rows), pa.int32()))


def test_a_summary_has_one_row_per_kind_and_one_per_dictionary() -> None:
    """Scores are summed up over dictionaries of a kind and for each, with the median of the baseline; failures are counted."""
    rows = pa.concat_tables([scores_of({"a": 0.9, "b": 0.7}, "lexical", 5), scores_of({"a": 0.5, "b": None}, "lexical-permuted")])
    latents = latents_of({("a", 0): 1, ("b", 0): 3})

    found = {(row["sae"], row["kind"]): row for row in score_summary(rows, latents, {"a": "trained", "b": "trained"})}
    apart = [(row["kind"], row["sae"], row["permuted"]) for row in score_summary(rows, latents, {"a": "random", "b": "trained"})]

    assert set(found) == {(sae, "trained") for sae in ("all", "a", "b")}
    assert (found["all", "trained"]["score"]["median"], found["all", "trained"]["permuted"]["median"]) == (0.8, 0.5)
    assert found["all", "trained"]["failed"] == 10
    assert [row[:2] for row in apart] == [("trained", "all"), ("random", "all"), ("trained", "b"), ("random", "a")]
    assert [row[2]["median"] for row in apart] == [None, 0.5, None, 0.5]


def test_the_baseline_is_of_latents_that_have_both_scores() -> None:
    """A latent without a real score does not count among the permuted ones, nor one of another scorer's."""
    real, permuted = scores_of({"a": 0.9, "b": 0.7, "c": None}, "lexical"), scores_of({"a": 0.5, "b": 0.3, "c": 0.99}, "lexical-permuted")
    latents = latents_of({(sae, 0): 1 for sae in "abc"})
    (whole, *_) = score_summary(pa.concat_tables([real, permuted]), latents, dict.fromkeys("abc", "trained"))

    assert (whole["score"]["n"], whole["permuted"]["n"], whole["permuted"]["median"]) == (2, 2, 0.4)


def test_a_latent_weighs_as_often_as_it_fires() -> None:
    """The weighted mean is Σ count · score / Σ count; a latent without a score weighs nothing and is counted as such."""
    rows = of_latents(pa.concat_tables([scores_of({"a": score}, "lexical") for score in (0.9, 0.5, None)]))
    (whole, _) = score_summary(rows, latents_of({("a", 0): 1, ("a", 1): 3, ("a", 2): 96}), {"a": "trained"})

    assert whole["weighted"] == pytest.approx((0.9 + 1.5) / 4)
    assert whole["weighted_se"] == pytest.approx((2 * (0.3**2 + (3 * 0.1) ** 2)) ** 0.5 / 4)
    assert (whole["score"]["n"], whole["without"]) == (2, 1)


def test_a_drawn_latent_stands_for_all_that_it_was_drawn_from() -> None:
    """Latents drawn at 1/3 weigh three times, in the mean, in the mean by firings, and in that of permuted explanations."""
    real = of_latents(pa.concat_tables([scores_of({"a": score}, "lexical") for score in (0.9, 0.5)]))
    permuted = of_latents(pa.concat_tables([scores_of({"a": score}, "lexical-permuted") for score in (0.1, 0.7)]))
    latents = latents_of({("a", 0): 2, ("a", 1): 1}, inclusion=[1, 1 / 3])
    (whole, _) = score_summary(pa.concat_tables([real, permuted]), latents, {"a": "trained"})

    assert (whole["score"]["mean"], whole["permuted"]["mean"]) == (pytest.approx((0.9 + 3 * 0.5) / 4), pytest.approx((0.1 + 3 * 0.7) / 4))
    assert whole["weighted"] == pytest.approx((2 * 0.9 + 3 * 1 * 0.5) / 5)


def test_what_examples_without_an_answer_could_change_is_told() -> None:
    """A record has the medians of both bounds, and how many of the judged examples have no probability; without bounds there are none."""
    rows = scores_of({"a": 0.8}, "lexical", 2, score_low=0.7, score_high=0.9, auroc_n=7)
    latents = latents_of({("a", 0): 1})
    (told, _), (none, _) = (score_summary(some, latents, {"a": "trained"}) for some in (rows, scores_of({"a": 0.8}, "lexical")))

    assert [told[name] for name in ("score_low", "score_high", "auroc_missing")] == [0.7, 0.9, 3]
    assert [none[name] for name in ("score_low", "score_high", "auroc_missing")] == [None, None, 0]
    assert none["over_null"]["n"] == 0


def test_a_score_over_the_null_has_its_baseline() -> None:
    """What is left of a score after the null is told for real explanations and for permuted ones of the same latents."""
    rows = pa.concat_tables([scores_of({"a": 2.0}, "lexical", over_null=1.5), scores_of({"a": 1.0}, "lexical-permuted", over_null=0.25)])
    (whole, _) = score_summary(rows, latents_of({("a", 0): 1}), {"a": "trained"})

    assert [whole[name]["median"] for name in ("score", "permuted", "over_null", "permuted_over_null")] == [2.0, 1.0, 1.5, 0.25]


def test_scorers_are_told_side_by_side() -> None:
    """A scorer's row holds the figures of every kind of dictionary, taken over all of that kind."""
    rows = scores_of({"a": 0.9, "b": 0.7, "c": 0.6}, "lexical")
    latents = latents_of({(sae, 0): 1 for sae in "abc"})
    (row,) = by_scorer(score_summary(rows, latents, {"a": "trained", "b": "trained", "c": "random"}))

    assert {kind: cell["score"]["median"] for kind, cell in row["kinds"].items()} == {"trained": 0.8, "random": 0.6}
    assert (row["scorer"], row["unit"], row["chance"]) == ("detection", "balanced accuracy", 0.5)


def many(kind: str, values: npt.NDArray[np.float64]) -> pa.Table:
    """Return detection scores of as many latents of the dictionary *kind*."""
    return of_latents(pa.concat_tables([scores_of({kind: value}, "lexical") for value in values.tolist()]))


def alike(*sizes: int) -> pa.Table:
    """Return so many latents of the dictionaries random and trained, all drawn alike."""
    return latents_of({(sae, latent): 1 for sae, size in zip(("random", "trained"), sizes, strict=True) for latent in range(size)})


def test_an_untrained_margin_is_told_with_its_interval() -> None:
    """Medians of 0.6 and 0.7 are margins of 0.1 and 0.2: a half, in an interval as wide as both medians' errors, 1.25 σ / √n, make it."""
    rng = np.random.default_rng(0)
    random, trained = (np.sort(rng.normal(0, 0.05, 401)) for _ in range(2))
    rows = pa.concat_tables([many("random", random - random[200] + 0.6), many("trained", trained - trained[200] + 0.7)])
    (found,) = margin_summary(rows, alike(401, 401), BOTH, 0)
    error = 1.253 * 0.05 / np.sqrt(401)

    assert (found["scorer"], found["share"]) == ("detection", pytest.approx(0.5))
    assert found["low"] < 0.5 < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * np.hypot(error / 0.2, 0.5 * error / 0.2), rel=0.25)
    assert [found] == margin_summary(rows, alike(401, 401), BOTH, 0)


def test_a_margin_is_that_of_the_weighted_median() -> None:
    """Random latents of 0.6 that stand for nine times as many as those of 0.8 make the median, and with it the share."""
    rows = pa.concat_tables([many("random", np.repeat([0.6, 0.8], 20)), many("trained", np.full(20, 0.7))])
    counts = {("random", latent): 1 for latent in range(40)} | {("trained", latent): 1 for latent in range(20)}
    (found,) = margin_summary(rows, latents_of(counts, [1 / 9] * 20 + [1] * 40), BOTH, 0)

    assert found["share"] == found["low"] == found["high"] == pytest.approx(0.5)


@pytest.mark.parametrize("values", [np.full(20, 0.5), np.linspace(0.45, 0.56, 20), np.full(5, 0.9)])
def test_there_is_no_share_of_what_may_be_nothing(values: npt.NDArray[np.float64]) -> None:
    """Where the trained median may be at chance, or is of five latents, no share is told."""
    rows = pa.concat_tables([many("random", np.full(20, 0.6)), many("trained", values)])

    assert margin_summary(rows, alike(20, len(values)), BOTH, 0) == []


def test_a_dictionary_says_whether_its_latents_are_a_sample() -> None:
    """One latent that was not sure to be taken makes a sample."""
    latents = pa.concat_tables([latents_of({("a", 0): 1, ("a", 1): 1}, [1.0, 0.5]), latents_of({("b", 0): 1})])

    assert {row["sae"]: row["sampled"] for row in status_summary(latents, EXPLANATIONS.empty())} == {"a": True, "b": False}


def test_differences_are_told_kind_by_kind() -> None:
    """Pairs that differ in explanations or negatives are told, over all dictionaries of a kind; those of other scorers are not."""
    same = {"scorer_a": "detection", "explainer_a": "lexical", "unit": "balanced accuracy", "n": 12, "difference": 0.1}
    interval = {"difference_low": 0.05, "difference_high": 0.15}
    others = {"negatives": ("similar", "lexical"), "permuted": ("detection", "lexical-permuted"), "scorer": ("fuzzing", "lexical")}
    rows = [
        {**same, **interval, "kind": kind, "sae": sae, "differ": differ, "scorer_b": scorer, "explainer_b": explainer}
        for kind, sae in (("trained", "all"), ("trained", "a"), ("random", "all"))
        for differ, (scorer, explainer) in others.items()
    ]
    found = difference_summary(pa.Table.from_pylist(rows))

    assert [(row["differ"], row["scorer_b"], row["explainer_b"]) for row in found] == [
        ("permuted", "detection", "lexical-permuted"),
        ("negatives", "similar", "lexical"),
    ]
    told = {"n": 12, "mean": 0.1, "low": 0.05, "high": 0.15}
    assert found[0]["kinds"] == {"trained": told, "random": told}


def test_a_calibration_says_how_meanings_rank() -> None:
    """Means and errors are over rules with a score, the area is of true above other, and only rows of the oracle count."""
    scores = {"true": [0.9, 0.8, 0.6], "broad": [0.7, 0.7, 0.7], "narrow": [0.6, 0.6, None], "other": [0.5, 0.7, 0.5]}
    lengths = {"judge": "oracle", "n": 90, "n_failed": 10, "prompt_characters": 4000, "prefix_characters": 3000, "answer_characters": 40}
    rows = [
        {"scorer": "detection", "unit": "balanced accuracy", "chance": 0.5, "meaning": meaning, "score": score, **lengths}
        for meaning, values in scores.items()
        for score in values
    ]
    judged = {**rows[0], "judge": "llama", "score": 0.1}
    (found,) = calibration_summary(pa.Table.from_pylist([*rows, judged]))

    assert found["true"] == {"mean": pytest.approx(2.3 / 3), "se": pytest.approx(np.std([0.9, 0.8, 0.6], ddof=1) / 3**0.5), "n": 3}
    assert (found["narrow"]["mean"], found["narrow"]["n"]) == (pytest.approx(0.6), 2)
    assert found["auroc"] == pytest.approx(8 / 9)
    assert found["auroc_se"] == pytest.approx(((1 / 27) / 3 + (1 / 27) / 3) ** 0.5)
    assert [found[name] for name in ("examples", "prompt", "cached", "output")] == [100, 1000, 750, 10]


@pytest.mark.parametrize(("number", "text"), [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (12345.6, "12,346"), (12.0, "12")])
def test_figures_are_short(number: float | None, text: str) -> None:
    """A figure has three significant digits, thousands are marked, and a missing one is a dash."""
    assert figure(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, "–"), (float("nan"), "–"), (0.5, "0.50"), (0.125, "0.12"), (1, "1.00"), (-0.001, "0.00")]
)
def test_decimals_are_two(number: float | None, text: str) -> None:
    """A score is shown with two decimals, and a missing one is a dash."""
    assert decimal(number) == text


def test_a_median_is_told_with_interval_and_n() -> None:
    """A median stands with its interval and n, without an interval where there is none, and as a dash where nothing is known."""
    known = {"n": 2043, "median": 0.698, "low": 0.69, "high": 0.7}

    assert ranged(known) == "0.70 (0.69–0.70), n 2,043"
    assert ranged({**known, "low": -0.02}, bold=True) == "**0.70** (-0.02 to 0.70), n 2,043"
    assert ranged({**known, "n": 5, "low": None, "high": None}) == "0.70, n 5"
    assert ranged({"n": 0, "median": None, "low": None, "high": None}) == "–"
    assert [ranged(known, beside=n) for n in (2043, 2042)] == ["0.70 (0.69–0.70)", "0.70 (0.69–0.70), n 2,043"]


@pytest.mark.parametrize(("value", "error", "text"), [(0.5, 0.125, "0.50 ± 0.12"), (0.5, None, "0.50"), (None, None, "–")])
def test_a_value_is_told_with_its_error(value: float | None, error: float | None, text: str) -> None:
    """A value of a single latent has no error, and a value that is not there is a dash."""
    assert measured(value, error) == text


def test_a_difference_is_told_with_its_sign() -> None:
    """A mean difference has its sign and three decimals, and below ten latents only n."""
    assert gained({"n": 300, "mean": 0.0541, "low": -0.0004, "high": 0.064}) == "+0.054 (+0.000 to +0.064), n 300"
    assert gained({"n": 9, "mean": None, "low": None, "high": None}) == "n 9"
