"""The on-disk format of EleutherAI's sparsify: `<hookpoint>/cfg.json` beside `sae.safetensors`.

Tensors: encoder.weight [width, d], encoder.bias, W_dec [width, d], b_dec. sparsify itself knows TopK; a JumpReLU
SAE is written the same way with `activation: jumprelu` and one tensor more, `threshold` [width].
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from builders.errors import UserError
from builders.saes.coder import Activation, JumpReLU, SparseCoder, TopK
from builders.shards import write_atomic

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def write(coder: SparseCoder, folder: Path) -> list[Path]:
    """Write *coder* to *folder*; return the two files."""
    folder.mkdir(parents=True, exist_ok=True)
    activation = coder.activation
    config: dict[str, Any] = {
        "activation": activation.name,
        "d_in": coder.d_model,
        "expansion_factor": max(1, coder.width // coder.d_model),
        "k": activation.k if isinstance(activation, TopK) else 0,
        "multi_topk": False,
        "normalize_decoder": True,
        "num_latents": coder.width,
        "skip_connection": False,
        "transcode": False,
    }
    tensors = {"encoder.weight": coder.w_enc, "encoder.bias": coder.b_enc, "W_dec": coder.w_dec, "b_dec": coder.b_dec}
    if isinstance(activation, JumpReLU):
        tensors["threshold"] = activation.threshold
    temporary = folder / f".{WEIGHTS}.tmp"
    save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, temporary)
    temporary.replace(folder / WEIGHTS)
    write_atomic(folder / CONFIG, (json.dumps(config, indent=1, sort_keys=True) + "\n").encode())
    return [folder / CONFIG, folder / WEIGHTS]


def copy(source: Path, folder: Path) -> None:
    """Copy the two files of a coder as they are, so that their hashes stay those of their source."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(source / name, folder / name)


def read(folder: Path) -> SparseCoder:
    """Read the coder in *folder*; raise UserError where it is missing, damaged or of a kind not read here."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; a sparsify SAE is a folder with {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{folder}: damaged or cut short ({error}); fetch it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{folder}: {CONFIG} is no object; fetch it again")
    missing = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"} - set(tensors)
    if missing:
        raise UserError(f"{folder / WEIGHTS}: tensors missing: {', '.join(sorted(missing))}")
    width, d = tensors["encoder.weight"].shape
    expected = {"encoder.bias": [width], "W_dec": [width, d], "b_dec": [d]}
    for name, shape in expected.items():
        if list(tensors[name].shape) != shape:
            raise UserError(f"{folder / WEIGHTS}: {name} has shape {list(tensors[name].shape)}, not {shape}; fetch it again")
    if config.get("transcode") or config.get("skip_connection"):
        raise UserError(f"{folder}: transcoders and skip connections are not read yet; name an SAE of a residual stream")
    w_enc, b_enc, w_dec, b_dec = (tensors[name].float() for name in ("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    return SparseCoder(w_enc, b_enc, w_dec, b_dec, _activation(folder, config, tensors))


def _activation(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Activation:
    name = config.get("activation", "topk")
    if name == "topk":
        k = config.get("k")
        if not isinstance(k, int) or k < 1:
            raise UserError(f"{folder}: {CONFIG} gives k as {k!r}; a TopK SAE needs a whole number above 0")
        return TopK(k)
    if name == "jumprelu" and "threshold" in tensors:
        return JumpReLU(tensors["threshold"].float())
    raise UserError(f"{folder}: activation {name!r} cannot be read; topk and jumprelu (with a `threshold` tensor) can")
