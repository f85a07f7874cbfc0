"""Read or edit what flows through a model, by module name, in any architecture.

A hookpoint is the path of a module inside the base model (`layers.3`, `layers.3.mlp`, `h.5`). What flows there is
the module's output (the first tensor, if it returns several). With `.input` after the path, it is the module's first
argument instead: `layers.3.mlp.down_proj.input` are the neurons of an MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from builders.errors import UserError, one_of

INPUT = ".input"
# What architectures call the projections that write into the residual stream.
PROJECTIONS = {"down_proj", "o_proj", "out_proj", "c_proj", "dense", "dense_4h_to_h", "fc2", "wo", "w2"}
Edit = Callable[[Tensor], Tensor | None]  # returns the tensor to put in place of another; None leaves it as it is


class _Enough(Exception):  # noqa: N818  # a signal, not an error
    """Raised inside a forward pass once everything asked for has been seen."""


def base_of(model: nn.Module) -> nn.Module:
    """Return the model without its language-modelling head."""
    base: nn.Module = getattr(model, "base_model", model)
    return base


def module_at(model: nn.Module, hookpoint: str) -> nn.Module:
    """Return the module that *hookpoint* names; if there is none, raise UserError listing similar names and the blocks."""
    modules = dict(base_of(model).named_modules())
    path = hookpoint.removesuffix(INPUT)
    if path and path in modules:
        found: nn.Module = modules[path]
        return found
    del modules[""]  # the base model itself
    near = get_close_matches(path, modules, n=6, cutoff=0.5)
    blocks = [name for name in modules if name.count(".") == 1 and name.rpartition(".")[2].isdigit()]
    raise UserError(
        f"hookpoint {hookpoint!r} does not exist in this model; near it: {one_of(near or list(modules))}; its blocks: {one_of(blocks)}"
    )


def blocks_of(model: nn.Module) -> list[str]:
    """Return the hookpoints of the model's blocks, first to last; their outputs are the residual stream."""
    layers = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr,operator]  # of a model of the transformers library
    for name, module in base_of(model).named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return [f"{name}.{number}" for number in range(layers)]
    raise UserError(f"{type(model).__name__}: found no list of its {layers} blocks; choose a model that keeps its blocks in one list")


def _hook(model: nn.Module, hookpoint: str, edit: Edit) -> RemovableHandle:
    """Call *edit* with what flows at *hookpoint* in every forward pass, until the handle is removed."""
    module = module_at(model, hookpoint)
    if not hookpoint.endswith(INPUT):

        def after(module: nn.Module, inputs: Any, output: Any) -> Any:
            changed = edit(output[0] if isinstance(output, tuple) else output)
            return None if changed is None else (changed, *output[1:]) if isinstance(output, tuple) else changed

        return module.register_forward_hook(after)

    def before(module: nn.Module, inputs: Any, named: Any) -> Any:
        name = None if inputs else next(iter(named))
        changed = edit(inputs[0] if name is None else named[name])
        if changed is None:
            return None
        return ((changed, *inputs[1:]), named) if name is None else (inputs, {**named, name: changed})

    return module.register_forward_pre_hook(before, with_kwargs=True)


@torch.no_grad()
def capture(model: nn.Module, hookpoints: Sequence[str], ids: Tensor) -> dict[str, Tensor]:
    """Return what flows at each of *hookpoints* [rows, length, width] while the model reads *ids* [rows, length].

    The forward pass stops as soon as all of them have been seen. Raises UserError if a hookpoint does not exist or nothing
    flows through it.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Tensor], None]:
        def hook(flow: Tensor) -> None:
            seen[name] = flow
            if len(seen) == len(set(hookpoints)):
                raise _Enough

        return hook

    hooks: list[RemovableHandle] = []
    try:
        hooks += (_hook(model, name, keep(name)) for name in set(hookpoints))
        base_of(model)(input_ids=ids, use_cache=False)
    except _Enough:
        pass
    finally:
        for handle in hooks:
            handle.remove()
    silent = [name for name in hookpoints if name not in seen]
    if silent:
        raise UserError(f"hookpoint {silent[0]!r} exists, but nothing flows through it; name one that the model calls, such as a block")
    return {name: seen[name] for name in hookpoints}


@contextmanager
def watched(model: nn.Module, hookpoints: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that holds, by hookpoint, what flowed there in the last forward pass inside this context."""
    seen: dict[str, Tensor] = {}
    handles = [_hook(model, name, partial(_keep, seen, name)) for name in hookpoints]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keep(seen: dict[str, Tensor], name: str, flow: Tensor) -> None:
    seen[name] = flow


@contextmanager
def edited(model: nn.Module, hookpoint: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside this context, replace what flows at *hookpoint* with what *edit* returns for it (same shape)."""
    with spliced(model, hookpoint, hookpoint, lambda _, written: edit(written)):
        yield


@contextmanager
def spliced(model: nn.Module, reads: str, writes: str, edit: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Inside this context, replace what flows at *writes* with *edit*(what flowed at *reads*, what flows at *writes*)."""
    read: list[Tensor] = []

    def keep(flow: Tensor) -> None:
        read[:] = [flow]

    handles = [_hook(model, reads, keep)]
    try:
        handles.append(_hook(model, writes, lambda flow: edit(read[0], flow)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def width_at(model: nn.Module, hookpoint: str, d_model: int) -> int | None:
    """Return the size of the vectors at *hookpoint*, or None if the module does not tell it without running."""
    module = module_at(model, hookpoint)
    if hookpoint.removesuffix(INPUT).rpartition(".")[2].isdigit():  # a block, which reads and writes the residual stream
        return d_model
    size = getattr(module, "in_features" if hookpoint.endswith(INPUT) else "out_features", None)
    return int(size) if size is not None else None


@torch.no_grad()
def into_residual(model: nn.Module, hookpoint: str, directions: Tensor, d_model: int) -> Tensor | None:
    """Return *directions* [n, width] at *hookpoint* as they enter the residual stream [n, d_model]; None if they do not enter it directly.

    Directions that a projection into the residual stream reads (neurons, attention heads) are multiplied by its weight, without
    its bias.
    """
    path = hookpoint.removesuffix(INPUT)
    name = path.rpartition(".")[2]
    if not hookpoint.endswith(INPUT) or name.isdigit():
        return directions if directions.shape[1] == d_model else None
    if name not in PROJECTIONS:
        return None
    module = module_at(model, hookpoint)
    weight: Tensor = module.weight  # type: ignore[assignment]  # a Linear, or GPT-2's Conv1D, whose weight is [in, out]
    return directions.to(weight.dtype) @ (weight.T if isinstance(module, nn.Linear) else weight)
