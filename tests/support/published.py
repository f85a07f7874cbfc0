"""A project whose lake is one folder and whose release is a copy of it, in real git and DVC: a release is made in a second."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path

import pyarrow as pa
import yaml
from click.testing import Result
from dvc.repo import Repo
from project import small_params
from releases import small_tables, write_release

from builders.lake.table import Table
from pipelines.stages import inputs

Publish = Callable[..., Result]
REPO = "lab/small"
TEXTS = {"one": ["dogs", "cats", "birds"], "two": ["rivers", "mills"]}
GRAPH = {
    "inputs": {
        "cmd": ":",  # :func:`repro` does its work without a process of its own
        "always_changed": True,
        "outs": [{"build/inputs": {"persist": True}}],
    },
    "scores": {
        "cmd": "rm -rf build/scores && cp -r draft build/scores",
        "deps": ["draft", "build/inputs/sections"],
        "outs": ["build/scores"],
    },
    "release": {
        "cmd": "cp -r build/scores build/release",
        "deps": ["build/scores", "build/inputs/sections"],
        "outs": ["build/release"],
    },
}


def make_lake(folder: Path) -> None:
    """Make the project with its first release in *folder*."""
    params = small_params()
    params["subjects"] = {"lab": {"repo": "lab/model", "revision": "5f" * 20, "corpus": "topics"}}
    params["behaviours"] = {}
    (folder / "text").mkdir()
    (folder / "text/one.txt").write_text("A text.\n")
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": GRAPH}, sort_keys=False))
    (folder / ".gitignore").write_text("build/\n.interplake/\ndraft/\n")
    git(folder, "init", "--quiet")
    Repo.init(str(folder)).close()
    release_of(folder, "1.0.0", small_tables(TEXTS))


def release_of(folder: Path, version: str, tables: Mapping[Table, pa.Table], others: Mapping[str, bytes] | None = None) -> Path:
    """Make a release of these tables and other files, commit, and return its folder."""
    draft(folder, version, tables, others)
    repro(folder)
    commit(folder)
    return folder / "build/release"


def draft(folder: Path, version: str, tables: Mapping[Table, pa.Table], others: Mapping[str, bytes] | None = None) -> None:
    """Write what the lake is to hold."""
    shutil.rmtree(folder / "draft", ignore_errors=True)
    write_release(folder / "draft", version, tables, others)


def repro(folder: Path, *stages: str) -> None:
    """Run `dvc repro`, or only the *stages*."""
    with chdir(folder), Repo() as repo:
        inputs.main()
        repo.reproduce(list(stages) or None, single_item=bool(stages))


def commit(folder: Path) -> None:
    """Commit everything that git is to know."""
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--allow-empty", "-m", "a release")


def git(folder: Path, *arguments: str) -> None:
    """Run git in *folder*."""
    subprocess.run(["git", *arguments], cwd=folder, check=True)  # noqa: S607
