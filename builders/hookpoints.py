"""Read or edit what flows through a model, by module name, in any architecture.

A hookpoint is the path of a module inside the base model (`layers.3`, `layers.3.mlp`, `h.5`); what flows there is
the module's output (the first tensor, where it returns several).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from builders.errors import UserError, one_of


class _Enough(Exception):  # noqa: N818  # a signal, not an error
    """Raised inside a forward pass once everything asked for has been seen."""


def base_of(model: nn.Module) -> nn.Module:
    """Return the model without its language-modelling head."""
    base: nn.Module = getattr(model, "base_model", model)
    return base


def module_at(model: nn.Module, hookpoint: str) -> nn.Module:
    """Return the module that *hookpoint* names; raise UserError listing what exists where there is none."""
    modules = dict(base_of(model).named_modules())
    if hookpoint and hookpoint in modules:
        found: nn.Module = modules[hookpoint]
        return found
    del modules[""]  # the base model itself
    near = get_close_matches(hookpoint, modules, n=6, cutoff=0.5)
    blocks = [name for name in modules if name.count(".") == 1 and name.rpartition(".")[2].isdigit()]
    raise UserError(
        f"hookpoint {hookpoint!r} does not exist in this model; near it: {one_of(near or list(modules))}; its blocks: {one_of(blocks)}"
    )


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]  # modules return anything


@torch.no_grad()
def capture(model: nn.Module, hookpoints: Sequence[str], ids: Tensor) -> dict[str, Tensor]:
    """Return what flows at each of *hookpoints* [rows, length, width] while the model reads *ids* [rows, length].

    The forward pass stops as soon as the last of them has been seen.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen[name] = _tensor(output)
            if len(seen) == len(modules):
                raise _Enough

        return hook

    modules = {name: module_at(model, name) for name in hookpoints}
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
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
def edited(model: nn.Module, hookpoint: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While inside, what flows at *hookpoint* is replaced by what *edit* makes of it (same shape)."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        changed = edit(_tensor(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = module_at(model, hookpoint).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
