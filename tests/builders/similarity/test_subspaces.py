"""Spans and geometries of known answers; canonical and rank correlations equal those of plain dense arithmetic; chance is what it says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.linalg import hadamard, subspace_angles
from scipy.stats import spearmanr

from builders.errors import UserError
from builders.seeds import seed_of, uniforms
from builders.similarity import subspaces
from builders.similarity.subspaces import overlap, rsa, svcca

if TYPE_CHECKING:
    from collections.abc import Callable

    from builders.arrays import Floats, Ints
    from builders.similarity.subspaces import Compared

pytestmark = pytest.mark.numeric

U, V, W = hadamard(8)[1:4].astype(np.float64)  # orthogonal, with mean 0 and variance 1


def rows(seed: int, n: int, d: int) -> Floats:
    """Return Gaussian rows."""
    return np.random.default_rng(seed).standard_normal((n, d))


def rotation(seed: int, d: int) -> Floats:
    """Return a random orthogonal matrix."""
    return np.linalg.qr(rows(seed, d, d))[0]


def firings(seed: int, latents: int, units: int, density: float | Floats = 0.3) -> sparse.csr_array:
    """Return sparse activations that are exponential where a latent fires; *density* may be one for each latent [latents, 1]."""
    rng = np.random.default_rng(seed)
    return sparse.csr_array(np.where(rng.random((latents, units)) < density, rng.exponential(size=(latents, units)), 0).astype(np.float32))


def order_of(seed: int, n: int, number: int = 0) -> Ints:
    """Return the order in which the pairs are put for chance."""
    return np.argsort(uniforms(seed_of(seed, "permutation", number), np.arange(n)), kind="stable")


# Spans


@pytest.mark.parametrize(("angle", "shared"), [(0, 1.0), (math.pi / 3, 0.625), (math.pi / 2, 0.5)])
def test_two_planes_share_the_squares_of_their_cosines(angle: float, shared: float) -> None:
    """Planes with one line in common and another at an angle share (1 + cos²) / 2; two random planes of three dimensions 2/3."""
    flat, tilted = np.eye(3)[:2], np.array([[1.0, 0, 0], [0, math.cos(angle), math.sin(angle)]])
    found = overlap(flat, tilted, 2)

    assert found is not None
    assert (found.value, found.chance) == pytest.approx((shared, 2 / 3))
    assert found.dimensions == (2, 2)
    assert found.above_chance == pytest.approx(3 * shared - 2)


def test_one_span_may_lie_in_another() -> None:
    """A line in a plane shares all that it can, a line across it nothing; chance is that of the larger side."""
    plane = np.eye(4)[:2]
    inside, across = overlap(np.array([[3.0, 3, 0, 0]]), plane, 2), overlap(np.array([[0, 0, 0, 2.0]]), plane, 2)

    assert inside is not None
    assert across is not None
    assert (inside.value, across.value) == pytest.approx((1, 0))
    assert (inside.dimensions, inside.chance) == ((1, 2), 0.5)


@pytest.mark.parametrize(("counts", "kept"), [((9, 1), 1), ((8, 2), 2), ((17, 2, 1), 2), ((5, 5), 2)])
def test_the_span_holds_nine_tenths_of_the_rows(counts: tuple[int, ...], kept: int) -> None:
    """Directions are taken, largest first, until they hold 90 % of the rows; how long a row is does not matter, and zeros are no rows."""
    some = np.repeat(np.eye(4)[: len(counts)], counts, axis=0) * np.geomspace(0.01, 100, sum(counts))[:, None]
    found = overlap(np.concatenate([some, np.zeros((5, 4))]), np.eye(4)[:1])

    assert found is not None
    assert found.dimensions == (kept, 1)


def test_whole_dictionaries_would_share_everything() -> None:
    """All rows of two random dictionaries span the same space, above which nothing can be told; nine tenths of their variance do not."""
    a, b = rows(0, 96, 16), rows(1, 96, 16)
    whole, most = overlap(a, b, 16), overlap(a, b)

    assert whole is not None
    assert most is not None
    assert (whole.value, whole.chance) == pytest.approx((1, 1))
    assert whole.above_chance is None
    assert max(most.dimensions) < 16
    assert most.above_chance == pytest.approx(0, abs=0.1)


def test_chance_is_the_mean_over_random_spans() -> None:
    """Random spans of 3 and of 5 of 20 dimensions share 1/4 on average."""
    found = [overlap(rows(seed, 3, 20), rows(1000 + seed, 5, 20), 5) for seed in range(400)]
    values = np.array([one.value for one in found if one is not None])

    assert {one.chance for one in found if one is not None} == {0.25}
    assert values.mean() == pytest.approx(0.25, abs=4 * values.std() / math.sqrt(len(values)))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 8), st.integers(1, 8), st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=80)
def test_overlap_is_the_mean_square_cosine_of_principal_angles(n: int, m: int, d: int, k: int, seed: int, block: int) -> None:
    """Of all rows it equals scipy's angles; it is symmetric, and order, signs and blocks of rows, or a turn of both, do not matter."""
    a, b = rows(seed, min(n, d), d), rows(seed + 1, min(m, d), d)
    turn, flips = rotation(seed + 2, d), np.sign(rows(seed + 3, len(a), 1))
    whole, one, back = overlap(a, b, d), overlap(a, b, k), overlap(b, a, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subspaces, "BLOCK", block)
        again = overlap((a * flips)[::-1] @ turn, b @ turn, k)

    assert whole is not None
    assert one is not None
    assert back is not None
    assert again is not None
    assert whole.value == pytest.approx(np.square(np.cos(subspace_angles(a.T, b.T))).mean(), abs=1e-6)
    assert (back.value, again.value) == pytest.approx((one.value, one.value), abs=1e-6)
    assert 0 <= one.value <= 1


