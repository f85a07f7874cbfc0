"""Steering vectors that mean nothing: what the same procedure finds where there is nothing to be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builders.seeds import seed_of
from builders.steering.ranges import PERMUTED, RANDOM
from builders.steering.vectors import METHODS, Contrast, Directions, random_like
from builders.steering.ways import DIFFERENCE, Push

Nulls = dict[tuple[str, str], dict[str, Directions]]  # by kind of null and method: directions by name


def null_vectors(found: Contrast, real: Mapping[str, Directions], random: int, seed: int) -> Nulls:
    """Return null vectors for each method of *real*: by the permuted labels of *found*, and *random* random ones.

    Methods of which only the direction differs share their random vectors, for these are as long.
    """
    nulls: Nulls = {}
    draws = [draw for draw, weights in enumerate(found.labels.weights) if draw and weights.any()]  # the others cannot balance letters
    for method in real:
        nulls[PERMUTED, method] = {f"{method} {PERMUTED} {draw}": METHODS[method](found, draw) for draw in draws}
    like = real.get(DIFFERENCE, next(iter(real.values())))
    shared = {f"{RANDOM} {draw}": random_like(like, seed_of(seed, RANDOM, draw)) for draw in range(random)}
    return nulls | {(RANDOM, method): shared for method in real}


def null_pushes(vectors: Sequence[str], method: str, pushes: Sequence[Push], sites: Sequence[str]) -> list[Push]:
    """Return the pushes of *method* at *sites* with the largest multipliers of either sign, once for each of the null *vectors*."""
    own = [push for push in pushes if push.method == method and push.site in sites]
    sides = ([push.multiplier for push in own if push.multiplier * sign > 0] for sign in (1, -1))
    ends = {max(side, key=abs) for side in sides if side}
    kept = [push for push in own if push.multiplier in ends]
    return [Push(name, push.site, push.layer, push.multiplier, push.phase) for name in vectors for push in kept]
