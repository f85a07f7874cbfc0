"""What readers are told of steering, against known answers."""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import load_dataset
from recurrent import LAYERS, WIDTH, tiny
from transformers import AutoModelForCausalLM

from builders.lake.shards import write_parquet
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.steering.effects import STEERING, STEERING_VECTORS, Setting, answer_frame, effect_rows, skipped_rows, vector_rows
from builders.steering.ranges import STEERING_RANGES
from builders.steering.vectors import Directions
from builders.steering.ways import Push
from builders.subjects.checkpoints import SUBJECTS
from builders.subjects.hookpoints import blocks_of, capture, edited
from cards import card
from cards.charts import layers_chart, steering_chart
from cards.header import Part
from cards.render import points
from cards.steering import (
    effects_table,
    layer_effects,
    paper_rows,
    phases_of_states,
    read_as_in_the_paper,
    rises,
    skipped,
    steering_block,
    steering_summary,
)
from pipelines.graph.closure import ROOT
from pipelines.params import load
from pipelines.registry import CONFIGS
from pipelines.stages.release import facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builders.lake.table import Table

PLAIN = ("none", "none", -1, 0.0)
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def row(way: tuple[str, str, int, float], half: str = "test", chosen: bool = False, **known: Any) -> dict[str, Any]:
    """Return a STEERING row of one way to steer (method, site, layer, multiplier), with *known* columns in place of the usual ones."""
    usual = {"subject": "lab-rwkv", "behaviour": "bold", **dict(zip(("method", "site", "layer", "multiplier"), way, strict=True))}
    usual["phase"] = "late" if way[1] in ("state", "both") else "none"
    usual |= {"half": half, "chosen": chosen, "status": "ok", "matching": 0.5, "matching_se": 0.03, "nonsense": 0.02, "nonsense_se": 0.01}
    usual |= {
        "effect": 0.0,
        "effect_se": 0.0,
        "n": 50,
        "n_failed": 0,
        "pairs": 200,
        "last": 1,
        "template": "{question}",
        "answers": "letters",
    }
    return usual | {"answers": "letters"} | known


def curve(site: str, effects: Mapping[float, float], layer: int = 1, **known: Any) -> list[dict[str, Any]]:
    """Return test rows of difference vectors at the chosen *layer* of a site, with effects by multiplier and errors of a point."""
    rows = effects.items()
    return [row(("difference", site, layer, times), chosen=True, effect=effect, **({"effect_se": 0.01} | known)) for times, effect in rows]


def ranged(site: str, choice: str, half_range: float, **known: Any) -> dict[str, Any]:
    """Return a STEERING_RANGES row of difference vectors, with a band of permuted labels from −1 to 2 points."""
    way = {
        "subject": "lab-rwkv",
        "behaviour": "bold",
        "method": "difference",
        "site": site,
        "phase": "none" if site == "residual" else "late",
    }
    usual = {**way, "choice": choice, "layer": -1 if choice == "paper" else 1, "multiplier": 3.0, "half_range": half_range, "n": 50}
    usual |= {"half_range_se": None if choice == "paper" else 0.01, "letter_low": half_range - 0.01, "letter_high": half_range + 0.01}
    usual |= {"permuted_low": -0.01, "permuted_high": 0.02, "permuted_sd": 0.01, "permuted_draws": 20}
    usual |= {"random_low": -0.015, "random_high": 0.015, "random_sd": 0.01, "random_draws": 8, "p": 0.05}
    return usual | {"clear": not -0.015 <= half_range <= 0.02} | known


def some(effects: Mapping[float, float | None], error: float | None = 0.01) -> list[dict[str, Any]]:
    """Return effects by multiplier, each with the same standard error."""
    return [{"multiplier": times, "effect": effect, "effect_se": error} for times, effect in effects.items()]


EXAMPLE = STEERING.rows(
    [
        row(PLAIN),
        row(PLAIN, half="validation", matching=0.9),
        *curve("residual", {-3.0: -0.2, -1.0: -0.05, 1.0: 0.1, 3.0: 0.3}, nonsense=0.04),
        *curve("state", {-3.0: 0.01, -1.0: -0.01, 1.0: 0.02, 3.0: 0.05}),
        row(("difference", "residual", 0, 3.0), effect=0.9),
        row(("difference", "residual", 1, 3.0), half="validation", chosen=True, effect=0.8),
    ]
)
RANGES = STEERING_RANGES.rows(
    [
        *(ranged("residual", choice, 0.25) for choice in ("best", "largest")),
        ranged("residual", "paper", 0.3),
        ranged("state", "best", 0.02),
        ranged("state", "largest", -0.1, layer=0, letter_low=-0.21, letter_high=0.01),
        ranged("state", "paper", 0.05),
    ]
)


