"""Estimates from samples: with equal weights the usual figures, with unequal ones those of the whole that the weights stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import quantile_test

from builders.arrays import Floats
from builders.scorers.estimates import LEAST, median_interval, quantiles, spread, weighted_mean

SCORES = st.lists(st.integers(0, 100), min_size=1, max_size=60).map(lambda some: np.array(some) / 100)
MANY = st.lists(st.integers(0, 100), min_size=LEAST, max_size=60).map(lambda some: np.array(some) / 100)
SHARES = (0.25, 0.5, 0.75)


@given(SCORES, st.sampled_from([1.0, 0.5, 0.01]))
def test_equal_weights_change_nothing(values: Floats, inclusion: float) -> None:
    """Where every value has the same probability, mean, error, median and quartiles are the plain ones, to the bit of numpy's quantiles."""
    found = spread(values, np.full(len(values), inclusion))

    assert found["mean"] == pytest.approx(values.mean())
    if len(values) > 1:
        assert found["mean_se"] == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)), abs=1e-12)
    assert [found[name] for name in ("q1", "median", "q3")] == np.quantile(values, SHARES).tolist()


@given(MANY)
def test_a_probability_stands_for_its_inverse(values: Floats) -> None:
    """The weighted mean of values, each at probability 1/3, 1/2 or 1, is the mean of a list in which each comes three, two or one times."""
    times = 1 + np.arange(len(values)) % 3
    mean, _ = weighted_mean(values, 1 / (1 / times))

    assert mean == pytest.approx(np.repeat(values, times).mean())


@pytest.mark.parametrize(
    ("n", "ranks"),
    [(6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (100, (40, 61))],  # of order statistics, from 1: Conover 1999, section 3.2
)
def test_the_interval_of_the_median_is_exact_for_equal_weights(n: int, ranks: tuple[int, int]) -> None:
    """With equal weights the ends are known order statistics, whatever the order in which values come."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    for inclusion in (1.0, 0.3):
        assert median_interval(values, np.full(n, inclusion)) == ranks


@pytest.mark.parametrize("n", [6, 7, 50, 101, 1000])
def test_the_interval_of_the_median_is_scipys(n: int) -> None:
    """With equal weights the interval is scipy's distribution-free one, for any number of values that has one."""
    values = np.random.default_rng(n).normal(size=n)
    expected = quantile_test(values, q=0, p=0.5).confidence_interval(0.95)

    assert median_interval(values, np.ones(n)) == (expected.low, expected.high)


def test_a_heavy_half_moves_the_median_to_it() -> None:
    """Values that stand for nine times as many latents hold the median and its interval."""
    values, inclusion = np.concatenate([np.zeros(50), np.ones(50)]), np.repeat([1 / 9, 1.0], 50)

    assert quantiles(values, inclusion, SHARES) == [0.0, 0.0, 0.0]
    assert median_interval(values, inclusion) == (0.0, 0.0)
    assert spread(values, inclusion)["mean"] == pytest.approx(0.1)


def test_weighted_quantiles_by_hand() -> None:
    """Middles of the summed weights are the places of the values, and between them it is a straight line."""
    values, inclusion = np.array([3.0, 1.0, 2.0]), np.array([1.0, 0.25, 0.5])  # weights 4, 2, 1 in order: middles 2, 5, 6.5

    assert quantiles(values, inclusion, (0.0, 2 / 3, 1.0)) == pytest.approx([1.0, 2.0, 3.0])
    assert quantiles(values, inclusion, (1 / 3,)) == pytest.approx([1.5])


def test_an_interval_by_weights_is_wider() -> None:
    """Unequal weights are worth fewer values, so the interval of the median is wider than with equal ones."""
    values = np.arange(100.0)
    plain, unequal = (median_interval(values, np.where(np.arange(100) % 2, 1.0, odd)) for odd in (1.0, 0.1))
    assert plain[0] is not None
    assert unequal[0] is not None
    assert unequal[1] - unequal[0] > plain[1] - plain[0]


def test_few_values_have_no_interval() -> None:
    """Below six values, or values worth fewer than six, no interval reaches 95 %; one value has no error; none has nothing."""
    one, none = spread(np.ones(1), np.ones(1)), spread(np.zeros(0), np.zeros(0))

    assert median_interval(np.arange(5.0), np.ones(5)) == (None, None)
    assert median_interval(np.arange(9.0), np.array([0.01] + [1.0] * 8)) == (None, None)
    assert one == {"n": 1, "mean": 1.0, "mean_se": None, "median": 1.0, "low": None, "high": None, "q1": 1.0, "q3": 1.0}
    assert none.pop("n") == 0
    assert set(none.values()) == {None}
