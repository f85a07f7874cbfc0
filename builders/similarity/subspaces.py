"""How alike two sets of latents are as wholes: spans of what they write, and the geometry of what pairs of them do.

The figures compare sets and not single latents. Each has a chance level, because some of them are far above 0 for sets that have nothing in
common. See docs/science.md#similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from builders.arrays import Floats, Ints
from builders.errors import UserError
from builders.scorers.statistics import average_ranks
from builders.seeds import seed_of, uniforms

SPAN = 0.9  # share of the rows' variance that the compared span holds
KEEP = 0.99  # share of the variance before canonical correlations (Raghu et al. 2017, section 2)
PERMUTATIONS = 20
PRODUCTS = 5  # permutations where each costs a product of sparse matrices; a mean of many correlations hardly varies
ROUNDING = 1e-6  # of float32 rows: a share of the variance below this is none
DIGITS = 9  # of a correlation: equal ones stay equal, whatever the order of their sums
BLOCK = 2**13  # rows at a time
LEAST = 3  # latents: two have a single similarity, and no correlation
Matrix = Any  # a scipy.sparse.csr_array, or a dense array of floats


@dataclass(frozen=True)
class Overlap:
    """How much two spans share, from 0 to 1, and what two random spans of these dimensions share on average (*chance*)."""

    value: float
    chance: float
    dimensions: tuple[int, int]

    @property
    def above_chance(self) -> float | None:
        """(value − chance) / (1 − chance): 0 for random spans, 1 for equal ones; None where one span is the whole space."""
        return (self.value - self.chance) / (1 - self.chance) if self.chance < 1 else None


@dataclass(frozen=True)
class Compared:
    """A similarity of *n* pairs, with its mean and standard deviation over permutations of the pairs.

    *value* is None where it cannot be told. *dimensions* are those of both sides that went into it.
    """

    value: float | None
    chance: float | None
    chance_sd: float | None
    n: int
    dimensions: tuple[int, int]


def overlap(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating], k: int | None = None) -> Overlap | None:
    """Return how much the spans of rows *a* [n, d] and *b* [m, d] share: ‖Q_aᵀ Q_b‖² / min(r_a, r_b), the mean cos² of principal angles.

    A dictionary has more latents than dimensions, so that all its rows together span the whole space, and any two whole dictionaries
    would share everything. So Q_a [d, r_a] and Q_b hold the first principal directions of the rows only: the fewest that hold SPAN of the
    summed squared length, or *k* of each side. Every row counts as one of length 1, because a short row with large activations writes
    as much as a long one; nothing is subtracted, because rows are directions from the origin. Rows of zeros do not count. Chance is
    max(r_a, r_b) / d, from E‖Q_aᵀ Q_b‖² = r_a r_b / d for uniformly random spans. None if one side has no row left. Raises UserError if
    the sizes d differ. Source: Björck and Golub 1973 (angles).
    """
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"directions of {a.shape[1]} and {b.shape[1]} dimensions span different spaces; compare these dictionaries by their activations"
        )
    spans = [_span(rows, k) for rows in (a, b)]
    ranks = spans[0].shape[1], spans[1].shape[1]
    if not all(ranks):
        return None
    value = float(np.square(spans[0].T @ spans[1]).sum() / min(ranks))
    return Overlap(min(value, 1.0), max(ranks) / a.shape[1], ranks)


def svcca(x: Matrix, y: Matrix, seed: int, keep: float = KEEP, permutations: int = PRODUCTS) -> Compared:
    """Return the mean canonical correlation of *x* [variables, n] and *y* [variables of the other side, n], whose columns are paired.

    Each side is centred and reduced to the fewest principal components that hold *keep* of its variance (Raghu et al. 2017,
    arXiv 1706.05806, section 2); the mean is over as many correlations as the smaller side has components. Two uses:

    - activations [latents, units]: the pairs are units, such as tokens. Linear maps of the latents change nothing, so that it does not
      matter which latent is whose partner, only which latents are compared.
    - directions, turned [d, latents]: the pairs are matched latents (Lan et al. 2024, arXiv 2410.06981).

    Chance: columns of *y* in random order. It grows with components / n, and reaches 1 where n is too small to tell. Only the covariances
    are dense. Raises UserError if the numbers of columns differ.
    """
    _require_pairs(x.shape[1], y.shape[1], "units")
    if 0 in x.shape + y.shape:
        return Compared(None, None, None, x.shape[1], (0, 0))
    x, y, n = x.astype(np.float64), y.astype(np.float64), x.shape[1]
    turned = y.T.tocsr() if sparse.issparse(y) else y.T
    left, right = (_whitening(_covariance(side, other), keep) for side, other in ((x, x.T), (y, turned)))
    dimensions = left.shape[1], right.shape[1]
    if not all(dimensions):
        return Compared(None, None, None, n, dimensions)

    def mean_correlation(order: Ints | None) -> float:
        crossed = left.T @ _covariance(x, turned if order is None else turned[order]) @ right
        squared = crossed @ crossed.T if dimensions[0] <= dimensions[1] else crossed.T @ crossed
        return float(np.sqrt(np.clip(np.linalg.eigvalsh(squared), 0, 1)).mean())

    return _against_chance(mean_correlation, n, dimensions, seed, permutations)


def rsa(x: Matrix, y: Matrix, seed: int, permutations: int = PERMUTATIONS) -> Compared:
    """Return the Spearman correlation of how the rows of *x* [n, …] and how those of *y* [n, …] correlate among themselves.

    Row i of *x* and row i of *y* are partners: activations [latents, units] or directions [latents, d]; the units need not be the same.
    The similarity of two rows of one side is their Pearson correlation; the n (n − 1) / 2 similarities of each side are compared
    (Kriegeskorte et al. 2008; Lan et al. 2024, arXiv 2410.06981, take it of directions). Pearson, not cosine: cosines of sparse
    activations mostly tell how often the latents fire, which partners have in common without meaning the same. Rows that are constant
    on one side, such as latents that never fire, are left out with their partners; *n* counts the rest. Chance: rows of *y* in random
    order. Raises UserError if the numbers of rows differ.
    """
    _require_pairs(x.shape[0], y.shape[0], "latents")
    if 0 in x.shape + y.shape:
        return Compared(None, None, None, 0, (0, 0))
    correlations = [_correlations(side.astype(np.float64)) for side in (x, y)]
    varied = np.flatnonzero(~np.isnan(correlations[0].diagonal() + correlations[1].diagonal()))
    n = len(varied)
    ranked = [_ranked(some[np.ix_(varied, varied)]) for some in correlations] if n >= LEAST else []
    scale = float(np.prod([np.linalg.norm(side) for side in ranked]))
    if not ranked or not scale:
        return Compared(None, None, None, n, (n, n))

    def correlation(order: Ints | None) -> float:
        return float(np.vdot(ranked[0], ranked[1] if order is None else ranked[1][np.ix_(order, order)])) / scale

    return _against_chance(correlation, n, (n, n), seed, permutations)


def _against_chance(
    measured: Callable[[Ints | None], float], n: int, dimensions: tuple[int, int], seed: int, permutations: int
) -> Compared:
    """Return what *measured* gives for the pairs as they are (None), and over random orders of one side."""
    null = [measured(order) for order in _orders(n, seed, permutations)]
    chance = float(np.mean(null)) if null else None
    return Compared(measured(None), chance, float(np.std(null, ddof=1)) if len(null) > 1 else None, n, dimensions)


def _orders(n: int, seed: int, permutations: int) -> Iterator[Ints]:
    for number in range(permutations):
        yield np.argsort(uniforms(seed_of(seed, "permutation", number), np.arange(n)), kind="stable")


def _span(rows: npt.NDArray[np.floating], k: int | None) -> Floats:
    """Return the first *k* principal directions of rows of length 1 [d, k]; None: as many as hold SPAN of the variance."""
    gram = np.zeros((rows.shape[1], rows.shape[1]))
    for low in range(0, len(rows), BLOCK):
        some = rows[low : low + BLOCK]
        length = np.linalg.norm(some, axis=1, keepdims=True)
        unit = np.divide(some, length, out=np.zeros_like(some), where=length > 0)
        gram += unit.T @ unit
    variances, directions = _principal(gram)
    rank = _components(variances, SPAN) if k is None else min(k, _components(variances, 1))
    return directions[:, :rank]


def _principal(matrix: Floats) -> tuple[Floats, Floats]:
    """Return the eigenvalues [d], largest first, and eigenvectors [d, d] of a symmetric *matrix*."""
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def _components(variances: Floats, share: float) -> int:
    """Return how many of *variances*, largest first, hold *share* of their sum; those that rounding may have made do not count."""
    summed = np.cumsum(variances)
    if not len(variances) or not summed[-1]:
        return 0
    fewest = int(np.searchsorted(summed, share * summed[-1] * (1 - ROUNDING))) + 1
    return min(fewest, int((variances > ROUNDING * variances[0]).sum()))


def _whitening(covariance: Floats, keep: float) -> Floats:
    """Return the matrix [variables, components] that turns centred variables into principal components of variance 1."""
    variances, directions = _principal(covariance)
    rank = _components(variances, keep)
    scaled: Floats = directions[:, :rank] / np.sqrt(variances[:rank])
    return scaled


def _covariance(x: Matrix, turned: Matrix) -> Floats:
    """Return the covariance of the rows of *x* [p, n] with the columns of *turned* [n, q], dense [p, q]."""
    product = x @ turned
    found: Floats = (product.toarray() if sparse.issparse(product) else product) / x.shape[1]
    return found - np.outer(np.asarray(x.mean(axis=1)), np.asarray(turned.mean(axis=0)))


def _correlations(x: Matrix) -> Floats:
    """Return the Pearson correlations of the rows of *x* [n, …] with one another [n, n]; those of constant rows are NaN."""
    covariance = _covariance(x, x.T)
    variance = covariance.diagonal()
    constant = variance <= ROUNDING**2 * np.square(np.asarray(x.mean(axis=1)))
    spread = np.sqrt(np.where(constant, np.nan, variance))
    return np.round(covariance / np.outer(spread, spread), DIGITS)


def _ranked(correlations: Floats) -> Floats:
    """Return the ranks of the *correlations* of different rows, centred [n, n]; the diagonal is zero."""
    upper = np.triu_indices(len(correlations), 1)
    ranks = average_ranks(correlations[upper])
    square = np.zeros_like(correlations)
    square[upper] = ranks - ranks.mean()
    return square + square.T


def _require_pairs(a: int, b: int, what: str) -> None:
    if a != b:
        raise UserError(f"{a} and {b} {what} are no pairs; hand in the same {what} of both dictionaries, in the same order")