def test_a_record_is_of_the_chosen_layer_on_the_test_half() -> None:
    """Neither larger effects at a layer that was not chosen nor those of the half that chose are told."""
    residual, state = steering_summary(EXAMPLE, RANGES)

    assert (residual["site"], residual["layer"], residual["layers"]) == ("residual", 1, 2)
    assert [(at["multiplier"], at["effect"], at["nonsense"]) for at in residual["effects"]] == [
        (-3.0, -0.2, 0.04),
        (-1.0, -0.05, 0.04),
        (1.0, 0.1, 0.04),
        (3.0, 0.3, 0.04),
    ]
    assert (residual["without"], residual["without_se"], residual["nonsense_without"]) == (0.5, 0.03, 0.02)
    assert (residual["best"]["half_range"], residual["monotone"], residual["best"]["clear"]) == (0.25, True, True)
    assert (state["site"], state["phase"], state["monotone"], state["best"]["clear"]) == ("state", "late", False, False)
    assert (state["largest"]["half_range"], state["largest"]["layer"], state["paper"]["half_range"]) == (-0.1, 0, 0.05)
    assert [residual[name] for name in ("n", "n_failed", "pairs", "last")] == [50, 0, 200, 1]


def test_the_chosen_layer_is_told() -> None:
    """Rows as builders make them: the layer that was chosen is told, though another one does better on the test half."""
    setting = Setting("lab-rwkv", "bold", 10, 1, "{question}", "letters")
    pushes: list[Push | None] = [None, *(Push("difference", "residual", layer, times) for layer in (0, 1) for times in (-2.0, 2.0))]
    favoured = {True: [0.5, 0.2, 0.8, 0.4, 0.6], False: [0.5, 0.45, 0.65, 0.1, 0.9]}
    matching = np.array([favoured[question < 4] for question in range(8)])
    answers = answer_frame(setting, pushes, range(8), np.log(np.stack([matching, 1 - matching], axis=-1)), {0, 1, 2, 3})

    (record,) = steering_summary(effect_rows(setting, answers, 0, {("difference", "residual", "none"): 0}), STEERING_RANGES.empty())

    assert (record["layer"], record["layers"], record["n"]) == (0, 2, 4)
    assert [at["effect"] for at in record["effects"]] == [pytest.approx(-0.05), pytest.approx(0.15)]
    assert record["best"] is None


@pytest.mark.parametrize(
    ("effects", "found"),
    [
        ({-3.0: -0.2, -1.0: -0.1, 1.0: 0.1, 3.0: 0.2}, True),
        ({3.0: 0.2, -1.0: -0.1, 1.0: 0.1, -3.0: -0.2}, True),
        ({-3.0: -0.2, -1.0: -0.1, 1.0: 0.2, 3.0: 0.2}, False),
        ({-3.0: -0.1, -1.0: -0.2, 1.0: 0.1, 3.0: 0.2}, False),
        ({1.0: -0.1, 3.0: 0.2}, False),
        ({1.0: 0.1, 3.0: 0.2}, True),
        ({-1.0: -0.1, 1.0: None}, None),
        ({}, None),
    ],
)
def test_effects_that_rise(effects: dict[float, float | None], found: bool | None) -> None:
    """Monotone means that each effect is above the one before, no effect at 0 among them; unknown where one is missing."""
    assert rises(some(effects)) is found


def test_half_ranges_as_the_paper_reads_them() -> None:
    """Medians over the ways that have null vectors, as told here and as the paper tells them, and the largest null of the latter."""
    records = steering_summary(EXAMPLE, RANGES)
    assert read_as_in_the_paper(records) == {"here": pytest.approx(0.135), "paper": pytest.approx(0.175), "permuted": 0.02, "n": 2}
    assert read_as_in_the_paper([{**record, "paper": None} for record in records]) is None


