"""Figures of a release against known answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import quantile_test

from builders.table import Column, Table
from cards.card import Part, header
from cards.render import decimal, figure
from cards.summary import median_interval, score_summary, spread

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


def test_a_summary_has_one_row_per_kind_and_one_per_dictionary() -> None:
    """Scores are summed up over dictionaries of a kind and for each, with the median of the baseline; failures are counted."""
    names = ["lexical", "lexical", "lexical-permuted", "lexical-permuted"]
    columns = {"sae": ["a", "b", "a", "b"], "explainer": names, "scorer": "detection", "judge": "lexical", "chance": 0.5, "n": 10}
    rows = pa.Table.from_pylist(
        [{name: value[i] if isinstance(value, list) else value for name, value in columns.items()} for i in range(4)]
    )
    rows = rows.append_column("score", pa.array([0.9, 0.7, 0.5, None])).append_column("auroc", pa.array([0.9, 0.7, 0.5, None]))
    rows = rows.append_column("n_failed", pa.array([0, 10, 0, 0]))

    found = {(row["sae"], row["kind"]): row for row in score_summary(rows, {"a": "trained", "b": "trained"})}
    apart = [(row["kind"], row["sae"], row["permuted"]) for row in score_summary(rows, {"a": "random", "b": "trained"})]

    assert set(found) == {(sae, "trained") for sae in ("all", "a", "b")}
    assert (found["all", "trained"]["score"]["median"], found["all", "trained"]["permuted"]) == (0.8, 0.5)
    assert found["all", "trained"]["failed"] == 10
    assert [row[:2] for row in apart] == [("trained", "all"), ("random", "all"), ("trained", "b"), ("random", "a")]


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
