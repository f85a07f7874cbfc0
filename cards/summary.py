"""Figures of a release, computed from its tables, for the card, the README and `dvc metrics`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from builders.arrays import Floats
from builders.explainers.explanations import PERMUTED
from builders.scorers import estimates
from builders.scorers.agreement import ALL
from builders.scorers.statistics import area
from builders.seeds import seed_of

NAMES = ("scorer", "negatives", "judge", "unit", "explainer")  # whose scores a record is about
KINDS = ("trained", "pretrained", "neurons", "random", "planted")  # of dictionaries, in the order in which tables show them
DIFFERENCES = ("permuted", "explainer", "negatives")  # what two scores of AGREEMENT differ in, in the order in which tables show it
MEAN = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
RESAMPLES = 1000
BASELINE = {"score": "permuted", "over_null": "permuted_over_null"}  # what these columns of SCORES are called for permuted explanations
SPREADS = ("score", "permuted", "auroc", "over_null", "permuted_over_null")  # columns whose spread over latents is told
BOUNDS = ("score_low", "score_high")  # columns whose median is told


def score_summary(scores: pa.Table, latents: pa.Table, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one record per scorer, judge, explainer and kind of dictionary, then per dictionary (*kinds* by id).

    In a record, *permuted* is the spread of scores of the same explainer's explanations permuted over latents, over the latents that have
    both scores, and so is *permuted_over_null*. *weighted* is the mean score weighted by how often each latent fires (`count` of LATENTS),
    with its standard error. The code of Paulo et al. (github.com/EleutherAI/delphi) weights its scores likewise. Where latents are a
    sample, each stands for 1 / `inclusion` of its dictionary's in all of these.
    """
    frame = _with_latents(scores, latents, kinds)
    whose, permuted = [*NAMES, "sae", "latent"], frame["explainer"].str.endswith(PERMUTED)
    baseline = frame[permuted].assign(explainer=frame["explainer"].str.removesuffix(PERMUTED)).rename(columns=BASELINE)
    paired = frame[~permuted].merge(baseline[[*whose, *BASELINE.values()]], on=whose, how="left")
    return [
        {"sae": "all", **dict(zip(names, values, strict=True)), **_figures(group)}
        for names in ((*NAMES, "kind"), (*NAMES, "kind", "sae"))
        for values, group in paired.groupby(list(names), observed=True, sort=True)
    ]


