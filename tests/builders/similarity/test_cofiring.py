from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.similarity.cofiring import Jaccard, Pearson, fired

if TYPE_CHECKING:
    from scipy import sparse

pytestmark = pytest.mark.numeric

Values = npt.NDArray[np.float32]
MEASURES: list[type[Pearson | Jaccard]] = [Pearson, Jaccard]


def matrix(values: Any) -> sparse.csr_array:
    """Return dense activations [latents, units] as `fired` makes them."""
    dense = np.array(values, np.float32)
    latent, unit = np.nonzero(dense)
    return fired(latent, unit, dense[latent, unit], *dense.shape)


def whole(measure: Pearson | Jaccard) -> Values:
    """Return the values of all pairs."""
    return measure.block(0, measure.shape[0])


@st.composite
def activations(draw: st.DrawFn, units: int) -> Values:
    """Draw the activations of up to six latents on *units* units; most are zero."""
    latents = draw(st.integers(1, 6))
    cells = st.lists(st.sampled_from([0, 0, 0, 0.5, 1, 3]), min_size=latents * units, max_size=latents * units)
    return np.array(draw(cells), np.float32).reshape(latents, units)


@st.composite
def two_dictionaries(draw: st.DrawFn) -> tuple[Values, Values]:
    """Draw the activations of two dictionaries on the same units."""
    units = draw(st.integers(1, 12))
    return draw(activations(units)), draw(activations(units))


# Activations as a matrix


def test_firings_in_any_order_become_a_matrix() -> None:
    """Each firing is a cell; a latent or unit without firings is a row or column of zeros."""
    found = fired(np.array([2, 0, 2]), np.array([3, 1, 0]), np.array([1.5, 2.0, 0.5], np.float32), 4, 5)

    assert found.dtype == np.float32
    assert found.nnz == 3
    assert found.toarray().tolist() == [[0, 2, 0, 0, 0], [0] * 5, [0.5, 0, 0, 1.5, 0], [0] * 5]


def test_of_several_firings_on_a_unit_the_largest_counts() -> None:
    """A latent that fires on several tokens of a span has the largest of these activations there, and one cell."""
    latent, unit = np.array([0, 0, 0, 1], np.int32), np.array([1, 1, 1, 1])
    found = fired(latent, unit, np.array([1.0, 3.0, 2.0, 0.5], np.float32), 2, 2)

    assert found.nnz == 2
    assert found.toarray().tolist() == [[0, 3], [0, 0.5]]


def test_firings_outside_all_units_are_left_out() -> None:
    """A firing on a token without a span, or of a latent that is not asked for, is no firing."""
    found = fired(np.array([0, -1, 0]), np.array([-1, 0, 1]), np.array([1.0, 2.0, 3.0], np.float32), 1, 2)

    assert found.toarray().tolist() == [[0, 3]]


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 4), st.sampled_from([0.5, 1.0, 2.0])), max_size=20))
def test_any_firings_are_the_largest_of_each_cell(firings: list[tuple[int, int, float]]) -> None:
    """For any firings, repeated ones included, a cell is their largest activation, or zero without one."""
    dense = np.zeros((4, 5), np.float32)
    for latent, unit, value in firings:
        if latent >= 0 and unit >= 0:
            dense[latent, unit] = max(dense[latent, unit], value)
    latents, units, values = np.array(firings, np.float64).reshape(-1, 3).T
    found = fired(latents.astype(np.int32), units.astype(np.int64), values.astype(np.float32), 4, 5)

    assert found.toarray().tolist() == dense.tolist()
    assert found.nnz == np.count_nonzero(dense)


# Known answers


def test_correlations_of_a_small_case() -> None:
    """The same pattern correlates by 1 whatever its strength, the opposite pattern by −1, and independent ones by 0."""
    a = matrix([[1, 0, 1, 0], [1, 1, 0, 0]])
    b = matrix([[5, 0, 5, 0], [0, 2, 0, 2], [3, 3, 3, 4]])
    measure = Pearson(a, b)

    assert measure.shape == (2, 3)
    assert whole(measure).dtype == np.float32
    assert whole(measure) == pytest.approx(np.array([[1, -1, -((1 / 3) ** 0.5)], [0, 0, -((1 / 3) ** 0.5)]]), abs=1e-7)


def test_shares_of_a_small_case() -> None:
    """Firing on {0, 1, 2} and on {1, 2, 3} shares two of four units; on the same units 1; on no unit in common 0."""
    measure = Jaccard(matrix([[1, 2, 3, 0, 0], [0, 0, 0, 0, 7]]), matrix([[0, 9, 1, 1, 0], [3, 2, 1, 0, 0], [0, 0, 0, 0, 1]]))

    assert measure.shape == (2, 3)
    assert whole(measure).dtype == np.float32
    assert whole(measure).tolist() == [[0.5, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-20])
def test_a_constant_latent_correlates_with_nothing(constant: float) -> None:
    """A latent that never fires, or fires everywhere alike, has no correlation: 0, on either side."""
    still, other = matrix([[constant] * 7]), matrix([[constant] * 7, [0, 0, 1, 0, 0, 0, 2]])

    assert whole(Pearson(still, other)).tolist() == [[0, 0]]
    assert whole(Pearson(other, still)).tolist() == [[0], [0]]


