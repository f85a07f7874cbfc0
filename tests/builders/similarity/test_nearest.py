"""The nearest latents of another dictionary. Sorted whole rows are the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.similarity import measures
from builders.similarity.measures import Cosines
from builders.similarity.nearest import mutual, nearest

pytestmark = pytest.mark.numeric

seeds = st.integers(0, 2**31)
AXES = torch.cat([torch.eye(3), -torch.eye(3), torch.zeros(1, 3)])  # cosines of these are −1, 0 or 1, so that many are equal
axes = st.lists(st.integers(0, len(AXES) - 1), max_size=9).map(lambda rows: AXES[rows])


def noise(seed: int, *shape: int) -> torch.Tensor:
    """Return standard normal rows."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(axes, axes, st.integers(1, 10), st.integers(1, 40))
@settings(max_examples=200)
def test_the_nearest_are_those_of_a_stable_sort(a: torch.Tensor, b: torch.Tensor, most: int, cells: int) -> None:
    """For any rows full of ties, number wanted and size of a block, the largest come first and of equal values the lowest latent."""
    values = (a @ b.T).numpy()
    expected = np.argsort(-values, axis=1, kind="stable")[:, :most]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "CELLS", cells)
        found = nearest(Cosines(a, b), most)

    assert found.partner.tolist() == expected.tolist()
    assert found.value.tolist() == np.take_along_axis(values, expected, axis=1).tolist()
    assert found.partner.dtype == np.int64
    assert found.value.dtype == np.float32


@given(seeds, st.integers(1, 30), st.integers(1, 30), st.integers(1, 6))
@settings(max_examples=60)
def test_values_are_those_of_the_pairs(seed: int, n: int, m: int, most: int) -> None:
    """For any rows, values fall from left to right, belong to the partners, and nothing that is left out is larger."""
    measure = Cosines(noise(seed, n, 4), noise(seed + 1, m, 4))
    values, found = measure.block(0, n), nearest(measure, most)

    assert found.partner.shape == found.value.shape == (n, min(most, m))
    assert (np.diff(found.value, axis=1) <= 0).all()
    np.testing.assert_allclose(found.value, -np.sort(-values, axis=1)[:, :most], atol=1e-6)
    np.testing.assert_allclose(found.value, np.take_along_axis(values, found.partner, axis=1), atol=1e-6)


def test_the_margin_is_the_lead_of_the_first() -> None:
    """The margin is the largest value minus the second; with equal values it is 0, and a negative second counts as it is."""
    found = nearest(Cosines(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 3.0]]), torch.eye(2)), 2)
    opposite = nearest(Cosines(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [-1.0, 0.0]])), 5)

    assert found.best.tolist() == [0, 0, 1]
    assert found.margin.tolist() == [1, 0, 1]
    assert opposite.margin.tolist() == [2]


def test_without_a_second_there_is_no_margin() -> None:
    """Where B has one latent, or only one was looked for, the margin is NaN and the nearest is known nevertheless."""
    for found in (nearest(Cosines(torch.eye(2), torch.ones(1, 2)), 3), nearest(Cosines(torch.eye(2), torch.eye(2)[:1]), 1)):
        assert found.best.tolist() == [0, 0]
        assert found.margin.dtype == np.float32
        assert np.isnan(found.margin).all()


def test_an_empty_dictionary_has_no_partners_and_is_nobodys() -> None:
    """With no latents in B, nobody is nearest; with none in A, there is no row."""
    there, back = nearest(Cosines(torch.eye(2), torch.zeros(0, 2)), 3), nearest(Cosines(torch.zeros(0, 2), torch.eye(2)), 3)

    assert there.partner.shape == (2, 0)
    assert there.best.tolist() == [-1, -1]
    assert np.isnan(there.margin).all()
    assert back.partner.shape == (0, 2)
    assert mutual(there, back).tolist() == [False, False]
    assert mutual(back, there).tolist() == []


# Both ways


def test_a_shuffled_copy_is_found_latent_by_latent() -> None:
    """Every latent's nearest is its own copy, with cosine 1, mutually, wherever the copy stands and whatever its length."""
    a = noise(0, 200, 16)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    measure = Cosines(a, 3 * a[order])
    there, back = nearest(measure, 2), nearest(measure.flipped(), 2)

    assert order[there.best].tolist() == list(range(200))
    assert back.best.tolist() == order.tolist()
    np.testing.assert_allclose(there.value[:, 0], 1, atol=1e-6)
    assert mutual(there, back).all()


def test_only_the_favourite_of_a_popular_latent_is_mutual() -> None:
    """Three latents are nearest to the same one, which is nearest to the second of them."""
    a, b = torch.tensor([[1.0, 0.2], [1.0, 0.0], [1.0, -0.2]]), torch.tensor([[2.0, 0.0], [-1.0, 0.0]])
    measure = Cosines(a, b)
    there, back = nearest(measure, 2), nearest(measure.flipped(), 2)

    assert there.best.tolist() == [0, 0, 0]
    assert mutual(there, back).tolist() == [False, True, False]
    assert mutual(back, there).tolist() == [True, False]


@given(axes, axes)
@settings(max_examples=100)
def test_mutual_pairs_are_the_same_from_both_sides(a: torch.Tensor, b: torch.Tensor) -> None:
    """For any rows, ties included, the partners of A's mutual latents are B's mutual latents, each once."""
    measure = Cosines(a, b)
    there, back = nearest(measure, 1), nearest(measure.flipped(), 1)
    ours, theirs = np.flatnonzero(mutual(there, back)), np.flatnonzero(mutual(back, there))

    assert sorted(there.best[ours].tolist()) == theirs.tolist()
    assert sorted(back.best[theirs].tolist()) == ours.tolist()
