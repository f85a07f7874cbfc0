"""A project of one's own, begun by `interplake start`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.graph.closure import ROOT
from pipelines.graph.declared import require_sections
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


def test_params_without_a_section_of_the_graph_begin_nothing(tmp_path: Path) -> None:
    """DVC reads sections that have defaults from the file alone, so a file without them is refused, by `check` too."""
    words = DEMO.read_text().replace("embedders: {}\n", "")
    (tmp_path / "short.yaml").write_text(words)
    result = started(tmp_path / "mine", tmp_path / "short.yaml")
    checked = CliRunner().invoke(main, ["check", "--params", str(tmp_path / "short.yaml")])

    assert (result.exit_code, checked.exit_code) == (2, 2)
    assert result.stderr == checked.stderr
    assert "lacks embedders, which dvc.yaml reads; write what you do not need as `embedders: {}`" in result.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_has_all_sections(path: Path) -> None:
    """A project can be begun with any of the examples."""
    require_sections(path)


def test_a_command_runs_the_code_of_the_project(tmp_path: Path) -> None:
    """`interplake` in a project of one's own is that project's, not that which is installed."""
    started(tmp_path / "mine")
    (tmp_path / "mine/cards/show.py").write_text("def show_latent(*_): print('mine')\n")
    command = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipelines.cli import run; sys.argv = ['interplake', 'show', 'x', '1']; run()"
    )
    ended = subprocess.run([sys.executable, "-c", command], cwd=tmp_path / "mine", capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (0, "mine\n"), ended.stderr
