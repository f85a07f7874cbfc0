"""Mean Jacobians whose shards merge exactly, how far they still move, and the `lens_convergence` config."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from builders.errors import UserError
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table

LENS_CONVERGENCE = Table(
    name="lens_convergence",
    row="a layer of a Jacobian lens after some positions",
    key=("subject", "lens", "layer", "positions"),
    columns=(
        Column("subject", "string", "the language model", categorical=True),
        Column("lens", "string", "the lens whose Jacobians are averaged", categorical=True),
        Column("layer", "int32", "how many blocks the vector has gone through", unit="blocks", low=0),
        Column("positions", "int64", "positions averaged so far", unit="positions", low=1),
        Column("norm", "float64", "root mean square of the mean Jacobian's singular values; that of the identity is 1", low=0),
        Column(
            "change",
            "float64",
            "how far the mean has moved since the layer's row before, as a share of its Frobenius norm; null in the first row",
            low=0,
            nullable=True,
        ),
        Column(
            "error",
            "float64",
            "standard error of the mean as a share of its Frobenius norm, from two halves of the rows; null if one is empty",
            low=0,
            nullable=True,
        ),
    ),
    references=(OF_SUBJECT,),
)

STEP = 2.0**-32  # of the fixed-point grid. Float32 has coarser steps from 2⁻⁸ on, so little is lost where entries matter.
LIMIT = 2.0**30  # on the sum of absolute values in one entry: with it, no int64 on this grid can overflow


@dataclass(frozen=True)
class Accumulator:
    """Sums of Jacobians on a fixed-point grid, in two halves: int64 *sums* [2, layers, d, d], and *counts* of positions [2].

    Each entry of each position's Jacobian is rounded to a multiple of STEP, and integers are added. Integer addition is associative, so
    shards merge to the same bits in any order and grouping. An entry of the mean is at most STEP / 2 ≈ 1.2e-10 away from the mean of the
    unrounded entries. *weight* [1] bounds the absolute value of any entry's sum; UserError is raised before a sum could overflow.
    """

    sums: Tensor
    counts: Tensor
    weight: Tensor

    @classmethod
    def empty(cls, layers: int, d_model: int) -> Accumulator:
        """Return sums of no positions."""
        sums = torch.zeros(2, layers, d_model, d_model, dtype=torch.int64)
        return cls(sums, torch.zeros(2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))

    def add(self, output: int, values: Tensor, half: Tensor) -> float:
        """Add *values* [layers, n, d] of n positions in the halves *half* [n] to row *output* of the sums; return the largest |value|."""
        exact = values.detach().cpu().double()
        largest = float(exact.abs().amax())
        if not math.isfinite(largest):  # amax keeps NaN
            raise UserError("a Jacobian has entries that are not finite; load the subject in float32")
        if largest * len(half) >= LIMIT:
            raise _too_large()
        grid = (exact / STEP).round().to(torch.int64)
        for number in (0, 1):
            self.sums[number, :, output] += grid[:, half == number].sum(1)
        return largest

    def counted(self, half: Tensor, largest: float) -> None:
        """Count n positions in the halves *half* [n], once all rows of their Jacobians, with |values| ≤ *largest*, were added."""
        self.counts.add_(torch.bincount(half, minlength=2))
        self.weight.add_(math.ceil(largest * len(half)))
        if float(self.weight) >= LIMIT:
            raise _too_large()

    def merge(self, other: Accumulator) -> Accumulator:
        """Return the sums of both shards; raise UserError if they are not of one shape or together too large."""
        if self.sums.shape != other.sums.shape:
            shapes = " and ".join(str(list(part.sums.shape[1:])) for part in (self, other))
            raise UserError(f"shards of Jacobians have different shapes, {shapes}; merge shards of one subject only")
        merged = Accumulator(self.sums + other.sums, self.counts + other.counts, self.weight + other.weight)
        if float(merged.weight) >= LIMIT:
            raise _too_large()
        return merged

    @property
    def positions(self) -> int:
        """How many positions were counted."""
        return int(self.counts.sum())

    def mean(self) -> Tensor:
        """Return the mean Jacobians, float64 [layers, d, d]: rows are dimensions of the last layer, columns those of the layer."""
        return self.sums.sum(0).double() * (STEP / self.positions)

    def error(self) -> Tensor | None:
        """Return each layer's standard error of the mean as a share of its Frobenius norm [layers]; None if a half is empty.

        With N₀ and N₁ positions in the halves, the difference of the halves' means has 1/N₀ + 1/N₁ times the variance of one position,
        and the mean of all has 1/(N₀ + N₁) times. The norm sums over d² entries, so one difference is enough.
        """
        if not bool(self.counts.all()):
            return None
        first, second = (self.sums[half].double() * (STEP / int(self.counts[half])) for half in (0, 1))
        share = math.sqrt(float(self.counts.prod())) / self.positions
        return share * _size(first - second) / _size(self.mean())

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums as named tensors, to be written to a file of safetensors; `Accumulator(**tensors)` reads them."""
        return {"sums": self.sums, "counts": self.counts, "weight": self.weight}


def _too_large() -> UserError:
    return UserError(f"entries of the Jacobians add up to more than {LIMIT:.0f}; average fewer positions of this subject")


def _size(jacobians: Tensor) -> Tensor:
    return jacobians.square().sum((1, 2)).sqrt().clamp(min=torch.finfo(torch.float64).tiny)


@dataclass
class Trace:
    """How far mean Jacobians move, noted about every *every* positions until the mean over layers falls below *tolerance*.

    The lenses that Neuronpedia hosts stop below 2e-3 (their `convergence.csv`). A mean of N positions
    moves by about √every / N of one position's spread, and its error is 1 / √N of that spread: so a small change alone does not say that
    the error is small. Column `error` says it.
    """

    every: int
    tolerance: float = 2e-3
    records: list[dict[str, Any]] = field(default_factory=list)
    _before: Tensor | None = None
    _noted: int = 0

    def note(self, sums: Accumulator, *, last: bool = False) -> bool:
        """Note the state of *sums* if enough positions are new, or if it is the *last*; return whether the mean has settled."""
        fresh = sums.positions - self._noted
        if not fresh or (fresh < self.every and not last):
            return False
        mean, error = sums.mean(), sums.error()
        norm = _size(mean)
        change = None if self._before is None else _size(mean - self._before) / norm
        for layer in range(len(mean)):
            self.records.append(
                {
                    "layer": layer,
                    "positions": sums.positions,
                    "norm": float(norm[layer]) / math.sqrt(mean.shape[1]),
                    "change": None if change is None else float(change[layer]),
                    "error": None if error is None else float(error[layer]),
                }
            )
        self._before, self._noted = mean, sums.positions
        return change is not None and fresh >= self.every and float(change.mean()) < self.tolerance

    def rows(self, subject: str, lens: str) -> list[dict[str, Any]]:
        """Return the records of LENS_CONVERGENCE."""
        return [{"subject": subject, "lens": lens, **record} for record in self.records]