@pytest.mark.parametrize("nothing", [np.zeros((0, 4)), np.zeros((3, 4))])
def test_no_rows_have_no_span(nothing: Floats) -> None:
    """Without a row that is not zero there is nothing to compare, from either side."""
    assert overlap(nothing, np.eye(4)) is None
    assert overlap(np.eye(4), nothing) is None


def test_spans_of_other_spaces_are_refused() -> None:
    """Rows of different sizes are one line that names both sizes and what works instead."""
    with pytest.raises(UserError, match=r"4 and 5 dimensions.*activations"):
        overlap(np.eye(4), np.eye(5))


# Canonical correlations


@pytest.mark.parametrize(
    ("y", "expected"),
    [((U, V), 1.0), ((U, W), 0.5), ((U + V, U - V), 1.0), ((W,), 0.0), ((3 * U + 4 * W,), 0.6), ((0.6 * U + 0.8 * W, V), 0.8)],
)
def test_canonical_correlations_of_known_variables(y: tuple[Floats, ...], expected: float) -> None:
    """Of orthogonal variables, common ones count 1, others 0, a mixture its share; mixing or scaling a side's variables changes nothing."""
    assert svcca(np.stack([U, 5 * V]), np.stack(y), 0, keep=1).value == pytest.approx(expected)


def test_weak_components_do_not_count() -> None:
    """Where 1 % of the variance may go, a variable that holds less of it is dropped from each side."""
    x, y = np.stack([20 * U, V]), np.stack([20 * U, W])
    some, whole = svcca(x, y, 0), svcca(x, y, 0, keep=1)

    assert some.value == pytest.approx(1)
    assert whole.value == pytest.approx(0.5)
    assert (some.dimensions, whole.dimensions) == ((1, 1), (2, 2))


def plain(x: Floats, y: Floats, keep: float) -> float:
    """Return the mean canonical correlation [variables, n], by the singular vectors of the dense centred matrices."""
    bases = []
    for side in (x, y):
        _, s, turned = np.linalg.svd(side - side.mean(1, keepdims=True), full_matrices=False)
        held = np.cumsum(s**2) / np.sum(s**2)
        bases.append(turned[: int(np.argmax(held >= keep * (1 - 1e-6))) + 1])
    return float(np.linalg.svd(bases[0] @ bases[1].T, compute_uv=False).mean())


