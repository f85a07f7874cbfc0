"""Where a release comes from: the part that every rebuild repeats, and the part that belongs to one run."""

from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from project import small_params

from pipelines.graph.closure import ROOT
from pipelines.params import Params
from pipelines.parts import provenance

SERVER = {"kind": "openai", "base_url": "http://localhost:1/v1", "model": "big"}


def of(**sections: dict[str, Any]) -> Params:
    """Return the small params with more entries in *sections*."""
    params = small_params()
    for section, entries in sections.items():
        params[section] = params[section] | entries
    return Params.model_validate(params)


def git(*command: str) -> None:
    """Run git in the working folder."""
    settings = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "somebody")
    subprocess.run(["git", *command], env={**os.environ, **settings}, check=True, capture_output=True)  # noqa: S607


def test_prompts_are_those_that_were_asked() -> None:
    """Without a language model there are none; an explainer, a judge and ratings of steered texts have their own files, which exist."""
    asked = of(
        engines={"server": SERVER},
        explainers={"asked": {"kind": "default", "engine": "server"}},
        judges={"model": {"kind": "model", "engine": "server"}},
        scorers={"asked": {"kind": "detection", "judge": "model"}},
        steering={"open": {"questions": 1, "tokens": 4, "judge": "model"}},
    )

    assert provenance.prompts(of()) == []
    found = provenance.prompts(asked)
    assert {path.split("/")[1] for path in found} == {"explainers", "scorers", "steering"}
    assert all((ROOT / path).is_file() for path in found)


def test_a_commit_and_files_that_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean tree has its commit, a changed file makes it dirty, and outside of git nothing is known."""
    monkeypatch.chdir(tmp_path)
    assert provenance.committed() is None

    git("init")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    git("add", "-A")
    git("commit", "-m", "one")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607
    assert provenance.committed() == {"commit": commit, "dirty": False}

    (tmp_path / "params.yaml").write_text("seed: 1\n")
    assert provenance.committed() == {"commit": commit, "dirty": True}


def test_what_varies() -> None:
    """A run has its time, its machine, and a hash of the code of every stage, prompts and all."""
    before = datetime.now(UTC).replace(microsecond=0)
    found = provenance.varying()

    assert before <= datetime.fromisoformat(found["time"]) <= datetime.now(UTC)
    assert {"release", "saes", "explanations/lexical", "scores/detection"} <= found["code"].keys()
    assert all(len(digest) == len(hashlib.sha256().hexdigest()) for digest in found["code"].values())
    machine = found["machine"]
    assert (machine["cores"], machine["gpus"]) == (os.cpu_count(), machine["gpus"])
    assert machine["memory_bytes"] > 2**28
    assert machine["processor"]
