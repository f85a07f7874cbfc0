"""Charts of a release, drawn from its tables to PNG files that need no script to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa

WIDTH, HEIGHT, SCALE = 320, 190, 2
POWERS = alt.Axis(format="~e", tickCount=7)
REAL, PERMUTED = "#2b6cb0", "#c2410c"


def _save(chart: Any, path: Path) -> None:
    chart.save(str(path), scale_factor=SCALE)


def score_chart(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw quartiles and median of the scores of each kind of dictionary, beside the median of permuted explanations."""
    values = [
        {
            **{name: row[name] for name in ("scorer", "kind", "explainer", "permuted", "chance")},
            **{name: row["score"][name] for name in ("q1", "median", "q3")},
        }
        for row in records
        if row["sae"] == "all" and row["score"]["n"]
    ]
    base = alt.Chart(alt.Data(values=values), width=WIDTH).encode(
        y=alt.Y("kind:N", title=None, sort=list(dict.fromkeys(row["kind"] for row in values))),
        yOffset=alt.YOffset("explainer:N") if len({row["explainer"] for row in values} - {"none"}) > 1 else alt.Undefined,
    )
    scale = alt.Scale(zero=False)
    quartiles = base.mark_bar(color=REAL, opacity=0.45, height=9).encode(x=alt.X("q1:Q", title="score", scale=scale), x2="q3:Q")
    medians = base.mark_tick(color=REAL, thickness=3, size=16).encode(x="median:Q")
    permuted = base.mark_point(color=PERMUTED, shape="diamond", filled=True, size=60, opacity=1).encode(x="permuted:Q")
    chance = base.mark_rule(color=PERMUTED, strokeDash=[3, 3]).encode(x="chance:Q", y=alt.value(0), y2=alt.value("height"))
    panel = alt.layer(chance, quartiles, medians, permuted)
    title = "bar: quartiles over latents, line: median; diamond: median of permuted explanations; dashes: chance"
    _save(panel.facet(facet=alt.Facet("scorer:N", title=None), columns=3).properties(title=alt.Title(title, fontSize=11)), path)


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
