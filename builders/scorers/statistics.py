"""Scores and their standard errors: rates of yes-or-no answers, AUROC, shares and means. See docs/science.md#statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builders.arrays import Bools, Floats


def rate_variance(hits: Any, n: Any) -> Any:
    """Return the variance of a share of *hits* among *n* (numbers or arrays).

    The share is taken as (k+1)/(n+2) (Agresti & Caffo 2000), so that 50 of 50 still has an error.
    """
    p = (hits + 1) / (n + 2)
    return p * (1 - p) / (n + 2)


@dataclass(frozen=True)
class Counts:
    """How many yes and no answers were right and wrong."""

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
        """Standard error, from those of both rates."""
        pairs = ((self.true_positive, self.false_negative), (self.true_negative, self.false_positive))
        return math.sqrt(sum(rate_variance(hit, hit + miss) for hit, miss in pairs)) / 2

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        n = self.true_positive + self.false_negative + self.true_negative + self.false_positive
        return (self.true_positive + self.true_negative) / n

    @property
    def precision(self) -> float | None:
        """Share of yes answers that are right; None without a yes."""
        said_yes = self.true_positive + self.false_positive
        return self.true_positive / said_yes if said_yes else None

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where no yes is right."""
        return 2 * self.true_positive / (2 * self.true_positive + self.false_positive + self.false_negative)

    def wrong(self, positives: int, negatives: int) -> Counts:
        """Return the counts if so many more positives and negatives had been answered, all of them wrongly."""
        return replace(self, false_negative=self.false_negative + positives, false_positive=self.false_positive + negatives)

    def right(self, positives: int, negatives: int) -> Counts:
        """Return the counts if so many more positives and negatives had been answered, all of them rightly."""
        return replace(self, true_positive=self.true_positive + positives, true_negative=self.true_negative + negatives)


def count_outcomes(truth: Bools, answer: Bools) -> Counts:
    """Return how many of the answers [n] are right and wrong, yes and no apart."""
    pairs = ((truth, answer), (truth, ~answer), (~truth, ~answer), (~truth, answer))
    return Counts(*(int((a & b).sum()) for a, b in pairs))


def average_ranks(values: Floats) -> Floats:
    """Return the rank of each of *values* [n], from 1; equal values share the mean of their ranks.

    It is scipy.stats.rankdata without the second that importing scipy.stats takes.
    """
    _, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Floats = (np.cumsum(counts) - (counts - 1) / 2)[code]
    return found


def auroc(truth: Bools, value: Floats) -> tuple[float, float]:
    """Return AUROC, P(v⁺ > v⁻) + ½ P(v⁺ = v⁻), of values [n] and its standard error (DeLong et al. 1988); both classes must occur."""
    positive, negative = value[truth], value[~truth]
    ranks = average_ranks(np.concatenate([positive, negative]))
    # For each positive the share of negatives below it; for each negative the share of positives above it.
    above = (ranks[: len(positive)] - average_ranks(positive)) / len(negative)
    below = 1 - (ranks[len(positive) :] - average_ranks(negative)) / len(positive)
    variance = sum(part.var(ddof=1) / len(part) if len(part) > 1 else 0.25 for part in (above, below))
    if not variance:  # Perfect separation is not certainty: give each side one more example that is half right.
        variance = sum((0.5 / (len(part) + 1)) ** 2 for part in (above, below))
    return float(above.mean()), math.sqrt(variance)


Measures = dict[str, Any]


def no_score(truth: Bools) -> Measures | None:
    """Return the status of examples [n] that cannot be scored because a class is missing, or None where both classes occur."""
    if truth.any() and not truth.all():
        return None
    return {"status": "one class only" if len(truth) else "no answers"}


def rates(truth: Bools, answer: Floats, probability: Floats) -> Measures:
    """Return SCORES columns from answers [n], 1 for yes, 0 for no and NaN where one is missing.

    The bounds of the score take all missing answers as wrong and as right. AUROC is that of the answered examples that have a
    *probability* [n] and not NaN, `auroc_n` in number; there is none where a class is missing among these.
    """
    known = ~np.isnan(answer)
    unscored = no_score(truth[known])
    if unscored:
        return unscored
    counts = count_outcomes(truth[known], answer[known] == 1)
    missing = int((truth & ~known).sum()), int((~truth & ~known).sum())
    found: Measures = {"status": "ok", "score": counts.balanced_accuracy, "score_se": counts.balanced_accuracy_se}
    found |= {"score_low": counts.wrong(*missing).balanced_accuracy, "score_high": counts.right(*missing).balanced_accuracy}
    found |= {name: getattr(counts, name) for name in ("accuracy", "precision", "recall", "specificity", "f1")}
    sure = known & ~np.isnan(probability)
    if sure.any():
        found["auroc_n"] = int(sure.sum())
    if not no_score(truth[sure]):
        found["auroc"], found["auroc_se"] = auroc(truth[sure], probability[sure])
    return found


def area(truth: Bools, value: Floats) -> Measures:
    """Return SCORES columns where the AUROC of *value* [n] is the score."""
    unscored = no_score(truth)
    if unscored:
        return unscored
    score, error = auroc(truth, value)
    return {"status": "ok", "score": score, "score_se": error, "auroc": score, "auroc_se": error, "auroc_n": len(truth)}


def share(found: Bools, missing: int = 0) -> Measures:
    """Return SCORES columns where the score is the share of *found* [n]; its standard error takes the share as (k+1)/(n+2).

    The bounds of the score take *missing* trials more as not found and as found.
    """
    n, hits = len(found), int(found.sum())
    if not n:
        return {"status": "no answers"}
    p, score = (hits + 1) / (n + 2), hits / n
    measures: Measures = {"status": "ok", "score": score, "score_se": math.sqrt(p * (1 - p) / (n + 2)), "accuracy": score}
    return measures | {"score_low": hits / (n + missing), "score_high": (hits + missing) / (n + missing)}


def mean(values: Floats) -> Measures:
    """Return SCORES columns where the score is the mean of *values* [n]; a single value has no standard error."""
    if not len(values):
        return {"status": "no answers"}
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return {"status": "ok", "score": float(values.mean()), "score_se": error}
