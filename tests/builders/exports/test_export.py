"""`interplake export`: what it writes where, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import exported
import pytest
from click.testing import CliRunner

from builders.exports.export import LAYOUTS
from pipelines.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Return the folder of a small release."""
    return exported.write(tmp_path / "release").root


def run(release: Path, *arguments: str | Path) -> tuple[int, str]:
    """Run the command and return its exit code and all that it said."""
    ended = CliRunner().invoke(main, ["export", "--release", str(release), *map(str, arguments)])
    return ended.exit_code, ended.output


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_written_into_a_new_folder(layout: str, release: Path, tmp_path: Path) -> None:
    """The command says what it wrote and what has no place there; nothing else is left beside the folder."""
    code, said = run(release, "--to", layout, tmp_path / "deep/out")
    left = "left out, since their hookpoints name no layer: toy-rules\n" if LAYOUTS[layout].layered else ""

    assert (code, said) == (0, f"wrote mine 1.2.0 to {tmp_path / 'deep/out'}; dictionaries: {2 if left else 3}\n{left}")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_one_dictionary_is_chosen(release: Path, tmp_path: Path) -> None:
    """Only the dictionaries that are named are exported; a set of one layer has the id of its dictionary."""
    assert run(release, "--to", "neuronpedia", "--sae", "toy-l2-top", tmp_path / "one") == (
        0,
        f"wrote mine 1.2.0 to {tmp_path / 'one'}; dictionaries: 1\n",
    )
    run(release, "--to", "circuit-tracer", "--sae", "toy-l2-top", tmp_path / "set")

    assert [path.name for path in (tmp_path / "one/v1/lab").iterdir()] == ["2-toy-l2-top"]
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["toy-l2-top"]


def test_mistakes_are_one_line(release: Path, tmp_path: Path) -> None:
    """An unknown dictionary, one without a layer, a folder with something in it and a folder that is no release end with 2."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    said = {
        run(release, "--to", "original", "--sae", "gone", tmp_path / "a"),
        run(release, "--to", "circuit-tracer", "--sae", "toy-rules", tmp_path / "b"),
        run(release, "--to", "original", tmp_path / "full"),
        run(tmp_path / "full", "--to", "original", tmp_path / "c"),
    }

    assert said == {
        (2, f"error: {release}: has no dictionary gone; --sae takes toy-l1-top, toy-l2-top, toy-rules\n"),
        (2, "error: toy-rules: the hookpoint names no layer, which circuit-tracer needs; name other dictionaries with --sae\n"),
        (2, f"error: {tmp_path / 'full'}: is there already; name a new folder\n"),
        (2, f"error: {tmp_path / 'full'}: holds no release.json, so it is no release; build one with `dvc repro`\n"),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "release"]


def test_an_interrupted_export_leaves_no_half(release: Path, tmp_path: Path) -> None:
    """What a crash left beside the folder is cleared by the next export, and an empty folder is filled."""
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp/half").write_text("half")
    code, _ = run(release, "--to", "original", tmp_path / "out")

    assert code == 0
    assert not (tmp_path / "out/half").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "release"]


def test_the_command_knows_every_layout(release: Path, tmp_path: Path) -> None:
    """Any other layout is refused with the names of those there are."""
    code, said = run(release, "--to", "other", tmp_path / "out")

    assert code == 2
    assert all(f"'{layout}'" in said for layout in LAYOUTS)