def test_phases_of_a_state_are_compared() -> None:
    """The state's median half-range in phase stands beside the late one and the nulls, with how many behaviours are clear."""
    rows, ranges = [row(PLAIN)], []
    for phase, half_range in (("late", 0.02), ("aligned", 0.08)):
        rows += [{**each, "phase": phase} for each in curve("state", {-3.0: -0.1, 3.0: 0.1})]
        ranges.append(ranged("state", "best", half_range, phase=phase))
    records = steering_summary(STEERING.rows(rows), STEERING_RANGES.rows(ranges))
    assert phases_of_states(records) == [{"subject": "lab-rwkv", "late": 0.02, "aligned": 0.08, "permuted": 0.02, "clear": 1, "n": 1}]
    ranges[1] = ranged("state", "best", 0.08, phase="aligned", clear=False)
    assert phases_of_states(steering_summary(STEERING.rows(rows), STEERING_RANGES.rows(ranges)))[0]["clear"] == 0
    ranges[1] = ranged("state", "best", 0.08, phase="aligned", permuted_low=None, permuted_high=None, permuted_sd=None, permuted_draws=0)
    assert phases_of_states(steering_summary(STEERING.rows(rows), STEERING_RANGES.rows(ranges))) == []


def test_nothing_chosen_is_told() -> None:
    """Rows with numbers of which no layer was chosen are no effects of a chosen layer; the card says so and goes on."""
    rows = [row(PLAIN), *({**each, "chosen": False} for each in curve("residual", {-3.0: -0.2, 3.0: 0.2}))]
    (record,) = steering_summary(STEERING.rows(rows), STEERING_RANGES.empty())
    assert (record["status"], record["effects"]) == ("no layer could be chosen", [])
    assert "difference at residual: no layer could be chosen" in steering_block([record])


def skipping(subject: str, behaviours: Sequence[str], ways: Sequence[tuple[str, str]], reason: str) -> list[pa.Table]:
    """Return STEERING rows of ways that a subject does not allow, two layers of two multipliers each."""
    pushes = [Push(method, site, layer, times) for method, site in ways for layer in (0, 1) for times in (-3.0, 3.0)]
    return [skipped_rows(Setting(subject, name, 200, 1, "{question}", "letters"), pushes, reason) for name in behaviours]


def test_what_is_skipped_is_told_with_its_reason() -> None:
    """A skipped way is a record without numbers; subjects with one reason are told together, behaviours where not all are meant."""
    both = ["bold", "patient"]
    parts = [
        *skipping("llama", both, [("difference", "state"), ("difference", "both")], "it has no state"),
        *(part for subject in ("llama", "rwkv") for part in skipping(subject, both, [("lda", "state")], "lda has none")),
        *skipping("rwkv", ["bold"], [("difference", "residual")], "no answers"),
    ]

    records = steering_summary(STEERING.sort(pa.concat_tables(parts)), STEERING_RANGES.empty())

    assert [record["status"] for record in records if record["subject"] == "rwkv"] == ["no answers", "lda has none", "lda has none"]
    assert {(record["layer"], record["n"], record["best"], record["monotone"]) for record in records} == {(None, 0, None, None)}
    assert skipped(records) == [
        {"reason": "it has no state", "ways": ["difference at state", "difference at both"], "behaviours": [], "subjects": ["llama"]},
        {"reason": "lda has none", "ways": ["lda at state"], "behaviours": [], "subjects": ["llama", "rwkv"]},
        {"reason": "no answers", "ways": ["difference at residual"], "behaviours": ["bold"], "subjects": ["rwkv"]},
    ]
    assert "- rwkv: difference at residual (bold): no answers\n" in steering_block(records)
    assert "|" not in steering_block(records)


def test_an_answer_that_is_missing_leaves_a_dash() -> None:
    """Where one multiplier has no answers, the others are told, and whatever needs it is unknown."""
    nothing = dict.fromkeys(("matching", "matching_se", "nonsense", "nonsense_se", "effect", "effect_se"))
    failed = row(("difference", "residual", 1, 3.0), chosen=True, status="no answers", n=0, n_failed=50, **nothing)
    table = STEERING.rows([row(PLAIN), *curve("residual", {-3.0: -0.2}), failed])

    (record,) = steering_summary(table, STEERING_RANGES.empty())

    assert (record["status"], record["n"], record["n_failed"]) == ("ok", 0, 50)
    assert (record["best"], record["monotone"]) == (None, None)
    assert "| -20.00 ± 1.00 | – ± – | 2.0 %; 2.0, – % | – | – |\n" in effects_table([record])


