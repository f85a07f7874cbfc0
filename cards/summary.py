"""Figures of a release, from its tables: what the card, the README and `dvc metrics` show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.stats import binom


def median_interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the exact distribution-free 95 % interval of the median (order statistics; Conover 1999, 3.2)."""
    ordered, n = np.sort(values), len(values)
    low = int(binom.ppf(0.025, n, 0.5))
    return float(ordered[max(low - 1, 0)]), float(ordered[min(n - low, n - 1)])


def spread(values: Iterable[float | None]) -> dict[str, Any]:
    """Return n, median, its interval and the quartiles of the values that are there."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(known):
        return {"n": 0, "median": math.nan, "low": math.nan, "high": math.nan, "q1": math.nan, "q3": math.nan}
    low, high = median_interval(known)
    q1, median, q3 = (float(q) for q in np.quantile(known, (0.25, 0.5, 0.75)))
    return {"n": len(known), "median": median, "low": low, "high": high, "q1": q1, "q3": q3}


KINDS = ("trained", "pretrained", "neurons", "random", "planted")  # of dictionaries, in the order they are told


def score_summary(scores: pa.Table, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one record per kind of dictionary, scorer, judge and explainer, then per dictionary (*kinds* by id).

    A record also has the median of the baseline: the same explainer's texts, permuted over latents.
    """
    frame = scores.to_pandas()
    frame["kind"] = pd.Categorical(frame["sae"].map(dict(kinds)), KINDS)
    records: list[dict[str, Any]] = []
    for columns in (["kind"], ["kind", "sae"]):
        names = ["scorer", "judge", *columns, "explainer"]
        medians = frame.groupby(names, observed=True)["score"].median()
        for values, group in frame[~frame["explainer"].str.endswith("-permuted")].groupby(names, observed=True, sort=True):
            baseline = medians.get((*values[:-1], f"{values[-1]}-permuted"))
            record = {"sae": "all", **dict(zip(names, values, strict=True)), "permuted": None if baseline is None else float(baseline)}
            record |= {"score": spread(group["score"].dropna()), "auroc": spread(group["auroc"].dropna())}
            record |= {"failed": int(group["n_failed"].sum()), "judged": int(group["n"].sum()), "chance": float(group["chance"].iloc[0])}
            records.append(record)
    return records


def status_summary(latents: pa.Table, explanations: pa.Table) -> list[dict[str, Any]]:
    """Return how many latents of each dictionary are alive, rare, dead and explained."""
    frame, explained = latents.to_pandas(), explanations.to_pandas()
    explained = explained[(explained["status"] == "ok") & ~explained["explainer"].str.endswith("-permuted")]
    counts = explained.groupby("sae")["latent"].nunique()
    return [
        {"sae": sae, "explained": int(counts.get(sae, 0)), **{s: int((group["status"] == s).sum()) for s in ("alive", "rare", "dead")}}
        for sae, group in frame.groupby("sae", sort=True)
    ]


def failure_summary(failures: pa.Table) -> list[dict[str, Any]]:
    """Return how many items each stage dropped, with one of the reasons."""
    if not failures.num_rows:
        return []
    frame = failures.to_pandas()
    return [{"stage": stage, "n": len(group), "example": group["reason"].iloc[0]} for stage, group in frame.groupby("stage", sort=True)]
