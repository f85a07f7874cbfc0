"""A subject with code of its own and an unknown kind of memory: it is a subject like any other until its state is to be steered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from own_code import make_recurrent, modules_in
from project import run, small_params, write_params

from builders.subjects.checkpoints import SUBJECTS
from pipelines.graph.closure import ROOT
from pipelines.graph.stage import shelf
from pipelines.stages import subjects

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder: a project whose subject's `state` is a list of three tensors."""
    modules_in(tmp_path / "modules", monkeypatch)
    make_recurrent(tmp_path / "delta", ROOT / "checkpoints/lab-transformer", "three")
    params = small_params()
    params["subjects"] = {"lab": {"path": "delta", "corpus": "topics", "trust_remote_code": True}}
    write_params(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_steering_it_is_one_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row names its class and its code; the command that steers it ends with 2 and one line that names the class."""
    subjects.main("lab")
    row = shelf("subjects", "lab").read(SUBJECTS).to_pylist()[0]
    monkeypatch.setenv("HF_MODULES_CACHE", str(here / "modules"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ended = run(here, "pipelines.stages.steering", "lab")

    assert (row["architecture"], row["recurrent"]) == ("DeltaForCausalLM", True)
    assert "delta.py" in {entry.split()[0] for entry in row["files"]}
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(
        "DeltaForCausalLM: no known kind of memory; add its family to builders/subjects/states.py"
    )
    assert "Traceback" not in ended.stderr
