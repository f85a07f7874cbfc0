"""Dictionaries whose partners are known, as every measure of similarity reads them, and a measure whose values are at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from builders.similarity.cofiring import Jaccard, Pearson
from builders.similarity.measures import Cosines
from builders.similarity.partners import Partners, partners_of

if TYPE_CHECKING:
    from builders.arrays import Ints
    from builders.similarity.measures import Floats32, Measure

KINDS: dict[str, Callable[[Any, Any], Measure]] = {
    "decoder": Cosines,
    "encoder": Cosines,
    "pearson": Pearson,
    "jaccard": Jaccard,
    "explanation": Cosines,
}
DIMENSIONS, UNITS, FIRES = 64, 2000, 0.01
Dictionary = dict[str, Any]  # what each measure reads of the latents: an array, or a sparse one, [latents, …]


class Given:
    """A measure whose values [latents of A, latents of B] are at hand."""

    def __init__(self, values: Any) -> None:
        self.values: Floats32 = np.array(values, np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """How many latents A and B have."""
        return self.values.shape[0], self.values.shape[1]

    def block(self, low: int, high: int) -> Floats32:
        """Return the rows from *low* up to *high*."""
        return self.values[low:high]

    def flipped(self) -> Given:
        """Return the transpose."""
        return Given(self.values.T)


def dictionary(seed: int, n: int) -> Dictionary:
    """Return *n* random latents: Gaussian rows and embeddings, and activations on one unit in a hundred."""
    rng = np.random.default_rng(seed)
    gaussian = {name: rng.standard_normal((n, DIMENSIONS)).astype(np.float32) for name in ("decoder", "encoder", "explanation")}
    fires = sparse.random_array((n, UNITS), density=FIRES, format="csr", dtype=np.float32, rng=rng)
    return {**gaussian, "pearson": fires, "jaccard": fires}


def taken(latents: Dictionary, order: Ints) -> Dictionary:
    """Return the *latents* of a dictionary in an *order*."""
    return {name: rows[order] for name, rows in latents.items()}


def joined(a: Dictionary, b: Dictionary) -> Dictionary:
    """Return the latents of two dictionaries as one."""
    return {
        name: sparse.vstack([rows, b[name]], format="csr") if sparse.issparse(rows) else np.concatenate([rows, b[name]])
        for name, rows in a.items()
    }


def measures_of(a: Dictionary, b: Dictionary) -> dict[str, Measure]:
    """Return every measure of two dictionaries."""
    return {name: kind(a[name], b[name]) for name, kind in KINDS.items()}


def partners(measure: Measure, most: int = 4, latents: Ints | None = None, others: Ints | None = None) -> Partners:
    """Return the partners by *measure* of latents that are numbered from 0, unless numbers are given."""
    n, m = measure.shape
    return partners_of(measure, np.arange(n) if latents is None else latents, np.arange(m) if others is None else others, most)
