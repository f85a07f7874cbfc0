"""Figures of a release against known answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import quantile_test

from builders.lake.table import Column, Table
from cards.card import Part, header
from cards.render import decimal, figure
from cards.summary import by_scorer, calibration_summary, median_interval, score_summary, spread

TABLE = Table("numbers", "a number", ("n",), (Column("n", "int32", "the number"),))


@pytest.mark.parametrize("n", [6, 7, 50, 101, 1000])
def test_the_interval_of_a_median_is_the_exact_one(n: int) -> None:
    """The interval is scipy's distribution-free one, for any number of values that has one."""
    values = np.random.default_rng(n).normal(size=n)
    expected = quantile_test(values, q=0, p=0.5).confidence_interval(0.95)

    assert median_interval(values) == (expected.low, expected.high)


def test_spread_leaves_out_what_is_missing() -> None:
    """Values that are not there count in no statistic."""
    found = spread([0.2, None, 0.4, 0.6, 0.8])

    assert (found["n"], found["median"], found["q1"], found["q3"]) == (4, 0.5, pytest.approx(0.35), pytest.approx(0.65))


def scores_of(saes: dict[str, float | None], explainer: str, failed: int = 0) -> pa.Table:
    """Return a score of latent 0 of each of some dictionaries."""
    same = {"latent": 0, "explainer": explainer, "scorer": "detection", "negatives": "random", "judge": "lexical"}
    same |= {"unit": "balanced accuracy", "chance": 0.5, "n": 10, "n_failed": failed}
    return pa.Table.from_pylist([{"sae": sae, **same, "score": score, "auroc": score} for sae, score in saes.items()])


def latents_of(counts: dict[tuple[str, int], int]) -> pa.Table:
    """Return how often latents fire."""
    return pa.Table.from_pylist([{"sae": sae, "latent": latent, "count": count} for (sae, latent), count in counts.items()])


def test_a_summary_has_one_row_per_kind_and_one_per_dictionary() -> None:
    """Scores are summed up over dictionaries of a kind and for each, with the median of the baseline; failures are counted."""
    rows = pa.concat_tables([scores_of({"a": 0.9, "b": 0.7}, "lexical", 5), scores_of({"a": 0.5, "b": None}, "lexical-permuted")])
    latents = latents_of({("a", 0): 1, ("b", 0): 3})

    found = {(row["sae"], row["kind"]): row for row in score_summary(rows, latents, {"a": "trained", "b": "trained"})}
    apart = [(row["kind"], row["sae"], row["permuted"]) for row in score_summary(rows, latents, {"a": "random", "b": "trained"})]

    assert set(found) == {(sae, "trained") for sae in ("all", "a", "b")}
    assert (found["all", "trained"]["score"]["median"], found["all", "trained"]["permuted"]) == (0.8, 0.5)
    assert found["all", "trained"]["failed"] == 10
    assert [row[:2] for row in apart] == [("trained", "all"), ("random", "all"), ("trained", "b"), ("random", "a")]
    assert [row[2] for row in apart] == [None, 0.5, None, 0.5]


def test_a_latent_weighs_as_often_as_it_fires() -> None:
    """The weighted mean is Σ count · score / Σ count; a latent without a score weighs nothing and is counted as such."""
    rows = pa.concat_tables([scores_of({"a": score}, "lexical") for score in (0.9, 0.5, None)], promote_options="default")
    rows = rows.set_column(1, "latent", pa.array([0, 1, 2]))
    (whole, _) = score_summary(rows, latents_of({("a", 0): 1, ("a", 1): 3, ("a", 2): 96}), {"a": "trained"})

    assert whole["weighted"] == pytest.approx((0.9 + 1.5) / 4)
    assert (whole["score"]["n"], whole["without"]) == (2, 1)


def test_scorers_are_told_side_by_side() -> None:
    """A scorer's row holds the figures of every kind of dictionary, taken over all of that kind."""
    rows = scores_of({"a": 0.9, "b": 0.7, "c": 0.6}, "lexical")
    latents = latents_of({(sae, 0): 1 for sae in "abc"})
    (row,) = by_scorer(score_summary(rows, latents, {"a": "trained", "b": "trained", "c": "random"}))

    assert {kind: cell["score"]["median"] for kind, cell in row["kinds"].items()} == {"trained": 0.8, "random": 0.6}
    assert (row["scorer"], row["unit"], row["chance"]) == ("detection", "balanced accuracy", 0.5)


def test_a_calibration_says_how_meanings_rank() -> None:
    """Means and standard errors are over rules, a rule without a score left out; the area is of true above other."""
    scores = {"true": [0.9, 0.8, 0.6], "broad": [0.7, 0.7, 0.7], "narrow": [0.6, 0.6, None], "other": [0.5, 0.7, 0.5]}
    lengths = {"n": 90, "n_failed": 10, "prompt_characters": 4000, "prefix_characters": 3000, "answer_characters": 40}
    rows = [
        {"scorer": "detection", "unit": "balanced accuracy", "chance": 0.5, "meaning": meaning, "score": score, **lengths}
        for meaning, values in scores.items()
        for score in values
    ]
    (found,) = calibration_summary(pa.Table.from_pylist(rows))

    assert found["true"] == {"mean": pytest.approx(2.3 / 3), "se": pytest.approx(np.std([0.9, 0.8, 0.6], ddof=1) / 3**0.5), "n": 3}
    assert (found["narrow"]["mean"], found["narrow"]["n"]) == (pytest.approx(0.6), 2)
    assert found["auroc"] == pytest.approx(8 / 9)
    assert [found[name] for name in ("examples", "prompt", "cached", "output")] == [100, 1000, 750, 10]


def test_the_header_gives_exact_sizes_and_a_version() -> None:
    """Every config has its version and its exact sizes, and the first is the default."""
    facts = {"license": "mit", "language": ["en"], "title": "t", "version": "1.2.3"}
    found = header([Part(TABLE, 5, 1, 100, 20), Part(TABLE, 2000, 2, 300, 40)], facts)

    assert found["size_categories"] == ["1K<n<10K"]
    assert [config["version"] for config in found["configs"]] == ["1.2.3", "1.2.3"]
    assert [config.get("default") for config in found["configs"]] == [True, None]
    assert found["dataset_info"][1]["splits"] == [{"name": "train", "num_bytes": 40, "num_examples": 2000}]
    assert found["dataset_info"][1]["download_size"] == 300


@pytest.mark.parametrize(("number", "text"), [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (12345.6, "12,346"), (12.0, "12")])
def test_figures_are_short(number: float | None, text: str) -> None:
    """A figure has three significant digits, thousands are marked, and a missing one is a dash."""
    assert figure(number) == text


@pytest.mark.parametrize(("number", "text"), [(None, "–"), (float("nan"), "–"), (0.5, "0.50"), (0.125, "0.12"), (1, "1.00")])
def test_decimals_are_two(number: float | None, text: str) -> None:
    """A score is shown with two decimals, and a missing one is a dash."""
    assert decimal(number) == text