def test_sites_are_told_on_one_scale() -> None:
    """A row per subject and behaviour has the half-range of each site with its error, layer and band, bold where it is clear of that."""
    extra = [{**each, "behaviour": "patient"} for each in (row(PLAIN), *curve("residual", {-3.0: -0.1, 3.0: 0.1}, layer=0))]
    more = [{**ranged("residual", choice, 0.1, layer=0), "behaviour": "patient"} for choice in ("best", "largest")]
    table, ranges = STEERING.rows([*EXAMPLE.to_pylist(), *extra]), STEERING_RANGES.rows([*RANGES.to_pylist(), *more])

    lines = steering_block(steering_summary(table, ranges)).splitlines()

    assert lines[0] == "| subject | behaviour | matching, nonsense without steering | residual | state late | questions |"
    assert lines[1] == "|---|---|---|---|---|---|"
    cells = "**25.00 ± 1.00** (1; -1.00 to 2.00; 24.0, 26.0) | 2.00 ± 1.00 (1; -1.00 to 2.00; 1.0, 3.0)"
    assert lines[2] == f"| lab-rwkv | bold | 50.0 ± 3.0 %, 2.0 % | {cells} | 50 |"
    assert lines[3] == "| lab-rwkv | patient | 50.0 ± 3.0 %, 2.0 % | **10.00 ± 1.00** (0; -1.00 to 2.00; 9.0, 11.0) | – | 50 |"
    assert lines[4] == "| paper, Mamba 2.8b | median of 7 (range) | | 8.5 (2.4–28.6) | 2.8 (2.2–8.5) | 50 |"
    assert any(line.startswith("In 2 of these 3 cells, effects rise with every multiplier; 2 of 3 with null vectors are") for line in lines)
    assert any("have a median of 17.50 points instead of 13.50; vectors from permuted labels reach 2.00." in line for line in lines)
    assert any("the lab's are small" in line for line in lines)
    assert not any("Not done" in line for line in lines)


def test_a_large_effect_of_the_wrong_sign_is_told() -> None:
    """Where another layer goes further than the best one, a row tells both, the band, and what single letters do."""
    block = steering_block(steering_summary(EXAMPLE, RANGES))
    assert "| lab-rwkv | bold | state late | 1, 2.00 ± 1.00 | 0, **-10.00 ± 1.00** | -1.00 to 2.00 | -21.00 to 1.00 |\n" in block
    assert "| lab-rwkv | bold | residual | 1," not in block


def test_parts_of_the_state_stand_in_a_table_of_their_own() -> None:
    """Each part and phase has the half-range of every behaviour at the layer where it goes furthest, and no column of the first table."""
    rows = [{**each, "site": "ssm"} for each in curve("state", {-3.0: -0.1, 3.0: 0.1})]
    known = [ranged("ssm", "largest", 0.1, permuted_draws=0, permuted_low=None, permuted_high=None, permuted_sd=None, clear=None)]
    block = steering_block(
        steering_summary(STEERING.rows([*EXAMPLE.to_pylist(), *rows]), STEERING_RANGES.rows([*RANGES.to_pylist(), *known]))
    )
    assert block.splitlines()[0] == "| subject | behaviour | matching, nonsense without steering | residual | state late | questions |"
    assert "| subject | part | phase | bold |\n|---|---|---|---|\n| lab-rwkv | ssm | late | 10.00 ± 1.00 (1; 9.00 to 11.00) |\n" in block


def test_subjects_that_say_something_else_are_told() -> None:
    """Where most of the probability is nonsense, effects are shown and not counted, and who and what that is is said."""
    rows = [{**each, "subject": "silent", "nonsense": 0.99} for each in EXAMPLE.to_pylist()]
    ranges = [{**each, "subject": "silent"} for each in RANGES.to_pylist()]
    both = STEERING.rows([*EXAMPLE.to_pylist(), *rows]), STEERING_RANGES.rows([*RANGES.to_pylist(), *ranges])
    lines = steering_block(steering_summary(*both)).splitlines()
    assert any(line.startswith("| silent | bold | 50.0 ± 3.0 %, 99.0 % | **25.00") for line in lines)
    assert any(line.startswith("In 1 of the 2 cells of subjects that answer,") for line in lines)
    assert "Not counted: silent (bold), where more than half of the probability without steering is nonsense." in lines
    alone = steering_block(steering_summary(STEERING.rows(rows), STEERING_RANGES.rows(ranges)))
    assert "| silent | bold |" in alone
    assert "Not counted: silent (bold)" in alone
    assert "cells" not in alone


