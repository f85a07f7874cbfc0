"""Charts of how alike dictionaries are; altair draws them, and each is kept as a Vega-Lite specification beside its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa

from builders.explainers.explanations import PERMUTED
from builders.similarity.partners import MEASURES
from cards.charts import HEIGHT, SCALE, WIDTH
from cards.similarity import LEARNED, WORDS

CELL = 22  # pixels
BINS = 10  # of stability
READ = ("sae", "other", "measure", "assigned_value")  # columns of MATCHES
EDGES = np.linspace(-0.2, 1, 49)  # of values of partners
OWN, CHANCE = "partners", "an untrained dictionary instead"


def draw_similarity(read: Mapping[str, pa.Table], matches: pa.Table, kinds: Mapping[str, str], figures: Path) -> None:
    """Draw the charts of SIMILARITY, MATCHES, STABILITY and SCORES rows; *kinds* holds the kind of each dictionary.

    A chart without data is left out.
    """
    frame = read["similarity"].to_pandas()
    frame = frame[frame["status"] == "ok"]
    if len(frame):
        _keep(heat_map(frame[frame["statistic"] == "matched"]), figures / "similarity.png")
        _keep(shared_shares(_learned(frame, kinds, "sae_a", "sae_b")), figures / "similarity-shared.png")
    relations = frame.drop_duplicates(["sae_a", "sae_b"])[["sae_a", "sae_b", "relation", "layers"]]
    values = matched_values(matches.to_pandas(), relations, kinds)
    _keep(value_histogram(values), figures / "similarity-partners.png")
    _keep(stability_scores(read["stability"].to_pandas(), read["scores"].to_pandas()), figures / "stability.png")


def _keep(chart: Any, path: Path) -> None:
    if chart is None:
        return
    chart.save(str(path), scale_factor=SCALE)
    path.with_suffix(".vl.json").write_text(chart.to_json(indent=None))


def _learned(frame: pd.DataFrame, kinds: Mapping[str, str], *sides: str) -> pd.DataFrame:
    trained = np.logical_and.reduce([frame[side].map(dict(kinds)).isin(LEARNED) for side in sides])
    found: pd.DataFrame = frame[trained]
    return found


def heat_map(frame: pd.DataFrame) -> Any:
    """Return a chart of the mean value of partners for every two dictionaries, beside that of an untrained dictionary in B's place.

    *frame* holds the SIMILARITY rows of statistic `matched`.
    """
    cells = [
        {"a": a, "b": b, "measure": str(row["measure"]), "level": level, "value": value}
        for row in frame.to_dict("records")
        for level, value in ((OWN, row["value"]), (CHANCE, row["untrained"]))
        for a, b in ((row["sae_a"], row["sae_b"]), (row["sae_b"], row["sae_a"]))
        if not pd.isna(value)
    ]
    names = sorted({cell["a"] for cell in cells})
    # Not a facet: where a measure lacks one of the levels, a facet's panels stand in the wrong places.
    rows = [[_panel(names, cells, measure, level) for level in (OWN, CHANCE)] for measure in MEASURES]
    return alt.vconcat(*(alt.hconcat(*filter(None, row)) for row in rows if any(row)))


def _panel(names: Sequence[str], cells: Sequence[Mapping[str, Any]], measure: str, level: str) -> Any:
    """Return the heat map of one measure and level over the dictionaries *names*; None without *cells*."""
    own = [cell for cell in cells if (cell["measure"], cell["level"]) == (measure, level)]
    if not own:
        return None
    x, y = (alt.X("a:N", title=None, scale=alt.Scale(domain=names)), alt.Y("b:N", title=None, scale=alt.Scale(domain=names)))
    size = CELL * len(names)
    base = alt.Chart(alt.Data(values=own), width=size, height=size, title=f"{measure}: {level}").encode(x=x, y=y)
    colour = alt.Color("value:Q", title="mean value", scale=alt.Scale(scheme="viridis", domain=[0, 1], clamp=True))
    boxes = base.mark_rect().encode(color=colour)
    light = alt.condition("datum.value < 0.6", alt.value("white"), alt.value("black"))
    numbers = base.mark_text(fontSize=8).encode(text=alt.Text("value:Q", format=".2f"), color=light)
    return alt.layer(boxes, numbers)


def shared_shares(frame: pd.DataFrame) -> Any:
    """Return a chart of the share of latents with a partner, by the value that a partner must have, for every relation.

    None where *frame*, SIMILARITY rows, has no such share.
    """
    shares = frame[frame["statistic"].str.startswith("shared-")].assign(threshold=lambda rows: rows["statistic"].str[7:].astype(float))
    names = ["measure", "relation", "threshold"]
    means = shares.groupby(names, observed=True)[["value", "untrained"]].mean().reset_index()
    values = [
        {**{name: row[name] for name in ("measure", "threshold")}, "relation": _short(row["relation"]), "line": line, "share": row[name]}
        for row in means.to_dict("records")
        for name, line in (("value", OWN), ("untrained", CHANCE))
        if not pd.isna(row[name])
    ]
    if not values:
        return None
    chart = alt.Chart(alt.Data(values=values), width=WIDTH, height=HEIGHT).mark_line(point=True)
    dash = alt.StrokeDash("line:N", title=None, sort=[OWN, CHANCE], legend=alt.Legend(symbolType="stroke", symbolStrokeColor="black"))
    colour = alt.Color("relation:N", title="pairs of trained dictionaries")
    x, y = alt.X("threshold:Q", title="least value of a partner"), alt.Y("share:Q", title="share of latents")
    return chart.encode(x=x, y=y, color=colour, strokeDash=dash).facet(
        facet=alt.Facet("measure:N", title=None, sort=list(MEASURES)), columns=3
    )


def _short(relation: str) -> str:
    return WORDS[relation].format(layers="some")


def matched_values(matches: pd.DataFrame, relations: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return the decoder cosines of one-to-one partners, with what their dictionaries are to each other."""
    own = matches[(matches["measure"] == "decoder") & (matches["sae"].astype(str) < matches["other"].astype(str))].dropna(
        subset="assigned_value"
    )
    joined = own.merge(relations, left_on=["sae", "other"], right_on=["sae_a", "sae_b"])
    random = (joined[["sae", "other"]].map(lambda sae: kinds[sae]) == "random").sum(axis=1)
    learned = joined[["sae", "other"]].map(lambda sae: kinds[sae] in LEARNED).sum(axis=1)
    joined["pair"] = np.where((random == 1) & (learned == 1), "an untrained dictionary", joined["relation"].map(_short))
    return joined[(learned == 2) | ((random == 1) & (learned == 1))]


