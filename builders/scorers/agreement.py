"""How far two scores of the same latents agree, and how much one is above the other: the `agreement` config.

Correlations between scorers are those of Paulo et al. 2024 (arXiv 2410.13928). Differences are paired: explanations with the same ones
permuted, explainers with one another, samples of one explainer, and scorers that differ in their negatives. See docs/science.md#agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from builders.arrays import Floats, Ints
from builders.explainers.explanations import PERMUTED, named, sample_of
from builders.lake.references import OF_SAE
from builders.lake.table import Column, Table
from builders.scorers.bootstrap import ENDS, RESAMPLES, resamples
from builders.seeds import seed_of

NONE = "none"  # the explainer of a scorer that needs no explanation
ALL = "all"  # the name for all dictionaries of a kind together
LEAST = 10  # latents: with fewer, nothing but their number is computed
DIFFERENCE = ("difference", "difference_low", "difference_high")


def _correlation(name: str, doc: str) -> Column:
    return Column(name, "float64", doc, nullable=True, low=-1, high=1)


AGREEMENT = Table(
    name="agreement",
    row="a pair of scores of the same latents: how far they agree, and by how much they differ",
    key=("kind", "sae", "scorer_a", "explainer_a", "scorer_b", "explainer_b"),
    columns=(
        Column("kind", "string", "the kind of the dictionaries", categorical=True),
        Column("sae", "string", "the dictionary, or `all`: all dictionaries of that kind together", categorical=True),
        Column("scorer_a", "string", "the scorer of the one score", categorical=True),
        Column("explainer_a", "string", "whose explanations it scored; `none` where it needs none", categorical=True),
        Column("scorer_b", "string", "the scorer of the other score", categorical=True),
        Column("explainer_b", "string", "whose explanations it scored; `none` where it needs none", categorical=True),
        Column(
            "differ",
            "string",
            "what a and b differ in: `scorer`, `negatives` (of scorers that are alike in all else), `explainer`, `sample` (b is a further "
            "answer of a's explainer), or `permuted` (b gives each latent another latent's explanation)",
            categorical=True,
        ),
        Column("n", "int32", "latents that have both scores", unit="latents", low=0),
        _correlation("pearson", f"Pearson correlation; null below {LEAST} latents or where one side's scores are all equal"),
        _correlation("pearson_low", f"lower end of its 95 % interval, from {RESAMPLES} bootstrap resamples of the latents"),
        _correlation("pearson_high", "upper end of that interval"),
        _correlation("spearman", "Spearman rank correlation"),
        _correlation("spearman_low", "lower end of its 95 % interval"),
        _correlation("spearman_high", "upper end of that interval"),
        Column("unit", "string", "of both scores; null where units or chance levels differ", nullable=True, categorical=True),
        Column("difference", "float64", f"mean of a − b, in that unit; null without a unit or below {LEAST} latents", nullable=True),
        Column("difference_low", "float64", "lower end of its 95 % interval: whole latents are resampled, so it is paired", nullable=True),
        Column("difference_high", "float64", "upper end of that interval", nullable=True),
    ),
    references=(OF_SAE,),
)
Way = tuple[str, str]  # a scorer, and the explainer whose explanations it scored


@dataclass(frozen=True)
class Facts:
    """What is known of a scorer beside its scores: *family* says all that decides them, but for the latents drawn and *negatives*.

    *negatives* says which they are and how they are marked.
    """

    unit: str
    chance: float
    negatives: str
    family: str


def agreement_records(scores: pd.DataFrame, facts: Mapping[str, Facts], seed: int) -> list[dict[str, Any]]:
    """Return the AGREEMENT records of *scores*: SCORES rows that have a score, with the kind of the dictionary in column `kind`.

    *facts* are by scorer.
    """
    records = []
    for kind, sae, wide in _tables(scores):
        ways: list[Any] = sorted(wide.columns.to_list())
        for a, b in combinations(ways, 2):
            differ = compared(a, b, facts)
            pair = wide[[a, b]].dropna().to_numpy() if differ else np.zeros((0, 2))
            if len(pair):
                own = {"kind": kind, "sae": sae, "scorer_a": a[0], "explainer_a": a[1], "scorer_b": b[0], "explainer_b": b[1]}
                found = own | {"differ": differ} | comparison(pair, seed_of(seed, "agreement", *own.values()))
                records.append(found | _measured(facts[a[0]], facts[b[0]]))
    return records


def _measured(a: Facts, b: Facts) -> dict[str, Any]:
    """Return the unit of the scores of two scorers; where they cannot be subtracted, no unit and no difference."""
    alike = (a.unit, a.chance) == (b.unit, b.chance)
    return {"unit": a.unit} if alike else dict.fromkeys(("unit", *DIFFERENCE))


def _tables(scores: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the scores of each kind, then of each dictionary of that kind: a row per latent, a column per Way."""
    for kind, whole in scores.groupby("kind", sort=True):
        wide = whole.pivot(index=["sae", "latent"], columns=["scorer", "explainer"], values="score")
        yield str(kind), ALL, wide
        for sae, group in wide.groupby(level="sae", sort=True):
            yield str(kind), str(sae), group


def compared(a: Way, b: Way, facts: Mapping[str, Facts]) -> str | None:
    """Return what two ways, which are in order, differ in; None where they are not compared.

    Permuted explanations are compared with the same ones by the same scorer only, and explainers by the same scorer only. A further sample
    is compared with its explainer's first one only.
    """
    (scorer_a, explainer_a), (scorer_b, explainer_b) = a, b
    if scorer_a == scorer_b and explainer_b == explainer_a + PERMUTED:
        return "permuted"
    if explainer_a.endswith(PERMUTED) or explainer_b.endswith(PERMUTED):
        return None
    if sample_of(explainer_a) or sample_of(explainer_b):
        alike = scorer_a == scorer_b and explainer_b == named(explainer_a, sample_of(explainer_b))
        return "sample" if alike else None
    if scorer_a == scorer_b:
        return "explainer"
    if explainer_a != explainer_b and NONE not in (explainer_a, explainer_b):
        return None
    one, other = facts[scorer_a], facts[scorer_b]
    return "negatives" if one.family == other.family and one.negatives != other.negatives else "scorer"


def comparison(pair: Floats, seed: int) -> dict[str, Any]:
    """Return n, the Pearson and Spearman correlations of two columns [n, 2] and their mean difference, with bootstrap intervals.

    The intervals are of percentiles (95 %), and all three are of the same resamples of the rows.
    """
    n = len(pair)
    draws = resamples(n, seed)
    gain = pair[:, 0] - pair[:, 1]
    measures: dict[str, Callable[[Ints], Floats]] = {  # of resamples [m, n], each [m]
        "pearson": lambda rows: _pearson(pair[rows]),
        "spearman": lambda rows: _pearson(ranked(pair, rows)),
        "difference": lambda rows: gain[rows].mean(axis=1),
    }
    found: dict[str, Any] = {"n": n}
    for name, measure in measures.items():
        whole = measure(np.arange(n)[None])[0] if n >= LEAST else np.nan
        names = (name, f"{name}_low", f"{name}_high")
        if np.isnan(whole):
            found |= dict.fromkeys(names)
            continue
        low, high = np.nanquantile(np.concatenate([measure(part) for part in draws]), ENDS)
        found |= dict(zip(names, (float(whole), float(low), float(high)), strict=True))
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