def test_effects_are_told_at_every_multiplier() -> None:
    """The long table has the chosen layer, effects with errors by multiplier, nonsense without and at both ends, and both verdicts."""
    lines = effects_table(steering_summary(EXAMPLE, RANGES)).splitlines()

    assert lines[0].split(" | ")[8:12] == ["-3", "-1", "+1", "+3"]
    assert lines[2] == (
        "| lab-rwkv | bold | difference | residual | none | 1 of 2 | 50 | 50.0 ± 3.0 % | -20.00 ± 1.00 | -5.00 ± 1.00 | 10.00 ± 1.00 |"
        " 30.00 ± 1.00 | 2.0 %; 4.0, 4.0 % | yes | yes |"
    )
    assert lines[3].endswith("| 1.00 ± 1.00 | -1.00 ± 1.00 | 2.00 ± 1.00 | 5.00 ± 1.00 | 2.0 %; 2.0, 2.0 % | no | no |")
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_the_paper_is_told_on_the_same_scale() -> None:
    """Behaviours that a release shares with the paper stand beside it; RWKV's full ranges are halved, Mamba's are as they are."""
    refusal, median, other, _ = paper_rows(["refusal", "bold"])

    assert (refusal["model"], refusal["residual"], refusal["both"]) == ("Mamba 2.8b", pytest.approx(0.044), pytest.approx(0.049))
    assert (other["model"], other["residual"], other["state"]) == ("RWKV-v5 7b", pytest.approx(0.1815), pytest.approx(0.078))
    assert (median["behaviour"], median["state"]) == ("median of 7 (range)", "2.8 (2.2–8.5)")
    assert [each["behaviour"] for each in paper_rows(["corrigible-neutral-hhh"])][::2] == ["corrigible-neutral-HHH"] * 2
    assert len(paper_rows([])) == 2


@pytest.mark.parametrize(("share", "text"), [(None, "–"), (float("nan"), "–"), (-0.1234, "-12.3"), (0.5, "50.0"), (-0.0001, "0.0")])
def test_shares_are_told_in_points(share: float | None, text: str) -> None:
    """A share is in percent with one decimal, and a missing one is a dash."""
    assert points(share) == text


def test_layers_are_told_at_the_ends() -> None:
    """By layer there are the test half's effects at the largest multipliers of both signs, and which layer was chosen."""
    found = [each for each in layer_effects(EXAMPLE) if each["site"] == "residual"]

    assert [(each["layer"], each["multiplier"], each["effect"], each["chosen"]) for each in found] == [
        (0, 3.0, 0.9, False),
        (1, -3.0, -0.2, True),
        (1, 3.0, 0.3, True),
    ]


