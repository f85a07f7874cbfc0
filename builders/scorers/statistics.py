"""Rates and areas with their standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Counts:
    """How often yes and no were right and wrong."""

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int

    @property
    def recall(self) -> float:
        """Share of positives answered yes."""
        return self.true_positive / (self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Share of negatives answered no."""
        return self.true_negative / (self.true_negative + self.false_positive)

    @property
    def balanced_accuracy(self) -> float:
        """The mean of recall and specificity; ½ for any answer that does not look at the example."""
        return (self.recall + self.specificity) / 2

    @property
    def balanced_accuracy_se(self) -> float:
        """Standard error, each rate taken as (k+1)/(n+2) (Agresti & Caffo 2000), so that 50 of 50 is not certainty."""
        pairs = ((self.true_positive, self.false_negative), (self.true_negative, self.false_positive))
        variances = [(p := (hit + 1) / (hit + miss + 2)) * (1 - p) / (hit + miss + 2) for hit, miss in pairs]
        return math.sqrt(sum(variances)) / 2

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        n = self.true_positive + self.false_negative + self.true_negative + self.false_positive
        return (self.true_positive + self.true_negative) / n

    @property
    def precision(self) -> float | None:
        """Share of yes that is right; None without a yes."""
        said_yes = self.true_positive + self.false_positive
        return self.true_positive / said_yes if said_yes else None

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 without a right yes."""
        return 2 * self.true_positive / (2 * self.true_positive + self.false_positive + self.false_negative)


def count_outcomes(truth: npt.NDArray[np.bool_], answer: npt.NDArray[np.bool_]) -> Counts:
    """Return how often *answer* was right and wrong."""
    pairs = ((truth, answer), (truth, ~answer), (~truth, ~answer), (~truth, answer))
    return Counts(*(int((a & b).sum()) for a, b in pairs))


def average_ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the rank of each of *values* [n] from 1, of equals the mean: what scipy.stats says after a second of import."""
    _, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[code]
    return found


def auroc(truth: npt.NDArray[np.bool_], value: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return P(v⁺ > v⁻) + ½ P(v⁺ = v⁻) and its standard error (DeLong et al. 1988); both classes must be there."""
    positive, negative = value[truth], value[~truth]
    ranks = average_ranks(np.concatenate([positive, negative]))
    # Each positive's share of negatives below it, and each negative's share of positives above it.
    above = (ranks[: len(positive)] - average_ranks(positive)) / len(negative)
    below = 1 - (ranks[len(positive) :] - average_ranks(negative)) / len(positive)
    variance = sum(part.var(ddof=1) / len(part) if len(part) > 1 else 0.25 for part in (above, below))
    if not variance:  # perfect separation is no certainty: as though each side had one more example, half of it right
        variance = sum((0.5 / (len(part) + 1)) ** 2 for part in (above, below))
    return float(above.mean()), math.sqrt(variance)


Measures = dict[str, Any]


def no_score(truth: npt.NDArray[np.bool_]) -> Measures | None:
    """Return the status of examples that cannot be told apart, since not both classes are there, or None."""
    if truth.any() and not truth.all():
        return None
    return {"status": "one class only" if len(truth) else "no answers"}


def rates(truth: npt.NDArray[np.bool_], answer: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64]) -> Measures:
    """Return SCORES columns of yes and no answers [n], and of their probabilities where all have one (NaN elsewhere)."""
    lacking = no_score(truth)
    if lacking:
        return lacking
    counts = count_outcomes(truth, answer)
    found: Measures = {"status": "ok", "score": counts.balanced_accuracy, "score_se": counts.balanced_accuracy_se}
    found |= {name: getattr(counts, name) for name in ("accuracy", "precision", "recall", "f1")}
    if not np.isnan(probability).any():
        found["auroc"], found["auroc_se"] = auroc(truth, probability)
    return found


def area(truth: npt.NDArray[np.bool_], value: npt.NDArray[np.float64]) -> Measures:
    """Return SCORES columns of values [n] whose AUROC is the score."""
    lacking = no_score(truth)
    if lacking:
        return lacking
    score, error = auroc(truth, value)
    return {"status": "ok", "score": score, "score_se": error, "auroc": score, "auroc_se": error}


def share(found: npt.NDArray[np.bool_]) -> Measures:
    """Return SCORES columns of how often something was found; its error is that of (k+1)/(n+2)."""
    n = len(found)
    if not n:
        return {"status": "no answers"}
    p = (found.sum() + 1) / (n + 2)
    return {"status": "ok", "score": float(found.mean()), "score_se": math.sqrt(p * (1 - p) / (n + 2)), "accuracy": float(found.mean())}


def mean(values: npt.NDArray[np.float64]) -> Measures:
    """Return SCORES columns of a mean with its standard error; one value alone has none."""
    if not len(values):
        return {"status": "no answers"}
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return {"status": "ok", "score": float(values.mean()), "score_se": error}