@given(st.integers(1, 6), st.integers(1, 6), st.integers(20, 60), st.sampled_from([0.5, 0.9, 0.99]), st.integers(0, 2**31))
@settings(max_examples=60)
def test_svcca_is_that_of_dense_singular_vectors(n: int, m: int, units: int, keep: float, seed: int) -> None:
    """Sparse or dense, whichever side is larger, the figure is that of plain arithmetic; so is that of the columns in another order."""
    x, y = firings(seed, n, units, 0.8), firings(seed + 1, m, units, 0.8)
    found, same = svcca(x, y, seed, keep, permutations=1), svcca(x.toarray(), y.toarray(), seed, keep, permutations=1)
    shuffled = y.toarray()[:, order_of(seed, units)]

    assert found.value == pytest.approx(plain(x.toarray(), y.toarray(), keep), abs=1e-5)
    assert found.chance == pytest.approx(plain(x.toarray(), shuffled, keep), abs=1e-5)
    assert same.value == pytest.approx(found.value)
    assert same.chance == pytest.approx(found.chance)
    assert same.dimensions == found.dimensions
    assert (found.n, found.chance_sd) == (units, None)


def test_which_latent_is_whose_partner_does_not_matter() -> None:
    """Latents of one side in another order, or mixed with one another, have the same canonical correlations."""
    x, y = firings(0, 5, 300), firings(0, 8, 300)[[0, 1, 5, 6, 7]]
    value = svcca(x, y, 1, keep=1).value

    assert svcca(x, y[[3, 0, 4, 1, 2]], 1, keep=1).value == pytest.approx(value)
    assert svcca(x, rotation(0, 5) @ y.toarray(), 1, keep=1).value == pytest.approx(value)


def test_chance_is_what_units_in_random_order_give() -> None:
    """Independent activations are at chance, which falls with the number of units; copies are far above it."""
    few, many = (svcca(firings(0, 20, n), firings(1, 20, n), 5) for n in (400, 6400))
    copy = svcca(firings(0, 20, 400), firings(0, 20, 400), 5)

    for found in (few, many):
        assert found.value is not None
        assert found.chance is not None
        assert found.chance_sd is not None
        assert abs(found.value - found.chance) < 6 * found.chance_sd
    assert few.chance is not None
    assert many.chance == pytest.approx(few.chance / 4, rel=0.15)
    assert copy.value == pytest.approx(1)
    assert copy.chance == pytest.approx(few.chance, rel=0.1)


def test_chance_says_where_there_are_too_few_units() -> None:
    """With fewer units than variables any two sides correlate fully, and so do units in random order."""
    found = svcca(rows(0, 12, 9), rows(1, 12, 9), 0, keep=1)
    assert found.value == pytest.approx(1)
    assert found.chance == pytest.approx(1)


def test_turned_directions_are_paired_by_latent() -> None:
    """Directions of a turned dictionary correlate fully with the same latents', and at chance with those of other latents."""
    a = rows(0, 200, 8)
    found, chance = svcca(a.T, (a @ rotation(1, 8)).T, 0), svcca(a.T, rows(2, 200, 8).T, 0)

    assert found.value == pytest.approx(1)
    assert (found.n, found.dimensions) == (200, (8, 8))
    assert found.chance == pytest.approx(chance.value, abs=0.05)


def test_nothing_varies_nothing_correlates() -> None:
    """Latents that never fire, and texts without a unit in common, have no canonical correlations, and no chance level either."""
    for found in (svcca(sparse.csr_array((3, 10)), firings(0, 3, 10), 0), svcca(firings(0, 3, 0), firings(1, 3, 0), 0)):
        assert (found.value, found.chance, found.chance_sd, found.dimensions[0]) == (None, None, None, 0)


# Similarities among latents


@given(st.integers(3, 9), st.integers(20, 60), st.integers(20, 60), st.integers(0, 2**31))
@settings(max_examples=60)
def test_rsa_is_the_rank_correlation_of_correlations(n: int, units: int, others: int, seed: int) -> None:
    """Sparse or dense, on the same or on other units, it is scipy's figure for numpy's correlations; so is chance, of rows reordered."""
    x, y = firings(seed, n, units, 0.8), firings(seed + 1, n, others, 0.8)
    upper = np.triu_indices(n, 1)
    order = order_of(seed, n)
    a, b = (np.corrcoef(side.toarray().astype(np.float64))[upper] for side in (x, y))
    shuffled = np.corrcoef(y.toarray()[order].astype(np.float64))[upper]
    found = rsa(x, y, seed, permutations=1)

    assert found.value == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)
    assert found.chance == pytest.approx(spearmanr(a, shuffled).statistic, abs=1e-9)
    assert rsa(x.toarray(), y.toarray(), seed, permutations=1) == found
    assert (found.n, found.chance_sd) == (n, None)


