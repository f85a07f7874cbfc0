"""A copy of this project in a temporary folder, with a small corpus, run by the real commands."""

from __future__ import annotations

import hashlib
import os
import pydoc_data.topics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipelines.graph.closure import ROOT
from pipelines.start import copy_code

SAE = "topk"
# Enough prose for a few latents to fill small quotas in seconds.
TOPICS = ("specialnames", "typesmapping", "compound", "formatstrings", "assignment", "import", "string-methods", "numeric-types")

# What `dvc repro` runs for these params.
STAGES = sorted(
    [
        "sources",
        "check",
        "corpora",
        "subjects",
        "tokens",
        "saes",
        "activations",
        "neighbours",
        "contexts",
        "interventions",
        "explanations@lexical",
        "scores@detection",
        "scores@fuzzing",
        "direct@intruder",
        "similarity",
        "lenses",
        "agreement",
        "calibration",
        "steering",
        "release",
    ]
)


def small_params() -> dict[str, Any]:
    """Return params.yaml with a small text corpus, one small SAE and small quotas, and without a language model."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["corpora"] = {"topics": {"source": "files", "paths": ["text/*.txt"], "held_out": 0.2}}
    params["subjects"] = {"lab": {"path": "checkpoints/lab-transformer", "corpus": "topics"}}
    params["tokens"] |= {"length": 128, "window": 16}
    params["saes"] = {SAE: sae(64)}
    params["training"] |= {"batch": 512, "buffer": 8192, "passes": 4, "batch_rows": 8}
    params["activations"] |= {"batch_rows": 4, "chunk_rows": 8, "file_rows": 60_000, "rare_windows": 20}
    params["contexts"] |= {"train": 10, "test": 10, "train_random": 10, "test_random": 10, "quantiles": 5, "negatives": {}}
    params["engines"] = {}
    for section in ("explainers", "judges"):
        params[section] = {"lexical": params[section]["lexical"]}
    params["embedders"] = {"letters": {"kind": "lexical"}}
    params["release"] |= {"scorer": None, "embedder": "letters", "licenses": {}}
    params["scorers"] = {name: params["scorers"][name] for name in ("detection", "fuzzing")}
    params["behaviours"] = {"bold": {"source": "townsfolk", "disposition": "bold", "describes": "dares"}}
    params["steering"] |= {"multipliers": [-1, 1], "pairs": 8, "questions": 6, "open": {"questions": 1, "tokens": 4}}
    params["direct_scorers"] = {"intruder": {"kind": "intruder", "judge": "lexical", "trials": 6}}
    params["similarity"] = {"rows": 64, "splice_rows": 4}
    params["lenses"] = {"kinds": ["logit"], "rows": 4}
    return params


def sae(width: int, activation: str = "topk") -> dict[str, Any]:
    """Return the params of a small SAE to train."""
    return {"source": "train", "subject": "lab", "hookpoint": "layers.1", "activation": activation, "width": width, "k": 6}


def make_project(folder: Path, params: dict[str, Any]) -> Path:
    """Copy the sources into *folder*, write *params* and the corpus, and start git and DVC there."""
    copy_code(folder)
    (folder / "text").mkdir()
    for topic in TOPICS:
        (folder / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic], encoding="utf-8")
    write_params(folder, params)
    return folder


def write_params(folder: Path, params: dict[str, Any]) -> None:
    """Write *params* as the project's params.yaml."""
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def environment() -> dict[str, str]:
    """Return the environment in which this interpreter is the `python` that stages find."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("INTERPLAKE_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return keep | {"PATH": path, "DVC_NO_ANALYTICS": "1"}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python in *folder* and return how it ended."""
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def repro(folder: Path, *targets: str) -> list[str]:
    """Run `dvc repro` in *folder*, up to the stages *targets* if any are given; return what ran, without `inputs`, which always runs."""
    ended = run(folder, "dvc", "repro", *targets)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ran = {line.split("'")[1] for line in ended.stdout.splitlines() if line.startswith("Running stage")}
    return sorted(ran - {"inputs"})


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below *folder*."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fill(folder: Path) -> None:
    """Make the small project and run it once: every stage runs, and no other."""
    make_project(folder, small_params())
    assert repro(folder) == STAGES
