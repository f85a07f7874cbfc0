"""How alike two latents fire on the same units: the correlation of their activations, and the share of units on which both fire.

A unit is a token, or a span of bytes that two tokenizations have in common (builders/similarity/spans.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
from scipy import sparse

from builders.arrays import Floats

Floats32 = npt.NDArray[np.float32]
Indices = npt.NDArray[np.integer]


def fired(latent: Indices, unit: Indices, value: Floats32, latents: int, units: int) -> sparse.csr_array:
    """Return activations as a sparse matrix [latents, units] of float32.

    *latent*, *unit* and *value* (all [n]) are firings in any order; a firing with the latent or the unit −1 is left out. Of several
    firings of a latent on one unit, such as on the tokens of one span, the largest activation counts.
    """
    there = (latent >= 0) & (unit >= 0)
    cell, value = latent[there].astype(np.int64) * units + unit[there], value[there]
    if not np.all(cell[1:] >= cell[:-1]):  # activations on one tokenizer's units are stored in this order
        order = np.argsort(cell, kind="stable")
        cell, value = cell[order], value[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    largest = np.maximum.reduceat(value, starts) if len(starts) else value
    row, column = np.divmod(cell[starts], max(units, 1))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=latents))])
    # Products of matrices with small indices are faster; scipy takes the type as it comes.
    index = np.int32 if max(units, len(starts)) <= np.iinfo(np.int32).max else np.int64
    return sparse.csr_array((largest.astype(np.float32), column.astype(index), bounds.astype(index)), shape=(latents, units))


class _Cofiring(ABC):
    """A measure (builders/similarity/measures.py) that follows from sums, over all units, of products of what two latents do there.

    Both matrices are [latents, units]. The product is sparse: its work is, over the units, how many latents of A fire there times how
    many of B do. Only the block that is asked for is dense.
    """

    def __init__(self, a: sparse.csr_array, b: sparse.csr_array) -> None:
        self.a, self.b = a, b
        self._by_unit = b.T.tocsr()  # so that a latent of A meets, unit by unit, the latents of B that fire there

    @property
    def shape(self) -> tuple[int, int]:
        """How many latents A and B have."""
        return self.a.shape[0], self.b.shape[0]

    def block(self, low: int, high: int) -> Floats32:
        """Return the values [high − low, latents of B] of A's latents from *low* up to *high*."""
        products = (self.a[low:high] @ self._by_unit).toarray().astype(np.float64, copy=False)
        return self._values(products, slice(low, high)).astype(np.float32)

    @abstractmethod
    def _values(self, products: Floats, some: slice) -> Floats: ...


class Pearson(_Cofiring):
    """The correlation of two latents' activations over all units, those where a latent is silent included (as 0).

    A latent that never changes correlates with nothing: 0. Sums are float64. The mean over A's latents of the largest value in B is
    the MPPC of Wang et al. 2024 (arXiv 2410.06672).
    """

    def __init__(self, a: sparse.csr_array, b: sparse.csr_array) -> None:
        super().__init__(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False))
        (self._mean_a, self._scale_a), (_, self._scale_b) = _moments(self.a), _moments(self.b)
        self._sum_b = self.b.sum(axis=1)

    def flipped(self) -> Pearson:
        """Return the measure with A and B exchanged."""
        return Pearson(self.b, self.a)

    def _values(self, products: Floats, some: slice) -> Floats:
        products -= np.outer(self._mean_a[some], self._sum_b)
        products *= self._scale_a[some, None]
        products *= self._scale_b
        np.clip(products, -1, 1, out=products)
        return products


def _moments(values: sparse.csr_array) -> tuple[Floats, Floats]:
    """Return each latent's mean, and 1 / the root of its summed squared deviations; 0 for a constant latent (both [latents])."""
    latents, units = values.shape
    if not units:
        return np.zeros(latents), np.zeros(latents)
    mean = values.sum(axis=1) / units
    stored = np.diff(values.indptr)
    deviations = sparse.csr_array(((values.data - np.repeat(mean, stored)) ** 2, values.indices, values.indptr), shape=values.shape)
    squares = deviations.sum(axis=1) + (units - stored) * mean**2
    changes = values.max(axis=1).toarray() > values.min(axis=1).toarray()  # exact, where a variance is zero up to rounding
    return mean, np.where(changes, 1 / np.sqrt(np.where(changes, squares, 1)), 0)


class Jaccard(_Cofiring):
    """Units on which two latents both fire / units on which either fires; 0 if neither ever fires. How strongly does not count."""

    def __init__(self, a: sparse.csr_array, b: sparse.csr_array) -> None:
        super().__init__(*(values.astype(bool).astype(np.int32) for values in (a, b)))
        self._count_a, self._count_b = (values.sum(axis=1, dtype=np.float64) for values in (self.a, self.b))

    def flipped(self) -> Jaccard:
        """Return the measure with A and B exchanged."""
        return Jaccard(self.b, self.a)

    def _values(self, products: Floats, some: slice) -> Floats:
        either = np.add.outer(self._count_a[some], self._count_b)
        either -= products
        products /= np.maximum(either, 1, out=either)  # where neither fires, the product is 0 already
        return products
