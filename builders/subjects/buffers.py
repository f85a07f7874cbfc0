"""Buffers that a checkpoint's own code computes and no file holds, such as tables of rotary positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def compute_buffers(model: nn.Module) -> None:
    """Fill the buffers of *model* that are not stored with what its class computes from its config.

    The transformers library (5) makes a model without memory and then gives it the stored weights. Its own classes know how to fill the
    other buffers; those of foreign code do not, and would hold whatever was in memory.
    """
    stored = model.state_dict().keys()
    names = [name for name, _ in model.named_buffers() if name not in stored]
    if names:
        made: Any = type(model)
        with weightless():
            fresh: nn.Module = made(model.config)
        for name in names:
            model.get_buffer(name).copy_(fresh.get_buffer(name))


@contextmanager
def weightless() -> Iterator[None]:
    """Within this context, parameters of new modules take no memory, and buffers are made as usual."""
    register = nn.Module.register_parameter

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, None if parameter is None else nn.Parameter(parameter.to("meta"), requires_grad=False))

    nn.Module.register_parameter = without_memory  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
