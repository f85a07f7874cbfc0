"""Charts of a release, drawn from its tables to PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa

WIDTH, HEIGHT, PANEL, SCALE = 320, 190, 230, 2
REAL, PERMUTED = "#2b6cb0", "#c2410c"
# Where and when steering vectors are added; a state that is changed in phase is darker.
SITES = {"residual": "#2b6cb0", "state late": "#f59e63", "state aligned": "#c2410c", "both late": "#b794f4", "both aligned": "#6b21a8"}
NAMES = ("subject", "behaviour", "method")
FEW = 10  # quartiles of fewer latents say little, and a bar would look as sure as the others


def _save(chart: Any, path: Path) -> None:
    chart.save(str(path), scale_factor=SCALE)


def score_chart(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the quartiles and median of scores by kind of dictionary, with the median of permuted explanations and chance.

    Scores in nats, which have no largest value, have an axis of their own. Quartiles of fewer than FEW latents are left out, unless all
    are so few.
    """
    known = [row for row in records if row["sae"] == "all" and row["score"]["n"]]
    values = [
        {
            **{name: row[name] for name in ("scorer", "kind", "explainer", "unit", "chance")},
            "permuted": row["permuted"]["median"],
            **{name: row["score"][name] for name in ("q1", "median", "q3")},
        }
        for row in [row for row in known if row["score"]["n"] >= FEW] or known
    ]
    titles = {unit: "score in nats" if unit == "nats" else "score" for unit in sorted({row["unit"] for row in values})}
    parts = [[row for row in values if titles[row["unit"]] == title] for title in sorted({*titles.values()})]
    title = "bar: quartiles over latents, line: median; diamond: median of permuted explanations; dashes: chance"
    panels = [_score_panels(part, titles[part[0]["unit"]]) for part in parts]
    _save(alt.vconcat(*panels, title=alt.Title(title, fontSize=11)), path)


def _score_panels(values: Sequence[Mapping[str, Any]], title: str) -> Any:
    """Return a panel for each scorer, on one axis with this *title*; several explainers have a colour each."""
    explainers = {row["explainer"] for row in values}
    several = len(explainers - {"none"}) > 1
    base = alt.Chart(alt.Data(values=values), width=WIDTH).encode(
        y=alt.Y("kind:N", title=None, sort=list(dict.fromkeys(row["kind"] for row in values))),
        yOffset=alt.YOffset("explainer:N") if several else alt.Undefined,
    )
    colour = alt.Color("explainer:N", legend=alt.Legend(orient="top", titleOrient="left")) if several else alt.value(REAL)
    scale = alt.Scale(zero=False)
    quartiles = base.mark_bar(opacity=0.45, height=9).encode(x=alt.X("q1:Q", title=title, scale=scale), x2="q3:Q", color=colour)
    medians = base.mark_tick(thickness=3, size=16).encode(x="median:Q", color=colour)
    permuted = base.mark_point(color=PERMUTED, shape="diamond", filled=True, size=60, opacity=1).encode(x="permuted:Q")
    whole = {"y": alt.value(0), "y2": alt.value("height"), "yOffset": alt.value(0)}
    chance = base.mark_rule(color=PERMUTED, strokeDash=[3, 3]).encode(x="chance:Q", **whole)
    return alt.layer(chance, quartiles, medians, permuted).facet(facet=alt.Facet("scorer:N", title=None), columns=3)


def density_chart(latents: pa.Table, path: Path) -> None:
    """Draw a histogram of how often the latents of each dictionary fire (log scale), in percent of its latents that fire at all."""
    frame = latents.to_pandas()
    frame = frame[frame["count"] > 0]
    rarest = int(np.floor(np.log10(frame["density"].min()))) if len(frame) else -1
    edges = np.linspace(rarest, 0, 1 - 5 * rarest)
    records = []
    for sae, group in frame.groupby("sae"):
        counts, _ = np.histogram(np.log10(group["density"]), bins=edges)
        middle = (edges[:-1] + edges[1:]) / 2
        records += [{"sae": sae, "density": 10.0**m, "latents": 100 * float(c) / len(group)} for m, c in zip(middle, counts, strict=True)]
    chart = (
        alt.Chart(alt.Data(values=records), width=2 * WIDTH, height=HEIGHT)
        .mark_line(interpolate="step")
        .encode(
            x=alt.X(
                "density:Q",
                title="share of tokens on which a latent fires",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(format="~e", values=[10.0**power for power in range(rarest, 1)]),
            ),
            y=alt.Y("latents:Q", title="% of its latents that fire"),
            color=alt.Color("sae:N", title="dictionary"),
        )
    )
    _save(chart, path)


