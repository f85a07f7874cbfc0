"""How much each answer counts: letters count alike, halves hold the same letters, and bootstrap samples keep both.

A vector from answers (A) of which most match the behaviour points towards the letter A, and where most test answers are (A) too, that looks
like an effect on the behaviour. So the mean is taken apart for each letter that the matching option has, and then over letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.arrays import Floats
from builders.seeds import drawn

Letters = Sequence[tuple[str, str]]  # of each answer: the letter of the option that matches the behaviour, and of the other one
DRAWS = 1000  # samples of a bootstrap


def balanced(letters: Letters) -> Floats:
    """Return the weight of each answer [n]: with them, either letter of a pair such as A and B is the matching one equally often.

    A pair of letters counts as often as it occurs. An answer counts 0 if its pair of letters occurs in one direction only, because then
    nothing tells the letter from the behaviour. Weights add up to 1, or all are 0.
    """
    found = np.zeros(len(letters))
    for pair in {frozenset(some) for some in letters}:
        own = np.array([frozenset(some) == pair for some in letters])
        first = own & np.array([some == (min(pair), max(pair)) for some in letters])
        sides = [first] if len(pair) == 1 else [first, own & ~first]
        if all(side.any() for side in sides):
            for side in sides:
                found[side] = own.sum() / len(sides) / side.sum()
    total = found.sum()
    return found / total if total else found


def kinds_of(questions: npt.ArrayLike, letters: Letters) -> list[tuple[tuple[str, str], ...]]:
    """Return the kind of each answer's question: the letters of all its orders, sorted. *questions* [n] are the questions' numbers."""
    asked = np.asarray(questions).tolist()
    orders: dict[int, list[tuple[str, str]]] = {}
    for question, some in zip(asked, letters, strict=True):
        orders.setdefault(question, []).append(some)
    return [tuple(sorted(orders[question])) for question in asked]


def halves(kinds: Sequence[Hashable], seed: int) -> tuple[list[int], list[int]]:
    """Return which questions are drawn for validation and which are left for test, both sorted; *kinds* tells what each question is like.

    Either half gets half of each kind; an odd question goes to test.
    """
    places = np.arange(len(kinds))
    parts = [places[[other == kind for other in kinds]] for kind in dict.fromkeys(kinds)]
    validation = np.sort(np.concatenate([drawn(part, len(part) // 2, seed) for part in parts])) if parts else places
    return validation.tolist(), np.setdiff1d(places, validation).tolist()


@dataclass(frozen=True)
class Counted:
    """The weights of answers: *own* [n], and those in bootstrap samples of their questions [DRAWS, n]."""

    own: Floats
    drawn: Floats


def counted(questions: npt.ArrayLike, letters: Letters, seed: int) -> Counted:
    """Return the balanced weights of answers; *questions* [n] are their numbers, and *seed* draws the samples.

    A sample draws as many questions of each kind as there are, so that every sample is balanced as well. Of k questions of a kind a sample
    varies by (k - 1) / k of what it should, so its deviations are made larger by the root of k / (k - 1). Kinds of one question are drawn
    together, since one alone would not vary.
    """
    own = balanced(letters)
    numbers, places = np.unique(np.asarray(questions), return_inverse=True)
    found = dict(zip(places.tolist(), kinds_of(questions, letters), strict=True))
    sizes = Counter(found.values())
    kinds = [found[place] if sizes[found[place]] > 1 else None for place in range(len(numbers))]
    count = np.array([kinds.count(kind) for kind in kinds])
    larger = np.sqrt(count / np.maximum(count - 1, 1))
    return Counted(own, (1 + (resamples(kinds, seed) - 1) * larger)[:, places] * own)


def resamples(kinds: Sequence[Hashable], seed: int) -> Floats:
    """Return how often each bootstrap sample draws each question [DRAWS, questions], as many of each of *kinds* as there are."""
    generator, found = np.random.default_rng(seed), np.zeros((DRAWS, len(kinds)))
    for kind in dict.fromkeys(kinds):
        own = np.flatnonzero([other == kind for other in kinds])
        found[:, own] = generator.multinomial(len(own), np.full(len(own), 1 / len(own)), size=DRAWS)
    return found


def weighted(values: Floats, weights: Floats) -> Floats:
    """Return the mean of each column of *values* [n, columns] over its finite values, by *weights* [..., n]; nan without weight."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (weights @ np.where(there, values, 0.0)) / (weights @ there)
    return found


def mean_and_error(values: Floats, weights: Counted) -> tuple[Floats, Floats]:
    """Return the weighted mean of each column of *values* [n, columns] over its finite values, and its bootstrap standard error.

    The mean of no value and the error of fewer than two values are nan.
    """
    several = (np.isfinite(values) & (weights.own[:, None] > 0)).sum(0) > 1
    errors = np.full(values.shape[1], np.nan)
    if several.any():
        errors[several] = np.nanstd(weighted(values[:, several], weights.drawn), axis=0, ddof=1)
    return weighted(values, weights.own), errors


def coins(count: int, draws: int, seed: int) -> Floats:
    """Return signs [draws + 1, count] of questions: the first row leaves all labels as they are, the others exchange each by a coin."""
    thrown = np.random.default_rng(seed).integers(0, 2, (draws, count)) * 2.0 - 1
    return np.concatenate([np.ones((1, count)), thrown])
