"""Sparse coders: their equation, computed in chunks of any size, and the two baselines of trained SAEs."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
import torch
from coders import dense, noise, random_coder, random_transcoder, run_maxima, strongest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.saes import coder as coders
from builders.saes.coder import Gated, GroupMax, JumpReLU, Mounted, ReLU, SparseCoder, TopK
from builders.saes.neurons import neurons, untrained

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from builders.saes.coder import Activation, Norm, SparseCode

pytestmark = pytest.mark.numeric

D = 6


def jumps(pre: Tensor, threshold: Tensor) -> Tensor:
    """Return relu(pre) where it is above *threshold*."""
    return pre.relu() * (pre > threshold)


def gates(pre: Tensor, gate: Tensor, scale: Tensor, magnitude: Tensor) -> Tensor:
    """Return relu(scale · pre + magnitude) where pre + gate is above zero."""
    return (pre * scale + magnitude).relu() * (pre + gate > 0)


# Activation of a width that 4 divides, and the same on a whole matrix of pre-activations.
KINDS: dict[str, tuple[Callable[[int, int], Activation], Callable[[Tensor, Activation], Tensor]]] = {
    "topk": (lambda width, seed: TopK(1 + seed % width), lambda pre, a: strongest(pre, a.k)),
    "topk of more than there are": (lambda width, _: TopK(width + 3), lambda pre, _: pre.relu()),
    "groupmax": (lambda width, _: GroupMax(width // 4, 4), lambda pre, a: run_maxima(pre, a.k)),
    "groupmax of runs of one": (lambda width, _: GroupMax(width, 1), lambda pre, _: pre.relu()),
    "relu": (lambda width, _: ReLU(torch.zeros(width)), lambda pre, _: pre.relu()),
    "jumprelu": (lambda width, seed: JumpReLU(whole(seed + 5, width)), lambda pre, a: jumps(pre, a.threshold)),
    "gated": (
        lambda width, seed: Gated(whole(seed + 6, width), 1 + whole(seed + 7, width).abs(), whole(seed + 8, width)),
        lambda pre, a: gates(pre, a.gate, a.scale, a.magnitude),
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)
seeds = st.integers(0, 999)


def whole(seed: int, *shape: int) -> Tensor:
    """Return small whole numbers, whose sums and products are exact and often equal."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


def whole_coder(seed: int, width: int, activation: Activation) -> SparseCoder:
    """Return an SAE whose weights are small whole numbers."""
    b_dec = whole(seed + 3, D)
    return SparseCoder(whole(seed, width, D), whole(seed + 1, width), whole(seed + 2, width, D), b_dec, activation, b_dec)


