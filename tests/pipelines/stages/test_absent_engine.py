"""Stages whose language model is not on this machine: it is skipped where params say so, and rows tell why they are empty."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
import yaml
from explained import SAE, build
from project import write_params

from builders.engines.absent import ABSENT
from builders.errors import MissingError
from builders.lake.hashes import Hashes
from pipelines.graph.outside import entry_lines
from pipelines.graph.stage import folder
from pipelines.params import LlamaCppEngineParams, load
from pipelines.stages import check, explanations, scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared import Once

PACKAGE = "no_such_model_package"


@pytest.fixture(scope="module")
def built(tiny_checkpoint: Path, once: Once) -> Path:
    """Return a project that is built up to the contexts."""
    return once("absent", lambda place: build(place, tiny_checkpoint, 48, 4))


@pytest.fixture
def here(built: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a copy of the project, in which this process is, whose engine is a package that nobody has."""
    place = tmp_path / "project"
    shutil.copytree(built, place, symlinks=True)
    absent(place, "skip")
    with chdir(place):
        yield place


def absent(place: Path, missing: str) -> None:
    """Write params with an explainer and a judge whose engine is *missing*."""
    params = yaml.safe_load((place / "params.yaml").read_text())
    params["engines"] = {"gone": {"kind": "llamacpp", "package": PACKAGE, "missing": missing}}
    params["explainers"] = {
        "lexical": {"kind": "lexical", "baseline": "none"},
        "gone": {"kind": "default", "engine": "gone", "max_failed_share": 0},
    }
    params["judges"] = {"gone": {"kind": "model", "engine": "gone", "max_failed_share": 0, "form": "single"}}
    params["direct_scorers"] = {}
    params["scorers"] = {
        "detection": {"kind": "detection", "judge": "gone", "latents": 5},
        "surprisal": {"kind": "surprisal", "judge": "gone", "latents": 5},
    }
    write_params(place, params)


def test_latents_say_that_their_explainer_is_not_installed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every latent has a row with that status and no text, and a failure that names the package; one line on the screen says so."""
    explanations.main("gone", SAE)
    rows = pq.read_table(folder("explanations", SAE, "gone") / "explanations-00000.parquet").to_pylist()
    reasons = {row["reason"] for row in pq.read_table(folder("explanations", SAE, "gone") / "failures-00000.parquet").to_pylist()}

    assert {(row["status"], row["text"]) for row in rows} == {(ABSENT, None)}
    assert all(PACKAGE in reason for reason in reasons)
    assert len(reasons) == 1
    assert capsys.readouterr().out.count("without it, rows say so") == 1


@pytest.mark.parametrize("scorer", ["detection", "surprisal"])
def test_windows_say_that_their_judge_is_not_installed(here: Path, scorer: str) -> None:
    """Explanations of others are not judged: no score, and every window has that status."""
    explanations.main("lexical", SAE)
    scores.main(scorer, SAE, "lexical")
    rows = pq.read_table(folder("scores", SAE, "lexical", scorer) / "judgements-00000.parquet").to_pylist()
    told = pq.read_table(folder("scores", SAE, "lexical", scorer) / "scores-00000.parquet").to_pylist()

    assert {row["status"] for row in rows} == {ABSENT}
    assert {row["score"] for row in told} == {None}
    assert len(told) == 5


def test_a_check_tells_what_will_be_skipped(here: Path) -> None:
    """`check` has a line about the engine that is not there, and goes on."""
    (line,) = [line for line in check.check_all(load(), offline=False) if line.startswith("engine gone")]

    assert PACKAGE in line
    assert line.endswith("without it, rows say so")


def test_a_path_that_is_not_there_is_a_line_of_the_inputs(here: Path) -> None:
    """What DVC sees of such an engine says that it is missing, so that its stages run once it is there."""
    spec = LlamaCppEngineParams(kind="llamacpp", path="models/none.gguf", missing="skip")

    assert list(entry_lines("engines", "gone", spec, Hashes(here / "hashes.json"))) == ["models/none.gguf is not there\n"]


def test_without_skip_a_missing_engine_ends_the_stage(here: Path) -> None:
    """By default an engine that is not there is an error of one line, in `check` and in the stage."""
    absent(here, "fail")

    with pytest.raises(MissingError, match=PACKAGE):
        list(check.check_all(load(), offline=False))
    with pytest.raises(MissingError, match=PACKAGE):
        explanations.main("gone", SAE)