def test_a_latent_that_never_fires_shares_nothing() -> None:
    """Two latents that never fire share 0 of 0 units, which is 0."""
    silent = matrix([[0, 0, 0], [1, 0, 0]])

    assert whole(Jaccard(silent, silent)).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("kind", MEASURES)
def test_without_units_nothing_is_alike(kind: type[Pearson | Jaccard]) -> None:
    """Dictionaries without a common unit have the value 0 in all pairs."""
    assert whole(kind(matrix(np.zeros((2, 0))), matrix(np.zeros((3, 0))))).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("kind", MEASURES)
def test_without_latents_there_are_no_values(kind: type[Pearson | Jaccard]) -> None:
    """A dictionary without latents that are alive gives empty blocks, on either side."""
    none, some = matrix(np.zeros((0, 4))), matrix([[1, 0, 0, 2]])

    assert whole(kind(none, some)).shape == (0, 1)
    assert whole(kind(some, none)).shape == (1, 0)


def test_a_permuted_dictionary_is_recovered() -> None:
    """Each latent of a dictionary has the value 1 with itself in the permuted dictionary, and less with every other one."""
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((64, 500)) < 0.05, rng.random((64, 500)), 0).astype(np.float32)
    order = rng.permutation(64)
    for kind in MEASURES:
        values = whole(kind(matrix(dense), matrix(dense[order])))
        assert (np.argmax(values, axis=1) == np.argsort(order)).all()
        assert values.max(axis=1) == pytest.approx(np.ones(64), abs=1e-6)
        assert np.sort(values, axis=1)[:, -2].max() < 0.9


# Any activations


@pytest.mark.filterwarnings("ignore:Degrees of freedom")  # numpy's, of a single unit
@given(two_dictionaries())
def test_correlations_are_those_of_numpy(dictionaries: tuple[Values, Values]) -> None:
    """For any activations, values are numpy's correlation coefficients; with a constant latent they are 0."""
    a, b = dictionaries
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = np.corrcoef(a.astype(np.float64), b.astype(np.float64))[: len(a), len(a) :]
    constant = (np.ptp(a, axis=1) == 0)[:, None] | (np.ptp(b, axis=1) == 0)
    found = whole(Pearson(matrix(a), matrix(b)))

    assert found == pytest.approx(np.where(constant, 0, correlations), abs=1e-6)
    assert np.abs(found).max() <= 1


@given(two_dictionaries())
def test_shares_are_those_of_sets(dictionaries: tuple[Values, Values]) -> None:
    """For any activations, values are the sizes of the sets' intersection and union divided, to the last bit of float32."""
    a, b = dictionaries
    sets = [[set(np.flatnonzero(latent).tolist()) for latent in values] for values in (a, b)]
    expected = [[len(one & two) / max(1, len(one | two)) for two in sets[1]] for one in sets[0]]

    assert whole(Jaccard(matrix(a), matrix(b))).tolist() == np.array(expected, np.float32).tolist()


@pytest.mark.parametrize("kind", MEASURES)
@given(dictionaries=two_dictionaries(), data=st.data())
def test_blocks_are_parts_of_the_whole(kind: type[Pearson | Jaccard], dictionaries: tuple[Values, Values], data: st.DataObject) -> None:
    """A block holds the rows of its latents, whatever the block; exchanging A and B transposes all values."""
    measure = kind(*(matrix(values) for values in dictionaries))
    low = data.draw(st.integers(0, measure.shape[0]))
    high = data.draw(st.integers(low, measure.shape[0]))

    assert measure.block(low, high).tolist() == whole(measure)[low:high].tolist()
    assert measure.flipped().shape == measure.shape[::-1]
    assert whole(measure.flipped()) == pytest.approx(whole(measure).T, abs=1e-6)


@pytest.mark.parametrize("kind", MEASURES)
@given(dictionaries=two_dictionaries(), random=st.randoms(use_true_random=False))
def test_permuted_latents_permute_columns(kind: type[Pearson | Jaccard], dictionaries: tuple[Values, Values], random: Any) -> None:
    """The order of B's latents is the order of the columns, to the last bit."""
    a, b = dictionaries
    order = random.sample(range(len(b)), len(b))

    assert whole(kind(matrix(a), matrix(b[order]))).tolist() == whole(kind(matrix(a), matrix(b)))[:, order].tolist()


@given(dictionaries=two_dictionaries(), data=st.data())
def test_scale_does_not_change_a_correlation(dictionaries: tuple[Values, Values], data: st.DataObject) -> None:
    """Activations of each latent times a positive number correlate as before, from tiny to huge ones."""
    a, b = dictionaries
    scales = data.draw(st.lists(st.sampled_from([1e-12, 1e-3, 0.7, 30, 1e12]), min_size=len(b), max_size=len(b)))
    scaled = (b * np.array(scales)[:, None]).astype(np.float32)

    assert whole(Pearson(matrix(a), matrix(scaled))) == pytest.approx(whole(Pearson(matrix(a), matrix(b))), abs=1e-5)


@given(two_dictionaries())
def test_strength_does_not_change_a_share(dictionaries: tuple[Values, Values]) -> None:
    """Only where latents fire counts: with every activation set to 1, shares are the same."""
    a, b = dictionaries

    assert whole(Jaccard(matrix(a > 0), matrix(b > 0))).tolist() == whole(Jaccard(matrix(a), matrix(b))).tolist()
