"""Which stages a change runs again, and which not: through real DVC on a small graph."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from forms import schema_of, written
from llm_server import MODEL, Server, chat, serving
from project import SAE, digests, environment, make_project, repro, run, sae, small_params, write_params
from shared import Once

OF_ALL = ["agreement", "calibration", "release", "similarity"]  # stages that read the outputs of all dictionaries
COMMENT = "\n# A comment.\n"


def two_of_each() -> dict[str, Any]:
    """Return params with a second corpus, a second subject that reads it and has no dictionary; no behaviours and no lenses."""
    params = small_params()
    params["corpora"]["more"] = {"source": "files", "paths": ["more/*.txt"], "held_out": 0.2}
    params["subjects"]["other"] = {"path": "checkpoints/lab-transformer", "corpus": "more"}
    params["scorers"] = {"detection": params["scorers"]["detection"]}
    params["behaviours"], params["lenses"] = {}, {}
    return params


def fill(folder: Path) -> None:
    """Make a project of these params and run it once."""
    make_project(folder, two_of_each())
    (folder / "more").mkdir()
    for name in ("compound.txt", "import.txt", "assignment.txt"):
        shutil.copyfile(folder / "text" / name, folder / "more" / name)
    repro(folder)


@pytest.fixture
def project(once: Once, tmp_path: Path) -> Path:
    """Return a copy of a finished project, free to be changed."""
    return Path(shutil.copytree(once("reruns", fill), tmp_path / "project"))


def changed(path: Path, old: str, new: str) -> None:
    """Replace *old* by *new* in a file that holds it once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_second_repro_runs_nothing_nor_do_comments_and_caches(project: Path) -> None:
    """A comment in every module, another docstring, a cache beside the code and words beside a checkpoint run nothing."""
    assert repro(project) == []

    for path in [path for package in ("builders", "cards", "pipelines") for path in (project / package).rglob("*.py")]:
        path.write_text(path.read_text() + COMMENT)
    for name in ("builders/__pycache__/latents.pyc", "checkpoints/lab-transformer/__pycache__/x.pyc", "checkpoints/x.py~"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("cache")
    (project / "checkpoints/lab-transformer/README.md").write_text("Other words, same weights.\n")

    assert repro(project) == ["sources"]


def test_a_text_of_a_corpus_runs_its_subjects_and_what_reads_all_tokens(project: Path) -> None:
    """A file that is edited, added or removed runs the check, the corpora, and the stages that read all tokens.

    These keep the rows of every dictionary, so that no stage after them runs but the release.
    """
    of_tokens = ["tokens", "saes", "activations", "neighbours", "contexts", "interventions", "similarity", "lenses", "release"]
    text = project / "more/import.txt"
    text.write_text(text.read_text() + "\n\nOne more sentence.\n")
    edited = repro(project)
    (project / "more/new.txt").write_text("A new text with some words of its own, long enough to be read. " * 20)
    added = repro(project, "tokens")
    (project / "more/compound.txt").unlink()
    removed = repro(project, "tokens")

    assert edited == sorted([*of_tokens, "check", "corpora"])
    assert (added, removed) == (["check", "corpora", "tokens"], ["check", "corpora", "tokens"])


def test_one_more_sae_makes_nothing_else_anew(project: Path) -> None:
    """An SAE added anywhere in params.yaml runs the check and the stages that cover all dictionaries.

    They leave every file of the others as it was, even without the notes of earlier runs, as after `dvc pull`.
    """
    shutil.rmtree(project / "build/.ready")
    kinds = ("saes", "activations", "neighbours", "contexts", "explanations/lexical", "scores/detection", "direct/intruder")
    before = {kind: (project / "build" / kind / SAE).stat().st_ino for kind in kinds}
    params = two_of_each()
    params["saes"] = {"another": sae(32, "jumprelu"), **params["saes"]}
    write_params(project, params)

    ran = repro(project)

    of_dictionaries = ["saes", "activations", "neighbours", "contexts", "interventions"]
    of_latents = ["explanations@lexical", "scores@detection", "direct@intruder"]
    assert ran == sorted([*of_dictionaries, *of_latents, *OF_ALL, "check"])
    assert {kind: (project / "build" / kind / SAE).stat().st_ino for kind in kinds} == before
    assert (project / "build/saes/another").is_dir()


def test_a_changed_default_runs_what_reads_the_section(project: Path) -> None:
    """A changed default in a section of params runs the stages that declare the section; if their rows are equal, no later stage runs."""
    changed(project / "pipelines/params/sources.py", "    most: Count = 10\n", "    most: Count = 11\n")

    assert repro(project) == ["check", "neighbours", "release", "sources"]


def test_a_killed_run_goes_on_after_an_edit_elsewhere(project: Path) -> None:
    """After a kill -9 during `activations` and an edit of a builder that it does not use, chunks are kept and the bytes are equal."""
    undisturbed = digests(project / "build/release")
    shutil.rmtree(project / "build/release")
    shutil.rmtree(project / "build/activations" / SAE)
    shutil.rmtree(project / ".dvc/cache")
    left = kill_at_third_chunk(project)
    changed(project / "builders/contexts/lookalikes.py", "import numpy as np\n", "import numpy as np\n\nUNUSED = 1\n")

    ended = run(project, "dvc", "repro")

    assert len(left) >= 3
    assert ended.returncode == 0, ended.stderr
    assert f"{SAE}: {len(left)} of " in ended.stdout
    assert "chunks were read before" in ended.stdout
    assert digests(project / "build/release") == undisturbed


def kill_at_third_chunk(project: Path) -> list[Path]:
    """Start `dvc repro`, kill its whole process group once three chunks are there, and return those that are whole."""
    ready = project / "build/.ready/activations" / SAE
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=project, env=environment(), start_new_session=True)
    tick = threading.Event()
    while len(list(ready.glob("*/spill-*.safetensors"))) < 4:
        assert process.poll() is None, "the run ended before it could be killed"
        tick.wait(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    manifest = next(ready.glob("*/manifest.json"))
    return sorted(yaml.safe_load(manifest.read_text())["shards"])


def test_why_names_what_changed(project: Path) -> None:
    """`interplake why` names the modules, params and files that changed, and a stage that never ran."""
    changed(project / "builders/saes/latents.py", "TOP = 10", "TOP = 9")
    (project / "more/new.txt").write_text("New.")
    params = two_of_each()
    params["activations"]["rare_windows"] = 21
    write_params(project, params)

    said = [run(project, "pipelines", "why", stage) for stage in ("activations", "corpora", "tokens", "scores@nobody")]

    assert said[0].stdout == "builders/saes/latents.py has changed\nparams activations.rare_windows: 20 → 21\n"
    assert said[1].stdout == "more/new.txt is new\n"
    assert said[2].stdout.startswith("tokens: nothing has changed since it ran; ")
    assert (said[3].returncode, said[3].stderr.startswith("error: scores@nobody: dvc.lock does not know it")) == (2, True)


@pytest.mark.parametrize(
    ("section", "spec", "said"),
    [
        ("corpora", {"topics": {"source": "files", "paths": ["no/*.txt"]}}, "corpora.topics: corpus: no file matches 'no/*.txt'"),
        ("saes", {SAE: {"source": "pretrained", "subject": "lab", "hookpoint": "layers.1", "path": "no"}}, f"saes.{SAE}: no is not there"),
    ],
)
def test_a_missing_path_ends_the_run_in_one_line(tmp_path: Path, section: str, spec: dict[str, Any], said: str) -> None:
    """A path or glob of params that matches nothing ends in one line and exit code 2, before any other stage runs."""
    folder = make_project(tmp_path / "project", {**small_params(), section: spec})
    ended, under_dvc = run(folder, "pipelines.stages.inputs"), run(folder, "dvc", "repro")

    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith(f"error: {said}")
    assert ended.stderr in under_dvc.stderr
    assert not (folder / "build/corpora").exists()


@pytest.fixture
def asking(once: Once, tmp_path: Path) -> Iterator[Path]:
    """Return a copy of a finished project in which a language model explains and judges."""
    with serving(lambda body, _: answered(body)) as server:
        params = asking_params(server)
        folder = Path(shutil.copytree(once("reruns", fill), tmp_path / "project"))
        write_params(folder, params)
        repro(folder)
        yield folder


def asking_params(server: Server) -> dict[str, Any]:
    """Return params with two explainers and two scorers; one of each asks a language model."""
    params = two_of_each()
    params["engines"] = {"server": {"kind": "openai", "base_url": server.url, "model": MODEL}}
    params["judges"]["asks"] = {"kind": "model", "engine": "server", "max_failed_share": 1.0}
    params["explainers"]["asked"] = {"kind": "default", "engine": "server", "latents": 2}
    params["scorers"]["asked"] = {"kind": "detection", "judge": "asks", "latents": 2}
    return params


def answered(body: dict[str, Any]) -> Any:
    """Answer an explainer with an explanation, and a judge with zeros."""
    if "EXPLANATION" in str(body["messages"]):
        return chat("[EXPLANATION]: words")
    schema = schema_of(body)
    return chat(written(schema, [0] * schema["properties"]["answers"]["minItems"]))


def test_a_prompt_runs_those_that_use_it(asking: Path) -> None:
    """A changed template of a judge runs the scorers that use it; one of an explainer runs that explainer and all scorers."""
    windows = asking / "builders/scorers/prompts/windows.j2"
    windows.write_text("Words.\n" + windows.read_text())
    judged = repro(asking)
    guidelines = asking / "builders/explainers/prompts/guidelines.j2"
    guidelines.write_text("Words.\n" + guidelines.read_text())
    explained = repro(asking)

    assert set(judged) - set(OF_ALL) == {"scores@asked", "sources"}
    assert set(explained) - set(OF_ALL) == {"explanations@asked", "scores@asked", "scores@detection", "sources"}
