"""What every stage shares: where its outputs lie, the hash of its code, and how it ends on a user's mistake."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import UserError, one_of
from builders.lake.shards import Shelf, file_sha256
from builders.library import spare_pandas

if TYPE_CHECKING:
    from pipelines.params import Params

BUILD = Path("build")
SOURCES = BUILD / "sources"  # what stage `sources` writes: hashes of the code of every stage
INPUTS = BUILD / "inputs"  # what stage `inputs` writes: hashes of the files outside the project that params name
SECTIONS = INPUTS / "sections"  # and the values of each section of params
USAGE = "usage.json"  # how many tokens a stage's language models read and wrote, and their price
USED = "answers.txt"  # the addresses of the answers that a stage's rows use
WEIGHTS = "weights"  # the folder of a dictionary's own files in its output
# The sections of params whose ids name the output folders of a stage, one folder for each combination of ids. The stage runs once for each
# id of the last section. Stage `similarity` has one folder for each pair of dictionaries, and a stage that is not listed one for each
# dictionary.
OVER = {
    "agreement": (),
    "calibration": (),
    "direct": ("saes", "direct_scorers"),
    "explanations": ("saes", "explainers"),
    "scores": ("saes", "explainers", "scorers"),
    **dict.fromkeys(("subjects", "tokens", "steering", "lenses"), ("subjects",)),
}


def folder(kind: str, *ids: str) -> Path:
    """Return the output folder of a stage for *ids*: build/*kind*/<last id>/<other ids>, since the stage runs for the last id."""
    return BUILD.joinpath(kind, *ids[-1:], *ids[:-1])


def shelf(kind: str, *ids: str) -> Shelf:
    """Open the finished output folder of a stage for *ids*; raise UserError where it does not exist."""
    return Shelf(folder(kind, *ids))


def code(stage: str, *ids: str) -> str:
    """Return the hash of the code of *stage*, with the prompts that *ids* use; a stage resumes work only while this hash is the same.

    Under DVC it is the hash of the file that stage `sources` has just written. Without DVC the code may have been edited since, so the
    text of that file is computed again.
    """
    if "DVC_STAGE" in os.environ:
        return file_sha256(SOURCES.joinpath(stage, *ids).with_suffix(".txt"))
    from pipelines.graph.sources import source_of
    from pipelines.params import load

    return hashlib.sha256(source_of(stage, load(), *ids).encode()).hexdigest()


def folders(params: Params, stage: str) -> list[Path]:
    """Return the output folders of *stage* for everything that params name, in order of id; other folders that exist are left out."""
    if stage == "similarity":
        return [folder(stage, *pair) for pair in params.pairs]
    named = (sorted(getattr(params, section)) for section in OVER.get(stage, ("saes",)))
    return [folder(stage, *ids) for ids in product(*named)]


def keep_only(place: Path, kept: Iterable[Path]) -> None:
    """Remove everything from the folder *place* except the output folders *kept*; make it if there is none."""
    around = {parent for path in kept for parent in (path, *path.parents)}
    ahead = [place]
    place.mkdir(parents=True, exist_ok=True)
    while ahead:
        for path in ahead.pop().iterdir():
            if path not in around:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path not in kept:
                ahead.append(path)


def chosen(stage: str, groups: Iterable[tuple[str, ...]], only: Sequence[str]) -> list[tuple[str, ...]]:
    """Return those of the *groups* of ids that hold all ids of *only*; raise UserError where *stage* has no such group."""
    known = list(groups)
    found = [group for group in known if set(only) <= set(group)]
    if only and not found:
        ids = {entry_id for group in known for entry_id in group}
        raise UserError(f"stage {stage} has no output for {' '.join(only)}; it has outputs for {one_of(ids)}")
    return found


def for_each(stage: str, ids: Collection[str], only: Sequence[str], work: Callable[[str], None]) -> None:
    """Let *work* fill the output folder of *stage* for each of *ids*, or *only* for one; folders of other ids are removed."""
    for (entry_id,) in chosen(stage, zip(ids), only):
        work(entry_id)
    keep_only(BUILD / stage, [folder(stage, entry_id) for entry_id in ids])


def run(main: Callable[..., None]) -> None:
    """Call *main* with the ids of the command line; a user's mistake ends with one line and exit code 2."""
    spare_pandas()
    stage, ids = Path(sys.argv[0]).stem, sys.argv[1:]
    try:
        require_ids(stage, main, ids)
        main(*ids)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def require_ids(stage: str, main: Callable[..., None], ids: Sequence[str]) -> None:
    """Raise UserError unless the function *main* of *stage* takes as many *ids*."""
    signature = inspect.signature(main)
    try:
        signature.bind(*ids)
    except TypeError:
        parts = ("[ID …]" if one.kind is one.VAR_POSITIONAL else one.name.upper() for one in signature.parameters.values())
        raise UserError(f"stage {stage} takes {' '.join(parts) or 'no ids'}, and is given {' '.join(ids) or 'none'}") from None
