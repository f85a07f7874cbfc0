"""Published dictionaries: which format they are in, which files they have, and one function that reads all of them."""

from __future__ import annotations

import shutil
from difflib import get_close_matches
from glob import escape
from pathlib import Path
from types import ModuleType

import torch

from builders.errors import UserError, one_of
from builders.saes.coder import JumpReLU, SparseCoder
from builders.saes.formats import dictionary_learning, gemma_scope, openai, saelens, sparsify
from builders.subjects.places import repository_files, snapshot

# The first format whose files are there is taken. The order matters: a folder of dictionary_learning also looks like one of OpenAI's.
FORMATS: dict[str, ModuleType] = {
    "sparsify": sparsify,
    "saelens": saelens,
    "gemma-scope": gemma_scope,
    "dictionary-learning": dictionary_learning,
    "openai": openai,
}


def format_of(place: Path) -> str:
    """Return the format of the dictionary in the folder (or file) *place*; raise UserError listing what was looked for."""
    if not place.exists():
        raise UserError(f"{place}: no such dictionary; set `path` to the folder (or file) that holds one")
    for name, module in FORMATS.items():
        if module.files(place):
            return name
    there = one_of(path.name for path in place.iterdir()) if place.is_dir() else "a file"
    looked = "; ".join(f"{module.LOOKS} ({name})" for name, module in FORMATS.items())
    raise UserError(f"{place}: holds no dictionary of a format read here (there is: {there or 'nothing'}); looked for {looked}")


def read(place: Path, input_scale: float | None = None) -> SparseCoder:
    """Read the dictionary in *place*, whatever its format; only SAELens dictionaries take an *input_scale*."""
    name = format_of(place)
    coder: SparseCoder
    coder = saelens.read(place, input_scale) if name == "saelens" else FORMATS[name].read(place)
    return coder


def files(place: Path) -> list[Path]:
    """Return the files that make up the dictionary in *place*, the weights last."""
    found: list[Path] = FORMATS[format_of(place)].files(place)
    return found


def write(coder: SparseCoder, folder: Path) -> None:
    """Write a coder that was made here: ReLU and JumpReLU in SAELens' format, TopK in sparsify's.

    Raises TypeError if the format cannot express what the coder computes.
    """
    if coder.transcodes or coder.w_skip is not None or coder.norm != "none" or not torch.equal(coder.b_pre, coder.b_dec):
        raise TypeError("a coder that transcodes, skips, normalises or subtracts another bias than its decoder's is not written here")
    (saelens if isinstance(coder.activation, JumpReLU) else sparsify).write(coder, folder)


def copy(place: Path, folder: Path) -> None:
    """Copy the files of the dictionary in *place* unchanged, so that their hashes equal those of the source."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files(place):
        shutil.copyfile(path, folder / path.name)


def fetch(repo: str, revision: str, inside: str) -> Path:
    """Return the local copy of the folder *inside* of a Hub repository; nothing else of it is downloaded.

    Raises UserError if the Hub cannot be reached, or if the repository has no such folder (naming the nearest ones).
    """
    if inside.startswith("/") or ".." in Path(inside).parts:
        raise UserError(f"{repo}: the folder {inside!r} leads out of the repository; give a folder inside it")
    place = snapshot(repo, revision, [f"{escape(inside)}/*"]) / inside
    if not place.is_dir() or not any(place.iterdir()):
        require_folder(repo, revision, inside)
    return place


def require_folder(repo: str, revision: str, inside: str) -> None:
    """Raise UserError naming the nearest folders unless a Hub repository has the folder *inside*."""
    folders = sorted({name.rpartition("/")[0] for name in repository_files(repo, revision) if "/" in name})
    if inside not in folders:
        near = get_close_matches(inside, folders, n=8, cutoff=0.3) or folders
        raise UserError(f"{repo}@{revision}: has no folder {inside!r}; near it: {one_of(near)}")
