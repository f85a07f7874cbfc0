"""How far scorers agree about the same latents: the `agreement` config.

Correlations between scorers are those of Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from builders.arrays import Floats, Ints
from builders.lake.table import Column, Table
from builders.seeds import seed_of

NONE = "none"  # the explainer of a scorer that needs no explanation
ALL = "all"  # the name for all dictionaries of a kind together
RESAMPLES = 1000
TOGETHER = 2**20  # scores resampled at a time, which bounds memory
LEAST = 10  # latents: with fewer, no correlation is computed


def _correlation(name: str, doc: str) -> Column:
    return Column(name, "float64", doc, nullable=True, low=-1, high=1)


AGREEMENT = Table(
    name="agreement",
    row="the correlation of two scorers' scores of the same latents",
    key=("kind", "sae", "explainer", "scorer_a", "scorer_b"),
    columns=(
        Column("kind", "string", "the kind of the dictionaries", categorical=True),
        Column("sae", "string", "the dictionary, or `all`: all dictionaries of that kind together", categorical=True),
        Column("explainer", "string", "whose explanations were scored; `none` where neither scorer needs an explanation", categorical=True),
        Column("scorer_a", "string", "one scorer", categorical=True),
        Column("scorer_b", "string", "the other", categorical=True),
        Column("n", "int32", "latents that have a score from both scorers", unit="latents", low=0),
        _correlation("pearson", f"Pearson correlation; null below {LEAST} latents or where one scorer's scores are all equal"),
        _correlation("pearson_low", f"lower end of its 95 % interval, from {RESAMPLES} bootstrap resamples of the latents"),
        _correlation("pearson_high", "upper end of that interval"),
        _correlation("spearman", "Spearman rank correlation"),
        _correlation("spearman_low", "lower end of its 95 % interval"),
        _correlation("spearman_high", "upper end of that interval"),
    ),
)


def agreement_records(scores: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Return the AGREEMENT records of *scores*: SCORES rows that have a score, with the kind of the dictionary in column `kind`.

    A scorer that needs no explanation is compared with the other scorers once for every explainer.
    """
    records = []
    for (kind, sae), group in _groups(scores):
        for explainer, wide, direct in _by_explainer(group):
            for a, b in combinations(sorted(wide.columns), 2):
                if {a, b} <= direct:
                    continue  # neither needs an explanation: the pair is compared once, without an explainer
                pair = wide[[a, b]].dropna().to_numpy()
                if len(pair):
                    own = {"kind": kind, "sae": sae, "explainer": explainer, "scorer_a": a, "scorer_b": b}
                    records.append(own | correlations(pair, seed_of(seed, "agreement", *own.values())))
    return records


def _groups(scores: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    for kind, whole in scores.groupby("kind", sort=True):
        yield (str(kind), ALL), whole
        for sae, group in whole.groupby("sae", sort=True):
            yield (str(kind), str(sae)), group


def _by_explainer(scores: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, set[str]]]:
    """Yield each explainer, its scores (a row per latent, a column per scorer), and which scorers need no explanation."""
    wide = scores.pivot_table(index=["explainer", "sae", "latent"], columns="scorer", values="score")
    tables = {
        str(explainer): group.droplevel("explainer").dropna(axis=1, how="all") for explainer, group in wide.groupby(level="explainer")
    }
    direct = tables.get(NONE)
    for explainer, own in tables.items():
        if direct is None or explainer == NONE:
            yield explainer, own, set()
        else:
            yield explainer, own.join(direct, how="left"), set(direct.columns)


def correlations(pair: Floats, seed: int) -> dict[str, Any]:
    """Return n and the Pearson and Spearman correlations of two columns [n, 2], with percentile bootstrap intervals (95 %)."""
    n = len(pair)
    draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    found: dict[str, Any] = {"n": n}
    whole = {"pearson": pair[None], "spearman": ranked(pair, np.arange(n)[None])}
    resample: dict[str, Callable[[Ints], Floats]] = {"pearson": pair.__getitem__, "spearman": partial(ranked, pair)}
    for name, resampled in resample.items():
        r = _pearson(whole[name])[0] if n >= LEAST else np.nan
        names = (name, f"{name}_low", f"{name}_high")
        if np.isnan(r):
            found |= dict.fromkeys(names)
            continue
        drawn = np.concatenate([_pearson(resampled(part)) for part in np.array_split(draws, -(-draws.size // TOGETHER))])
        low, high = np.nanquantile(drawn, (0.025, 0.975))
        found |= dict(zip(names, (float(r), float(low), float(high)), strict=True))
    return found


def ranked(pair: Floats, draws: Ints) -> Floats:
    """Return the ranks [m, n, 2] of two columns [n, 2] within each of *m* resamples; equal values share the mean of their ranks.

    *draws* [m, n] are the rows of each resample. The columns are sorted only once: ranks follow from how often each value is drawn.
    """
    ranks = np.empty((*draws.shape, 2))
    line = np.arange(len(draws))[:, None]
    for side in (0, 1):
        distinct, place = np.unique(pair[:, side], return_inverse=True)
        size, code = len(distinct), place[draws]
        count = np.bincount((line * size + code).reshape(-1), minlength=len(draws) * size).reshape(-1, size)
        middle = np.cumsum(count, axis=1) - (count - 1) / 2
        ranks[..., side] = middle[line, code]
    return ranks


def _pearson(values: Floats) -> Floats:
    """Return the Pearson correlation [m] of the two columns of each of *values* [m, n, 2]; NaN where a column is constant."""
    centred = values - values.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (centred[..., 0] * centred[..., 1]).sum(axis=1) / np.sqrt((centred**2).sum(axis=1).prod(axis=1))
    found: Floats = np.clip(r, -1, 1)
    return found
