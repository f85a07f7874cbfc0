"""Estimates for whole dictionaries from samples of their latents, each latent weighted by the inverse of its inclusion probability.

Source: Hájek 1971; Särndal, Swensson & Wretman 1992, section 5.7; see docs/science.md#statistics.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import binom

from builders.arrays import Floats

LEAST = 6  # values: fewer have no 95 % interval of their median
NOTHING = dict.fromkeys(("mean", "mean_se", "median", "low", "high", "q1", "q3"))


def spread(values: Floats, inclusion: Floats) -> dict[str, Any]:
    """Return n, mean with standard error, median with its 95 % interval (*low*, *high*) and quartiles of *values* [n].

    *inclusion* [n] is the probability at which each value came into the sample. What cannot be told is None.
    """
    if not len(values):
        return {"n": 0, **NOTHING}
    mean, error = weighted_mean(values, 1 / inclusion)
    low, high = median_interval(values, inclusion)
    q1, median, q3 = quantiles(values, inclusion, (0.25, 0.5, 0.75))
    return {"n": len(values), "mean": mean, "mean_se": error, "median": median, "low": low, "high": high, "q1": q1, "q3": q3}


def weighted_mean(values: Floats, weights: Floats) -> tuple[float, float | None]:
    """Return the mean of *values* [n] by their *weights* [n], and its standard error, None for a single value.

    With weights 1 / inclusion it is Hájek's estimate of a whole's mean. The error is that of a ratio of sums with values as the independent
    units (Cochran 1977, 6.4); it does not use the strata, so it is rather too large than too small. With equal weights both are as usual.
    """
    n, whole = len(values), weights.sum()
    mean = float((weights * values).sum() / whole)
    error = math.sqrt(n / (n - 1) * ((weights * (values - mean)) ** 2).sum()) / whole if n > 1 else None
    return mean, None if error is None else float(error)


def quantiles(values: Floats, inclusion: Floats, shares: tuple[float, ...]) -> list[float]:
    """Return the quantiles of the whole at *shares*, straight lines between the values; with equal weights they are numpy's."""
    if (inclusion == inclusion[0]).all():
        return [float(found) for found in np.quantile(values, shares)]
    order = np.argsort(values, kind="stable")
    weights = 1 / inclusion[order]
    middles = np.cumsum(weights) - weights / 2
    places = (middles - middles[0]) / (middles[-1] - middles[0])
    return [float(found) for found in np.interp(shares, places, values[order])]


def median_interval(values: Floats, inclusion: Floats) -> tuple[float, float] | tuple[None, None]:
    """Return the 95 % interval of the median from order statistics; none where there are fewer than LEAST values.

    With equal weights it is exact (Conover 1999, section 3.2). Otherwise n is the effective number of values (Kish 1965),
    (Σw)² / Σw², and ranks are shares of the summed weight.
    """
    weights = 1 / inclusion
    n = int(weights.sum() ** 2 / (weights**2).sum() + 1e-9)
    if n < LEAST:
        return None, None
    share = float(binom.ppf(0.025, n, 0.5)) / n
    order = np.argsort(values, kind="stable")
    low, high = (_at_share(values[way], weights[way], share) for way in (order, order[::-1]))
    return low, high


def _at_share(values: Floats, weights: Floats, share: float) -> float:
    """Return the first of *values* at which the summed *weights* reach *share* of all."""
    summed = np.cumsum(weights)
    return float(values[int(np.argmax(summed >= (share - 1e-9) * summed[-1]))])
