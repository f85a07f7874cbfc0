"""A model's memory of the text that it has read: copy it, pick rows of it, read its recurrent part and add to it, layer by layer.

A memory is what the transformers library hands from one forward pass to the next. It is a cache (attention's keys and values, the
convolution and SSM states of the Mamba family, or both in hybrid models) or RWKV's list of five tensors. The library changes memories in
place, so take a copy with :attr:`Family.rows` before you read on from one. A new family needs one function here that returns its
:class:`Family`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.subjects.aligned import Changes, mamba_aligned, mamba_step, rwkv_aligned
from builders.subjects.hookpoints import blocks_of, module_at

Memory = Any  # a transformers Cache, or RWKV's five tensors
Parts = dict[str, Tensor]  # name of a part of a layer's recurrent state → [rows, ...]


@dataclass(frozen=True)
class Family:
    """How the memory of some architectures is handled.

    *argument*: the memory's name, both as an argument of the model and in its output. *known*: whether a memory is of this family.
    *rows*: copy the rows that an index [n] names into a new memory, at least for the layers from *since* on. *parts*: the recurrent state
    of one layer, empty if it has none; its tensors may change when the memory does. *add*: add to parts of one layer's state, in rows [n],
    in place. *as_input*: the memory in the form that the model takes when it reads one token per row. *fresh*: make the memory of rows that
    have read nothing, for families whose models cannot start from no memory. *aligned*: a context in which the state changes in phase with
    the token that is read (see :mod:`builders.subjects.aligned`); None where nobody knows how. *twofold*: the parts to which the phase
    makes a difference.
    """

    argument: str
    known: Callable[[Any], bool]
    rows: Callable[..., Memory]
    parts: Callable[[Memory, int], Parts]
    add: Callable[[Memory, int, Tensor, Mapping[str, Tensor]], None]
    as_input: Callable[[Memory], Any]
    fresh: Callable[[nn.Module, int], Memory] | None = None
    aligned: Callable[[Memory, Changes], AbstractContextManager[None]] | None = None
    twofold: frozenset[str] = frozenset()


def family_of(model: nn.Module) -> Family:
    """Return how *model*'s memory is handled; raise UserError if its architecture has a memory of an unknown kind."""
    taken = inspect.signature(model.forward).parameters
    every = (_cache("past_key_values", model), _cache("cache_params", model), _rwkv(model))
    found = [family for family in every if family.argument in taken]
    if not found:
        raise _unknown(model)
    return found[0]


@torch.no_grad()
def advance(model: nn.Module, ids: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
    """Read *ids* [rows, length] on from *memory*; return the logits of the next token [rows, vocabulary] and the memory after reading.

    A given *memory* is changed in place, and tokens are then read one by one, since not every family can read several from a memory.
    Raises UserError if the model's memory is of an unknown kind.
    """
    family = family_of(model)
    fewer = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    ours = type(model).__module__.startswith("transformers.")  # code that comes with a checkpoint may have a memory of another kind
    if memory is None and family.fresh and ours and ids.shape[1] == 1:
        memory = family.fresh(model, len(ids))
    if memory is None:
        out = model(input_ids=ids, use_cache=True, **fewer)
        memory = getattr(out, family.argument, None)
        if not family.known(memory):
            raise _unknown(model)
        return out.logits[:, -1], memory
    for token in ids.split(1, dim=1):
        out = model(input_ids=token, use_cache=True, **{family.argument: family.as_input(memory)})
    return out.logits[:, -1], memory


def _unknown(model: nn.Module) -> UserError:
    return UserError(f"{type(model).__name__}: no known kind of memory; add its family to builders/subjects/states.py")


def _cache(argument: str, model: nn.Module) -> Family:
    """Handle the library's caches. The parts `conv` and `ssm` are the states of the Mamba family; keys and values are left alone."""

    def known(memory: Any) -> bool:  # some models have caches of their own, which reorder_cache copies only in part
        return {type(part).__module__ for part in (memory, *getattr(memory, "layers", ()))} == {"transformers.cache_utils"}

    def rows(memory: Memory, index: Tensor, since: int = 0) -> Memory:
        taken = copy.copy(memory)
        taken.layers = [copy.copy(layer) for layer in memory.layers]
        for layer in taken.layers[since:]:  # otherwise the copy would share the dicts that hold a layer's states
            vars(layer).update({name: dict(value) for name, value in vars(layer).items() if isinstance(value, dict)})
            layer.reorder_cache(index)  # puts new tensors into the layer
        return taken

    def parts(memory: Memory, layer: int) -> Parts:
        held = memory.layers[layer]
        found = {"conv": getattr(held, "conv_states", {}), "ssm": getattr(held, "recurrent_states", {})}
        return {name: some[0] for name, some in found.items() if some.get(0) is not None}

    def add(memory: Memory, layer: int, where: Tensor, change: Mapping[str, Tensor]) -> None:
        for name, tensor in parts(memory, layer).items():
            if name in change:
                tensor.index_add_(0, where, change[name].to(tensor))

    aligned = partial(mamba_aligned, model) if mamba_step(model) else None
    twofold = frozenset({"conv", "ssm"})
    return Family(argument, known, rows, parts, add, as_input=lambda memory: memory, aligned=aligned, twofold=twofold)


def _rwkv(model: nn.Module) -> Family:
    """Handle RWKV's five tensors, each [rows, width, layers].

    They are the last inputs of the feed-forward and attention blocks, and the numerator, denominator and scale of a mean of values.
    Numerator and denominator are stored times e^-scale. One state can therefore be stored in many ways, and differences of these
    tensors mean nothing. The parts returned here do not depend on the scale: `value` is the mean, `weight` the log of its denominator.
    """
    twofold = frozenset({"feed_forward", "attention"})

    def rows(memory: Memory, index: Tensor, since: int = 0) -> Memory:  # noqa: ARG001  # a tensor holds all layers
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

    @contextmanager
    def aligned(memory: Memory, changes: Changes) -> Iterator[None]:
        for layer, (where, some) in changes.items():  # the mean of values is read before the token enters it: there late is in phase
            add(memory, layer, where, {name: part for name, part in some.items() if name not in twofold})
        with rwkv_aligned([module_at(model, name) for name in blocks_of(model)], changes):
            yield

    def as_input(memory: Memory) -> Any:
        return [_Shift(memory[0]), _Shift(memory[1]), *memory[2:]]

    def fresh(model: nn.Module, count: int) -> Memory:  # a memory that the library makes itself has not gone through as_input
        config: Any = model.config
        like = next(model.parameters())
        last = like.new_zeros(count, config.hidden_size, config.num_hidden_layers)
        mean = torch.zeros_like(last, dtype=torch.float32)
        return [last, last.clone(), mean, mean.clone(), mean - 1e30]

    def known(memory: Any) -> bool:
        return isinstance(memory, list) and len(memory) == 5

    return Family("state", known, rows, parts, add, as_input, fresh, aligned, twofold)


@dataclass(frozen=True)
class _Shift:
    """Last inputs with a token axis. RWKV's code forgets this axis when it reads one token per row, and would then mix the rows."""

    tensor: Tensor

    def __getitem__(self, place: Any) -> Tensor:
        return self.tensor[place][:, None]

    def __setitem__(self, place: Any, value: Tensor) -> None:
        self.tensor[place] = value
