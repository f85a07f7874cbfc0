"""Tuned lenses as files: the layout of the tuned-lens package 0.2.0 (`config.json`, `params.pt`), and the same weights as safetensors.

The state dict holds {i}.weight [d_model, d_model] and {i}.bias [d_model] of layers i = 0 … L − 1, applied as h + W h + b.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from builders.errors import UserError
from builders.lake.shards import write_atomic
from builders.lenses.translators import TunedLens
from builders.saes.formats.weights import Tensors, known, load_config, load_tensors, require_names, require_shapes, whole_number

CONFIG, PARAMS, SAFE = "config.json", "params.pt", "params.safetensors"
KIND = "linear_tuned_lens"
# numpy's own settings, which decide the text that the package hashes: other code of the process may have changed them.
PRINTED: dict[str, Any] = {
    "edgeitems": 3,
    "threshold": 1000,
    "linewidth": 75,
    "suppress": False,
    "floatmode": "maxprec",
    "sign": "-",
    "nanstr": "nan",
    "infstr": "inf",
    "formatter": None,
}


@dataclass(frozen=True)
class Origin:
    """The model of a lens: its label (no path of this machine), the commit if it is pinned, its blocks, its unembedding [vocabulary, d]."""

    model: str
    revision: str | None
    layers: int
    unembedding: Tensor

    @property
    def unembed_hash(self) -> str:
        """The SHA-256 of the printed unembedding, as `tuned_lens.utils.tensor_hash` computes it.

        numpy prints the three first and last rows and columns of a large matrix, with one decimal. So equal hashes say little: a
        fine-tuned model may have its parent's.
        """
        with np.printoptions(**PRINTED):
            text = np.array_str(self.unembedding.detach().cpu().float().numpy(), precision=1)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def unembed_sha256(self) -> str:
        """The SHA-256 of all of the unembedding, rounded to bfloat16, so that a model loaded in half precision has the same."""
        rounded = self.unembedding.detach().cpu().float().bfloat16().contiguous()
        return hashlib.sha256(rounded.view(torch.int16).numpy().tobytes()).hexdigest()


def write(lens: TunedLens, folder: Path, origin: Origin) -> list[Path]:
    """Write a lens in both formats, each file whole or not at all, and return their paths; equal lenses give equal bytes."""
    layers, d_model = lens.bias.shape
    config = {
        "base_model_name_or_path": origin.model,
        "d_model": d_model,
        "num_hidden_layers": layers,
        "bias": True,
        "base_model_revision": origin.revision,
        "unembed_hash": origin.unembed_hash,
        "lens_type": KIND,
    }
    pairs = zip(lens.weight.cpu(), lens.bias.cpu(), strict=True)
    tensors = {f"{i}.{name}": value.clone() for i, pair in enumerate(pairs) for name, value in zip(("weight", "bias"), pair, strict=True)}
    pickled = io.BytesIO()
    torch.save(tensors, pickled)
    # The package reads no more of config.json than it knows, so what is ours stands in the other format.
    files = {
        CONFIG: (json.dumps(config, indent=1) + "\n").encode(),
        PARAMS: pickled.getvalue(),
        SAFE: save(tensors, metadata={"unembed_sha256": origin.unembed_sha256}),
    }
    for name, data in files.items():
        write_atomic(folder / name, data)
    return [folder / name for name in files]


def read(folder: Path, origin: Origin, device: str = "cpu") -> TunedLens:
    """Read the lens in *folder*, from safetensors if they are there; raise UserError unless it is whole and of the model *origin*.

    A lens that does not say its revision or its unembedding passes for every revision or unembedding.
    """
    weights = next((folder / name for name in (SAFE, PARAMS) if (folder / name).is_file()), None)
    if weights is None or not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: holds no tuned lens; looked for {CONFIG} and {SAFE} or {PARAMS}")
    config = load_config(folder / CONFIG)
    known(folder / CONFIG, "lens_type", config.get("lens_type", KIND), [KIND])
    layers, d_model = (whole_number(folder / CONFIG, config, name) for name in ("num_hidden_layers", "d_model"))
    tensors = load_tensors(weights)
    _require_origin(folder, config, _metadata(weights), origin)
    _require_weights(weights, tensors, layers, d_model)
    if (layers, d_model) != (origin.layers, origin.unembedding.shape[1]):
        raise UserError(
            f"{folder}: its lens is of {layers} layers of {d_model} dimensions, but {origin.model} has {origin.layers} of"
            f" {origin.unembedding.shape[1]}; train it again"
        )
    weight, bias = (torch.stack([tensors[f"{i}.{name}"] for i in range(layers)]).to(device) for name in ("weight", "bias"))
    return TunedLens(weight, bias)


def _metadata(weights: Path) -> dict[str, str]:
    if weights.suffix != ".safetensors":
        return {}
    with safe_open(weights, "pt") as file:
        return file.metadata() or {}


def _require_origin(folder: Path, config: dict[str, Any], metadata: dict[str, str], origin: Origin) -> None:
    """Raise UserError if the lens is of another revision or another unembedding."""
    stated = {
        "revision": (config.get("base_model_revision"), origin.revision),
        "unembedding (unembed_hash)": (config.get("unembed_hash"), origin.unembed_hash),
        "unembedding (unembed_sha256)": (metadata.get("unembed_sha256"), origin.unembed_sha256),
    }
    for what, (there, here) in stated.items():
        if there is not None and here is not None and there != here:
            raise UserError(f"{folder}: its lens is of another {what}: {there}, but {origin.model} has {here}; train it again, or pin that")


def _require_weights(path: Path, tensors: Tensors, layers: int, d_model: int) -> None:
    """Raise UserError unless the tensors are exactly those of *layers* translators of *d_model* dimensions."""
    names = [f"{i}.{name}" for i in range(layers) for name in ("weight", "bias")]
    if set(tensors) != set(names):
        translators = len({name.partition(".")[0] for name in tensors})
        if translators != layers:
            raise UserError(f"{path}: holds {translators} translators, but {CONFIG} tells of {layers}; fetch both again")
        require_names(path, tensors, names)
        raise UserError(f"{path}: holds tensors that no translator has: {', '.join(sorted(set(tensors) - set(names)))}; fetch it again")
    sizes = {"weight": [d_model, d_model], "bias": [d_model]}
    require_shapes(path, {name: (tensors[name], sizes[name.partition(".")[2]]) for name in names})
