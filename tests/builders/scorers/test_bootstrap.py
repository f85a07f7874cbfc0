"""Intervals by resampling, against theory and against all resamples at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.scorers import bootstrap
from builders.scorers.bootstrap import ENDS, RESAMPLES, bootstrapped, resamples

pytestmark = pytest.mark.numeric

seeds = st.integers(0, 2**62)


@given(st.integers(1, 50), seeds)
@settings(max_examples=30)
def test_a_resample_has_as_many_rows(n: int, seed: int) -> None:
    """There are RESAMPLES resamples of n rows, each row is one of them, and the seed alone decides which."""
    drawn = np.concatenate(resamples(n, seed))

    assert drawn.shape == (RESAMPLES, n)
    assert set(np.unique(drawn)) <= set(range(n))
    assert (drawn == np.concatenate(resamples(n, seed))).all()
    if n > 2:
        assert (drawn != np.concatenate(resamples(n, seed + 1))).any()


def test_rows_are_drawn_with_replacement_and_alike() -> None:
    """Each of 20 rows is drawn as often as the others to a tenth, and a resample holds 1 − (1 − 1/20)²⁰ of them on average."""
    drawn = np.concatenate(resamples(20, 0))

    assert np.bincount(drawn.reshape(-1)) == pytest.approx(np.full(20, RESAMPLES), rel=0.1)
    assert np.mean([len(set(row)) for row in drawn.tolist()]) / 20 == pytest.approx(1 - 0.95**20, abs=0.01)


@given(st.integers(1, 40), st.integers(1, 500), seeds)
@settings(max_examples=30)
def test_parts_are_small_and_change_no_draw(n: int, together: int, seed: int) -> None:
    """For any number of rows and any bound, a part holds at most as many rows, or one resample; the draws are the same."""
    whole = np.concatenate(resamples(n, seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "TOGETHER", together)
        parts = resamples(n, seed)

    assert all(part.size <= together or len(part) == 1 for part in parts)
    assert (np.concatenate(parts) == whole).all()


@given(st.integers(1, 60), st.integers(1, 3), seeds)
@settings(max_examples=30)
def test_the_interval_is_of_the_means_of_resamples(n: int, k: int, seed: int) -> None:
    """Each column's mean comes first, then the 2.5 % and the 97.5 % quantile of its means over the resamples."""
    values = np.random.default_rng(seed).normal(size=(n, k))
    means = values[np.concatenate(resamples(n, seed))].mean(axis=1)
    found = bootstrapped(values, seed)

    assert found.shape == (k, 3)
    np.testing.assert_allclose(found[:, 0], values.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found[:, 1:], np.quantile(means, (0.025, 0.975), axis=0).T, atol=1e-12)
    assert ENDS == (0.025, 0.975)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """Of 400 normal values the interval holds their mean and is 2 × 1.96 / √400 wide, to a tenth."""
    values = np.random.default_rng(1).normal(size=(400, 1))
    value, low, high = bootstrapped(values, 0)[0]

    assert low < value < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(400), rel=0.1)


def test_columns_share_their_resamples() -> None:
    """The interval of 1 − x is that of x, turned: a column is drawn with the others, not for itself."""
    values = np.random.default_rng(2).random((50, 1))
    (_, low, high), (_, other_low, other_high) = bootstrapped(np.concatenate([values, 1 - values], axis=1), 0)

    assert (other_low, other_high) == (pytest.approx(1 - high, abs=1e-12), pytest.approx(1 - low, abs=1e-12))


@pytest.mark.parametrize("values", [[0.3], [0.3] * 25, [1.0] * 1000])
def test_what_never_varies_is_certain(values: list[float]) -> None:
    """Of one row, or of equal rows, the interval has no width."""
    assert bootstrapped(np.array(values)[:, None], 0)[0] == pytest.approx(np.full(3, values[0]), abs=1e-12)
