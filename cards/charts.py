"""Charts of a release, drawn from its tables to PNG files that need no script to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa

WIDTH, HEIGHT, SCALE = 320, 190, 2
POWERS = alt.Axis(format="~e", tickCount=7)
REAL, BASELINE = "#2b6cb0", "#b0b7c3"


def _save(chart: Any, path: Path) -> None:
    chart.save(str(path), scale_factor=SCALE)


def score_chart(scores: pa.Table, path: Path) -> None:
    """Draw how the scores of real and permuted explanations are distributed, one panel a scorer."""
    frame = scores.to_pandas().dropna(subset=["score"])
    edges = np.linspace(0, 1, 41)
    records = []
    for (scorer, explainer), group in frame.groupby(["scorer", "explainer"]):
        counts, _ = np.histogram(group["score"], bins=edges)
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            records.append({"scorer": scorer, "explainer": explainer, "low": low, "high": high, "share": count / len(group)})
    data = alt.Data(values=records)
    explainers = sorted({record["explainer"] for record in records})
    colours = [BASELINE if name.endswith("-permuted") else REAL for name in explainers]
    panel = (
        alt.Chart(data, width=WIDTH, height=HEIGHT)
        .mark_bar(opacity=0.75)
        .encode(
            x=alt.X("low:Q", title="balanced accuracy (chance 0.5)", bin="binned", scale=alt.Scale(domain=[0, 1])),
            x2="high:Q",
            y=alt.Y("share:Q", title="share of latents", stack=None, axis=alt.Axis(format="%")),
            color=alt.Color("explainer:N", scale=alt.Scale(domain=explainers, range=colours), title="explanations"),
        )
    )
    _save(panel.facet(column=alt.Column("scorer:N", title=None)), path)


def density_chart(latents: pa.Table, path: Path) -> None:
    """Draw how often the latents of each dictionary fire, on a logarithmic scale; dead latents are left out."""
    frame = latents.to_pandas()
    frame = frame[frame["count"] > 0]
    edges = np.linspace(-7, 0, 36)
    records = []
    for sae, group in frame.groupby("sae"):
        counts, _ = np.histogram(np.log10(group["density"]), bins=edges)
        middle = (edges[:-1] + edges[1:]) / 2
        records += [{"sae": sae, "density": 10.0**m, "latents": int(c)} for m, c in zip(middle, counts, strict=True)]
    chart = (
        alt.Chart(alt.Data(values=records), width=2 * WIDTH, height=HEIGHT)
        .mark_line(interpolate="step")
        .encode(
            x=alt.X(
                "density:Q",
                title="share of tokens on which a latent fires",
                scale=alt.Scale(type="log"),
                axis=POWERS,
            ),
            y=alt.Y("latents:Q", title="latents"),
            color=alt.Color("sae:N", title="dictionary"),
        )
    )
    _save(chart, path)