def value_histogram(values: pd.DataFrame) -> Any:
    """Return a chart of how the decoder cosines of one-to-one partners are spread, for every relation; None without *values*."""
    if not len(values):
        return None
    records = []
    for pair, group in values.groupby("pair"):
        counts, _ = np.histogram(group["assigned_value"].clip(EDGES[0], EDGES[-1]), bins=EDGES)
        middle = (EDGES[:-1] + EDGES[1:]) / 2
        records += [{"pair": pair, "value": float(m), "share": float(100 * c / len(group))} for m, c in zip(middle, counts, strict=True)]
    chart = alt.Chart(alt.Data(values=records), width=2 * WIDTH, height=HEIGHT).mark_line(interpolate="step")
    x, y = alt.X("value:Q", title="decoder cosine of one-to-one partners"), alt.Y("share:Q", title="% of partners")
    return chart.encode(x=x, y=y, color=alt.Color("pair:N", title="pairs"))


def stability_scores(stability: pd.DataFrame, scores: pd.DataFrame) -> Any:
    """Return a chart of the mean score of latents in tenths of their stability, ± two standard errors, by scorer and SAE.

    None where no tenth has ten latents.
    """
    known = scores[~scores["explainer"].str.endswith(PERMUTED) & scores["score"].notna()]
    joined = stability[stability["measure"] == "decoder"].merge(known, on=["sae", "latent"])
    records: list[dict[str, Any]] = []
    for (sae, scorer), group in joined.groupby(["sae", "scorer"], observed=True):
        if len(group) >= 10 * BINS:
            records += _tenths(str(sae), str(scorer), group)
    if not records:
        return None
    base = alt.Chart(alt.Data(values=records), width=WIDTH, height=HEIGHT)
    x, y = alt.X("value:Q", title="mean decoder cosine of the nearest latents in sisters"), alt.Y("score:Q", title="mean score")
    y = y.scale(alt.Scale(zero=False))
    colour = alt.Color("sae:N", title="SAE")
    bars = base.mark_rule(opacity=0.6).encode(x=x, y=alt.Y("low:Q", title="mean score"), y2="high:Q", color=colour)
    dots = base.mark_line(point=True).encode(x=x, y=y, color=colour)
    panels = alt.layer(bars, dots).facet(facet=alt.Facet("scorer:N", title=None), columns=3)
    return panels.resolve_scale(y="independent")  # scorers differ in unit


def _tenths(sae: str, scorer: str, group: pd.DataFrame) -> Sequence[dict[str, Any]]:
    tenth = pd.qcut(group["value"].rank(method="first"), BINS, labels=False)
    found = []
    for _, some in group.groupby(tenth):
        mean, error = float(some["score"].mean()), float(some["score"].std(ddof=1) / np.sqrt(len(some)))
        ends = {"low": mean - 2 * error, "high": mean + 2 * error}
        found.append({"sae": sae, "scorer": scorer, "value": float(some["value"].mean()), "score": mean, **ends})
    return found
