"""SAELens: `cfg.json` beside `sae_weights.safetensors`; standard, gated, jumprelu, topk, batchtopk, and four kinds of transcoders.

Tensors: W_enc [d_in, width], b_enc, W_dec [width, d_out], b_dec, and by architecture b_gate, b_mag, r_mag; threshold;
W_skip [d_out, d_in]. Files from before version 6 name some settings differently; they are read as SAELens reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from builders.errors import UserError
from builders.lake.shards import write_atomic
from builders.saes.coder import Activation, Gated, JumpReLU, Norm, ReLU, SparseCoder, TopK
from builders.saes.formats.weights import (
    Tensors,
    known,
    load_config,
    load_tensors,
    one_number,
    require_matrices,
    require_shapes,
    whole_number,
)

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
LOOKS = f"{CONFIG} and {WEIGHTS}"
# The tensors of each architecture besides W_enc, W_dec and b_dec. Transcoders subtract nothing from their input.
NEEDS: dict[str, tuple[str, ...]] = {
    "standard": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "jumprelu": ("b_enc", "threshold"),
    "topk": ("b_enc",),
    "batchtopk": ("b_enc", "topk_threshold"),
    "transcoder": ("b_enc",),
    "skip_transcoder": ("b_enc", "W_skip"),
    "jumprelu_transcoder": ("b_enc", "threshold"),
    "jumprelu_skip_transcoder": ("b_enc", "threshold", "W_skip"),
}
NORMS: dict[str, Norm] = {"none": "none", "layer_norm": "layer_norm", "constant_norm_rescale": "constant_norm"}
SCALED = "expected_average_only_in"


def files(place: Path) -> list[Path]:
    """Return the two files of an SAE in *place*, or an empty list if it is in another format."""
    found = [place / CONFIG, place / WEIGHTS]
    return found if all(path.is_file() for path in found) else []


def read(place: Path, input_scale: float | None = None) -> SparseCoder:
    """Read the coder in *place*; *input_scale* is the factor that multiplied activations in training, if the config asks for one.

    Raises UserError if it is damaged, of a kind that cannot be read, or needs an *input_scale* that is not given.
    """
    config_path, path = files(place)
    config = load_config(config_path)
    architecture = _architecture(config_path, config)
    tensors = load_tensors(path, ["W_enc", "W_dec", "b_dec", *NEEDS[architecture]])
    require_matrices(path, tensors, "W_enc", "W_dec")
    w_enc, w_dec, b_dec = tensors["W_enc"].T, tensors["W_dec"], tensors["b_dec"]
    width, d_in = w_enc.shape
    d_out = w_dec.shape[-1]
    shapes = {"W_dec": (w_dec, [width, d_out]), "b_dec": (b_dec, [d_out])}
    vectors = {name: (tensors[name], [d_out, d_in] if name == "W_skip" else [width]) for name in NEEDS[architecture]}
    vectors.pop("topk_threshold", None)  # one number
    transcodes = architecture.endswith("transcoder")
    subtracted = bool(config.get("apply_b_dec_to_input", True)) and not transcodes
    if not transcodes:
        shapes["b_dec, of the size that is read,"] = (b_dec, [d_in])
    require_shapes(path, {**shapes, **vectors})
    b_enc = tensors.get("b_enc", torch.zeros(width))
    if config.get("rescale_acts_by_decoder_norm"):  # decoder rows count as unit vectors; their norms move into the encoder
        lengths = w_dec.norm(dim=1).clamp(min=1e-8)
        w_enc, b_enc, w_dec = w_enc * lengths[:, None], b_enc * lengths, w_dec / lengths[:, None]
    factor = tensors.get("finetuning_scaling_factor", tensors.get("scaling_factor"))
    if factor is not None:  # it multiplies what a latent writes, not what it reads
        w_dec = w_dec * factor[:, None]
    norm, scale = _norm(config_path, config, input_scale)
    if scale != 1:
        w_enc, w_dec, b_dec = w_enc * scale, w_dec / scale, b_dec / scale
    activation = _activation(config_path, path, config, architecture, tensors, width)
    b_pre = b_dec if subtracted else torch.zeros(d_in)
    return SparseCoder(w_enc, b_enc, w_dec, b_dec, activation, b_pre, norm, tensors.get("W_skip"), transcodes)


def _architecture(path: Path, config: dict[str, Any]) -> str:
    name = config.get("architecture", "standard")
    if config.get("activation_fn", config.get("activation_fn_str")) == "topk" and name == "standard":
        name = "topk"  # the way in which files from before version 6 name it
    return known(path, "architecture", name, list(NEEDS))


def _norm(path: Path, config: dict[str, Any], input_scale: float | None) -> tuple[Norm, float]:
    """Return how vectors are normalised, and the factor by which they are multiplied instead."""
    name = config.get("normalize_activations") or "none"
    name = SCALED if name is True else name  # the way in which files from before version 3 name it
    if name == SCALED:
        if input_scale is None:
            raise UserError(
                f"{path}: trained on activations scaled to a mean norm of √d; set `input_scale` to that factor (1 if the weights hold it)"
            )
        return "none", input_scale
    return NORMS[known(path, "normalize_activations", name, [*NORMS, SCALED])], 1.0


def _activation(path: Path, weights: Path, config: dict[str, Any], architecture: str, tensors: Tensors, width: int) -> Activation:
    if architecture == "gated":
        return Gated(tensors["b_gate"], tensors["r_mag"].exp(), tensors["b_mag"])
    if architecture == "topk":
        return TopK(whole_number(path, {**config, **(config.get("activation_fn_kwargs") or {})}, "k"))
    if architecture == "batchtopk":  # all latents share one threshold
        return JumpReLU(one_number(weights, tensors, "topk_threshold").expand(width).contiguous())
    if "jumprelu" in architecture:
        return JumpReLU(tensors["threshold"])
    return ReLU(torch.zeros(width))


def write(coder: SparseCoder, folder: Path) -> None:
    """Write a ReLU or JumpReLU *coder* to *folder*."""
    activation = coder.activation
    if not isinstance(activation, JumpReLU):
        raise TypeError(f"only ReLU and JumpReLU are written in SAELens' format, not {activation.name}")
    config = {
        "architecture": "standard" if isinstance(activation, ReLU) else "jumprelu",
        "d_in": coder.d_in,
        "d_sae": coder.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.0.0"},
    }
    tensors: dict[str, Tensor] = {"W_enc": coder.w_enc.T, "b_enc": coder.b_enc, "W_dec": coder.w_dec, "b_dec": coder.b_dec}
    if not isinstance(activation, ReLU):
        tensors["threshold"] = activation.threshold
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, folder / WEIGHTS)
    write_atomic(folder / CONFIG, (json.dumps(config, indent=1, sort_keys=True) + "\n").encode())
