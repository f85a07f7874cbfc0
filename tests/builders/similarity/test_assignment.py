"""One-to-one partners with the largest sum. SciPy's assignment of the whole matrix is the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from alike import Given
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from builders.similarity import assignment
from builders.similarity.assignment import STEP, among_candidates, assigned, prices
from builders.similarity.measures import Cosines
from builders.similarity.nearest import Nearest, nearest

if TYPE_CHECKING:
    from builders.arrays import Ints
    from builders.similarity.measures import Floats32, Measure

pytestmark = pytest.mark.numeric

seeds = st.integers(0, 2**31)
KINDS = ("real", "ties", "mostly zero", "shared")


def drawn(kind: str, n: int, m: int, seed: int) -> Floats32:
    """Return values [n, m] of a kind: any, few different ones, mostly zero, or near 1 for half of the latents and one of B's."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, m))
    if kind == "ties":
        values = values.round()
    if kind == "mostly zero":
        values = np.where(values > 1, values, 0)
    if kind == "shared":
        values = 0.1 * values + (rng.permutation(m) == np.arange(0, 2 * n, 2)[:, None])
    return values.astype(np.float32)


def both_ways(measure: Measure, most: int) -> tuple[Nearest, Nearest]:
    """Return the nearest of both sides."""
    return nearest(measure, most), nearest(measure.flipped(), most)


def best_sum(values: Floats32) -> float:
    """Return the largest sum of a one-to-one assignment by SciPy."""
    return float(values[linear_sum_assignment(values, maximize=True)].sum(dtype=np.float64))


def checked(values: Floats32, found: tuple[Ints, Floats32]) -> float:
    """Return the sum of what was *found*, after a check that no partner occurs twice and that the values are theirs."""
    partner, value = found
    has = np.flatnonzero(partner >= 0)
    assert partner.shape == value.shape == (len(values),)
    assert partner.dtype == np.int64
    assert value.dtype == np.float32
    assert len(set(partner[has].tolist())) == len(has)
    assert np.isnan(value).tolist() == (partner < 0).tolist()
    np.testing.assert_allclose(value[has], values[has, partner[has]], atol=1e-7)
    return float(value[has].sum(dtype=np.float64))


# Exact


@given(st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), seeds)
@settings(max_examples=200)
def test_the_sum_is_the_largest(kind: str, n: int, m: int, most: int, seed: int) -> None:
    """For any matrix, with more latents on either side, the sum is SciPy's and the smaller dictionary is matched whole."""
    values = drawn(kind, n, m, seed)
    measure = Given(values)
    found = assigned(measure, *both_ways(measure, most))

    assert checked(values, found) == pytest.approx(best_sum(values), abs=1e-5)
    assert int((found[0] >= 0).sum()) == min(n, m)


@given(st.sampled_from(KINDS), st.integers(32, 64), st.integers(0, 2), st.integers(1, 8), seeds)
@settings(max_examples=100)
def test_the_sum_is_the_largest_where_few_stay_alone(kind: str, m: int, fewer: int, most: int, seed: int) -> None:
    """For any matrix that is square or nearly so, the prices of an auction change nothing: the sum is SciPy's from both sides."""
    values = drawn(kind, m - fewer, m, seed)
    measure = Given(values)
    there, back = both_ways(measure, most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "AUCTION", 0)
        ours, theirs = assigned(measure, there, back), assigned(measure.flipped(), back, there)

    assert checked(values, ours) == pytest.approx(best_sum(values), abs=1e-5)
    assert checked(values.T, theirs) == pytest.approx(best_sum(values), abs=1e-5)


def test_a_small_case() -> None:
    """Both latents are nearest to the first; the sum is larger if the one that loses less takes the second."""
    values = np.array([[0.9, 0.8], [0.7, 0.1]], np.float32)
    partner, value = assigned(Given(values), *both_ways(Given(values), 2))

    assert partner.tolist() == [1, 0]
    assert value.tolist() == [np.float32(0.8), np.float32(0.7)]


def test_more_latents_than_partners() -> None:
    """Of three latents and one partner, two stay alone: −1 and no value; with no partners at all, everyone stays alone."""
    values = np.array([[0.25], [0.75], [0.5]], np.float32)
    partner, value = assigned(Given(values), *both_ways(Given(values), 2))
    nobody = Given(np.zeros((3, 0), np.float32))

    assert partner.tolist() == [-1, 0, -1]
    np.testing.assert_array_equal(value, np.array([np.nan, 0.75, np.nan], np.float32))
    assert assigned(nobody, *both_ways(nobody, 2))[0].tolist() == [-1, -1, -1]
    assert assigned(nobody.flipped(), *both_ways(nobody.flipped(), 2))[0].tolist() == []


# The auction


@given(st.sampled_from(KINDS), st.integers(1, 40), st.integers(0, 10), st.integers(2, 8), seeds)
@settings(max_examples=100)
def test_winners_can_have_what_they_want(kind: str, n: int, more: int, most: int, seed: int) -> None:
    """For any matrix, the winners can each have another latent of B that is worth as much to them, up to STEP, as any at its price."""
    values = drawn(kind, n, n + more, seed)
    price, won = prices(nearest(Given(values), most), n + more)
    net = values - price
    content = csr_array(net >= net.max(axis=1, keepdims=True) - STEP - 1e-6)

    assert (price >= 0).all()
    assert (maximum_bipartite_matching(content[np.flatnonzero(won)], perm_type="column") >= 0).all()


def test_an_auction_leaves_few_to_fight_for() -> None:
    """Of 400 latents, half of them shared, all but 8 win; without prices, fewer than 300 latents of B are anyone's nearest."""
    a, b, _ = half_noise(400)
    found = nearest(Cosines(a, b), 32)
    _, won = prices(found, 400)

    assert won.sum() > 400 - 8
    assert len(set(found.best.tolist())) < 300


