"""Hashes of whatever outside the project params name, so that DVC sees it change: what stage `inputs` writes.

Small files of lines `hash path`: one for each corpus, subject, dictionary and explainer, one for all models that embed or answer, one
for all behaviours, and one of hashes of all sections of params. What is pinned (a commit of the Hub) or the machine's own (Python and its
documentation) is a line of words.
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

from builders.errors import UserError
from builders.lake.hashes import Hashes, below
from builders.subjects.checkpoints import CODE, KEPT
from builders.text import sources
from pipelines.graph.stage import INPUTS
from pipelines.params import Files, FilesBehaviour, HubText, Params, PythonDocs

HASHES = Path(".interplake/hashes.json")
Lines = Iterator[str]
NOTHING = "nothing outside the project\n"


def inputs(params: Params, hashes: Hashes) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file; raise UserError where something is not there."""
    for section in ("corpora", "subjects", "saes", "explainers"):
        for name, spec in getattr(params, section).items():
            yield f"{section}/{name}", "".join(told(section, name, spec, hashes)) or NOTHING
    for file, sections in {"models": ("embedders", "engines"), "behaviours": ("behaviours",)}.items():
        each = ((section, name, spec) for section in sections for name, spec in getattr(params, section).items())
        yield file, "".join(line for one in each for line in told(*one, hashes)) or NOTHING
    yield "params", "".join(f"{digest(value)} section {name} of params\n" for name, value in params.model_dump(mode="json").items())


def digest(value: Any) -> str:
    """Return the SHA-256 of a value of params, in whatever order it is written there."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def told(section: str, name: str, spec: Any, hashes: Hashes) -> Lines:
    """Yield the lines of one section; raise UserError, saying which it is, where something is not there."""
    try:
        yield from (f"{line}\n" for line in OUTSIDE[section](spec, hashes))
    except UserError as error:
        raise UserError(f"{section}.{name}: {error}") from error


def require_same(section: str, name: str, spec: Any) -> None:
    """Raise UserError where what a stage has just read is no longer what DVC took it for; without DVC nothing is known of that."""
    if "DVC_STAGE" not in os.environ:
        return
    own, now = INPUTS / section / f"{name}.txt", list(told(section, name, spec, Hashes(HASHES)))
    if own.exists():
        same = ("".join(now) or NOTHING) == own.read_text()
    else:  # one file for the whole section
        same = set(now) <= set(own.parent.with_suffix(".txt").read_text().splitlines(keepends=True))
    if not same:
        raise UserError(f"{section}.{name}: its files changed while they were read; run `make repro` again once they rest")


def _corpus(spec: Any, hashes: Hashes) -> Lines:
    if isinstance(spec, Files):
        yield from hashes.lines(set(sources.matched(spec.paths)))
    elif isinstance(spec, PythonDocs):
        yield f"Python {platform.python_version()}"
    elif isinstance(spec, HubText):
        yield f"{spec.repo}@{spec.revision}"


def _checkpoint(spec: Any, hashes: Hashes) -> Lines:
    """Yield the files of a model in a folder that its loader reads; code among them only where it may run."""
    if getattr(spec, "path", None) is None:
        yield from _pinned(spec)
        return
    place = there(spec.path)
    patterns = [*KEPT, *(CODE if getattr(spec, "trust_remote_code", False) else ())]
    yield from hashes.lines({path for pattern in patterns for path in place.glob(pattern)})


def _embedder(spec: Any, hashes: Hashes) -> Lines:
    """Yield the files of an embedding model; one that is missing is a line too, since another may stand in for it."""
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
    if isinstance(spec, FilesBehaviour):
        yield from hashes.lines({there(path) for path in (spec.generate, spec.test, spec.open) if path})


def there(path: str) -> Path:
    """Return a path of params; raise UserError where nothing is there."""
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
