"""Charts of lenses; altair draws them, and each is kept as a Vega-Lite specification beside its picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pyarrow as pa

from builders.lenses.published import reference_rows
from cards.charts import HEIGHT, PANEL, SCALE
from cards.lenses import by_lens, rank_of

GREY, FRAME = "#9a9a9a", "#c2410c"
LEAST = 0.01  # bits per byte; what is nearer to 0 has no place on a logarithmic axis
MEASURES = {"ce": "cross-entropy", "kl": "divergence from the model"}
TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
CELL = 30  # pixels of a cell of a heat map
NUMBERED = 12  # layers of a map whose cells have room for numbers
WIDE, HIGH = 74, 26  # of a cell of a trajectory
LETTERS = 11  # of a token that fit into such a cell


def draw_lenses(read: Mapping[str, pa.Table], figures: Path) -> None:
    """Draw the charts of the rows of `lenses`, `lens_transfer` and `trajectories`; a chart without data is left out."""
    frame, transfer, trajectories = (read[name].to_pandas() for name in ("lenses", "lens_transfer", "trajectories"))
    if len(frame):
        _keep(depth_curves(frame, reference_rows().to_pandas()), figures / "lenses.png")
    if len(transfer):
        _keep(transfer_maps(transfer), figures / "lens-transfer.png")
    if len(trajectories):
        first = trajectories.iloc[0]
        own = (trajectories["subject"] == first["subject"]) & (trajectories["prompt"] == first["prompt"])
        _keep(trajectory_grid(trajectories[own]), figures / "trajectory.png")


def _keep(chart: Any, path: Path) -> None:
    chart.save(str(path), scale_factor=SCALE)
    path.with_suffix(".vl.json").write_text(chart.to_json(indent=None))


def _in_order(lenses: pd.Series) -> list[str]:
    return sorted({str(lens) for lens in lenses}, key=lambda lens: (rank_of(lens), lens))


def depth_curves(frame: pd.DataFrame, published: pd.DataFrame) -> Any:
    """Return a chart of cross-entropy and divergence by depth: a panel for each and for each lens, a colour for each subject.

    *frame* holds LENSES rows and *published* LENS_REFERENCE rows, which are thin grey lines in the panels of the lenses that they have.
    """
    lenses = _in_order(frame["lens"])
    own = frame.assign(line=frame["subject"].astype(str))
    theirs = published[published["lens"].isin(lenses)].assign(line=lambda rows: rows["model"].astype(str), bits_per_nat=1.0)
    subjects = sorted(own["line"].unique())
    rows = [
        _depth_panels([*_points(own, name, "subject"), *_points(theirs, name, "published")], measure, lenses, subjects)
        for name, measure in MEASURES.items()
    ]
    title = "grey: 15 published models on another corpus (arXiv 2404.05971; divergence at five layers); bands: two standard errors each way"
    return alt.vconcat(*rows, title=alt.Title(title, fontSize=11))


def _depth_panels(values: list[dict[str, Any]], measure: str, lenses: list[str], subjects: list[str]) -> Any:
    """Return a row of panels: one measure, a panel for each lens."""
    title = f"{measure}, bits per byte"
    x = alt.X("depth:Q", title="depth", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f"))
    y = alt.Y("bits:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=6), axis=alt.Axis(format="~g", values=TICKS))
    legend = alt.Legend(orient="top", titleOrient="left", symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.5)
    colour = alt.Color("line:N", title="subject", legend=legend, scale=alt.Scale(domain=subjects, scheme="tableau10"))
    base = alt.Chart(width=PANEL, height=HEIGHT).encode(x=x, y=y)
    grey = base.mark_line(color=GREY, strokeWidth=0.7, opacity=0.8).encode(detail="line:N").transform_filter("datum.whose == 'published'")
    mine = base.encode(color=colour).transform_filter("datum.whose == 'subject'")
    bands = mine.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    lines = mine.mark_line(strokeWidth=1.8)
    dots = mine.mark_point(filled=True, size=22, opacity=1)
    panels = alt.layer(grey, bands, lines, dots, data=alt.Data(values=values))
    return panels.facet(column=alt.Column("lens:N", title=None, sort=lenses))


def _points(frame: pd.DataFrame, name: str, whose: str) -> list[dict[str, Any]]:
    """Return one measure's points of all lines; those below LEAST are left out, such as a divergence of 0 at the last layer."""
    error = frame[f"{name}_se"] * frame["bits_per_nat"] if f"{name}_se" in frame else pd.Series(0.0, frame.index)
    known = frame.assign(bits=frame[f"{name}_bits"], error=error.fillna(0)).query("bits >= @LEAST")
    return [
        {
            **{column: str(row[column]) for column in ("line", "lens")},
            "depth": _short(row["depth"]),
            "bits": _short(row["bits"]),
            "low": _short(max(LEAST, row["bits"] - 2 * row["error"])),
            "high": _short(row["bits"] + 2 * row["error"]),
            "whose": whose,
        }
        for row in known.to_dict("records")
    ]


