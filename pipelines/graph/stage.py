"""What every stage shares: where outputs lie, and how a mistake is told."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import UserError
from builders.lake.shards import Shelf, file_sha256
from builders.library import spare_pandas

if TYPE_CHECKING:
    from pipelines.params import Params

BUILD = Path("build")
SOURCES = BUILD / "sources"  # what stage `sources` writes: the code of every stage
INPUTS = BUILD / "inputs"  # what stage `inputs` writes: the files outside the project that params name
USAGE = "usage.json"  # what a stage's language models read and wrote
USED = "answers.txt"  # the addresses of the answers that a stage's rows use
WEIGHTS = "weights"  # the folder of a dictionary's own files in its output
# The sections of params whose ids the output folders of a stage are called after: one folder for each combination. The last is that
# whose ids the stage runs for, one by one.
OVER = {
    "agreement": (),
    "calibration": (),
    "direct": ("saes", "direct_scorers"),
    "explanations": ("saes", "explainers"),
    "scores": ("saes", "explainers", "scorers"),
    **dict.fromkeys(("subjects", "tokens", "steering"), ("subjects",)),
}


def folder(kind: str, *ids: str) -> Path:
    """Return the output folder of a stage for *ids*: in the folder of the last, for which the stage runs, that of the others."""
    return BUILD.joinpath(kind, *ids[-1:], *ids[:-1])


def shelf(kind: str, *ids: str) -> Shelf:
    """Open a finished output folder; raise UserError where it is not there."""
    return Shelf(folder(kind, *ids))


def code(stage: str, *ids: str) -> str:
    """Return the hash of the file of stage `sources` on *stage* (for the *ids* whose prompts it uses), by which it resumes its work.

    DVC has just written that file; whoever runs a stage without DVC may have edited the code since, so it is made anew.
    """
    if "DVC_STAGE" in os.environ:
        return file_sha256(SOURCES.joinpath(stage, *ids).with_suffix(".txt"))
    from pipelines.graph.sources import source_of
    from pipelines.params import load

    return hashlib.sha256(source_of(stage, load(), *ids).encode()).hexdigest()


def folders(params: Params, stage: str) -> list[Path]:
    """Return the output folders of *stage* for all that params name, in order of id; never what merely lies there."""
    named = (sorted(getattr(params, section)) for section in OVER.get(stage, ("saes",)))
    return [folder(stage, *ids) for ids in product(*named)]


def keep_only(kind: str, own: str, kept: Iterable[Path]) -> None:
    """Remove from the folder of a stage for *own* whatever is in none of the folders *kept* in it."""
    around = {parent for path in kept for parent in (path, *path.parents)}
    ahead = [folder(kind, own)]
    ahead[0].mkdir(parents=True, exist_ok=True)
    while ahead:
        for path in ahead.pop().iterdir():
            if path not in around:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path not in kept:
                ahead.append(path)


def run(main: Callable[..., None]) -> None:
    """Call *main* with the ids of the command line; a person's mistake is one line and exit code 2."""
    spare_pandas()
    try:
        main(*sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
