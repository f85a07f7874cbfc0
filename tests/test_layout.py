"""Where modules lie, and which modules they may import."""

from __future__ import annotations

import json
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cards.card import results_page
from cards.render import render
from pipelines.docs import datasets_page, filled
from pipelines.graph.closure import PACKAGES, ROOT, module
from pipelines.params import load, load_lab

LAB = load_lab().checkpoints


def rooms() -> list[str]:
    """Return the rooms in the order in which docs/architecture.md lists them: each may import those before it."""
    return re.findall(r"^\d+\. `([\w/.]+)`", (ROOT / "docs/architecture.md").read_text(), flags=re.MULTILINE)


def room_of(path: Path) -> str:
    """Return the room of a module: the longest of the listed paths that it lies at or below."""
    name = path.relative_to(ROOT).as_posix()
    return max((room for room in rooms() if name == room or name.startswith(f"{room}/")), key=len)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_down_only(package: str) -> None:
    """No module imports a room that docs/architecture.md lists after its own; that page lists every room."""
    order = {room: place for place, room in enumerate(rooms())}
    for path in (ROOT / package).rglob("*.py"):
        around = {folder / "__init__.py" for folder in path.parents}  # whatever they say, they run before the module
        for other in set(module(path).imports) - around:
            assert order[room_of(other)] <= order[room_of(path)], f"{path} imports {other}"


def test_no_room_imports_in_circles() -> None:
    """Modules of one room import one another without a cycle."""
    paths = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    imports = {path: {other for other in module(path).imports if other.name != "__init__.py"} & paths for path in paths}

    assert list(TopologicalSorter(imports).static_order())


def test_the_datasets_page_is_fresh() -> None:
    """docs/datasets.md is what the tables say today; `make docs` writes it."""
    assert (ROOT / "docs/datasets.md").read_text() == datasets_page()


def test_pages_show_the_recorded_results() -> None:
    """docs/results.md and README's numbers are those of docs/results.json, which `make docs` takes from a release."""
    readme, found = (ROOT / "README.md").read_text(), json.loads((ROOT / "docs/results.json").read_bytes())

    assert (ROOT / "docs/results.md").read_text() == results_page(found)
    assert filled(readme, found) == readme
    assert "is the median balanced accuracy of detection" in readme


def test_pages_of_examples_show_their_recorded_results() -> None:
    """Each page of docs/runs is that of the figures beside it, and the example of its name is there."""
    names = {path.stem for path in (ROOT / "docs/runs").glob("*")}

    for name in names:
        found = json.loads((ROOT / f"docs/runs/{name}.json").read_bytes())
        assert (ROOT / f"docs/runs/{name}.md").read_text() == results_page(found, name)
        assert (ROOT / f"examples/{name}.yaml").exists()


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
