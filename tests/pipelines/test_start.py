"""A project of one's own, begun by `interplake start`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.graph.closure import ROOT
from pipelines.params import load

DEMO = ROOT / "examples/demo.yaml"


def started(folder: Path, params: Path = DEMO) -> Result:
    """Return how the real command ended."""
    return CliRunner().invoke(main, ["start", str(folder), "--params", str(params)])


def test_a_project_has_the_code_and_its_own_params(tmp_path: Path) -> None:
    """The new folder is a git repository with the graph, the code that it watches, and the params that were named."""
    result = started(tmp_path / "mine")

    assert (result.exit_code, result.stderr) == (0, "")
    assert load(tmp_path / "mine/params.yaml") == load(DEMO)
    assert (tmp_path / "mine/dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert (tmp_path / "mine/.git").is_dir()
    assert not (tmp_path / "mine/dvc.lock").exists()
    code = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "builders").rglob("*.py"))
    assert sorted(path.relative_to(tmp_path / "mine").as_posix() for path in (tmp_path / "mine/builders").rglob("*.py")) == code


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """Nothing is written over: one line says to name a new folder."""
    (tmp_path / "mine").mkdir()
    result = started(tmp_path / "mine")

    assert (result.exit_code, list((tmp_path / "mine").iterdir())) == (2, [])
    assert result.stderr == f"error: {tmp_path / 'mine'}: is there already; name a new folder, or remove it\n"


def test_params_that_are_not_valid_begin_nothing(tmp_path: Path) -> None:
    """Params are checked first, so that a mistake leaves no half of a project."""
    (tmp_path / "wrong.yaml").write_text("seed: 0\n")
    result = started(tmp_path / "mine", tmp_path / "wrong.yaml")

    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'wrong.yaml'}: ")
    assert not (tmp_path / "mine").exists()
