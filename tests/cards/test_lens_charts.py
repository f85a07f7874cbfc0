"""Charts of lenses: which points, cells and words they hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from lens_rows import LOGIT, TUNED, curve
from rows import rows_of

from builders.lenses.lenses import LENSES
from builders.lenses.published import reference_rows
from builders.lenses.trajectories import TRAJECTORIES
from builders.lenses.transfer import LENS_TRANSFER
from cards.lens_charts import LETTERS, depth_curves, draw_lenses, trajectory_grid, transfer_maps

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

Row = dict[str, Any]


def values_of(chart: Any) -> list[list[Row]]:
    """Return the values of every set of data in a chart, in order."""

    def walk(part: Any) -> list[list[Row]]:
        if isinstance(part, list):
            return [found for one in part for found in walk(one)]
        if not isinstance(part, dict):
            return []
        own = [part["values"]] if isinstance(part.get("values"), list) and part["values"] and isinstance(part["values"][0], dict) else []
        return own + [found for name, one in part.items() if name != "values" for found in walk(one)]

    return walk(chart.to_dict())


def transfer_rows(subject: str = "one", lens: str = "tuned", layers: int = 3) -> list[Row]:
    """Return LENS_TRANSFER rows: the divergence is 1 on the diagonal and grows with distance."""
    pairs = [(layer, other) for layer in range(layers) for other in range(layers)]
    return [
        {"subject": subject, "lens": lens, "layer": layer, "vectors_layer": other, "kl": 1.0 + abs(layer - other)} for layer, other in pairs
    ]


def trajectory_rows(lens: str = "logit", subject: str = "one", prompt: str = "p") -> list[Row]:
    """Return TRAJECTORIES rows of two positions, layers 0 and 1, two ranks; the model's own answer is token 7, found at the last layer."""
    names = {"subject": subject, "lens": lens, "prompt": prompt, "final": 7}
    return [
        {
            **names,
            "position": position,
            "layer": layer,
            "rank": rank,
            "read": " a" if position == 1 else "\n",
            "token": 7 if (layer, rank) == (1, 1) else 100 + rank,
            "piece": " interpretability" if rank == 1 else "x",
            "probability": 0.75 / rank,
        }
        for position in (1, 2)
        for layer in (0, 1)
        for rank in (1, 2)
    ]


def lens_frame(*rows: Row) -> pd.DataFrame:
    """Return LENSES rows as a frame."""
    frame: pd.DataFrame = rows_of(LENSES, *rows).to_pandas()
    return frame


# Curves


def test_curves_have_bits_and_bands() -> None:
    """A point has the depth, bits per byte, and the ends two standard errors below and above."""
    ce, _ = values_of(depth_curves(lens_frame(*LOGIT), reference_rows().to_pandas()))
    own = [point for point in ce if point["whose"] == "subject"]

    assert [(point["depth"], point["bits"]) for point in own] == [(0, 4.5), (0.25, 3), (0.5, 2), (0.75, 1.5), (1, 1)]
    assert (own[0]["low"], own[0]["high"]) == pytest.approx((4.3, 4.7))


def test_what_is_zero_is_left_out() -> None:
    """A logarithmic axis has no place for the divergence of the last layer, which is 0, and a band ends above 0."""
    _, kl = values_of(depth_curves(lens_frame(*LOGIT, *curve("tuned", 5, 4, 3, 2.1, 2)), reference_rows().to_pandas()))
    own = [point for point in kl if point["whose"] == "subject"]

    assert [point["depth"] for point in own] == [0, 0.25, 0.5, 0.75] * 2
    assert min(point["low"] for point in kl) > 0


def test_published_curves_are_beside_the_lenses_that_they_have() -> None:
    """All 15 models are in the panels of the logit and the tuned lens; a lens that nobody published has a panel without them."""
    frame = lens_frame(*LOGIT, *TUNED, *curve("jacobian", 5, 4, 3, 2.5, 2))
    ce, kl = values_of(depth_curves(frame, reference_rows().to_pandas()))
    theirs = pd.DataFrame([point for point in ce if point["whose"] == "published"])

    assert theirs.groupby("lens")["line"].nunique().to_dict() == {"logit": 15, "tuned": 15}
    assert len(theirs) == 950
    assert sum(point["whose"] == "published" for point in kl) == 150 - 10  # RWKV's last ones are 0
    assert {point["lens"] for point in ce if point["whose"] == "subject"} == {"logit", "tuned", "jacobian"}


