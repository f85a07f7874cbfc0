"""Cosines of two dictionaries' rows, and any measure in blocks. Whole matrices are the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.errors import UserError
from builders.similarity import measures
from builders.similarity.measures import Cosines, Rows, blocks

pytestmark = pytest.mark.numeric

seeds = st.integers(0, 2**31)


def noise(seed: int, *shape: int) -> torch.Tensor:
    """Return standard normal rows."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_cosines_of_a_small_case() -> None:
    """Cosines keep their sign, lengths do not count, and a row of zeros has cosine 0 with every row."""
    found = Cosines(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]]), torch.tensor([[6.0, 8.0], [0.5, 0.0]]))

    assert found.shape == (3, 2)
    np.testing.assert_allclose(found.block(0, 3), np.array([[1, 0.6], [0, 0], [-0.6, -1]]), rtol=1e-6)
    assert found.block(1, 2).tolist() == [[0, 0]]


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=60)
def test_cosines_follow_from_the_formula(seed: int, n: int, m: int, d: int) -> None:
    """For any rows, the value is a · b / (|a| |b|), within −1 and 1, and the flipped measure is its transpose."""
    a, b = noise(seed, n, d), noise(seed + 1, m, d)
    x, y = a.double().numpy(), b.double().numpy()
    expected = x @ y.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    found = Cosines(a, b)

    np.testing.assert_allclose(found.block(0, n), expected, atol=1e-5)
    assert np.abs(found.block(0, n)).max() <= 1
    assert found.flipped().shape == (m, n)
    np.testing.assert_allclose(found.flipped().block(0, m), expected.T, atol=1e-5)


def test_rounding_goes_not_beyond_one() -> None:
    """Three hundred rows have cosine 1 with themselves, and no value is larger, though float32 products of unit rows are."""
    rows = noise(0, 300, 48)
    values = Cosines(rows, rows).block(0, 300)

    np.testing.assert_allclose(np.diag(values), 1, atol=1e-6)
    assert values.max() == 1


@given(seeds, st.floats(0.01, 100))
@settings(max_examples=30)
def test_only_the_direction_of_a_row_counts(seed: int, scale: float) -> None:
    """Longer rows have the same cosines, and rows that point the other way have them with the other sign."""
    a, b = noise(seed, 5, 4), noise(seed + 1, 6, 4)
    plain = Cosines(a, b).block(0, 5)

    np.testing.assert_allclose(Cosines(a * scale, b).block(0, 5), plain, atol=1e-6)
    np.testing.assert_allclose(Cosines(a, b * -scale).block(0, 5), -plain, atol=1e-6)


def test_rows_may_be_of_numpy_of_torch_or_of_a_model() -> None:
    """Arrays, half-precision tensors and parameters that want gradients are all read as float32."""
    rows = torch.tensor([[1.0, 2.0], [-0.5, 0.25]])
    expected = Cosines(rows, rows).block(0, 2).tolist()
    alike: list[Rows] = [rows.numpy(), rows.numpy().astype(np.float64), rows.half(), torch.nn.Parameter(rows)]
    for same in alike:
        found = Cosines(same, rows).block(0, 2)
        assert found.dtype == np.float32
        assert found.tolist() == expected


def test_the_flipped_measure_holds_the_same_rows() -> None:
    """Exchanging A and B copies no rows, and leaves the measure itself as it was."""
    measure = Cosines(noise(0, 3, 2), noise(1, 4, 2))
    flipped = measure.flipped()

    assert flipped.a is measure.b
    assert flipped.b is measure.a
    assert measure.shape == (3, 4)


def test_rows_of_different_sizes_have_no_cosine() -> None:
    """The error is one line that names both sizes and what to do."""
    with pytest.raises(UserError) as error:
        Cosines(noise(0, 3, 64), noise(0, 3, 96))

    assert str(error.value) == "rows of 64 and of 96 dimensions have no cosine; compare these dictionaries by activations or explanations"


@given(st.integers(0, 12), st.integers(0, 6), st.integers(1, 40))
@settings(max_examples=60)
def test_blocks_follow_one_another_and_are_small(n: int, m: int, cells: int) -> None:
    """For any sizes, the blocks hold every latent of A once, in order, and no block but that of a single latent has more than CELLS."""
    measure = Cosines(noise(n, n, 3), noise(m, m, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "CELLS", cells)
        parts = list(blocks(measure))
    lengths = [len(block) for _, block in parts]

    assert [low for low, _ in parts] == [sum(lengths[:index]) for index in range(len(parts))]
    assert sum(lengths) == n
    assert all(block.size <= cells or len(block) == 1 for _, block in parts)
    if n:
        np.testing.assert_allclose(np.concatenate([block for _, block in parts]), measure.block(0, n), atol=1e-6)
