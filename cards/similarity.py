"""How alike dictionaries are, and whether latents come back: the figures that the card and the page of results show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from builders.similarity.partners import MEASURES
from builders.similarity.similarity import RELATIONS

Record = dict[str, Any]
LEARNED = ("trained", "pretrained")  # the kinds of dictionaries whose pairs are summed up
WORDS = {
    "seed": "another seed",
    "layer": "{layers} layers away",
    "recipe": "another recipe, same hookpoint",
    "hookpoint": "another recipe and hookpoint",
    "subject": "another subject",
    "reinitialised": "a subject with random weights",
}
NAMES = ["relation", "layers", "measure", "statistic"]


def similarity_summary(similarity: pa.Table, kinds: Mapping[str, str]) -> list[Record]:
    """Return one record per relation, distance in layers, measure and statistic: means over the pairs of trained dictionaries.

    *kinds* holds the kind of each dictionary. *low* and *high* are the lowest and the highest end of the pairs' intervals.
    """
    frame = similarity.to_pandas()
    trained = frame["sae_a"].map(dict(kinds)).isin(LEARNED) & frame["sae_b"].map(dict(kinds)).isin(LEARNED)
    frame = frame[trained & (frame["status"] == "ok")]
    frame["layers"] = frame["layers"].where(frame["relation"] == "layer").fillna(0).astype(int)
    records = [{**dict(zip(NAMES, key, strict=True)), **_over_pairs(group)} for key, group in frame.groupby(NAMES, observed=True)]
    relations, measures = list(RELATIONS), list(MEASURES)
    order = {name: place for place, name in enumerate((*relations, *measures))}
    return sorted(records, key=lambda row: (order[row["relation"]], row["layers"], order[row["measure"]], row["statistic"]))


def _over_pairs(group: pd.DataFrame) -> Record:
    means = {name: _number(group[name].mean()) for name in ("value", "permuted", "untrained")}
    ends = {"low": _number(group["low"].min()), "high": _number(group["high"].max())}
    return {"pairs": len(group), "n": int(group["n"].sum()), **means, **ends}


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def similarity_tables(records: Sequence[Record]) -> list[Record]:
    """Return a table for each statistic that is shown: the measures that have it, and a line for each relation of dictionaries."""
    shares = sorted({row["statistic"] for row in records if row["statistic"].startswith("shared-")})
    tables = []
    for statistic in ("matched", *shares[-2:][:1], "mutual", "agree", "rsa"):
        own = [row for row in records if row["statistic"] == statistic]
        measures = [measure for measure in MEASURES if any(row["measure"] == measure for row in own)]
        if own:
            tables.append({"statistic": statistic, "measures": measures, "lines": _lines(own)})
    return tables


def _lines(records: Sequence[Record]) -> list[Record]:
    lines: dict[tuple[str, int], Record] = {}
    for row in records:
        words = WORDS[row["relation"]].format(layers=row["layers"]).replace("1 layers", "1 layer")
        line = lines.setdefault((row["relation"], row["layers"]), {"words": words, "pairs": row["pairs"], "by": {}})
        line["by"][row["measure"]] = row
    return list(lines.values())


def by_distance(records: Sequence[Record]) -> list[Record]:
    """Return the mean decoder cosine of one-to-one partners: of sisters first, then of layers by distance; nothing without sisters."""
    own = [row for row in records if (row["measure"], row["statistic"]) == ("decoder", "matched")]
    sisters = [row for row in own if row["relation"] == "seed"]
    return sisters + [row for row in own if row["relation"] == "layer"] if sisters else []


def stability_summary(stability: pa.Table, related: pa.Table) -> list[Record]:
    """Return one record per SAE and measure: how many latents came back, and how stability goes with the scores of each scorer."""
    frame, scores = stability.to_pandas(), related.to_pylist()
    return [
        {
            "sae": sae,
            "measure": measure,
            "n": len(group),
            "sisters": int(group["sisters"].max()),
            "found": float(group["found"].mean()),
            "value": float(group["value"].mean()),
            "scores": [row for row in scores if (row["sae"], row["measure"]) == (sae, measure) and row["spearman"] is not None],
        }
        for (sae, measure), group in frame.groupby(["sae", "measure"], observed=True)
    ]