def _with_latents(scores: pa.Table, latents: pa.Table, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return SCORES rows with the `count` and `inclusion` of their latents, and the *kind* of their dictionary."""
    known = latents.select(["sae", "latent", "count", "inclusion"]).to_pandas()
    frame: pd.DataFrame = scores.to_pandas().merge(known, on=["sae", "latent"], how="left")
    frame["kind"] = pd.Categorical(frame["sae"].map(dict(kinds)), KINDS)
    return frame


def _figures(group: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of one group of SCORES rows, joined with their latents and with the scores of permuted explanations."""
    known = group.dropna(subset="score")
    weights = (known["count"] / known["inclusion"]).to_numpy()
    mean, error = estimates.weighted_mean(known["score"].to_numpy(), weights) if len(known) else (None, None)
    measured = group.dropna(subset="auroc")
    return {
        **{name: _spread(known, name) for name in SPREADS},
        **{name: _spread(known, name)["median"] for name in BOUNDS},
        "auroc_missing": int((measured["n"] - measured["auroc_n"]).sum()),
        "weighted": mean,
        "weighted_se": error,
        "failed": int(group["n_failed"].sum()),
        "judged": int(group["n"].sum()),
        "without": int(group["score"].isna().sum()),
        "chance": float(group["chance"].iloc[0]),
    }


def _spread(rows: pd.DataFrame, name: str) -> dict[str, Any]:
    """Return the spread of column *name* over the *rows* that have it, each with the weight of its latent."""
    known = rows.dropna(subset=name)
    return estimates.spread(known[name].to_numpy(np.float64), known["inclusion"].to_numpy())


def difference_summary(agreement: pa.Table) -> list[dict[str, Any]]:
    """Return one record per two scores of the same latents that differ in explanations or in negatives, from AGREEMENT rows.

    Its *kinds* holds, for each kind of dictionary, *n* latents and the *mean* difference a − b with its interval (*low*, *high*).
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    ways = ("differ", "scorer_a", "explainer_a", "scorer_b", "explainer_b")
    for row in agreement.to_pylist():
        if row["sae"] == ALL and row["differ"] in DIFFERENCES:
            own = found.setdefault(tuple(row[name] for name in ways), {name: row[name] for name in (*ways, "unit")} | {"kinds": {}})
            own["kinds"][row["kind"]] = {"n": row["n"], **{name: row[column] for name, column in MEAN.items()}}
    return [found[key] for key in sorted(found, key=lambda key: (DIFFERENCES.index(key[0]), *key[1:]))]


def margin_summary(scores: pa.Table, latents: pa.Table, kinds: Mapping[str, str], seed: int) -> list[dict[str, Any]]:
    """Return one record per scorer and explainer: the untrained dictionaries' margin over chance as a *share* of the trained ones'.

    A margin is the median score minus chance, of a sample of latents the weighted median. Both are over latents of their own, so both are
    resampled, each apart, for the 95 % interval of the share (*low*, *high*). There is no record where the trained margin is not above zero
    in every resample.
    """
    frame = _with_latents(scores, latents, kinds).dropna(subset="score")
    records = []
    for values, group in frame[~frame["explainer"].str.endswith(PERMUTED)].groupby([*NAMES, "chance"], observed=True, sort=True):
        rng = np.random.default_rng(seed_of(seed, "margins", *map(str, values)))
        some = [group.loc[group["kind"] == kind, ["score", "inclusion"]].to_numpy() - (values[-1], 0) for kind in ("random", "trained")]
        random, trained = (_medians_of_resamples(margins, rng) for margins in some)
        if min(map(len, some)) >= estimates.LEAST and trained.min() > 0:
            low, high = (float(end) for end in np.quantile(random / trained, (0.025, 0.975)))
            share = _median(some[0]) / _median(some[1])
            records.append({**dict(zip(NAMES, values, strict=False)), "share": share, "low": low, "high": high})
    return records


def _median(some: Floats) -> float:
    """Return the median of values with their inclusion probabilities, [n, 2]."""
    (found,) = estimates.quantiles(some[:, 0], some[:, 1], (0.5,))
    return found


def _medians_of_resamples(some: Floats, rng: np.random.Generator) -> Floats:
    """Return the medians of RESAMPLES bootstrap resamples of *some* values with their probabilities [n, 2]; none where there are none."""
    draws = (some[rng.integers(0, len(some), len(some))] for _ in range(RESAMPLES if len(some) else 0))
    return np.array([_median(drawn) for drawn in draws])


def none_if_nan(value: float) -> float | None:
    """Return *value*, or None where it is NaN."""
    return None if math.isnan(value) else float(value)


def by_scorer(summary: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one record per scorer and explainer; its *kinds* holds the record of each kind of dictionary."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in summary:
        if row["sae"] == "all":
            key = (row["scorer"], row["judge"], row["explainer"])
            own = found.setdefault(key, {name: row[name] for name in (*NAMES, "chance")})
            own.setdefault("kinds", {})[row["kind"]] = row
    return list(found.values())


CHARACTERS = 4  # per token, roughly
LENGTHS = {"prompt": "prompt_characters", "cached": "prefix_characters", "output": "answer_characters"}


def calibration_summary(calibration: pa.Table) -> list[dict[str, Any]]:
    """Return one record per scorer that the oracle answered: mean score, standard error and n over rules for each meaning.

    It also has the AUROC of true against other.

    *prompt*, *cached* (the beginning that prompts share) and *output* are tokens per explanation, estimated from characters.
    """
    records = []
    frame = calibration.to_pandas()
    for (scorer, unit), group in frame[frame["judge"] == "oracle"].groupby(["scorer", "unit"], observed=True, sort=True):
        record: dict[str, Any] = {"scorer": scorer, "unit": unit, "chance": float(group["chance"].iloc[0])}
        for meaning, rows in group.groupby("meaning", observed=True):
            known = rows["score"].dropna().to_numpy()
            error = float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan
            record[str(meaning)] = {"mean": float(known.mean()) if len(known) else None, "se": none_if_nan(error), "n": len(known)}
        record |= {name: float(group[column].mean()) / CHARACTERS for name, column in LENGTHS.items()}
        record["examples"] = int((group["n"] + group["n_failed"]).median())
        pair = group[group["meaning"].isin(["true", "other"])].dropna(subset="score")
        told = area((pair["meaning"] == "true").to_numpy(), pair["score"].to_numpy())
        record |= {"auroc": told.get("score"), "auroc_se": told.get("score_se")}
        records.append(record)
    return records


def status_summary(latents: pa.Table, explanations: pa.Table) -> list[dict[str, Any]]:
    """Return one record per dictionary: how many latents are alive, rare, dead, and explained; *sampled* if they are a sample."""
    frame, explained = latents.to_pandas(), explanations.to_pandas()
    explained = explained[(explained["status"] == "ok") & ~explained["explainer"].str.endswith(PERMUTED)]
    counts = explained.groupby("sae")["latent"].nunique()
    return [
        {
            "sae": sae,
            "explained": int(counts.get(sae, 0)),
            "sampled": bool((group["inclusion"] < 1).any()),
            **{s: int((group["status"] == s).sum()) for s in ("alive", "rare", "dead")},
        }
        for sae, group in frame.groupby("sae", sort=True)
    ]


def failure_summary(failures: pa.Table) -> list[dict[str, Any]]:
    """Return one record per stage: how many items it dropped, and the first reason as an example."""
    if not failures.num_rows:
        return []
    frame = failures.to_pandas()
    return [{"stage": stage, "n": len(group), "example": group["reason"].iloc[0]} for stage, group in frame.groupby("stage", sort=True)]