def _short(number: float) -> float:
    """Return *number* with four significant digits: a picture shows no more, and its file is half as long."""
    return float(f"{number:.4g}")


def transfer_maps(frame: pd.DataFrame) -> Any:
    """Return heat maps of LENS_TRANSFER rows, one for each subject and lens: how far a layer's lens is off on another layer's vectors."""
    low, high = (max(LEAST, float(end)) for end in (frame["kl"].min(), frame["kl"].max()))
    maps = [_transfer_map(rows, f"{subject}, {lens}", (low, high)) for subject, lens, rows in by_lens(frame)]
    lenses = frame["lens"].nunique()
    title = "divergence of the lens of one layer on the vectors of another; on the diagonal the lens is where it was made"
    return alt.concat(*maps, columns=lenses * max(1, 4 // lenses), title=alt.Title(title, fontSize=11))


def _transfer_map(frame: pd.DataFrame, title: str, ends: tuple[float, float]) -> Any:
    """Return one heat map; *ends* are the divergences of the lightest and the darkest cell of all maps."""
    values = [{name: float(row[name]) for name in ("layer", "vectors_layer", "kl")} for row in frame.to_dict("records")]
    layers = int(frame["layer"].max()) + 1
    cell = CELL if layers <= NUMBERED else max(5, NUMBERED * CELL // layers)
    base = alt.Chart().encode(
        x=alt.X("vectors_layer:O", title="vectors of layer", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("layer:O", title="lens of layer", sort="descending", axis=alt.Axis(labelOverlap=True)),
    )
    scale = alt.Scale(type="log", scheme="viridis", reverse=True, domain=list(ends), clamp=True)
    ticks = [tick for tick in TICKS if ends[0] <= tick <= ends[1]]
    legend = alt.Legend(format="~g", gradientLength=CELL * 3, values=ticks)
    boxes = base.mark_rect().encode(color=alt.Color("kl:Q", title="nats", scale=scale, legend=legend))
    light = alt.condition(f"datum.kl > {(ends[0] * ends[1]) ** 0.5}", alt.value("white"), alt.value("black"))
    numbers = base.mark_text(fontSize=9).encode(text=alt.Text("kl:Q", format=".2~g"), color=light)
    marks = [boxes, numbers] if layers <= NUMBERED else [boxes]
    size = {"width": cell * layers, "height": cell * layers}
    return alt.layer(*marks, data=alt.Data(values=values)).properties(title=alt.Title(title, fontSize=11), **size)


def trajectory_grid(frame: pd.DataFrame) -> Any:
    """Return the grids of one subject and prompt, TRAJECTORIES rows: the likeliest token and its probability, one grid for each lens."""
    first = frame[frame["rank"] == 1].sort_values("position", kind="stable")
    values = _grid_cells(first)
    columns = list(dict.fromkeys(value["position"] for value in values))
    axis = alt.Axis(labelAngle=-35, labelFont="monospace")
    x = alt.X("position:N", title="position and token that was read", sort=columns, axis=axis)
    base = alt.Chart().encode(x=x, y=alt.Y("layer:O", title="layer", sort="descending"))
    scale = alt.Scale(scheme="blues", domain=[0, 1])
    boxes = base.mark_rect(stroke="white").encode(color=alt.Color("probability:Q", title="probability", scale=scale))
    light = alt.condition("datum.probability > 0.55", alt.value("white"), alt.value("#222"))
    tokens = base.mark_text(fontSize=10, dy=-4, font="monospace").encode(text="token:N", color=light)
    shares = base.mark_text(fontSize=8, dy=8).encode(text=alt.Text("probability:Q", format=".2f"), color=light)
    own = base.mark_rect(filled=False, stroke=FRAME, strokeWidth=1.4).transform_filter("datum.is")
    panel = alt.layer(boxes, own, tokens, shares, data=alt.Data(values=values))
    panel = panel.properties(width=WIDE * len(columns), height=HIGH * first["layer"].nunique())
    order = [_lens_title(lens) for lens in _in_order(first["lens"])]
    one = first.iloc[0]
    title = f"{one['subject']}, prompt {one['prompt']}: the likeliest next token at each layer; framed: it is the model's own answer"
    return panel.facet(row=alt.Row("lens:N", title=None, sort=order)).properties(title=alt.Title(title, fontSize=11))


def _grid_cells(first: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the cells of a grid from TRAJECTORIES rows of rank 1; a column is called by its position and the token read there."""
    return [
        {
            "lens": _lens_title(str(row["lens"])),
            "position": f"{row['position']} {_visible(row['read'])}",
            "layer": int(row["layer"]),
            "token": _visible(row["piece"]),
            "probability": _short(row["probability"]),
            "is": bool(row["token"] == row["final"]),
        }
        for row in first.to_dict("records")
    ]


def _lens_title(lens: str) -> str:
    return f"{lens} lens"


def _visible(text: str) -> str:
    """Return a token so that spaces and ends of lines can be seen, cut after LETTERS; control characters, which SVG refuses, are codes."""
    shown = text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"
    shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in shown)
    return shown if len(shown) <= LETTERS else f"{shown[: LETTERS - 1]}…"