def steering_chart(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the effects of :func:`cards.steering.steering_summary` against the multiplier; at multiplier 0 the effect is 0."""
    without = {"multiplier": 0.0, "effect": 0.0, "effect_se": 0.0}
    values = [
        {**_named(row), "multiplier": some["multiplier"], "line": row["method"], "shape": "circle", **_points(some)}
        for row in records
        if row["status"] == "ok" and _named(row)["site"] in SITES
        for some in (*row["effects"], without)
        if some["effect"] is not None
    ]
    axis = alt.X("multiplier:Q", title="multiplier")
    title = "effect on the test half, at the layer that the other half chose; bands: two standard errors to both sides"
    _save(_curves(values, axis, title, []), path)


def layers_chart(effects: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the effects of :func:`cards.steering.layer_effects` against the layer, with rings at the chosen layer."""
    values = [
        {
            **_named(row),
            **{name: row[name] for name in ("layer", "chosen")},
            "line": f"{row['method']} {row['multiplier']:g}",
            "shape": "triangle-up" if row["multiplier"] > 0 else "triangle-down",
            **_points(row),
        }
        for row in effects
    ]
    axis = alt.X("layer:Q", title="layer", axis=alt.Axis(format="d", tickMinStep=1), scale=alt.Scale(nice=False, padding=8))
    rings = alt.Chart().mark_point(size=110, strokeWidth=1.6, opacity=1).transform_filter("datum.chosen")
    ends = sorted({float(row["multiplier"]) for row in effects})
    title = f"effect on the test half at multipliers {ends[0]:g} (point down) and {ends[-1]:g} (point up); rings: chosen layers"
    _save(_curves(values, axis, title, [rings]), path)


def _named(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the names by which a curve is drawn; a site has its phase, where it has one."""
    return {**{name: row[name] for name in NAMES}, "site": row["site"] if row["phase"] == "none" else f"{row['site']} {row['phase']}"}


def _points(some: Mapping[str, Any]) -> dict[str, float | None]:
    """Return an effect in percentage points, and the ends two standard errors below and above it; None without an error."""
    effect, error = 100 * some["effect"], some["effect_se"]
    low, high = (None, None) if error is None else (effect - 200 * error, effect + 200 * error)
    return {"effect": effect, "low": low, "high": high}


def _curves(values: Sequence[Mapping[str, Any]], axis: Any, title: str, marked: Sequence[Any]) -> Any:
    """Return a chart of effects against *axis*: a panel for each behaviour and subject, a colour per site, a dash per method.

    *marked* are further marks to draw over the curves.
    """
    sites = [site for site in SITES if any(row["site"] == site for row in values)]
    methods = list(dict.fromkeys(row["method"] for row in values))
    legend = alt.Legend(orient="top", titleOrient="left", symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.5)
    colours = alt.Scale(domain=sites, range=[SITES[site] for site in sites])
    colour = alt.Color("site:N", title="vectors added to", scale=colours, legend=legend)
    dashes = alt.Scale(domain=methods, range=[[1, 0], [5, 3], [2, 2]])
    dash = alt.StrokeDash("method:N", title="vectors made by", scale=dashes, legend=legend if len(methods) > 1 else None)
    y = alt.Y("effect:Q", title="percentage points")
    base = alt.Chart(width=PANEL, height=0.6 * PANEL).encode(x=axis, y=y, color=colour, detail="line:N")
    zero = alt.Chart().mark_rule(color="#777").encode(y=alt.datum(0))
    bands = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title="percentage points"), y2="high:Q")
    lines = base.mark_line().encode(strokeDash=dash)
    dots = base.mark_point(filled=True, size=28, opacity=1).encode(shape=alt.Shape("shape:N", scale=None))
    rings = [mark.encode(x=axis, y=y, color=colour) for mark in marked]
    panel = alt.layer(zero, bands, lines, dots, *rings, data=alt.Data(values=values))
    chart = panel.facet(row=alt.Row("behaviour:N", title=None), column=alt.Column("subject:N", title=None))
    return chart.properties(title=alt.Title(title, fontSize=11)).configure_legend(columnPadding=14, padding=4)