def encoded(coder: SparseCoder, x: Tensor, chunk: int) -> SparseCode:
    """Return the code of *x* computed with at most *chunk* pre-activations at a time, but never less than one grain of latents."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(coders, "CHUNK", chunk)
        return coder.encode(x)


def same(one: SparseCode, other: SparseCode) -> bool:
    """Return whether two codes are equal to the bit."""
    return one.n == other.n and all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("vector", "latent", "value"))


@kinds
@given(seeds, st.integers(1, 6), st.integers(0, 6), st.integers(1, 60))
@settings(max_examples=60)
def test_a_code_is_the_dense_formula_in_any_pieces(kind: str, seed: int, quarter: int, n: int, chunk: int) -> None:
    """For any activation and chunk, the code equals that of the whole matrix to the bit; ties go to the first latents."""
    width = 4 * quarter
    make, formula = KINDS[kind]
    coder = whole_coder(seed, width, make(width, seed))
    x = whole(seed + 4, n, D)
    expected = formula((x - coder.b_pre) @ coder.w_enc.T + coder.b_enc, coder.activation)
    for code in (coder.encode(x), encoded(coder, x, chunk)):
        assert torch.equal(dense(code, width), expected)
        assert len(code.value) == int((expected != 0).sum())
        assert torch.equal(coder.decode(code, x), expected @ coder.w_dec + coder.b_dec)


@kinds
@pytest.mark.parametrize("chunk", [1, 7, 64, 300])
def test_pieces_change_no_rounding_that_shows(kind: str, chunk: int) -> None:
    """With real weights the same latents fire in chunks of any size, equally strongly up to rounding."""
    coder = random_coder(3, 40, D, KINDS[kind][0](40, 3))
    x = noise(4, 9, D)
    at_once, in_pieces = coder.encode(x), encoded(coder, x, chunk)
    assert torch.equal(in_pieces.vector, at_once.vector)
    assert torch.equal(in_pieces.latent, at_once.latent)
    torch.testing.assert_close(in_pieces.value, at_once.value)


@given(st.lists(st.lists(st.integers(-1, 2), min_size=8, max_size=8), min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 40))
@settings(max_examples=200)
def test_of_equal_values_the_first_latents_are_kept(rows: list[list[int]], k: int, chunk: int) -> None:
    """For rows full of ties, TopK keeps what a stable sort keeps, every time and in chunks of any size."""
    x = torch.tensor(rows).float()
    coder = SparseCoder(torch.eye(8), torch.zeros(8), torch.eye(8), torch.zeros(8), TopK(k), torch.zeros(8))
    kept = [sorted(sorted(range(8), key=lambda latent: -row[latent])[:k]) for row in rows]  # used before the next row
    code = coder.encode(x)
    expected = [(row, latent) for row, latents in enumerate(kept) for latent in latents if rows[row][latent] > 0]
    assert list(zip(code.vector.tolist(), code.latent.tolist(), strict=True)) == expected
    assert same(coder.encode(x), code)
    assert same(encoded(coder, x, chunk), code)


@kinds
def test_a_code_is_in_order_and_holds_no_zero(kind: str) -> None:
    """Only values above zero are kept, each once, ordered by vector and then by latent."""
    coder = random_coder(0, 32, D, KINDS[kind][0](32, 0))
    code = encoded(coder, noise(1, 40, D), 100)
    assert (code.value > 0).all()
    assert ((code.vector * 32 + code.latent).diff() > 0).all()


@pytest.mark.parametrize("silent", [[0], [3], [1, 2], [0, 3], [0, 1, 2, 3]])
def test_vectors_in_which_nothing_fires_decode_to_the_bias(silent: list[int]) -> None:
    """A vector on which no latent fires is reconstructed as b_dec, whether it is the first, the last or every vector."""
    eye, bias = torch.eye(2), torch.tensor([0.5, -1.0])
    coder = SparseCoder(eye, torch.zeros(2), eye, bias, TopK(2), bias)
    x = torch.tensor([[-1.0, -2.0] if row in silent else [3.0, 4.0 + row] for row in range(4)]) + bias
    code = coder.encode(x)
    assert sorted(set(range(4)) - set(code.vector.tolist())) == silent
    expected = torch.stack([bias if row in silent else x[row] for row in range(4)])
    torch.testing.assert_close(coder.decode(code, x), expected)


NORMS: dict[Norm, Callable[[Tensor], tuple[Tensor, Tensor, float]]] = {
    "none": lambda x: (torch.zeros(len(x), 1), torch.ones(len(x), 1), 0.0),
    "layer_norm": lambda x: (x.mean(1, keepdim=True), x.var(1, keepdim=True).sqrt(), 1e-5),
    "constant_norm": lambda x: (torch.zeros(len(x), 1), x.square().mean(1, keepdim=True).sqrt(), 0.0),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("transcodes", [False, True])
def test_the_whole_equation(norm: Norm, transcodes: bool) -> None:
    """Inputs are normalised. An SAE's output is scaled back; a transcoder's is not, but W_skip x is added to it."""
    activation = ReLU(torch.zeros(10))
    coder = random_transcoder(0, 10, D, 4, activation, norm) if transcodes else random_coder(0, 10, D, activation, norm)
    x = 3 * noise(9, 7, D) + 1
    center, scale, epsilon = NORMS[norm](x)
    f = (((x - center) / (scale + epsilon) - coder.b_pre) @ coder.w_enc.T + coder.b_enc).relu()
    y = f @ coder.w_dec + coder.b_dec
    code = coder.encode(x)
    assert (coder.d_in, coder.d_out, coder.width) == (D, 4 if transcodes else D, 10)
    torch.testing.assert_close(dense(code, 10), f)
    torch.testing.assert_close(coder.decode(code, x), y + x @ coder.w_skip.T if transcodes else y * scale + center, rtol=1e-5, atol=1e-5)


def test_half_precision_vectors_are_read_in_the_precision_of_the_weights() -> None:
    """A float32 dictionary encodes and decodes vectors of a bfloat16 model in float32."""
    coder = random_transcoder(0, 8, 4, 3, TopK(2), "layer_norm")
    x = noise(1, 5, 4).bfloat16()
    code = coder.encode(x)
    assert code.value.dtype == coder.decode(code, x).dtype == torch.float32
    assert same(code, coder.encode(x.float()))
    assert torch.equal(coder.decode(code, x), coder.decode(code, x.float()))


@kinds
def test_a_coder_moves_as_a_whole(kind: str) -> None:
    """Moving a coder moves all its tensors, including those of its activation, and changes nothing else."""
    coder = random_coder(0, 8, D, KINDS[kind][0](8, 0))
    there = coder.to("meta")
    tensors = [getattr(thing, field.name) for thing in (there, there.activation) for field in fields(thing)]
    assert {tensor.device.type for tensor in tensors if isinstance(tensor, torch.Tensor)} == {"meta"}
    assert type(there.activation) is type(coder.activation)
    assert (there.width, there.d_in, there.norm) == (8, D, "none")
    assert Mounted(there, "layers.1", "layers.1").coder is there


def test_directions_are_what_latents_write() -> None:
    """A latent's direction is what it adds to the output when it fires with value 1, in a coder and in both neuron bases."""
    for coder in (random_transcoder(0, 8, 5, 3, TopK(2)), neurons(8, 2, rotated=False, seed=0), neurons(8, 2, rotated=True, seed=0)):
        x = torch.zeros(3, coder.d_in)
        one = coders.SparseCode(torch.arange(3), torch.arange(4, 7), torch.ones(3), 3)
        none = coders.SparseCode(torch.arange(0), torch.arange(0), torch.ones(0), 3)
        torch.testing.assert_close(coder.directions(4, 7), coder.decode(one, x) - coder.decode(none, x))


