"""OpenAI's sparse_autoencoder for GPT-2: one `.pt` file, a dict of plain tensors; TopK on normalised inputs, or ReLU.

Tensors: pre_bias [d], encoder.weight [width, d], latent_bias, decoder.weight [d, width]; beside them the activation's
name and its k. TopK files were trained on vectors brought to mean 0 and standard deviation 1, ReLU files were not.
"""

from __future__ import annotations

from pathlib import Path

import torch

from builders.errors import UserError
from builders.saes.coder import Activation, Norm, ReLU, SparseCoder, TopK
from builders.saes.formats.weights import known, load_tensors, require_matrices, require_shapes, whole_number

LOOKS = "one .pt file"


def files(place: Path) -> list[Path]:
    """Return the file of an SAE, *place* itself or the only .pt file in it; an empty list if it is in another format."""
    found = [place] if place.is_file() else sorted(place.glob("*.pt"))
    return found if len(found) == 1 and found[0].suffix == ".pt" else []


def read(place: Path) -> SparseCoder:
    """Read the coder in *place*; raise UserError if it is damaged, needs pickle, or is of a kind that cannot be read."""
    path = files(place)[0]
    tensors = load_tensors(path, ["pre_bias", "encoder.weight", "latent_bias", "decoder.weight"])
    require_matrices(path, tensors, "encoder.weight", "decoder.weight")
    w_enc, w_dec, b_dec = tensors["encoder.weight"], tensors["decoder.weight"].T.contiguous(), tensors["pre_bias"]
    width, d = w_enc.shape
    shapes = {"decoder.weight": (w_dec, [width, d]), "pre_bias": (b_dec, [d]), "latent_bias": (tensors["latent_bias"], [width])}
    require_shapes(path, shapes)
    name = known(path, "activation", tensors.get("activation", "ReLU"), ["ReLU", "TopK"])
    activation: Activation = ReLU(torch.zeros(width))
    norm: Norm = "none"
    if name == "TopK":
        state = tensors.get("activation_state_dict", {})
        if state.get("postact_fn", "ReLU") != "ReLU":
            raise UserError(f"{path}: {state['postact_fn']} after TopK cannot be read; choose one with ReLU")
        activation, norm = TopK(whole_number(path, state, "k")), "layer_norm"
    return SparseCoder(w_enc, tensors["latent_bias"], w_dec, b_dec, activation, b_dec, norm)