def picture(path: Path) -> tuple[int, int, int]:
    """Return width and height of a PNG file, and how many different bytes its pixels are made of."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    place, packed = 8, b""
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        packed += data[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        place += 12 + length
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24]), len(set(zlib.decompress(packed)))


def test_charts_are_drawn(tmp_path: Path) -> None:
    """Both charts are pictures with something in them: panels by name, a colour for each site, and every effect in percentage points."""
    records, effects = steering_summary(EXAMPLE, RANGES), layer_effects(EXAMPLE)
    for name in ("steering.png", "steering.svg"):
        steering_chart(records, tmp_path / name)
    for name in ("layers.png", "layers.svg"):
        layers_chart(effects, tmp_path / name)

    for name in ("steering", "layers"):
        width, height, shades = picture(tmp_path / f"{name}.png")
        drawn = (tmp_path / f"{name}.svg").read_text()
        assert min(width, height, shades) > 100
        assert {">bold<", ">lab-rwkv<", ">residual<", ">state late<"} <= set(re.findall(r">[\w -]+<", drawn))
        assert {"#2b6cb0", "#f59e63"} <= set(re.findall(r"#[0-9a-f]{6}", drawn))
        assert "#6b21a8" not in drawn
    told = r'"multiplier: ([^;"]+); percentage points: ([^;"]+); vectors added to: residual'
    marks = re.findall(told, (tmp_path / "steering.svg").read_text().replace("−", "-"))
    assert set(marks) == {("-3", "-20"), ("-1", "-5"), ("0", "0"), ("1", "10"), ("3", "30")}


def filled(table: Table, **known: Any) -> pa.Table:
    """Return one row of *table* with *known* columns and something that fits in the others."""
    usual = {"string": "x", "bool": False, "int32": 1, "int64": 1, "float32": 0.5, "float64": 0.5}
    return table.rows([{column.name: [] if column.is_list else usual[column.dtype] for column in table.columns} | known])


def release_of(folder: Path, tables: Mapping[Table, pa.Table], source: str = "org/lab-rwkv") -> str:
    """Write a release of *tables*, whose subject lies at *source*, with its card to *folder*; return the card."""
    folder.mkdir()
    everything = {
        SAES: filled(SAES, sae="sae", kind="trained"),
        LATENTS: filled(LATENTS, sae="sae", status="alive"),
        SUBJECTS: filled(SUBJECTS, subject="lab-rwkv", source=source, revision=None),
    } | tables
    for table, rows in everything.items():
        write_parquet(folder / table.name / "train-00000-of-00001.parquet", table, [rows])
    parts = [Part.of(table, sorted((folder / table.name).iterdir())) for table in everything]
    absent = [config.table for config in CONFIGS if config.table not in everything]
    told = {**facts(load(ROOT / "params.yaml")), "name": str(folder), "versions": {"torch": "2.13.0"}}
    card.write(folder, parts, absent, told, [])
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("architecture", ["llama", "rwkv", "mamba2"])
def test_the_example_of_the_card_steers(architecture: str, tmp_path: Path) -> None:
    """The card's own lines load the vector of the chosen layer and add it to the output of that block, in any architecture."""
    tiny(architecture).save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").requires_grad_(requires_grad=False)
    draw = torch.Generator().manual_seed(1)
    made = Directions(torch.randn(LAYERS, WIDTH, generator=draw), [{"ssm": torch.randn(2, 3, generator=draw)} for _ in range(LAYERS)])
    vectors = vector_rows(Setting("lab-rwkv", "bold", 10, 1, "{question}", "letters"), {"difference": made, "lda": made}, blocks_of(model))
    tables = {STEERING: EXAMPLE, STEERING_RANGES: RANGES, STEERING_VECTORS: vectors}
    words = release_of(tmp_path / "release", tables, str(tmp_path / "model"))
    block = blocks_of(model)[1]
    before, plain = capture(model, [block], IDS)[block], model(input_ids=IDS, use_cache=False).logits
    with edited(model, block, lambda flow: flow + made.residual[1]):
        expected = model(input_ids=IDS, use_cache=False).logits

    (lines,) = re.findall(r"```python\n(import torch\nfrom datasets import load_dataset\nfrom transformers .*?)```", words, re.DOTALL)
    pasted: dict[str, Any] = {}
    exec(lines, pasted)  # noqa: S102  # these lines are what is tested
    steered = pasted["model"]

    torch.testing.assert_close(capture(steered, [blocks_of(steered)[1]], IDS)[blocks_of(steered)[1]], before + made.residual[1])
    torch.testing.assert_close(steered(input_ids=IDS, use_cache=False).logits, expected)
    assert (expected - plain).abs().max() > 0.01


def test_the_card_tells_of_steering(tmp_path: Path) -> None:
    """With a steering config the card has its section, tables, figures and numbers, and the config opens; else there is no word of it."""
    words = release_of(tmp_path / "with", {STEERING: EXAMPLE, STEERING_RANGES: RANGES})
    without = release_of(tmp_path / "without", {})
    numbers = json.loads((tmp_path / "with/metrics.json").read_text())["steering"]
    records = steering_summary(EXAMPLE, RANGES)

    assert numbers == records
    section = words.split("\n## Steering\n")[1].split("\n## ")[0]
    assert steering_block(records).strip() in section
    assert effects_table(records).strip() in section
    assert re.findall(r"\(figures/(steering.*)\)", words) == ["steering.png", "steering-layers.png"]
    assert {path.name for path in (tmp_path / "with/figures").iterdir()} == {"density.png", "steering.png", "steering-layers.png"}
    assert len(load_dataset(str(tmp_path / "with"), "steering", split="train", cache_dir=str(tmp_path / "cache"))) == EXAMPLE.num_rows
    assert "- steering\n" in words
    assert "## Steering" not in without
    assert "figures/steering" not in without
    assert json.loads((tmp_path / "without/metrics.json").read_text())["steering"] == []