# Maps


def test_each_subject_and_lens_has_a_map() -> None:
    """A map has a cell for each pair of layers, and a number in it; maps are in the order of subjects and lenses."""
    rows = [row for lens in ("jacobian", "tuned") for subject in ("two", "one") for row in transfer_rows(subject, lens)]
    chart = transfer_maps(rows_of(LENS_TRANSFER, *rows).to_pandas())

    titles = [part["title"]["text"] for part in chart.to_dict()["concat"]]
    assert titles == ["one, tuned", "one, jacobian", "two, tuned", "two, jacobian"]
    assert {len(part["layer"]) for part in chart.to_dict()["concat"]} == {2}


def test_maps_of_many_layers_have_no_numbers() -> None:
    """Where cells are too small for a number they have a colour only."""
    chart = transfer_maps(rows_of(LENS_TRANSFER, *transfer_rows(layers=24)).to_pandas())

    assert [len(part["layer"]) for part in chart.to_dict()["concat"]] == [1]


# Grids


def test_a_grid_shows_the_likeliest_tokens() -> None:
    """A cell is the token of rank 1 with its probability, and whether it is the model's own answer; spaces and ends of lines are seen."""
    (values,) = values_of(trajectory_grid(rows_of(TRAJECTORIES, *trajectory_rows()).to_pandas()))

    assert [(value["position"], value["layer"], value["probability"], value["is"]) for value in values] == [
        ("1 ␣a", 0, 0.75, False),
        ("1 ␣a", 1, 0.75, True),
        ("2 ⏎", 0, 0.75, False),
        ("2 ⏎", 1, 0.75, True),
    ]
    assert {value["token"] for value in values} == {"␣interpret…"}
    assert len("␣interpret…") == LETTERS


def test_control_characters_are_codes() -> None:
    """A token that no SVG may hold, such as byte 30 of a byte-level vocabulary, is drawn as its code."""
    rows = [row | {"piece": "\x1e\0", "read": "\x7f"} for row in trajectory_rows()]
    (values,) = values_of(trajectory_grid(rows_of(TRAJECTORIES, *rows).to_pandas()))

    assert {value["token"] for value in values} == {"\\x1e\\x00"}
    assert {value["position"] for value in values} == {"1 \\x7f", "2 \\x7f"}


# Files


def draw(figures: Path, lenses: list[Row], transfer: list[Row], trajectories: list[Row]) -> list[str]:
    """Draw these rows and return the names of the files, in order."""
    tables = {"lenses": (LENSES, lenses), "lens_transfer": (LENS_TRANSFER, transfer), "trajectories": (TRAJECTORIES, trajectories)}
    read: dict[str, pa.Table] = {name: rows_of(table, *rows) for name, (table, rows) in tables.items()}
    figures.mkdir()
    draw_lenses(read, figures)
    return sorted(path.name for path in figures.iterdir())


def test_pictures_have_their_specification_beside_them(tmp_path: Path) -> None:
    """Each chart is a PNG and a Vega-Lite file; a chart without data is left out."""
    names = [f"{stem}{suffix}" for stem in ("lens-transfer", "lenses", "trajectory") for suffix in (".png", ".vl.json")]

    assert draw(tmp_path / "all", [*LOGIT, *TUNED], transfer_rows(), trajectory_rows()) == names
    assert draw(tmp_path / "none", [], [], []) == []
    assert "vega-lite" in json.loads((tmp_path / "all" / "lenses.vl.json").read_text())["$schema"]
    assert (tmp_path / "all" / "trajectory.png").read_bytes().startswith(b"\x89PNG")


def test_the_grid_is_of_one_subject_and_prompt(tmp_path: Path) -> None:
    """Of several subjects and prompts the first is drawn, with all of its lenses."""
    rows = [
        row
        for subject in ("a", "b")
        for prompt in ("p", "q")
        for lens in ("tuned", "logit")
        for row in trajectory_rows(lens, subject, prompt)
    ]
    draw(tmp_path / "grid", [], [], rows)
    drawn = json.loads((tmp_path / "grid" / "trajectory.vl.json").read_text())

    assert drawn["title"]["text"].startswith("a, prompt p: ")
    assert {value["lens"] for value in drawn["data"]["values"]} == {"logit lens", "tuned lens"}
    assert drawn["facet"]["row"]["sort"] == ["logit lens", "tuned lens"]