# The neuron basis and the untrained dictionary


@given(seeds, st.integers(1, 8), st.integers(0, 5), st.integers(1, 9))
@settings(max_examples=60)
def test_neurons_keep_their_largest_values(seed: int, d: int, n: int, k: int) -> None:
    """The code of the neuron basis is the k largest coordinates above zero, and decodes to them with zeros elsewhere."""
    x = whole(seed, n, d)
    basis = neurons(d, k, rotated=False, seed=0)
    code = basis.encode(x)
    assert (basis.width, basis.d_in, basis.d_out) == (d, d, d)
    assert torch.equal(dense(code, d), strongest(x, k))
    assert torch.equal(basis.decode(code, x), strongest(x, k))


@given(seeds, st.integers(1, 8))
@settings(max_examples=30)
def test_a_rotation_is_orthogonal_and_seeded(seed: int, d: int) -> None:
    """The rotated basis has orthonormal directions that only the seed decides, and the code keeps the largest coordinates."""
    rotated = neurons(d, 2, rotated=True, seed=seed)
    directions, x = rotated.directions(0, d), noise(seed, 5, d)
    torch.testing.assert_close(directions @ directions.T, torch.eye(d), atol=1e-5, rtol=0)
    assert torch.equal(neurons(d, 2, rotated=True, seed=seed).directions(0, d), directions)
    assert d == 1 or not torch.allclose(neurons(d, 2, rotated=True, seed=seed + 1).directions(0, d), directions)
    expected = strongest(x @ directions.T, 2)
    code = rotated.encode(x)
    torch.testing.assert_close(dense(code, d), expected)
    torch.testing.assert_close(rotated.decode(code, x), expected @ directions)


def test_rotations_favour_no_direction() -> None:
    """Over many seeds each entry of the rotation has mean 0 and mean square 1/d, as in a uniformly random rotation."""
    drawn = torch.stack([neurons(3, 1, rotated=True, seed=seed).directions(0, 3) for seed in range(600)])
    assert drawn.mean(0).abs().max() < 5 / (3 * 600) ** 0.5
    assert (drawn.square().mean(0) - 1 / 3).abs().max() < 0.07


def test_the_untrained_dictionary_is_tied_unit_and_seeded() -> None:
    """The untrained SAE has rows of norm 1, a decoder equal to its encoder, no biases, and only the seed decides it."""
    coder = untrained(20, 5, 3, seed=4)
    torch.testing.assert_close(coder.w_enc.norm(dim=1), torch.ones(20))
    assert torch.equal(coder.w_enc, coder.w_dec)
    assert not any(bias.any() for bias in (coder.b_enc, coder.b_dec, coder.b_pre))
    assert coder.activation == TopK(3)
    assert torch.equal(untrained(20, 5, 3, seed=4).w_enc, coder.w_enc)
    assert not torch.equal(untrained(20, 5, 3, seed=5).w_enc, coder.w_enc)
