"""Buffers that foreign code computes and no file holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from builders.subjects.buffers import compute_buffers, weightless


class Own(nn.Module):
    """A model with a weight, a stored buffer, and tables at two depths that are computed and not stored."""

    tides: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.linear, self.inner = config, nn.Linear(3, 3), nn.Module()
        self.register_buffer("stored", torch.zeros(2))
        self.register_buffer("tides", torch.arange(config.length) / 2, persistent=False)
        self.inner.register_buffer("angles", torch.ones(4, dtype=torch.int64), persistent=False)


def test_what_is_not_stored_is_computed_again() -> None:
    """Buffers that no file holds get the values that the class computes from the config; weights and stored buffers stay."""
    model = Own(SimpleNamespace(length=3))
    weight = model.linear.weight.detach().clone()
    for name, buffer in model.named_buffers():
        buffer.fill_(7)
        assert model.get_buffer(name) is buffer
    compute_buffers(model)

    assert model.tides.tolist() == [0.0, 0.5, 1.0]
    assert model.inner.get_buffer("angles").tolist() == [1, 1, 1, 1]
    assert model.get_buffer("stored").tolist() == [7.0, 7.0]
    assert torch.equal(model.linear.weight, weight)


def test_a_model_that_stores_everything_is_not_made_again() -> None:
    """Where no buffer is left out of files, all stay as they are; a module without a config, which cannot be made again, shows it."""
    module = nn.BatchNorm1d(3)
    assert module.running_mean is not None
    module.running_mean.fill_(7)
    compute_buffers(module)
    assert module.running_mean.tolist() == [7.0, 7.0, 7.0]


def test_a_weightless_model_has_buffers_only() -> None:
    """Parameters take no memory inside the context, those that are None stay so, and modules made after it are as usual."""
    with weightless():
        inside = nn.Linear(3, 3, bias=False)
        buffer = nn.BatchNorm1d(3).running_var
    assert inside.weight.is_meta
    assert inside.bias is None
    assert buffer is not None
    assert buffer.tolist() == [1.0, 1.0, 1.0]
    assert not nn.Linear(3, 3).weight.is_meta


def test_an_error_inside_leaves_nothing_behind() -> None:
    """After an error modules are made as usual."""
    with pytest.raises(ValueError, match="inside"), weightless():
        raise ValueError("inside")
    assert not nn.Linear(3, 3).weight.is_meta
