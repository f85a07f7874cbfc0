"""Google's Gemma Scope: JumpReLU in `params.npz`, or in the `params.safetensors` of its successor (beside `config.json`).

Arrays: w_enc [d_in, width], b_enc, w_dec [width, d_out], b_dec, threshold [width], and in the successor's skip
transcoders affine_skip_connection [d_in, d_out]. f(x) = JumpReLU_θ(x W_enc + b_enc), x̂ = f W_dec + b_dec (Lieberum
et al. 2024, eq. 1–3): b_dec is not subtracted from the input.
"""

from __future__ import annotations

from pathlib import Path

import torch

from builders.errors import UserError
from builders.saes.coder import JumpReLU, SparseCoder
from builders.saes.formats.weights import known, load_config, load_tensors, require_matrices, require_shapes

CONFIG = "config.json"
WEIGHTS = ("params.npz", "params.safetensors")
LOOKS = " or ".join(WEIGHTS)


def files(place: Path) -> list[Path]:
    """Return the files of an SAE in *place*, the weights last; an empty list if it is in another format."""
    weights = [place / name for name in WEIGHTS if (place / name).is_file()][:1]
    return [path for path in [place / CONFIG] if path.is_file() and weights] + weights


def read(place: Path) -> SparseCoder:
    """Read the coder in *place*; raise UserError if it is damaged or of a kind that cannot be read."""
    found = files(place)
    config = load_config(found[0]) if found[0].name == CONFIG else {}
    path = found[-1]
    known(path, "architecture", config.get("architecture", "jump_relu"), ["jump_relu"])
    tensors = load_tensors(path, ["w_enc", "b_enc", "w_dec", "b_dec", "threshold"])
    w_enc, b_enc, w_dec, b_dec, threshold = (tensors[name] for name in ("w_enc", "b_enc", "w_dec", "b_dec", "threshold"))
    if w_dec.ndim > 2:
        raise UserError(f"{path}: w_dec has shape {list(w_dec.shape)}; a transcoder that writes to several layers cannot be read")
    require_matrices(path, tensors, "w_enc", "w_dec")
    (d_in, width), d_out = w_enc.shape, w_dec.shape[1]
    skip = tensors.get("affine_skip_connection")
    shapes = {"w_dec": (w_dec, [width, d_out]), "b_enc": (b_enc, [width]), "b_dec": (b_dec, [d_out]), "threshold": (threshold, [width])}
    if skip is not None:
        shapes["affine_skip_connection"] = (skip, [d_in, d_out])
    require_shapes(path, shapes)
    transcodes = skip is not None or "hf_hook_point_out" in config or d_in != d_out
    return SparseCoder(
        w_enc.T,
        b_enc,
        w_dec,
        b_dec,
        JumpReLU(threshold),
        b_pre=torch.zeros(d_in),
        w_skip=None if skip is None else skip.T.contiguous(),
        transcodes=transcodes,
    )
