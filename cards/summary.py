"""Figures of a release, computed from its tables, for the card, the README and `dvc metrics`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.stats import binom

from builders.explainers.explanations import PERMUTED
from builders.scorers.statistics import area


def median_interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the exact 95 % interval of the median, from order statistics (Conover 1999, section 3.2)."""
    ordered, n = np.sort(values), len(values)
    low = int(binom.ppf(0.025, n, 0.5))
    return float(ordered[max(low - 1, 0)]), float(ordered[min(n - low, n - 1)])


def spread(values: Iterable[float | None]) -> dict[str, Any]:
    """Return n, the median, its 95 % interval (*low*, *high*) and the quartiles of the values that are not None."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(known):
        return {"n": 0, **dict.fromkeys(("median", "low", "high", "q1", "q3"))}
    low, high = median_interval(known)
    q1, median, q3 = (float(q) for q in np.quantile(known, (0.25, 0.5, 0.75)))
    return {"n": len(known), "median": median, "low": low, "high": high, "q1": q1, "q3": q3}


KINDS = ("trained", "pretrained", "neurons", "random", "planted")  # of dictionaries, in the order in which tables show them


def score_summary(scores: pa.Table, latents: pa.Table, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one record per scorer, judge, explainer and kind of dictionary, then per dictionary (*kinds* by id).

    A record also has *permuted*, the median score of the same explainer's explanations permuted over latents, and *weighted*, the
    mean score weighted by how often each latent fires (`count` of LATENTS). The code of Paulo et al. (github.com/EleutherAI/delphi)
    weights its scores likewise.
    """
    firings = latents.select(["sae", "latent", "count"]).to_pandas()
    frame = scores.to_pandas().merge(firings, on=["sae", "latent"], how="left")
    frame["kind"] = pd.Categorical(frame["sae"].map(dict(kinds)), KINDS)
    permuted = frame["explainer"].str.endswith(PERMUTED)
    records: list[dict[str, Any]] = []
    for columns in (["kind"], ["kind", "sae"]):
        names = ["scorer", "negatives", "judge", "unit", "explainer", *columns]
        baselines = frame[permuted].assign(explainer=frame["explainer"].str.removesuffix(PERMUTED))
        medians = baselines.groupby(names, observed=True)["score"].median()
        for values, group in frame[~permuted].groupby(names, observed=True, sort=True):
            baseline = medians.get(values, math.nan)
            records.append({"sae": "all", **dict(zip(names, values, strict=True)), "permuted": none_if_nan(baseline), **_figures(group)})
    return records


def _figures(group: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of one group of SCORES rows, joined with the latents' *count*."""
    known = group.dropna(subset="score")
    weighted = float(np.average(known["score"], weights=known["count"])) if len(known) else math.nan
    return {
        "score": spread(known["score"]),
        "auroc": spread(group["auroc"].dropna()),
        "weighted": none_if_nan(weighted),
        "failed": int(group["n_failed"].sum()),
        "judged": int(group["n"].sum()),
        "without": int(group["score"].isna().sum()),
        "chance": float(group["chance"].iloc[0]),
    }


def none_if_nan(value: float) -> float | None:
    """Return *value*, or None where it is NaN."""
    return None if math.isnan(value) else float(value)


def by_scorer(summary: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one record per scorer and explainer; its *kinds* holds the record of each kind of dictionary."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in summary:
        if row["sae"] == "all":
            key = (row["scorer"], row["judge"], row["explainer"])
            own = found.setdefault(key, {name: row[name] for name in ("scorer", "negatives", "judge", "explainer", "unit", "chance")})
            own.setdefault("kinds", {})[row["kind"]] = row
    return list(found.values())


CHARACTERS = 4  # per token, roughly
LENGTHS = {"prompt": "prompt_characters", "cached": "prefix_characters", "output": "answer_characters"}


def calibration_summary(calibration: pa.Table) -> list[dict[str, Any]]:
    """Return one record per scorer: mean score and standard error over rules for each meaning, and AUROC of true against other.

    *prompt*, *cached* (the beginning that prompts share) and *output* are tokens per explanation, estimated from characters.
    """
    records = []
    for (scorer, unit), group in calibration.to_pandas().groupby(["scorer", "unit"], observed=True, sort=True):
        record: dict[str, Any] = {"scorer": scorer, "unit": unit, "chance": float(group["chance"].iloc[0])}
        for meaning, rows in group.groupby("meaning", observed=True):
            known = rows["score"].dropna().to_numpy()
            error = float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan
            record[str(meaning)] = {"mean": float(known.mean()) if len(known) else None, "se": none_if_nan(error), "n": len(known)}
        record |= {name: float(group[column].mean()) / CHARACTERS for name, column in LENGTHS.items()}
        record["examples"] = int((group["n"] + group["n_failed"]).median())
        pair = group[group["meaning"].isin(["true", "other"])].dropna(subset="score")
        record["auroc"] = area((pair["meaning"] == "true").to_numpy(), pair["score"].to_numpy()).get("score")
        records.append(record)
    return records


def status_summary(latents: pa.Table, explanations: pa.Table) -> list[dict[str, Any]]:
    """Return one record per dictionary: how many latents are alive, rare, dead, and explained."""
    frame, explained = latents.to_pandas(), explanations.to_pandas()
    explained = explained[(explained["status"] == "ok") & ~explained["explainer"].str.endswith(PERMUTED)]
    counts = explained.groupby("sae")["latent"].nunique()
    return [
        {"sae": sae, "explained": int(counts.get(sae, 0)), **{s: int((group["status"] == s).sum()) for s in ("alive", "rare", "dead")}}
        for sae, group in frame.groupby("sae", sort=True)
    ]


def failure_summary(failures: pa.Table) -> list[dict[str, Any]]:
    """Return one record per stage: how many items it dropped, and the first reason as an example."""
    if not failures.num_rows:
        return []
    frame = failures.to_pandas()
    return [{"stage": stage, "n": len(group), "example": group["reason"].iloc[0]} for stage, group in frame.groupby("stage", sort=True)]
