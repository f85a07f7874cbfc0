"""EleutherAI's sparsify: `<hookpoint>/cfg.json` beside `sae.safetensors`; TopK, MultiTopK and groupmax, transcoders, skip connections.

Tensors: encoder.weight [width, d_in], encoder.bias, W_dec [width, d_out], b_dec, W_skip [d_out, d_in]. MultiTopK is only
a loss; SAEs trained with it are read as TopK.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from builders.errors import UserError
from builders.lake.shards import write_atomic
from builders.saes.coder import Activation, GroupMax, SparseCoder, TopK
from builders.saes.formats.weights import known, load_config, load_tensors, require_matrices, require_shapes, whole_number

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
LOOKS = f"{CONFIG} and {WEIGHTS}"


def files(place: Path) -> list[Path]:
    """Return the two files of an SAE in *place*, or an empty list if it is in another format."""
    found = [place / CONFIG, place / WEIGHTS]
    return found if all(path.is_file() for path in found) else []


def read(place: Path) -> SparseCoder:
    """Read the coder in *place*; raise UserError if it is damaged or of a kind that cannot be read."""
    config_path, weights_path = files(place)
    config = load_config(config_path)
    skips = ["W_skip"] if config.get("skip_connection") else []
    tensors = load_tensors(weights_path, ["encoder.weight", "encoder.bias", "W_dec", "b_dec", *skips])
    w_enc, b_enc, w_dec, b_dec = (tensors[name] for name in ("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    require_matrices(weights_path, tensors, "encoder.weight", "W_dec")
    width, d_in = w_enc.shape
    d_out = w_dec.shape[-1]
    shapes = {"encoder.bias": (b_enc, [width]), "W_dec": (w_dec, [width, d_out]), "b_dec": (b_dec, [d_out])}
    transcodes, w_skip = bool(config.get("transcode")), tensors.get("W_skip") if skips else None
    if w_skip is not None:
        shapes["W_skip"] = (w_skip, [d_out, d_in])
    if not transcodes:
        shapes["b_dec, subtracted from what is read,"] = (b_dec, [d_in])
    require_shapes(weights_path, shapes)
    b_pre = torch.zeros(d_in) if transcodes else b_dec
    return SparseCoder(w_enc, b_enc, w_dec, b_dec, _activation(config_path, config, width), b_pre, w_skip=w_skip, transcodes=transcodes)


def _activation(path: Path, config: dict[str, Any], width: int) -> Activation:
    name = known(path, "activation", config.get("activation", "topk"), ["topk", "groupmax"])
    k = whole_number(path, config, "k")
    if name == "topk":
        return TopK(k)
    if width % k:
        raise UserError(f"{path}: groupmax needs k equal runs, but k = {k} does not divide {width} latents; fetch it again")
    return GroupMax(k, width // k)


def write(coder: SparseCoder, folder: Path) -> None:
    """Write a TopK *coder* to *folder*."""
    activation = coder.activation
    if not isinstance(activation, TopK):
        raise TypeError(f"only TopK is written in sparsify's format, not {activation.name}")
    config = {
        "activation": activation.name,
        "d_in": coder.d_in,
        "expansion_factor": max(1, coder.width // coder.d_in),
        "k": activation.k,
        "multi_topk": False,
        "normalize_decoder": True,
        "num_latents": coder.width,
        "skip_connection": False,
        "transcode": False,
    }
    tensors = {"encoder.weight": coder.w_enc, "encoder.bias": coder.b_enc, "W_dec": coder.w_dec, "b_dec": coder.b_dec}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, folder / WEIGHTS)
    write_atomic(folder / CONFIG, (json.dumps(config, indent=1, sort_keys=True) + "\n").encode())
