"""The architectures of the lab checkpoints: how a small model of each is built, where dropout goes, and how RWKV is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    PreTrainedModel,
    RwkvConfig,
    RwkvForCausalLM,
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. If the architecture has them, *hidden* is the width of an MLP and *state* the size of a head's state."""

    architecture: str
    width: int
    layers: int
    heads: int = 1
    hidden: int = 0
    state: int = 0


@dataclass(frozen=True)
class Architecture:
    """How to build a model of a shape, and the names of its projections into the residual stream."""

    build: Callable[[Shape, dict[str, Any], int], PreTrainedModel]
    projections: tuple[str, ...]


def _llama(shape: Shape, common: dict[str, Any], length: int) -> PreTrainedModel:
    sizes: dict[str, Any] = {"intermediate_size": shape.hidden, "num_attention_heads": shape.heads}
    return LlamaForCausalLM(LlamaConfig(**common, **sizes, max_position_embeddings=2 * length))


def _mamba2(shape: Shape, common: dict[str, Any], length: int) -> PreTrainedModel:
    heads: dict[str, Any] = {"num_heads": shape.heads, "head_dim": 2 * shape.width // shape.heads, "expand": 2, "n_groups": 1}
    return Mamba2ForCausalLM(Mamba2Config(**common, **heads, state_size=shape.state, chunk_size=min(32, length)))


def _rwkv(shape: Shape, common: dict[str, Any], length: int) -> PreTrainedModel:
    sizes: dict[str, Any] = {"attention_hidden_size": shape.width, "intermediate_size": shape.hidden, "context_length": length}
    return RwkvForCausalLM(RwkvConfig(**common, **sizes, rescale_every=0))  # rescaling is for half precision and changes stored weights


ARCHITECTURES = {
    "llama": Architecture(_llama, ("o_proj", "down_proj")),
    "mamba2": Architecture(_mamba2, ("out_proj",)),
    "rwkv": Architecture(_rwkv, ("output", "feed_forward.value")),
}


def build(shape: Shape, vocabulary: int, length: int, seed: int) -> PreTrainedModel:
    """Return a model of *shape* with random weights as the library initialises them, drawn from *seed* and not from global state."""
    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[shape.architecture].build(shape, common, length)


class Dropout:
    """Dropout on the embedding and on everything written to the residual stream; the library's models do not offer it."""

    def __init__(self, model: PreTrainedModel, architecture: str, share: float, generator: torch.Generator) -> None:
        self.on, self.share, self.generator = True, share, generator
        names = ARCHITECTURES[architecture].projections
        dropped = [module for name, module in model.named_modules() if name.endswith(names)]
        self._hooks = [module.register_forward_hook(self._drop) for module in (model.get_input_embeddings(), *dropped)]

    def remove(self) -> None:
        """Remove the hooks, and the dropout with them."""
        for hook in self._hooks:
            hook.remove()

    def _drop(self, module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not self.on or not self.share:
            return output
        keep = torch.rand(output.shape, generator=self.generator) >= self.share
        return output * keep / (1 - self.share)


@contextmanager
def trainable() -> Iterator[None]:
    """Inside this context, RWKV uses :class:`WeightedMeans` on the CPU; the library's own loop trains in quadratic time."""
    with patch("transformers.models.rwkv.modeling_rwkv.rwkv_linear_attention_cpu", _without_state):
        yield


def _without_state(decay: Tensor, first: Tensor, key: Tensor, value: Tensor, state: Any = None, return_state: bool = False) -> Any:
    return WeightedMeans.apply(-decay.exp(), first, key, value), None  # type: ignore[no-untyped-call]


class WeightedMeans(torch.autograd.Function):
    """RWKV-4's means of the values read so far, weighted by key and age (Peng et al. 2023, equation 16), with a gradient in linear time.

    The inputs are the log decay and the bonus (both [width]), keys and values (both [rows, length, width]). Weights are divided
    by the exponential of the row's largest key, so that they do not overflow.
    """

    @staticmethod
    def forward(ctx, fade, first, key, value):  # type: ignore[no-untyped-def]
        """Return the means [rows, length, width]."""
        weight = (key - key.amax(1, keepdim=True)).exp()
        sums = _recurrence(torch.stack([weight * value, weight]), fade.exp())
        before = nn.functional.pad(sums, (0, 0, 1, -1))  # what was read before each token
        here = weight * first.exp()
        total = before[1] + here
        mean = (before[0] + here * value) / total
        ctx.save_for_backward(fade, value, weight, here, total, mean, before)
        return mean

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        """Return the gradient of each input."""
        fade, value, weight, here, total, mean, before = ctx.saved_tensors
        pull = grad / total
        # The gradient that each token sends to the sums before it.
        later = nn.functional.pad(torch.stack([pull, -pull * mean]), (0, 0, -1, 1)).flip(2)
        on_sums = _recurrence(later, fade.exp()).flip(2)
        on_first = here * pull * (value - mean)
        on_fade = fade.exp() * on_sums.mul(before).sum(0)
        on_key = weight * (on_sums[0] * value + on_sums[1]) + on_first
        return on_fade.sum((0, 1)), on_first.sum((0, 1)), on_key, weight * on_sums[0] + here * pull


def _recurrence(added: Tensor, factor: Tensor) -> Tensor:
    """Return x_t = factor · x_{t-1} + added_t along the third dimension of *added* [parts, rows, length, width]."""
    found = torch.empty_like(added)
    now = torch.zeros_like(added[:, :, 0])
    for place in range(added.shape[2]):
        now = torch.addcmul(added[:, :, place], now, factor)
        found[:, :, place] = now
    return found