# Among candidates


@given(st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), seeds)
@settings(max_examples=200)
def test_the_exact_sum_is_within_its_bound(kind: str, n: int, m: int, most: int, seed: int) -> None:
    """For any matrix, pairs are candidates; if it is square, the exact sum is at most that of pairs and halves of lonely latents."""
    values = drawn(kind, n, m, seed)
    there, back = both_ways(Given(values), most)
    partner, value = among_candidates(there, back)
    total = checked(values, (partner, value))
    alone = partner < 0, ~np.isin(np.arange(m), partner)
    bound = total + (there.value[alone[0], -1].sum(dtype=np.float64) + back.value[alone[1], -1].sum(dtype=np.float64)) / 2

    assert all(
        other in there.partner[latent] or latent in back.partner[other] for latent, other in enumerate(partner.tolist()) if other >= 0
    )
    if n == m:
        assert best_sum(values) <= bound + 1e-4


@given(st.sampled_from(["real", "shared"]), st.integers(1, 40), st.integers(1, 40), seeds)
@settings(max_examples=50)
def test_candidates_give_the_same_pairs_from_both_sides(kind: str, n: int, m: int, seed: int) -> None:
    """For any values without ties, B's partners are the same pairs as A's."""
    there, back = both_ways(Given(drawn(kind, n, m, seed)), 4)
    ours, theirs = among_candidates(there, back)[0], among_candidates(back, there)[0]

    assert {(i, j) for i, j in enumerate(ours.tolist()) if j >= 0} == {(i, j) for j, i in enumerate(theirs.tolist()) if i >= 0}


def test_who_is_like_nobody_stays_alone() -> None:
    """With values above zero for two pairs only, candidates assign these two; the exact form pairs the others for nothing."""
    values = np.zeros((40, 40), np.float32)
    values[3, 7], values[5, 1] = 0.5, 0.25
    there, back = both_ways(Given(values), 4)
    partner, _ = among_candidates(there, back)

    assert [(latent, other) for latent, other in enumerate(partner.tolist()) if other >= 0] == [(3, 7), (5, 1)]
    assert (assigned(Given(values), there, back)[0] >= 0).all()


def test_wide_dictionaries_are_assigned_among_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above EXACT latents a side, or as many pairs, the result is that of the candidates; below, it is the exact one."""
    values = drawn("real", 60, 60, 0)
    there, back = both_ways(Given(values), 2)
    exact, sparse = assigned(Given(values), there, back), among_candidates(there, back)
    assert exact[0].tolist() != sparse[0].tolist()
    for limit, expected in ((60, exact), (59, sparse)):
        monkeypatch.setattr(assignment, "EXACT", limit)
        assert assigned(Given(values), there, back)[0].tolist() == expected[0].tolist()


def test_empty_dictionaries_have_no_candidates() -> None:
    """With no latents on one side, everyone on the other stays alone."""
    there, back = both_ways(Given(np.zeros((3, 0), np.float32)), 4)

    assert among_candidates(there, back)[0].tolist() == [-1, -1, -1]
    assert among_candidates(back, there)[0].tolist() == []


# Known dictionaries


def found_by(form: str, measure: Cosines) -> tuple[Ints, Floats32]:
    """Return the assignment among candidates, or the exact one with or without an auction."""
    there, back = both_ways(measure, 32)
    if form == "candidates":
        return among_candidates(there, back)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "AUCTION", 0 if form == "auction" else len(there.partner) + 1)
        return assigned(measure, there, back)


def half_noise(n: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return two dictionaries [n, 64] that share half of their rows, and where the shared rows of A stand in B."""
    draw = torch.Generator().manual_seed(5)
    a, b = torch.randn(n, 64, generator=draw), torch.randn(n, 64, generator=draw)
    b[: n // 2] = a[: n // 2] + 0.1 * torch.randn(n // 2, 64, generator=draw)
    order = torch.randperm(n, generator=draw)
    return a, b[order], order.argsort()[: n // 2].tolist()


@pytest.mark.parametrize("form", ["exact", "auction", "candidates"])
def test_a_shuffled_copy_is_recovered(form: str) -> None:
    """The permutation of a dictionary with its signs kept is found exactly in every form, with value 1."""
    a = torch.randn(500, 32, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    partner, value = found_by(form, Cosines(a, a[order]))

    assert partner.tolist() == order.argsort().tolist()
    np.testing.assert_allclose(value, 1, atol=1e-6)


@pytest.mark.parametrize("form", ["exact", "auction", "candidates"])
def test_half_of_the_latents_replaced_by_noise(form: str) -> None:
    """Every form finds all shared latents, and the share of pairs above a cosine of 0.9 is exactly one half."""
    a, b, places = half_noise(800)
    partner, value = found_by(form, Cosines(a, b))

    assert partner[:400].tolist() == places
    assert float((value > 0.9).sum() / 800) == 0.5


def test_the_forms_agree_where_the_match_is_clear() -> None:
    """On half noise, an auction changes no pair; candidates give nine in ten latents the same partner, and 99 % of the sum."""
    a, b, _ = half_noise(800)
    measure = Cosines(a, b)
    exact, auction, sparse = (found_by(form, measure) for form in ("exact", "auction", "candidates"))
    total = float(exact[1].sum(dtype=np.float64))

    assert auction[0].tolist() == exact[0].tolist()
    assert (exact[0] == sparse[0]).mean() > 0.9
    assert 0.99 * total < float(np.nansum(sparse[1], dtype=np.float64)) <= total + 1e-6
