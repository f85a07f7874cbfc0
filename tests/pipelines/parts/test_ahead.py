"""A stage that covers all dictionaries: which folders it fills again, and which it keeps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders.lake.failures import FAILURES
from builders.lake.shards import Shards, Shelf
from pipelines.graph.stage import BUILD, folder, keep_only
from pipelines.parts.ahead import Job

JOB = Job("scores", ("topk", "lexical", "detection"), {"contexts": "0"}, {"seed": 0}, "code")
FILE = Path("build/scores/detection/topk/lexical/failures-00000.parquet")


class Work:
    """Writes a table and counts how often; it says whether all is *settled*."""

    def __init__(self, *, settled: bool = True) -> None:
        self.times, self.settled = 0, settled

    def __call__(self, shards: Shards) -> bool:
        """Write an empty table, as a stage would."""
        self.times += 1
        shards.write(FAILURES, [FAILURES.empty()])
        return self.settled


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def test_a_folder_is_filled_once() -> None:
    """The same job does nothing the second time, and its folder is finished."""
    work = Work()
    JOB.fill(work)
    JOB.fill(work)

    assert work.times == 1
    assert Shelf(FILE.parent).paths(FAILURES) == [FILE]


@pytest.mark.parametrize(
    "other", [replace(JOB, code="other"), replace(JOB, inputs={"contexts": "1"}), replace(JOB, settings={"seed": 1})], ids=str
)
def test_a_change_of_code_inputs_or_params_fills_it_again(other: Job) -> None:
    """With other code, inputs or params the work is done again."""
    work = Work()
    JOB.fill(work)
    other.fill(work)

    assert work.times == 2


def restored(old: Path) -> None:
    """Bring back the folder that another job left, as a checkout of DVC does."""
    shutil.rmtree(FILE.parent)
    shutil.copytree(old, FILE.parent)


@pytest.mark.parametrize(
    "hurt",
    [
        lambda _: FILE.write_bytes(b"damaged"),
        lambda _: FILE.unlink(),
        lambda _: (FILE.parent / "more.txt").write_text("more"),
        lambda _: (FILE.parent / "manifest.json").unlink(),
        lambda _: shutil.rmtree("build/.ready"),
        restored,
    ],
    ids=["damaged", "gone", "one more", "no manifest", "no note", "restored"],
)
def test_a_folder_that_is_not_as_it_was_left_is_filled_again(hurt: Callable[[Path], object], tmp_path: Path) -> None:
    """A folder is not taken for finished if a file is damaged, missing or unknown, if another job wrote it, or if no note is left."""
    replace(JOB, inputs={"contexts": "before"}).fill(Work())
    old = Path(shutil.copytree(FILE.parent, tmp_path / "old"))
    work = Work()
    JOB.fill(work)
    hurt(old)
    JOB.fill(work)
    JOB.fill(work)

    assert work.times == 2
    assert [path.name for path in sorted(FILE.parent.iterdir())] == [FILE.name, "manifest.json"]


def test_failed_work_is_tried_again() -> None:
    """Where requests failed, the work is done each time, until none fails."""
    failing, succeeding = Work(settled=False), Work()
    for work in (failing, failing, succeeding, succeeding):
        JOB.fill(work)

    assert (failing.times, succeeding.times) == (2, 1)


def test_folders_that_params_do_not_name_are_removed() -> None:
    """Folders of removed dictionaries and stray files are removed; folders of other stages stay."""
    ids = [
        ("topk", "lexical", "detection"),
        ("topk", "gone", "detection"),
        ("gone", "lexical", "detection"),
        ("topk", "lexical", "fuzzing"),
    ]
    for one in ids:
        replace(JOB, ids=one).fill(Work())
    Path("build/scores/detection/stray.txt").write_text("stray")
    keep_only(BUILD / "scores/detection", [folder("scores", *ids[0])])

    left = sorted(path.parent.relative_to("build/scores").as_posix() for path in Path("build/scores").rglob("manifest.json"))
    assert left == ["detection/topk/lexical", "fuzzing/topk/lexical"]
    assert sorted(path.name for path in Path("build/scores/detection").iterdir()) == ["topk"]


def test_where_nothing_is_named_a_folder_is_left() -> None:
    """A stage without dictionaries leaves the empty folder that DVC looks for."""
    keep_only(BUILD / "direct/intruder", [])

    assert Path("build/direct/intruder").is_dir()
