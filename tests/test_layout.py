"""Where things live and which way they import."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cards.render import render
from pipelines.closure import ROOT, module
from pipelines.docs import datasets_page, with_results
from pipelines.params import load, load_lab

LAB = load_lab().checkpoints
LAYERS = {"builders": 0, "checkpoints": 1, "cards": 1, "pipelines": 2}


def test_imports_run_down_only() -> None:
    """No room imports one above it."""
    for room, layer in LAYERS.items():
        for path in (ROOT / room).rglob("*.py"):
            for other in module(path).imports:
                target = other.relative_to(ROOT).parts[0]
                assert LAYERS[target] < layer or target == room, f"{path} imports {other}"


def test_the_datasets_page_is_fresh() -> None:
    """docs/datasets.md is what the tables say today; `make docs` writes it."""
    assert (ROOT / "docs/datasets.md").read_text() == datasets_page()


def test_the_readme_shows_the_recorded_results() -> None:
    """README's results are those of docs/results.json, which `make docs` takes from a release."""
    readme = (ROOT / "README.md").read_text()

    assert with_results(readme, (ROOT / "docs/results.json").read_text()) == readme
    assert "| detection (balanced accuracy) | lexical |" in readme


@pytest.mark.parametrize("name", LAB)
def test_a_lab_card_tells_of_the_checkpoint_here(name: str) -> None:
    """A lab checkpoint's card states all three losses, the model's below the counting models', and replies where it learned some."""
    words = (ROOT / "checkpoints" / name / "README.md").read_text()
    losses = [float(number) for number in re.findall(r"\| \**(\d\.\d{3})(?: ± \d\.\d{3}\*\*)? \| \**\d\.\d\d\b", words)]
    shares = [float(number) for number in re.findall(r"\| being \w+ \| (\d\.\d{3}) ±", words)]

    assert len(losses) == 3
    assert losses[2] < losses[1] - 0.2 < losses[0] - 0.2
    assert len(shares) == (6 if LAB[name].talks else 0)
    assert all(share > 0.9 for share in shares)


@pytest.mark.parametrize("name", LAB)
def test_a_lab_checkpoint_is_small(name: str) -> None:
    """A lab checkpoint's weights are safetensors of at most four megabytes."""
    weights = list((ROOT / "checkpoints" / name).glob("*.safetensors"))

    assert len(weights) == 1
    assert weights[0].stat().st_size <= 4_000_000


def test_a_template_with_a_missing_name_is_an_error() -> None:
    """A card never has a gap where a figure should be."""
    with pytest.raises(Exception, match="is undefined"):
        render("lab.md.j2", {})


def test_params_of_this_repository_load() -> None:
    """The params.yaml that ships is valid."""
    assert "lab-transformer" in load(Path(ROOT / "params.yaml")).subjects
