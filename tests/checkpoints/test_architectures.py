"""The lab's architectures: RWKV's means and their gradient, and what the library does with them."""

from __future__ import annotations

import pytest
import torch
from transformers.models.rwkv import modeling_rwkv

from checkpoints.architectures import ARCHITECTURES, Dropout, Shape, WeightedMeans, build, trainable

pytestmark = pytest.mark.numeric

SHAPES = {
    "llama": Shape("llama", width=16, layers=2, heads=2, hidden=32),
    "mamba2": Shape("mamba2", width=16, layers=2, heads=4, state=4),
    "rwkv": Shape("rwkv", width=16, layers=2, hidden=32),
}


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    """Return log decays from slow to fast, bonuses, keys and values of two texts of nine tokens."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((6,), (2, 9, 6), (2, 9, 6))
    return [torch.linspace(-5, 3, 6, dtype=dtype), *(2 * torch.randn(shape, generator=draw, dtype=dtype) for shape in shapes)]


def test_means_are_the_library_s() -> None:
    """What is trained with is what the library computes when the model is read."""
    decay, first, key, value = inputs(torch.float32)
    theirs, _ = modeling_rwkv.rwkv_linear_attention_cpu(decay, first, key, value)
    torch.testing.assert_close(WeightedMeans.apply(-decay.exp(), first, key, value), theirs, rtol=1e-5, atol=1e-5)


def test_the_first_mean_is_the_first_value() -> None:
    """Where nothing was read before, the mean is the value itself, whatever its key."""
    decay, first, key, value = inputs(torch.float64)
    torch.testing.assert_close(WeightedMeans.apply(-decay.exp(), first, key, value)[:, 0], value[:, 0])


def test_the_gradient_is_right() -> None:
    """The gradient agrees with finite differences, for decays, bonuses, keys and values."""
    given = [tensor.requires_grad_() for tensor in inputs(torch.float64)]
    assert torch.autograd.gradcheck(lambda decay, *rest: WeightedMeans.apply(-decay.exp(), *rest), given)


def test_the_library_is_itself_again_afterwards() -> None:
    """The library's own loop is back in its place after training, even where training fails."""
    before = modeling_rwkv.rwkv_linear_attention_cpu
    during = []

    def fail() -> None:
        during.append(modeling_rwkv.rwkv_linear_attention_cpu)
        raise KeyError

    with pytest.raises(KeyError), trainable():
        fail()
    assert during[0] is not before
    assert modeling_rwkv.rwkv_linear_attention_cpu is before


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_come_from_the_seed(architecture: str) -> None:
    """Equal seeds give equal weights whatever the state of the global generator, which is left as it was."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = build(SHAPES[architecture], 50, 32, seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    again, other = (build(SHAPES[architecture], 50, 32, seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("architecture", "places"), [("llama", 5), ("mamba2", 3), ("rwkv", 5)])
def test_dropout_is_on_all_that_is_written(architecture: str, places: int) -> None:
    """Dropout acts on the embedding and every projection into the residual stream; switched off or removed it changes nothing."""
    model = build(SHAPES[architecture], 50, 32, seed=1).eval()
    ids = torch.arange(10)[None]
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits
        dropout = Dropout(model, architecture, 0.5, torch.Generator().manual_seed(0))
        dropped = model(input_ids=ids, use_cache=False).logits
        dropout.on = False
        off = model(input_ids=ids, use_cache=False).logits
    hooked = sum(len(module._forward_hooks) for module in model.modules())
    dropout.remove()
    assert hooked == places
    assert not torch.allclose(dropped, plain)
    assert torch.equal(off, plain)
    assert sum(len(module._forward_hooks) for module in model.modules()) == 0
