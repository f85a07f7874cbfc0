"""The tuned lens, its divergences and their gradients, against torch's own."""

from __future__ import annotations

import pytest
import torch
from recurrent import LAYERS, VOCABULARY, WIDTH, tiny
from torch import Tensor
from torch.nn import functional as F

from builders.lenses.translators import CELLS, TunedLens, divergences
from builders.subjects.anatomy import Anatomy, anatomy_of

pytestmark = pytest.mark.numeric

architectures = pytest.mark.parametrize("name", ["llama", "mamba", "rwkv"])


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Return normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_lens(layers: int = LAYERS, d: int = WIDTH) -> TunedLens:
    """Return translators that do something."""
    return TunedLens(noise(layers, d, d, seed=1) / d, noise(layers, d, seed=2))


def stream(n: int) -> list[Tensor]:
    """Return vectors [n, WIDTH] of every layer."""
    return list(noise(LAYERS + 1, n, WIDTH, seed=3))


def expected(anatomy: Anatomy, lens: TunedLens, hidden: list[Tensor]) -> Tensor:
    """Return the divergences [L, n] as torch computes them."""
    own = anatomy.logits(hidden[-1]).log_softmax(-1)
    read = [anatomy.logits(lens.carried(layer, hidden[layer])).log_softmax(-1) for layer in range(LAYERS)]
    return torch.stack([F.kl_div(one, own, log_target=True, reduction="none").sum(-1) for one in read])


def test_a_translator_adds_an_affine_map_to_the_vector() -> None:
    """A layer's translator gives h + W h + b, in float32 also for vectors in half precision."""
    lens = TunedLens(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]), torch.tensor([[10.0, 20.0]]))
    carried = lens.carried(0, torch.tensor([[1.0, 3.0]], dtype=torch.float16))
    assert carried.tolist() == [[1 + 6 + 10, 3 + 1 + 20]]
    assert carried.dtype == torch.float32
    assert lens.name == "tuned"


def test_the_last_layer_and_zeros_change_nothing() -> None:
    """The last layer has no translator, and translators of zeros are the logit lens."""
    hidden = noise(4, WIDTH)
    assert torch.equal(some_lens().carried(LAYERS, hidden), hidden)
    assert all(torch.equal(TunedLens.zeros(LAYERS, WIDTH, "cpu").carried(layer, hidden), hidden) for layer in range(LAYERS + 1))


def test_all_layers_at_once_are_the_layers_one_by_one() -> None:
    """Vectors of all layers are carried as those of each layer are."""
    lens, hidden = some_lens(), torch.stack(stream(5)[:-1])
    torch.testing.assert_close(lens.all_carried(hidden), torch.stack([lens.carried(layer, hidden[layer]) for layer in range(LAYERS)]))


@architectures
def test_divergences_are_those_of_torch(name: str) -> None:
    """Each layer's divergence at each token is KL(softmax(final) ‖ softmax(lens)), in nats."""
    anatomy, lens, hidden = anatomy_of(tiny(name)), some_lens(), stream(9)
    torch.testing.assert_close(divergences(anatomy, lens, hidden), expected(anatomy, lens, hidden), rtol=1e-4, atol=1e-5)


@architectures
def test_gradients_are_those_of_torch(name: str) -> None:
    """What is added to the slopes is the gradient of the divergences' sum, and each layer's depends on no other layer."""
    anatomy, lens, hidden = anatomy_of(tiny(name)), some_lens(), stream(9)
    slopes = TunedLens(torch.ones_like(lens.weight), torch.ones_like(lens.bias))
    found = divergences(anatomy, lens, hidden, slopes)
    for tensor in lens.tensors:
        tensor.requires_grad_()
    weight, bias = torch.autograd.grad(expected(anatomy, lens, hidden).sum(), lens.tensors)
    torch.testing.assert_close(slopes.weight - 1, weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(slopes.bias - 1, bias, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found, divergences(anatomy, some_lens(), hidden))


def test_gradients_pass_a_soft_cap() -> None:
    """With soft-capped and scaled logits, divergences and gradients are still those of torch."""
    plain, lens, hidden = anatomy_of(tiny("llama")), some_lens(), stream(9)
    anatomy = Anatomy(plain.layers, WIDTH, plain.norm, plain.unembedding, plain.scales, factor=3.0, cap=2.0)
    slopes = TunedLens.zeros(LAYERS, WIDTH, "cpu")
    torch.testing.assert_close(divergences(anatomy, lens, hidden, slopes), expected(anatomy, lens, hidden), rtol=1e-4, atol=1e-5)
    for tensor in lens.tensors:
        tensor.requires_grad_()
    for slope, gradient in zip(slopes.tensors, torch.autograd.grad(expected(anatomy, lens, hidden).sum(), lens.tensors), strict=True):
        torch.testing.assert_close(slope, gradient, rtol=1e-3, atol=1e-4)


def test_a_lens_that_ends_at_the_last_layer_diverges_nowhere() -> None:
    """Where a translator carries a vector to the last layer's, the divergence and its gradient are zero."""
    hidden = stream(1)
    lens = TunedLens(torch.zeros(LAYERS, WIDTH, WIDTH), torch.cat([hidden[-1] - early for early in hidden[:-1]]))
    slopes = TunedLens.zeros(LAYERS, WIDTH, "cpu")
    found = divergences(anatomy_of(tiny("mamba")), lens, hidden, slopes)
    torch.testing.assert_close(found, torch.zeros(LAYERS, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(slopes.bias, torch.zeros(LAYERS, WIDTH), rtol=0, atol=1e-5)


def test_more_tokens_than_a_chunk_holds_are_the_parts_together() -> None:
    """Tokens beyond one chunk give the divergences and gradients of the parts read alone."""
    n = CELLS // VOCABULARY + 40
    anatomy, lens, hidden = anatomy_of(tiny("llama")), some_lens(), stream(n)
    whole, parts = TunedLens.zeros(LAYERS, WIDTH, "cpu"), TunedLens.zeros(LAYERS, WIDTH, "cpu")
    found = divergences(anatomy, lens, hidden, whole)
    halves = [[layer[:300] for layer in hidden], [layer[300:] for layer in hidden]]
    torch.testing.assert_close(found, torch.cat([divergences(anatomy, lens, half, parts) for half in halves], dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.bias, parts.bias, rtol=1e-3, atol=1e-2)


def test_no_tokens_have_no_divergences() -> None:
    """A batch without counted tokens gives [L, 0] and leaves the slopes as they are."""
    slopes = TunedLens.zeros(LAYERS, WIDTH, "cpu")
    assert divergences(anatomy_of(tiny("llama")), some_lens(), stream(0), slopes).shape == (LAYERS, 0)
    assert not slopes.weight.any()
