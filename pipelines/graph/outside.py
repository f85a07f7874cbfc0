"""Hashes of the files outside the project that params name, so that DVC sees them change; stage `inputs` writes them.

They are small files with lines `hash path`: one for each corpus, subject, dictionary and explainer, one for all embedders and engines, one
for all behaviours. A commit on the Hub, which cannot change, is a line of words, and so is the version of the machine's Python, whose
documentation is a corpus.

The values of each section of params are a file, too. A stage may depend on it in place of naming the section among its `params`: DVC copies
those into dvc.lock, once for each stage, and reads all of dvc.lock again after each. Section `saes` alone was half of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from builders.errors import MissingError, UserError
from builders.lake.hashes import Hashes, below
from builders.subjects import gguf
from builders.subjects.places import CODE, KEPT
from builders.text import sources
from pipelines.graph.stage import INPUTS, SECTIONS
from pipelines.params import FilesBehaviourParams, FilesParams, HubTextParams, Params, PythonDocsParams

HASHES = Path(".interplake/hashes.json")
Lines = Iterator[str]
NOTHING = "nothing outside the project\n"


def inputs(params: Params, hashes: Hashes) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file; raise UserError where a path of params does not exist."""
    for section in ("corpora", "subjects", "saes", "explainers"):
        for entry_id, spec in getattr(params, section).items():
            yield f"{section}/{entry_id}", "".join(entry_lines(section, entry_id, spec, hashes)) or NOTHING
    for file, sections in {"models": ("embedders", "engines"), "behaviours": ("behaviours",)}.items():
        each = ((section, entry_id, spec) for section in sections for entry_id, spec in getattr(params, section).items())
        yield file, "".join(line for entry in each for line in entry_lines(*entry, hashes)) or NOTHING
    for section, value in params.model_dump(mode="json").items():
        yield f"{SECTIONS.name}/{section}", json.dumps(value, indent=1, sort_keys=True) + "\n"


def entry_lines(section: str, entry_id: str, spec: Any, hashes: Hashes) -> Lines:
    """Yield the lines of one entry of a section; raise UserError with the entry's key where a path of it does not exist."""
    try:
        yield from (f"{line}\n" for line in OUTSIDE[section](spec, hashes))
    except UserError as error:
        raise UserError(f"{section}.{entry_id}: {error}") from error


def seen(section: str, entry_id: str, spec: Any) -> str:
    """Return the hash of an entry's files as stage `inputs` has seen them; outside DVC, of the files as they are now."""
    if "DVC_STAGE" in os.environ:
        text = (INPUTS / section / f"{entry_id}.txt").read_text()
    else:
        text = "".join(entry_lines(section, entry_id, spec, Hashes(HASHES))) or NOTHING
    return hashlib.sha256(text.encode()).hexdigest()


def require_same(section: str, entry_id: str, spec: Any) -> None:
    """Raise UserError where the files that a stage has just read are not those that DVC saw; outside DVC nothing is compared."""
    if "DVC_STAGE" not in os.environ:
        return
    own, now = INPUTS / section / f"{entry_id}.txt", list(entry_lines(section, entry_id, spec, Hashes(HASHES)))
    if own.exists():
        same = ("".join(now) or NOTHING) == own.read_text()
    else:  # one file for the whole section
        same = set(now) <= set(own.parent.with_suffix(".txt").read_text().splitlines(keepends=True))
    if not same:
        raise UserError(f"{section}.{entry_id}: its files changed while they were read; run `dvc repro` again when nothing writes to them")


def _corpus(spec: Any, hashes: Hashes) -> Lines:
    if isinstance(spec, FilesParams):
        yield from hashes.lines(set(sources.matched(spec.paths)))
    elif isinstance(spec, PythonDocsParams):
        yield f"Python {platform.python_version()}"
    elif isinstance(spec, HubTextParams):
        yield f"{spec.repo}@{spec.revision}"


def _checkpoint(spec: Any, hashes: Hashes) -> Lines:
    """Yield the files of a local model that its loader reads; code among them only where `trust_remote_code` lets it run.

    A missing model that may be skipped is a line of words.
    """
    if getattr(spec, "package", None) is not None:
        yield _packaged(spec, hashes)
        return
    if getattr(spec, "path", None) is None:
        yield from _pinned(spec)
        return
    if getattr(spec, "missing", "fail") == "skip" and not Path(spec.path).exists():
        yield f"{spec.path} is not there"
        return
    place = there(spec.path)
    if place.is_file():
        yield from hashes.lines({place})
        return
    patterns = [*KEPT, *(CODE if getattr(spec, "trust_remote_code", False) else ())]
    yield from hashes.lines({path for pattern in patterns for path in place.glob(pattern)})


def _packaged(spec: Any, hashes: Hashes) -> str:
    """Return a line with the hash of a package's GGUF file, without its place on this machine; a missing package is a line of words."""
    try:
        path = gguf.in_package(spec.package, spec.file)
    except MissingError:
        return f"package {spec.package} is not installed"
    return f"{hashes.of(path)} {path.name} of package {spec.package}"


def _embedder(spec: Any, hashes: Hashes) -> Lines:
    """Yield the files of an embedding model; a missing model is a line of words, since its fallback may embed instead."""
    package, path = getattr(spec, "package", None), getattr(spec, "path", None)
    if package is not None:
        try:
            yield f"package {package} {version(package)}"
        except PackageNotFoundError:
            yield f"package {package} is not installed"
    elif path is not None and not Path(path).exists() and spec.fallback != "none":
        yield f"{path} is not there"
    else:
        yield from _anything(spec, hashes)


def _anything(spec: Any, hashes: Hashes) -> Lines:
    if getattr(spec, "path", None) is None:
        yield from _pinned(spec)
    else:
        yield from hashes.lines(below(there(spec.path)))


def _pinned(spec: Any) -> Lines:
    if getattr(spec, "repo", None) is not None:
        yield f"{spec.repo}@{spec.revision}"


def _behaviour(spec: Any, hashes: Hashes) -> Lines:
    if isinstance(spec, FilesBehaviourParams):
        yield from hashes.lines({there(path) for path in (spec.generate, spec.test, spec.open) if path})


def there(path: str) -> Path:
    """Return a path of params; raise UserError where it does not exist."""
    if not Path(path).exists():
        raise UserError(f"{path} is not there; correct the path")
    return Path(path)


OUTSIDE: dict[str, Callable[[Any, Hashes], Lines]] = {
    "corpora": _corpus,
    "subjects": _checkpoint,
    "saes": _anything,
    "explainers": _anything,
    "embedders": _embedder,
    "engines": _checkpoint,
    "behaviours": _behaviour,
}
