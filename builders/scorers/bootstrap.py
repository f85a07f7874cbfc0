"""Bootstrap intervals: whole rows, such as latents, are drawn with replacement (Efron & Tibshirani 1993)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from builders.arrays import Floats, Ints

RESAMPLES = 1000
TOGETHER = 2**20  # rows drawn at a time, which bounds memory: a thousand resamples of 131,072 latents take 1 GB
ENDS = (0.025, 0.975)  # of a 95 % interval


def resamples(n: int, seed: int) -> list[Ints]:
    """Return RESAMPLES resamples of *n* rows, as parts [resamples, n] of bounded size."""
    return list(_parts(n, seed))


def _parts(n: int, seed: int) -> Iterator[Ints]:
    rng, step = np.random.default_rng(seed), max(1, TOGETHER // n)
    for low in range(0, RESAMPLES, step):
        yield rng.integers(0, n, (min(step, RESAMPLES - low), n))  # the same draws, whatever the step


def bootstrapped(values: Floats, seed: int) -> Floats:
    """Return the mean of each column of *values* [n, k], with both ends of its 95 % interval [k, 3]; all are of the same resamples."""
    drawn = np.concatenate([values[part].mean(axis=1) for part in _parts(len(values), seed)])
    return np.stack([values.mean(axis=0), *np.quantile(drawn, ENDS, axis=0)], axis=1)
