"""Jacobian lenses as files: safetensors that hold the mean Jacobians, and say which lens they are and of which model."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from builders.errors import UserError
from builders.lake.shards import write_atomic
from builders.lenses.formats import Origin
from builders.lenses.jacobian import LATER, POSITION, JacobianLens, Reach
from builders.lenses.state_jacobian import STATE
from builders.saes.formats.weights import known, load_tensors, require_shapes

TENSOR, STATED = "jacobians", "lens"
REACHES: dict[str, Reach] = {reach.name: reach for reach in (POSITION, LATER, STATE)}


def write(lens: JacobianLens, path: Path, origin: Origin, positions: int) -> None:
    """Write a lens that is a mean over *positions*, whole or not at all: float32 `jacobians` [L, d_model, d_model]; equal bytes if equal.

    The metadata are one JSON object under `lens`, since safetensors writes several entries in any order. It holds the lens's `name`, the
    model with its revision and the SHA-256 of its unembedding, and `positions`.
    """
    stated = {"name": lens.name, "model": origin.model, "positions": positions, **_identity(origin)}
    tensors = {TENSOR: lens.jacobians.float().cpu().contiguous()}
    write_atomic(path, save(tensors, metadata={STATED: json.dumps(stated, sort_keys=True)}))


def read(path: Path, origin: Origin, device: str = "cpu") -> JacobianLens:
    """Read the lens at *path*; raise UserError unless it is whole and of the model *origin*."""
    tensors = load_tensors(path, [TENSOR])
    with safe_open(path, "pt") as file:
        stated = json.loads((file.metadata() or {}).get(STATED, "{}"))
    name = known(path, "lens", stated.get("name"), list(REACHES))
    for what, here in _identity(origin).items():
        if stated.get(what) != here:
            raise UserError(f"{path}: its lens is of another {what}: {stated.get(what)}, but {origin.model} has {here}; make it again")
    d_model = origin.unembedding.shape[1]
    require_shapes(path, {TENSOR: (tensors[TENSOR], [origin.layers, d_model, d_model])})
    return JacobianLens(REACHES[name], tensors[TENSOR].to(device))


def _identity(origin: Origin) -> dict[str, str | None]:
    return {"revision": origin.revision, "unembed_sha256": origin.unembed_sha256}
