"""Changes of a recurrent state in phase: they act on the token that is read, as what they were measured on acted on its own token.

A state is measured after a token. Added before the next token is read, it acts one token late: a convolution has moved it on by one place,
and an SSM has let it decay. Here it is added where the token that is read has just entered the state, before the layer reads the state.
A layer of the Mamba family does both in two functions of its module; they are exchanged while the model reads. In RWKV the last inputs
(token shift) take part as inputs; its mean of values is read before it changes, so there both phases are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from builders.errors import UserError

Changes = Mapping[int, tuple[Tensor, Mapping[str, Tensor]]]  # layer → rows [n], and by part what is added to them [n, ...]
CONVOLUTION = "causal_conv1d_update"


def _read_by_heads(change: Tensor, reads: Tensor) -> Tensor:
    """Return what Mamba-2's heads read of *change* [n, heads, width, states] by *reads* [n, groups, states]."""
    return torch.einsum("nhws,nhs->nhw", change, reads.repeat_interleave(change.shape[1] // reads.shape[1], dim=1))


def _read_by_channels(change: Tensor, reads: Tensor) -> Tensor:
    """Return what Mamba's channels read of *change* [n, channels, states] by *reads* [n, states]."""
    return torch.einsum("ncs,ns->nc", change, reads)


READS = {"mamba2_selective_state_update": _read_by_heads, "mamba_selective_state_update": _read_by_channels}


def mamba_step(model: nn.Module) -> str | None:
    """Return the name of the function with which *model*'s layers read one token into their SSM; None if it is not a known one."""
    known = vars(sys.modules[type(model).__module__])
    return next((name for name in READS if name in known and CONVOLUTION in known), None)


@contextmanager
def mamba_aligned(model: nn.Module, memory: Any, changes: Changes) -> Iterator[None]:
    """Within this context *model* reads one token for each row on from *memory*, and its states change in phase by *changes*."""
    step = mamba_step(model)
    if step is None:
        raise ValueError(f"{type(model).__name__}: no known function reads one token into its state")
    convolutions = Found(memory, changes, "conv", "conv_states")
    states = Found(memory, changes, "ssm", "recurrent_states")
    module = sys.modules[type(model).__module__]
    with _exchanged(module, CONVOLUTION, partial(_convolve, convolutions)), _exchanged(module, step, partial(_update, states, READS[step])):
        yield
    if not (convolutions.keys() | states.keys()) <= convolutions.used | states.used:  # such as Zamba's, which are cut before they are read
        raise UserError(f"{type(model).__name__}: its state cannot be changed while a token is read; use `phases: [late]`")


class Found(dict[int, tuple[Tensor, Tensor]]):
    """By id of a state's tensor, its rows and what is added to them; *used* are the ids that were asked for."""

    def __init__(self, memory: Any, changes: Changes, part: str, held: str) -> None:
        super().__init__(
            {id(getattr(memory.layers[layer], held)[0]): (rows, some[part]) for layer, (rows, some) in changes.items() if part in some}
        )
        self.used: set[int] = set()

    def of(self, state: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the rows of *state* and what is added to them; None where nothing is."""
        self.used.add(id(state))
        return self.get(id(state))


@contextmanager
def _exchanged(module: Any, name: str, by: Callable[..., Tensor]) -> Iterator[None]:
    """Within this context, *by* stands for the function *name* of *module*; it gets that function as its first open argument."""
    own = getattr(module, name)
    setattr(module, name, partial(by, own))
    try:
        yield
    finally:
        setattr(module, name, own)


def _convolve(found: Found, own: Callable[..., Tensor], inputs: Tensor, state: Tensor, *others: Any, **options: Any) -> Tensor:
    """Read *inputs* [rows, channels, 1]: the newest place of the change joins them, and the older ones move on with the state."""
    if (addition := found.of(state)) is not None:
        rows, change = addition
        inputs = inputs.index_add(0, rows, change[..., -1:].to(inputs))
        state[..., 1:].index_add_(0, rows, change[..., :-1].to(state))
    return own(inputs, state, *others, **options)


def _update(
    found: Found,
    read: Callable[[Tensor, Tensor], Tensor],
    own: Callable[..., Tensor],
    state: Tensor,
    inputs: Tensor,
    dt: Tensor,
    decay: Tensor,
    writes: Tensor,
    reads: Tensor,
    skip: Tensor | None = None,
    z: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Update *state* by one token, then add the change to it and to what is read of it; the gate *z* comes last."""
    if (addition := found.of(state)) is None:
        return own(state, inputs, dt, decay, writes, reads, skip, z=z, **options)
    rows, change = addition
    out = own(state, inputs, dt, decay, writes, reads, skip, z=None, **options)
    state.index_add_(0, rows, change.to(state))
    out = out.index_add(0, rows, read(change.to(reads), reads[rows]).to(out))
    return out if z is None else out * nn.functional.silu(z)


@contextmanager
def rwkv_aligned(blocks: list[nn.Module], changes: Changes) -> Iterator[None]:
    """Within this context the inputs of the *blocks*' attention and feed-forward parts change by *changes*, where these have such parts."""
    with ExitStack() as hooks:
        for layer, (rows, some) in changes.items():
            for part in some.keys() & {"attention", "feed_forward"}:
                module = blocks[layer].get_submodule(part)
                handle = module.register_forward_pre_hook(partial(_joined, rows, some[part]), with_kwargs=True)
                hooks.callback(handle.remove)
        yield


def _joined(rows: Tensor, change: Tensor, _: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    hidden, *others = given
    return (hidden.index_add(0, rows, change[:, None].to(hidden)), *others), options
