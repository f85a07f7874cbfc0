"""dictionary_learning (Marks et al.): `ae.pt`, a dict of plain tensors, and the trainer's `config.json`.

The names of the tensors tell which class wrote a file. TopK and BatchTopK have the same names, so there the config
decides. `decoder.weight` (torch's Linear) is [d, width], W_dec is [width, d].
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from builders.errors import UserError
from builders.saes.coder import Activation, Gated, JumpReLU, ReLU, SparseCoder, TopK
from builders.saes.formats.weights import (
    Tensors,
    known,
    load_config,
    load_tensors,
    one_number,
    require_matrices,
    require_names,
    require_shapes,
    whole_number,
)

CONFIG, WEIGHTS = "config.json", "ae.pt"
LOOKS = WEIGHTS
# The tensors of each class. The first class whose tensors are all there is taken.
CLASSES: dict[str, tuple[str, ...]] = {
    "GatedAutoEncoder": ("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"),
    "MatryoshkaBatchTopKSAE": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "group_sizes"),
    "JumpReluAutoEncoder": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "AutoEncoderTopK": ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec", "k"),
    "AutoEncoder": ("encoder.weight", "encoder.bias", "decoder.weight", "bias"),
    "AutoEncoderNew": ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"),
}
SAME_TENSORS = {"BatchTopKSAE": "AutoEncoderTopK"}  # class → class with the same tensors


def files(place: Path) -> list[Path]:
    """Return the files of a dictionary in *place*, the weights last; an empty list if it is in another format."""
    weights = place / WEIGHTS
    return [path for path in (place / CONFIG, weights) if path.is_file()] if weights.is_file() else []


def read(place: Path) -> SparseCoder:
    """Read the coder in *place*; raise UserError if it is damaged, needs pickle, or does not tell its class."""
    found = files(place)
    path = found[-1]
    tensors = load_tensors(path)
    kind = _class(path, tensors, found[0] if len(found) > 1 else None)
    require_matrices(path, tensors, *(name for name in ("W_enc", "W_dec", "encoder.weight", "decoder.weight") if name in tensors))
    w_enc = tensors["W_enc"].T if "W_enc" in tensors else tensors["encoder.weight"]
    w_dec = tensors["W_dec"] if "W_dec" in tensors else tensors["decoder.weight"].T.contiguous()
    b_dec = next(tensors[name] for name in ("b_dec", "bias", "decoder_bias", "decoder.bias") if name in tensors)
    b_enc = next((tensors[name] for name in ("b_enc", "encoder.bias") if name in tensors), torch.zeros(len(w_enc)))
    width, d = w_enc.shape
    require_shapes(path, {"decoder": (w_dec, [width, d]), "decoder's bias": (b_dec, [d]), "encoder's bias": (b_enc, [width])})
    per_latent = {"GatedAutoEncoder": ("gate_bias", "r_mag", "mag_bias"), "JumpReluAutoEncoder": ("threshold",)}
    require_shapes(path, {name: (tensors[name], [width]) for name in per_latent.get(kind, ())})
    b_pre = torch.zeros(d) if kind in ("JumpReluAutoEncoder", "AutoEncoderNew") else b_dec
    lengths = w_dec.norm(dim=1)
    activation = _activation(path, kind, tensors, width, lengths)
    if kind == "JumpReluAutoEncoder":  # its activations are those for decoder rows of norm 1
        w_enc, b_enc = w_enc * lengths[:, None], b_enc * lengths
    if kind in ("JumpReluAutoEncoder", "GatedAutoEncoder"):
        w_dec = w_dec / lengths[:, None]
    return SparseCoder(w_enc, b_enc, w_dec, b_dec, activation, b_pre)


def _class(path: Path, tensors: Tensors, config: Path | None) -> str:
    trainer = load_config(config).get("trainer") if config else None
    if trainer is not None and not isinstance(trainer, dict):
        raise UserError(f"{config}: its `trainer` is no JSON object; fetch it again")
    stated = trainer.get("dict_class") if trainer else None
    if stated is not None:
        kind = known(path, "dict_class", stated, [*CLASSES, *SAME_TENSORS])
        require_names(path, tensors, [*CLASSES[SAME_TENSORS.get(kind, kind)], *(["threshold"] if kind in SAME_TENSORS else [])])
        return kind
    fits = [kind for kind, names in CLASSES.items() if all(name in tensors for name in names)]
    if not fits:
        raise UserError(f"{path}: its tensors fit no class that can be read; put the trainer's {CONFIG} beside it")
    if fits[0] == "AutoEncoderTopK" and "threshold" in tensors:
        raise UserError(f"{path}: TopK and BatchTopK have the same tensors; put the trainer's {CONFIG} beside it to tell which it is")
    return fits[0]


def _activation(path: Path, kind: str, tensors: Tensors, width: int, lengths: Tensor) -> Activation:
    if kind == "GatedAutoEncoder":
        return Gated(tensors["gate_bias"], tensors["r_mag"].exp() * lengths, tensors["mag_bias"] * lengths)
    if kind == "AutoEncoderTopK":
        return TopK(whole_number(path, {"k": tensors["k"].tolist() if isinstance(tensors["k"], Tensor) else tensors["k"]}, "k"))
    if kind == "JumpReluAutoEncoder":
        return JumpReLU(tensors["threshold"] * lengths)
    if kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        return JumpReLU(one_number(path, tensors, "threshold").expand(width).contiguous())
    return ReLU(torch.zeros(width))
