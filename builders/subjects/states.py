"""What a model remembers of the text it has read: copy it, pick rows of it, read and add to its recurrent part, layer by layer.

A memory is what the transformers library hands from one forward pass to the next: a cache (attention's keys and values, or the convolution
and SSM states of the Mamba family, or both in hybrids), or RWKV's list of five tensors. The library changes memories in place, so whoever
reads on from one takes a copy with :func:`rows` first. A new family is one function here that returns its :class:`Family`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from builders.errors import UserError

Memory = Any  # a transformers Cache, or RWKV's five tensors
Parts = dict[str, Tensor]  # name of a part of a layer's recurrent state → [rows, ...]


@dataclass(frozen=True)
class Family:
    """How the memory of some architectures is handled.

    *argument*: what the model calls it, going in and coming out. *known*: whether what came out is handled here.
    *rows*: a copy that holds the rows that an index [n] names. *parts*: the recurrent state of one layer, empty where it has none; its
    tensors may change as the memory does. *add*: add to parts of a layer's state, in rows [n], in place. *shown*: the memory as the model
    takes it together with one token a row. *fresh*: the memory of rows that have read nothing, where the model's own will not do.
    """

    argument: str
    known: Callable[[Any], bool]
    rows: Callable[[Memory, Tensor], Memory]
    parts: Callable[[Memory, int], Parts]
    add: Callable[[Memory, int, Tensor, Mapping[str, Tensor]], None]
    shown: Callable[[Memory], Any]
    fresh: Callable[[nn.Module, int], Memory] | None = None


def family_of(model: nn.Module) -> Family:
    """Return how *model*'s memory is handled; raise UserError for an architecture whose memory nobody here knows."""
    taken = inspect.signature(model.forward).parameters
    found = [family for family in (_cache("past_key_values"), _cache("cache_params"), _rwkv()) if family.argument in taken]
    if not found:
        raise _unknown(model)
    return found[0]


@torch.no_grad()
def advance(model: nn.Module, ids: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
    """Read *ids* [rows, length], from *memory* on; return the logits of what follows [rows, vocabulary] and the memory of all that is read.

    A memory that is given is changed in place. From there tokens are read one by one, since not every family takes several.
    Raise UserError where the model's memory is of a kind that nobody here knows.
    """
    family = family_of(model)
    fewer = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    if memory is None and family.fresh and ids.shape[1] == 1:
        memory = family.fresh(model, len(ids))
    if memory is None:
        out = model(input_ids=ids, use_cache=True, **fewer)
        memory = getattr(out, family.argument, None)
        if not family.known(memory):
            raise _unknown(model)
        return out.logits[:, -1], memory
    for token in ids.split(1, dim=1):
        out = model(input_ids=token, use_cache=True, **{family.argument: family.shown(memory)})
    return out.logits[:, -1], memory


def _unknown(model: nn.Module) -> UserError:
    return UserError(f"{type(model).__name__}: no known kind of memory; add its family to builders/subjects/states.py")


def _cache(argument: str) -> Family:
    """Handle the library's caches: `conv` and `ssm` are what the Mamba family carries along; keys and values are left alone."""

    def known(memory: Any) -> bool:  # some models have caches or layers of their own, which reorder_cache forgets in part
        return {type(part).__module__ for part in (memory, *getattr(memory, "layers", ()))} == {"transformers.cache_utils"}

    def rows(memory: Memory, index: Tensor) -> Memory:
        taken = copy.copy(memory)
        taken.layers = [copy.copy(layer) for layer in memory.layers]
        for layer in taken.layers:  # the dicts that a layer keeps its states in would be shared
            vars(layer).update({name: dict(value) for name, value in vars(layer).items() if isinstance(value, dict)})
        taken.reorder_cache(index)  # puts new tensors into every layer
        return taken

    def parts(memory: Memory, layer: int) -> Parts:
        held = memory.layers[layer]
        found = {"conv": getattr(held, "conv_states", {}), "ssm": getattr(held, "recurrent_states", {})}
        return {name: some[0] for name, some in found.items() if some.get(0) is not None}

    def add(memory: Memory, layer: int, where: Tensor, change: Mapping[str, Tensor]) -> None:
        for name, tensor in parts(memory, layer).items():
            if name in change:
                tensor.index_add_(0, where, change[name].to(tensor))

    return Family(argument, known, rows, parts, add, shown=lambda memory: memory)


def _rwkv() -> Family:
    """Handle RWKV's five tensors [rows, width, layers]: both blocks' last inputs, and numerator, denominator and scale of a mean of values.

    Numerator and denominator are kept times e^-scale, so that one state can be written in many ways and a difference of these tensors
    means nothing. The parts here are free of that: `value` is the mean itself, `weight` the log of its denominator.
    """

    def rows(memory: Memory, index: Tensor) -> Memory:
        return [tensor.index_select(0, index) for tensor in memory]

    def parts(memory: Memory, layer: int) -> Parts:
        feed_forward, attention, numerator, denominator, scale = (tensor[:, :, layer] for tensor in memory)
        means = {"value": numerator / denominator, "weight": denominator.log() + scale}
        return {"feed_forward": feed_forward, "attention": attention, **means}

    def add(memory: Memory, layer: int, where: Tensor, change: Mapping[str, Tensor]) -> None:
        denominator = memory[3][where, :, layer]
        for name, place, unit in (("feed_forward", 0, 1.0), ("attention", 1, 1.0), ("value", 2, denominator), ("weight", 4, 1.0)):
            if name in change:
                memory[place][:, :, layer].index_add_(0, where, (change[name] * unit).to(memory[place]))

    def shown(memory: Memory) -> Any:
        return [_Shift(memory[0]), _Shift(memory[1]), *memory[2:]]

    def fresh(model: nn.Module, count: int) -> Memory:  # the library's own would come without `shown`
        config: Any = model.config
        like = next(model.parameters())
        last = like.new_zeros(count, config.hidden_size, config.num_hidden_layers)
        mean = torch.zeros_like(last, dtype=torch.float32)
        return [last, last.clone(), mean, mean.clone(), mean - 1e30]

    return Family("state", lambda memory: isinstance(memory, list), rows, parts, add, shown, fresh)


@dataclass(frozen=True)
class _Shift:
    """Last inputs that come with the token axis that RWKV's code forgets where it reads one token: without it, rows mix."""

    tensor: Tensor

    def __getitem__(self, place: Any) -> Tensor:
        return self.tensor[place][:, None]

    def __setitem__(self, place: Any, value: Tensor) -> None:
        self.tensor[place] = value
