"""Whether latents come back when an SAE is trained again with another seed, and whether that predicts their scores.

These are the configs `stability` and `stability_scores`; see docs/science.md#stability.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from builders.arrays import Floats
from builders.lake.references import OF_LATENT, OF_SAE
from builders.lake.table import Column, Table
from builders.scorers.agreement import LEAST
from builders.scorers.bootstrap import ENDS, RESAMPLES, resamples
from builders.scorers.statistics import average_ranks
from builders.seeds import seed_of

ROUNDING = 1e-9  # a share of the variance below this is none
STABILITY = Table(
    name="stability",
    row="a latent, and how well it came back in SAEs that differ from its own by the seed of their training only",
    key=("sae", "latent", "measure"),
    columns=(
        Column("sae", "string", "the SAE", categorical=True),
        Column("latent", "int32", "the latent; one that never fires is left out", low=0),
        Column("measure", "string", "as in `matches`", categorical=True),
        Column("sisters", "int32", "SAEs that differ by the seed only", unit="SAEs", low=1),
        Column(
            "found",
            "float32",
            "share of them where it has a mutual partner of at least `similarity.threshold`",
            low=0,
            high=1,
        ),
        Column("value", "float32", "mean value of its nearest latents in them", low=-1, high=1),
    ),
    references=(OF_LATENT,),
)
STABILITY_SCORES = Table(
    name="stability_scores",
    row="how far the stability of latents goes with their scores, by one scorer",
    key=("sae", "measure", "scorer", "explainer"),
    columns=(
        Column("sae", "string", "the SAE", categorical=True),
        Column("measure", "string", "by which latents are stable: `value` of `stability`", categorical=True),
        Column("scorer", "string", "the scorer", categorical=True),
        Column("explainer", "string", "whose explanations it scored; `none` where it needs none", categorical=True),
        Column("n", "int32", "latents that have both", unit="latents", low=0),
        *(
            Column(f"{name}{end}", "float64", f"{words}{which}", nullable=True, low=-1, high=1)
            for name, words in (
                ("spearman", "rank correlation of stability and score"),
                ("partial", "the same among latents that fire equally often (partial rank correlation, given `count` of `latents`)"),
            )
            for end, which in (
                ("", f"; null below {LEAST} latents"),
                ("_low", f": lower end of its 95 % interval, from {RESAMPLES} bootstrap resamples of the latents"),
                ("_high", ": upper end of that interval"),
            )
        ),
    ),
    references=(OF_SAE,),
)


def stability_rows(sae: str, matches: pa.Table, sisters: Collection[str], threshold: float) -> pa.Table:
    """Return the STABILITY rows of *sae* from its MATCHES rows in its *sisters*; without sisters there are none."""
    frame = matches.to_pandas()
    frame = frame[frame["other"].isin(list(sisters))]
    frame["found"] = frame["mutual"] & (frame["value"] >= threshold)
    found = frame.groupby(["latent", "measure"], observed=True, as_index=False).agg(
        sisters=("other", "size"), found=("found", "mean"), value=("value", "mean")
    )
    columns = {name: found[name].to_numpy() for name in ("latent", "measure", "sisters", "found", "value")}
    return STABILITY.sort(STABILITY.build({"sae": pa.array([sae] * len(found), pa.string()), **columns}))


def stability_score_records(stability: pd.DataFrame, scores: pd.DataFrame, counts: pd.DataFrame, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the STABILITY_SCORES records of STABILITY rows and SCORES rows; *counts* holds `count` by `sae` and `latent`."""
    joined = stability.merge(scores, on=["sae", "latent"]).merge(counts, on=["sae", "latent"])
    names = ("sae", "measure", "scorer", "explainer")
    for key, group in joined.groupby(list(names), sort=True, observed=True):
        own: dict[str, Any] = dict(zip(names, key, strict=True))
        columns = group[["value", "score", "count"]].to_numpy(np.float64)
        yield {**own, "n": len(group), **correlations(columns, seed_of(seed, "stability", *own.values()))}


def correlations(columns: Floats, seed: int) -> dict[str, float | None]:
    """Return the rank correlation of the first two *columns* [n, 3], and their partial one given the third, with bootstrap intervals.

    Values are ranked once; resamples draw rows of ranks. What cannot be told is None: both below LEAST rows or where one of the first two
    never varies, and the partial one where the third ranks rows as one of them does, or never varies.
    """
    found: dict[str, float | None] = {f"{name}{end}": None for name in ("spearman", "partial") for end in ("", "_low", "_high")}
    if len(columns) < LEAST:
        return found
    ranked = np.stack([average_ranks(column) for column in columns.T], axis=1)
    drawn = np.concatenate([_both(ranked[part]) for part in resamples(len(columns), seed)])
    for name, whole, each in zip(("spearman", "partial"), _both(ranked[None])[0].tolist(), drawn.T, strict=True):
        if not np.isnan(whole):
            low, high = np.nanquantile(each, ENDS).tolist()
            found |= {name: whole, f"{name}_low": low, f"{name}_high": high}
    return found


def _both(ranked: Floats) -> Floats:
    """Return the correlation of the first two columns of each of *ranked* [m, n, 3], and the partial one given the third [m, 2].

    NaN where there is none.
    """
    centred = ranked - ranked.mean(axis=1, keepdims=True)
    products = np.einsum("mni,mnj->mij", centred, centred)
    scale = np.sqrt(np.einsum("mii->mi", products))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = products / (scale[:, :, None] * scale[:, None, :])
        xy, xz, yz = r[:, 0, 1], r[:, 0, 2], r[:, 1, 2]
        left = np.stack([1 - xz**2, 1 - yz**2])  # of the variance, beside the third
        partial = (xy - xz * yz) / np.sqrt(np.where(left > ROUNDING, left, np.nan).prod(axis=0))  # Kendall & Stuart 1961, 27.5
    return np.clip(np.stack([xy, partial], axis=1), -1, 1)
