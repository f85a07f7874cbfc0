"""What decides the training of a tuned lens: the recipe, its optimisers, and which rows it learns from and is checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from builders.errors import UserError
from builders.lenses.translators import TunedLens
from builders.seeds import seed_of, uniforms


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run. The defaults are those of the tuned-lens package 0.2.0, but for *clip*.

    A step reads *rows_per_step* rows, *batch_rows* at once; the package's are of 2,048 tokens. *lr* (None: that of LR) falls linearly to
    0 over the *steps*; SGD takes lr · (1 − momentum), because momentum multiplies it by the inverse. The gradient of each layer is scaled
    down to norm *clip* (the package scales that of all layers together, so there each layer depends on the others). Every *check_every*
    steps, *check_rows* held-out rows are read; the run stops if the best divergences so far, summed over layers, have fallen by less than
    the share *least_gain* in *patience* checks.
    """

    optimiser: str = "sgd"
    lr: float | None = None
    steps: int = 250
    rows_per_step: int = 128
    batch_rows: int = 8
    check_every: int = 10
    check_rows: int = 32
    patience: int = 5
    least_gain: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-3
    clip: float = 1.0

    @property
    def first_lr(self) -> float:
        """The learning rate of the first step."""
        return LR[self.optimiser] if self.lr is None else self.lr


def _sgd(tensors: list[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    return torch.optim.SGD(tensors, recipe.first_lr * (1 - recipe.momentum), nesterov=recipe.momentum > 0, **settings)


def _adamw(tensors: list[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    # Fused, because otherwise Adam on a CPU uses MKL's square root, whose last bits differ between makers of processors.
    settings: dict[str, Any] = {"betas": (recipe.momentum, 0.999), "weight_decay": recipe.weight_decay}
    return torch.optim.AdamW(tensors, recipe.first_lr, amsgrad=True, fused=True, **settings)


LR = {"sgd": 1.0, "adamw": 1e-3}
OPTIMISERS: dict[str, Callable[[list[Tensor], Recipe], torch.optim.Optimizer]] = {"sgd": _sgd, "adamw": _adamw}


@dataclass(frozen=True)
class Split:
    """TOKENS rows to learn from and rows to check on; no document begins a row of both."""

    learning: pa.Table
    checking: pa.Table


def split(rows: pa.Table, recipe: Recipe, subject: str, seed: int) -> Split:
    """Return *rows* of TOKENS split by documents, drawn by address; raise UserError if there are too few.

    Give no rows on which the lens will be measured: the checks choose which weights are kept.
    """
    documents = rows["document"].to_numpy()
    unique = np.unique(documents)
    order = unique[np.argsort(uniforms(seed_of(seed, "lens checks", subject), unique), kind="stable")]
    counts = np.bincount(np.searchsorted(unique, documents), minlength=len(unique))[np.searchsorted(unique, order)]
    taken = order[: int(np.searchsorted(np.cumsum(counts), recipe.check_rows)) + 1]
    is_taken = np.isin(documents, taken)
    found = Split(rows.filter(pa.array(~is_taken)), rows.filter(pa.array(is_taken)).slice(0, recipe.check_rows))
    if found.checking.num_rows < recipe.check_rows or found.learning.num_rows < recipe.rows_per_step:
        raise UserError(
            f"{subject}: {rows.num_rows} rows of {len(unique)} documents are too few to train a lens: {found.checking.num_rows} to check on"
            f" (`check_rows`: {recipe.check_rows}) leave {found.learning.num_rows} to learn from (`rows_per_step`:"
            f" {recipe.rows_per_step}); lower these two, or give more text"
        )
    return found


def clip(slopes: TunedLens, most: float, tokens: int) -> None:
    """Divide *slopes* by *tokens*, in place, and scale each layer's down to norm *most*; a layer that overflowed gets zeros."""
    for tensor in slopes.tensors:
        tensor /= tokens
    norm = (slopes.weight.square().sum((1, 2)) + slopes.bias.square().sum(1)).sqrt()
    scale = (most / (norm + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_ has it
    slopes.weight.mul_(scale[:, None, None])
    slopes.bias.mul_(scale[:, None])
    for tensor in slopes.tensors:
        tensor[~norm.isfinite()] = 0
