"""The nearest latents of each latent, by tokens and by directions. Dense matrices are the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.saes import geometry, neighbours
from builders.saes.coder import SparseCoder, TopK
from builders.saes.geometry import cosines, directions_of
from builders.saes.neighbours import NEIGHBOURS, Near, cofiring, neighbour_matrix, neighbour_rows
from builders.saes.neurons import neurons

if TYPE_CHECKING:
    import numpy.typing as npt

pytestmark = pytest.mark.numeric

Pair = tuple[int, int, float]


def pairs(near: Near) -> list[Pair]:
    """Return (latent, neighbour, value), in order."""
    return list(zip(near.latent.tolist(), near.neighbour.tolist(), near.value.tolist(), strict=True))


def nearest(values: npt.NDArray[np.float64], most: int) -> list[Pair]:
    """Return the *most* others with the largest positive *values* for each latent; of equal values the lower latent comes first."""
    found = []
    for latent, row in enumerate(values.astype(np.float32).tolist()):
        order = sorted((-value, other) for other, value in enumerate(row) if value > 0 and other != latent)
        found += [(latent, other, -value) for value, other in order[:most]]
    return found


@st.composite
def firings(draw: st.DrawFn) -> npt.NDArray[np.bool_]:
    """Draw which of up to eight latents fires on which of up to twelve tokens; some latents never do."""
    width, tokens = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    cells = draw(st.lists(st.booleans(), min_size=width * tokens, max_size=width * tokens))
    return np.array(cells).reshape(width, tokens)


# Firing together


@given(firings(), st.integers(1, 8), st.integers(1, 9), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_firing_together_is_what_a_dense_count_says(fired: npt.NDArray[np.bool_], most: int, cells: int, random: object) -> None:
    """For any order of firings and size of a block, neighbours follow from C_ij / (C_ii + C_jj − C_ij) with dense counts C."""
    latent, token = np.nonzero(fired)
    shuffled = np.array(random.sample(range(len(latent)), len(latent)), dtype=np.int64)  # type: ignore[attr-defined]
    together = fired.astype(np.int64) @ fired.T.astype(np.int64)
    alone = np.diag(together)
    with np.errstate(invalid="ignore"):
        jaccard = np.nan_to_num(together / (alone[:, None] + alone - together))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "CELLS", cells)
        near = cofiring(latent[shuffled].astype(np.int32), token[shuffled] * 2**33, len(fired), most)

    assert pairs(near) == nearest(jaccard, most)


def test_firing_together_on_a_small_case() -> None:
    """Latents that fire on tokens {0, 1, 2} and {1, 2, 3} share two of four; a dead latent has no neighbours and is nobody's."""
    latent, token = np.array([0, 0, 0, 2, 2, 2, 3]), np.array([0, 1, 2, 1, 2, 3, 9])

    assert pairs(cofiring(latent, token, 4, 3)) == [(0, 2, 0.5), (2, 0, 0.5)]


def test_no_firings_no_neighbours() -> None:
    """A dictionary that fires nowhere has no pairs."""
    nothing = np.zeros(0, dtype=np.int64)

    assert pairs(cofiring(nothing, nothing, 5, 3)) == []


# Directions


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=100)
def test_directions_are_near_by_their_cosine(width: int, d: int, most: int, cells: int, seed: int) -> None:
    """For any size of a block, neighbours are the alive latents with the largest cosines above zero."""
    rng = np.random.default_rng(seed)
    rows, alive = rng.standard_normal((width, d)), rng.random(width) < 0.8
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = np.where((unit @ unit.T > 1e-4) & alive & alive[:, None], unit @ unit.T, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "CELLS", cells)
        found = pairs(cosines(torch.from_numpy(rows), alive, most))
    expected = nearest(cosine, most)

    assert [pair[0] for pair in found] == [pair[0] for pair in expected]
    assert [pair[2] for pair in found] == pytest.approx([pair[2] for pair in expected], abs=1e-5)
    assert all(value == pytest.approx(cosine[latent, other], abs=1e-5) for latent, other, value in found)


def test_of_equal_directions_the_lower_latent_comes_first() -> None:
    """Latents 0, 1, 3 and 4 all lie at 45 degrees to latent 2, which names the first two."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = [pair[1] for pair in pairs(cosines(rows, np.ones(5, dtype=bool), 2)) if pair[0] == 2]

    assert found == [0, 1]


def test_a_direction_of_length_zero_is_near_nothing() -> None:
    """A latent that writes nothing has no neighbours and is nobody's."""
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])

    assert pairs(cosines(rows, np.ones(3, dtype=bool), 5)) == [(0, 2, 1.0), (2, 0, 1.0)]


@pytest.mark.parametrize("rotated", [False, True])
def test_orthogonal_directions_have_no_neighbours(rotated: bool) -> None:
    """In the neuron basis, rotated or not, no directions are near each other (up to rounding), and there are no encoder rows."""
    coder = neurons(96, 8, rotated, seed=3)
    decoder = directions_of(coder, "decoder")

    assert decoder is not None
    assert pairs(cosines(decoder, np.ones(96, dtype=bool), 5)) == []
    assert directions_of(coder, "encoder") is None


def test_decoder_and_encoder_are_the_rows_of_each() -> None:
    """Latents write the rows of the decoder and read the rows of the encoder."""
    w_enc, w_dec = torch.arange(6.0).reshape(3, 2), torch.arange(12.0).reshape(3, 4)
    coder = SparseCoder(w_enc, torch.zeros(3), w_dec, torch.zeros(4), TopK(1), b_pre=torch.zeros(2))

    assert directions_of(coder, "encoder") is w_enc
    assert torch.equal(directions_of(coder, "decoder"), w_dec)  # type: ignore[arg-type]  # it has one


# Rows


def near_of(found: list[Pair]) -> Near:
    """Return pairs as arrays."""
    columns = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return Near(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2].astype(np.float32))


def test_rows_are_ranked_within_latent_and_measure() -> None:
    """Rows come by latent, then measure, then from the nearest on, and read back as a matrix of each measure."""
    found = {"decoder": near_of([(1, 0, 0.75), (1, 2, 0.5)]), "cofiring": near_of([(0, 2, 0.25), (1, 2, 1.0)])}
    rows = neighbour_rows("toy", found)
    NEIGHBOURS.validate(rows)

    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("toy", 0, "cofiring", 0, 2, 0.25),
        ("toy", 1, "cofiring", 0, 2, 1.0),
        ("toy", 1, "decoder", 0, 0, 0.75),
        ("toy", 1, "decoder", 1, 2, 0.5),
    ]
    assert neighbour_matrix(rows, "decoder", 3).tolist() == [[-1, -1], [0, 2], [-1, -1]]
    assert neighbour_matrix(rows, "cofiring", 3).tolist() == [[2], [2], [-1]]
    assert neighbour_matrix(rows, "encoder", 3).shape == (3, 0)


def test_where_no_measure_has_a_meaning_there_are_no_rows() -> None:
    """Measures without pairs, and no measures at all, give an empty table."""
    for found in ({}, {"decoder": near_of([])}):
        rows = neighbour_rows("toy", found)
        NEIGHBOURS.validate(rows)
        assert rows.num_rows == 0
