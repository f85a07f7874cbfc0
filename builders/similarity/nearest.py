"""The nearest latents in another dictionary, who is nearest to whom on both sides, and how clear that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from builders.arrays import Bools, Ints
from builders.similarity.measures import Floats32, Measure, blocks


@dataclass(frozen=True)
class Nearest:
    """The latents of B with the largest values for each latent of A, largest first; of equal values the lowest latent comes first.

    *partner* and *value* are [latents of A, most], or narrower where B has fewer latents.
    """

    partner: Ints
    value: Floats32

    @property
    def best(self) -> Ints:
        """The nearest latent of B to each latent of A [latents of A]; −1 where B has none."""
        return self.partner[:, 0] if self.partner.shape[1] else np.full(len(self.partner), -1, dtype=np.int64)

    @property
    def margin(self) -> Floats32:
        """The largest value minus the second largest [latents of A]; NaN where B has one latent or none, or only one was looked for."""
        if self.value.shape[1] < 2:
            return np.full(len(self.value), np.nan, dtype=np.float32)
        return self.value[:, 0] - self.value[:, 1]


def nearest(measure: Measure, most: int) -> Nearest:
    """Return the *most* latents of B that are nearest to each latent of A; at most CELLS pairs are in memory at a time."""
    n, m = measure.shape
    partner = np.empty((n, min(most, m)), dtype=np.int64)
    value = np.empty(partner.shape, dtype=np.float32)
    for low, block in blocks(measure):
        values, columns = _largest(torch.from_numpy(block), partner.shape[1])
        value[low : low + len(block)], partner[low : low + len(block)] = values.numpy(), columns.numpy()
    return Nearest(partner, value)


def mutual(nearest_a: Nearest, nearest_b: Nearest) -> Bools:
    """Return which latents of A are the nearest of their own nearest [latents of A]; *nearest_b* is that of the flipped measure."""
    there, back = nearest_a.best, nearest_b.best
    if not len(back):
        return np.zeros(len(there), dtype=bool)
    found: Bools = back[there] == np.arange(len(there))
    return found


def _largest(values: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the *most* largest of each row [rows, width] and their columns, largest first; of equal values the first columns."""
    if most < values.shape[1]:
        found, columns = values.topk(most + 1, dim=1)
        columns, least = columns[:, :most], found[:, most - 1 : most]
        tied = (found[:, most:] == least)[:, 0]  # topk may return any of equal values, so these rows are looked through
        if tied.any():
            columns[tied] = _first_columns(values[tied], least[tied], most)
        columns = columns.sort(dim=1).values
    else:
        columns = torch.arange(most).expand(values.shape)
    found, order = values.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return found, columns.gather(1, order)


def _first_columns(values: Tensor, least: Tensor, most: int) -> Tensor:
    """Return the columns [rows, most] of what is above *least* [rows, 1] in each row and, for the rest, of the first that equal it."""
    above, equal = values > least, values == least
    room = most - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].view(-1, most)
