"""What scores are made of, how judges were measured, and what choosing among several explanations brings, as the card shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from builders.explainers.explanations import PERMUTED
from builders.scorers import estimates
from builders.scorers.agreement import ALL
from builders.scorers.best import FIGURES
from cards.summary import KINDS

SHARES = ("prevalence", "recall", "breadth", "ppv", "score", "corrected_score")  # columns of ANATOMY whose median is told
WHOSE = ("scorer", "judge", "explainer", "kind")


def anatomy_summary(anatomy: pa.Table, latents: pa.Table, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one record per scorer with a breadth, judge, explainer (permuted ones too) and kind of dictionary (*kinds* by id).

    Each of SHARES is the spread over latents; latents of a sample are weighed by 1 / `inclusion`.
    """
    frame = anatomy.to_pandas().merge(latents.select(["sae", "latent", "inclusion"]).to_pandas(), on=["sae", "latent"], how="left")
    frame["kind"] = pd.Categorical(frame["sae"].map(dict(kinds)), KINDS)
    told = frame[frame["breadth"].notna()]
    counts = told.groupby(["judge", "scorer"], observed=True)["n_negative"].median()  # who judged most silent windows knows breadth best
    broadest = set(counts.groupby("judge", observed=True).idxmax()) if len(counts) else set()
    kept = told[np.array([pair in broadest for pair in zip(told["judge"], told["scorer"], strict=True)], dtype=bool)]
    return [
        {**dict(zip(WHOSE, key, strict=True)), **{name: _spread(group, name) for name in SHARES}}
        for key, group in kept.groupby(list(WHOSE), observed=True, sort=True)
    ]


def _spread(group: pd.DataFrame, name: str) -> dict[str, Any]:
    known = group.dropna(subset=name)
    return estimates.spread(known[name].to_numpy(dtype=np.float64), known["inclusion"].to_numpy(dtype=np.float64))


def judge_rows(judges: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of JUDGES, the oracle's first, of which `calibration` tells what is not asked for yes or no."""
    told = [row for row in judges.to_pylist() if row["judge"] != "oracle" or row["sensitivity"] is not None]
    return sorted(told, key=lambda row: (row["judge"] != "oracle", row["judge"], row["scorer"]))


def best_rows(best: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of `best_of` over all dictionaries of a kind, with each figure as its mean and interval."""
    rows = [row for row in best.to_pylist() if row["sae"] == ALL]
    return [
        {**row, **{name: {"mean": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]} for name in FIGURES}} for row in rows
    ]


def beside_permuted(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return *records* of real explanations, each followed by that of its permuted twin."""
    return sorted(records, key=lambda row: (row["explainer"].removesuffix(PERMUTED), KINDS.index(row["kind"]), row["explainer"]))
