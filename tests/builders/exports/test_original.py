"""The files of the original release, and back through the reader of existing explanations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import exported
import pyarrow.compute as pc
import pytest

from builders.explainers.imported import read
from builders.exports.export import export

if TYPE_CHECKING:
    from pathlib import Path

    from builders.releases.release import Release


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Return a small release."""
    return exported.write(tmp_path / "release")


@pytest.fixture
def out(release: Release, tmp_path: Path) -> Path:
    """Return the folder of the exported release."""
    export(release, "original", tmp_path / "out")
    return tmp_path / "out"


def test_every_explanation_comes_back(release: Release, out: Path) -> None:
    """The texts of each dictionary and explainer, the baseline included, are those of the release; no other file of texts is there."""
    rows = release.read("explanations", filters=pc.field("text").is_valid()).to_pylist()
    expected: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        expected.setdefault((row["sae"], row["explainer"]), {})[row["latent"]] = row["text"]
    files = sorted(out.rglob("*_feature.json"))

    assert {(path.parts[-3], path.parts[-2]): read(path, path.parts[-3], 3) for path in files} == expected
    assert {path.name for path in files} == {"layers.1_feature.json", "layers.2.mlp_feature.json", "tokens_feature.json"}


def test_scores_have_the_keys_of_the_published_files(out: Path) -> None:
    """A file for each explainer and scorer maps the hookpoint and latent to the score; what has no score is left out."""
    files = {
        path.relative_to(out / exported.SAE).as_posix(): json.loads(path.read_text()) for path in (out / exported.SAE).glob("*/*.json")
    }

    assert {name: content for name, content in files.items() if "_feature" not in name} == {
        "default/detection.json": {".layers.1_feature0": 0.1 + 0.2},
        "lexical/detection.json": {".layers.1_feature0": 0.75},
        "lexical/simulation.json": {".layers.1_feature0": -0.25},
        "lexical-permuted/detection.json": {".layers.1_feature0": 0.5},
        "none/intruder.json": {".layers.1_feature0": 0.9},
    }


def test_judged_windows_are_those_that_the_judge_saw(out: Path) -> None:
    """A file for each latent holds the windows with the judge's answers: those of contexts by number, then those of the pool."""
    path = out / exported.SAE / "default/scores/detection/layers.1_latent0.txt"
    told = json.loads(path.read_text())
    pieces = exported.PIECES

    assert [(each["activating"], each["prediction"], each["correct"], each["distance"]) for each in told] == [
        (True, True, True, 0),
        (True, False, False, 1),
        (False, None, None, -1.0),
        (False, False, True, -1.0),
    ]
    assert [each["str_tokens"] for each in told] == [pieces[:4], pieces[4:], pieces[:3:-1], [pieces[1]] * 4]
    assert [each["activations"] for each in told] == [[0.1, 0.4, 0.0, 0.0], [0.0, 0.0, 0.3, 0.0], [0.0] * 4, [0.0] * 4]
    assert [each["probability"] for each in told] == [None, None, None, 0.25]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.txt")) == [
        f"{exported.SAE}/default/scores/detection/layers.1_latent0.txt",
        f"{exported.SAE}/lexical/scores/detection/layers.1_latent0.txt",
    ]