def test_likes_that_are_unlike() -> None:
    """If the pair of latents that is most alike on one side is least alike on the other, with the third pair between, it is −1."""
    angles = np.radians([[0, 10, 55], [0, 120, 55]])
    x, y = (np.stack([math.cos(angle) * U + math.sin(angle) * V for angle in side]) for side in angles)

    assert rsa(x, y, 0).value == pytest.approx(-1)
    assert rsa(x, 3 * x, 0).value == pytest.approx(1)


def test_rows_that_are_constant_are_left_out() -> None:
    """Latents that never fire, and those that always fire alike, take no part, nor do their partners; rounding makes no variance."""
    constants = np.linspace(0.1, 0.9, 20)[:, None]
    x, y = firings(0, 30, 50).toarray().astype(np.float64), firings(1, 30, 50).toarray().astype(np.float64)
    expected = rsa(x[21:], y[21:], 0)
    x[0], y[1:21] = 0, constants

    assert rsa(sparse.csr_array(x), sparse.csr_array(y), 0) == expected
    assert expected.n == 9


@pytest.mark.parametrize(("latents", "units", "n"), [(0, 50, 0), (1, 50, 1), (2, 50, 2), (5, 0, 0)])
def test_too_few_latents_have_no_geometry(latents: int, units: int, n: int) -> None:
    """Two latents have a single similarity, which has no rank correlation; without units no latent varies."""
    found = rsa(firings(0, latents, units), firings(1, latents, units), 0)
    assert (found.value, found.chance, found.n) == (None, None, n)


def test_similarities_that_are_all_equal_have_no_order() -> None:
    """Latents of which no two are more alike than others have no rank correlation with anything."""
    assert rsa(np.stack([U, V, W]), firings(0, 3, 50), 0).value is None


def test_chance_is_what_partners_in_random_order_give() -> None:
    """Copies correlate fully and their random orders by 0 on average; the same seed gives the same chance, another one another."""
    x = firings(0, 60, 400)
    found, again, other = (rsa(x, x, seed, permutations=40) for seed in (0, 0, 1))

    assert found.value == pytest.approx(1)
    assert found.chance_sd is not None
    assert found.chance == pytest.approx(0, abs=4 * found.chance_sd / math.sqrt(40))
    assert found == again
    assert found.chance != other.chance


def test_firing_equally_often_is_no_likeness() -> None:
    """Partners that fire independently, but equally often, are at chance; by cosines they would look alike."""
    rate = np.geomspace(0.001, 0.1, 80)
    x, y = (firings(seed, 80, 20_000, rate[:, None]) for seed in (0, 1))
    upper = np.triu_indices(80, 1)
    norms = [np.sqrt(np.square(side.toarray()).sum(1)) for side in (x, y)]
    cosines = [(side @ side.T).toarray()[upper] / np.outer(norm, norm)[upper] for side, norm in zip((x, y), norms, strict=True)]
    found = rsa(x, y, 0)

    assert found.value == pytest.approx(0, abs=0.1)
    assert spearmanr(*cosines).statistic > 0.5


@pytest.mark.parametrize(
    ("measured", "shapes", "words"), [(svcca, ((3, 10), (3, 9)), "10 and 9 units"), (rsa, ((3, 10), (4, 10)), "3 and 4 latents")]
)
def test_what_is_no_pair_is_refused(measured: Callable[..., Compared], shapes: tuple[tuple[int, int], tuple[int, int]], words: str) -> None:
    """Units or latents that cannot be paired are one line that names both numbers and the next step."""
    with pytest.raises(UserError, match=rf"{words}.*in the same order"):
        measured(firings(0, *shapes[0]), firings(1, *shapes[1]), 0)
