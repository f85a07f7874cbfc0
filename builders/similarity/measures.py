"""Measures of pairs of latents: a measure gives values a block of A's latents at a time, so that nobody holds all pairs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from builders.errors import UserError
from builders.saes.neighbours import CELLS

Floats32 = npt.NDArray[np.float32]
Rows = Tensor | npt.NDArray[np.floating]


class Measure(Protocol):
    """The values of all pairs of a latent of A and a latent of B; a large value says that the two are alike."""

    @property
    def shape(self) -> tuple[int, int]:
        """How many latents A and B have."""

    def block(self, low: int, high: int) -> Floats32:
        """Return the values [high − low, latents of B] of A's latents from *low* up to *high*."""

    def flipped(self) -> Measure:
        """Return the same measure with A and B exchanged."""


class Cosines:
    """Cosines of the rows of A [n, d] and of B [m, d], such as decoder rows or embeddings of explanations; signed, from −1 to 1.

    Rows are computed with in float32. A row of zeros has cosine 0 with every other. Raises UserError where the rows of A and B
    have different sizes. Source: Paulo & Belrose 2025 (arXiv 2501.16615).
    """

    def __init__(self, a: Rows, b: Rows) -> None:
        self.a, self.b = _units(a), _units(b)
        sizes = self.a.shape[1], self.b.shape[1]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"rows of {sizes[0]} and of {sizes[1]} dimensions have no cosine; compare these dictionaries by activations or explanations"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """How many latents A and B have."""
        return len(self.a), len(self.b)

    def block(self, low: int, high: int) -> Floats32:
        """Return the cosines [high − low, latents of B] of A's latents from *low* up to *high*."""
        cosines: Floats32 = (self.a[low:high] @ self.b.T).clamp_(-1, 1).cpu().numpy()  # rounding goes beyond 1
        return cosines

    def flipped(self) -> Cosines:
        """Return the cosines of B and A; both hold the same rows in memory."""
        other = copy.copy(self)
        other.a, other.b = self.b, self.a
        return other


def _units(rows: Rows) -> Tensor:
    """Return *rows* [n, d] scaled to norm 1 in float32; rows of zeros stay so."""
    units = torch.as_tensor(rows).detach().float()
    norms = units.norm(dim=1, keepdim=True)
    return units / torch.where(norms > 0, norms, 1)


def blocks(measure: Measure) -> Iterator[tuple[int, Floats32]]:
    """Yield for all latents of A the first latent of a block and the block's values, at most CELLS of them or one latent's."""
    n, m = measure.shape
    step = max(1, CELLS // max(1, m))
    for low in range(0, n, step):
        yield low, measure.block(low, min(low + step, n))
