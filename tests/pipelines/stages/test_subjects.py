"""Stage `subjects`: a row follows everything in params that it tells of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from project import small_params, write_params

from builders.subjects.checkpoints import SUBJECTS
from pipelines.graph.stage import shelf
from pipelines.stages import subjects


def row_of(**spec: Any) -> dict[str, Any]:
    """Return the row of a subject with these params, made now."""
    params = small_params()
    params["subjects"]["lab"] |= spec
    write_params(Path(), params)
    subjects.main()
    found: dict[str, Any] = shelf("subjects", "lab").read(SUBJECTS).to_pylist()[0]
    return found


def test_a_row_follows_its_params(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another place of the same files and another dtype are told; what the row says nothing of keeps its folder as it was."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        shutil.copytree(tiny_checkpoint, name)
    first, moved = row_of(path="one", device="cpu"), row_of(path="two", device="cpu")
    half = row_of(path="two", device="cpu", dtype="bfloat16")
    before = Path("build/subjects/lab").stat().st_ino
    same = row_of(path="two", device="cpu", dtype="bfloat16", batch_rows=3)

    assert (first["source"], moved["source"], first["files"]) == ("one", "two", moved["files"])
    assert (moved["dtype"], half["dtype"]) == ("float32", "bfloat16")
    assert same == half
    assert Path("build/subjects/lab").stat().st_ino == before
