"""What all readers of published files share. Nothing is unpickled, and any damage becomes a UserError of one line."""

from __future__ import annotations

import json
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from builders.errors import UserError, first_line, one_of

Tensors = Mapping[str, Any]


def load_config(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file *path*; raise UserError if it holds anything else."""
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: damaged or cut short ({first_line(error)}); fetch it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: is no JSON object; fetch it again")
    return config


def _npz(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # closed here, since numpy leaves it open when it fails
        return {name: torch.from_numpy(np.atleast_1d(arrays[name])) for name in arrays.files}


def _pt(path: Path) -> dict[str, Any]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: needs pickle, which can run code; ask for plain tensors, or convert it to safetensors") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no dict of tensors; fetch it again")
    return found


LOADERS: dict[str, Callable[[Path], Tensors]] = {".safetensors": load_file, ".npz": _npz, ".pt": _pt}
# What damaged files raise. A TypeError comes from an .npz that holds one bare array, or text.
DAMAGE = (SafetensorError, ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error, KeyError, TypeError)


def load_tensors(path: Path, needed: Sequence[str] = ()) -> Tensors:
    """Return the tensors of a .safetensors, .npz or .pt file; tensors of floating point become float32.

    Raises UserError if it is damaged, cut short, needs pickle, or lacks one of the *needed* names.
    """
    try:
        tensors = LOADERS[path.suffix](path)
    except DAMAGE as error:
        raise UserError(f"{path}: damaged or cut short ({first_line(error)}); fetch it again") from error
    require_names(path, tensors, needed)
    return {name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for name, value in tensors.items()}


def require_names(path: Path, tensors: Tensors, needed: Sequence[str]) -> None:
    """Raise UserError unless all tensors *needed* are there."""
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise UserError(f"{path}: tensors missing: {one_of(missing)}; it has {one_of(tensors)}")


def require_matrices(path: Path, tensors: Tensors, *names: str) -> None:
    """Raise UserError unless each named tensor has two dimensions."""
    for name in names:
        shape = list(getattr(tensors[name], "shape", ()))
        if len(shape) != 2:
            raise UserError(f"{path}: {name} has shape {shape}, where a matrix is needed; fetch it again")


def require_shapes(path: Path, shapes: Mapping[str, tuple[Tensor, Sequence[int]]]) -> None:
    """Raise UserError unless each named tensor has its shape."""
    for name, (tensor, shape) in shapes.items():
        if list(getattr(tensor, "shape", ())) != list(shape):
            raise UserError(f"{path}: {name} has shape {list(getattr(tensor, 'shape', ()))}, not {list(shape)}; fetch it again")


def one_number(path: Path, tensors: Tensors, name: str) -> Tensor:
    """Return a number that all latents share, as a tensor [1]; raise UserError if it is not exactly one number."""
    value = torch.as_tensor(tensors[name]).flatten()
    require_shapes(path, {name: (value, [1])})
    return value.float()


def whole_number(path: Path, config: Mapping[str, Any], name: str) -> int:
    """Return a whole number above zero from a config; raise UserError if it is anything else."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{path}: gives {name} as {value!r}; a whole number above 0 is needed")
    return value


def known(path: Path, what: str, value: object, names: Sequence[str]) -> str:
    """Return *value* if it is one of *names*; otherwise raise UserError listing them."""
    if value not in names:
        raise UserError(f"{path}: {what} {value!r} cannot be read; these can: {one_of(names)}")
    return str(value)
