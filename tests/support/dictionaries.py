"""Small random dictionaries in published formats: their files, and what they compute by the documentation of the format.

Each function named after a format writes a dictionary to a folder and returns its equation, computed densely from the written tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from coders import noise, run_maxima, strongest
from safetensors.torch import load_file, save_file
from torch import Tensor

from builders.errors import UserError
from builders.saes import formats

if TYPE_CHECKING:
    from pathlib import Path

D, WIDTH, K = 6, 12, 3
Equation = Callable[[Tensor], tuple[Tensor, Tensor]]  # vectors → latents, what they write
Table = dict[str, Any]


def drawn(seed: int, **shapes: tuple[int, ...]) -> Table:
    """Return a table of random tensors of these *shapes*."""
    return {name: noise(seed + number, *shape) for number, (name, shape) in enumerate(shapes.items())}


def save(folder: Path, name: str, tensors: Table, config: Table | None = None, config_name: str = "cfg.json") -> None:
    """Write *tensors* in the file format that the ending of *name* says, and a config beside them."""
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({own: tensor.contiguous() for own, tensor in tensors.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{own: np.asarray(tensor) for own, tensor in tensors.items()})
    else:
        torch.save(tensors, path)
    if config is not None:
        (folder / config_name).write_text(json.dumps(config))


def raw(path: Path) -> Table:
    """Return the tensors of a weights file as they are."""
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    table: Table = torch.load(path, weights_only=True)
    return table


def sparsify(folder: Path, activation: str | None = "topk", transcode: bool = False, skip: bool = False, **more: Any) -> Equation:
    """Write a coder of EleutherAI's sparsify; with *activation* None its config names no activation, as in old files."""
    t = drawn(1, **{"encoder.weight": (WIDTH, D), "encoder.bias": (WIDTH,), "W_dec": (WIDTH, D), "b_dec": (D,)})
    if skip:
        t |= drawn(9, W_skip=(D, D))
    config = {"d_in": D, "k": K, "num_latents": WIDTH, "skip_connection": skip, "transcode": transcode, **more}
    save(folder, "sae.safetensors", t, config if activation is None else {**config, "activation": activation})
    select = run_maxima if activation == "groupmax" else strongest

    def equation(x: Tensor) -> tuple[Tensor, Tensor]:
        f = select((x if transcode else x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], K)
        return f, f @ t["W_dec"] + t["b_dec"] + (x @ t["W_skip"].T if skip else 0)

    return equation


def gemma_scope(folder: Path, name: str = "params.npz", d_out: int = D, skip: bool = False, config: Table | None = None) -> Equation:
    """Write a JumpReLU dictionary of Gemma Scope."""
    t = drawn(2, w_enc=(D, WIDTH), b_enc=(WIDTH,), w_dec=(WIDTH, d_out), b_dec=(d_out,), threshold=(WIDTH,))
    t["threshold"] = t["threshold"].abs()
    if skip:
        t |= drawn(9, affine_skip_connection=(D, d_out))
    save(folder, name, t, config, "config.json")

    def equation(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = x @ t["w_enc"] + t["b_enc"]
        f = pre.relu() * (pre > t["threshold"])
        return f, f @ t["w_dec"] + t["b_dec"] + (x @ t["affine_skip_connection"] if skip else 0)

    return equation


def saelens(folder: Path, architecture: str = "standard", scale: float = 1.0, extra: tuple[str, ...] = (), **settings: Any) -> Equation:
    """Write a dictionary of SAELens, trained on vectors times *scale*, with *extra* tensors of the width.

    Settings that are "left out" are not in its config.
    """
    transcodes, d_out = architecture.endswith("transcoder"), 5 if architecture.endswith("transcoder") else D
    vectors = {"gated": ("b_gate", "b_mag", "r_mag")}.get(architecture, ("b_enc", *(["threshold"] if "jumprelu" in architecture else [])))
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (D, WIDTH), "W_dec": (WIDTH, d_out), "b_dec": (d_out,)}
    t = drawn(3, **shapes, **dict.fromkeys((*vectors, *extra), (WIDTH,)))
    if "skip" in architecture:
        t |= drawn(9, W_skip=(d_out, D))
    if architecture == "batchtopk":
        t["topk_threshold"] = torch.tensor(0.7, dtype=torch.float64)
    if architecture == "topk":
        settings = {"k": K, **settings}
    config = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": WIDTH,
        "dtype": "float32",
        "apply_b_dec_to_input": not transcodes,
        **settings,
    }
    save(folder, "sae_weights.safetensors", t, {name: value for name, value in config.items() if value != "left out"})
    norm = config.get("normalize_activations")
    lengths = t["W_dec"].norm(dim=1) if config.get("rescale_acts_by_decoder_norm") else torch.ones(WIDTH)

    def activated(u: Tensor) -> Tensor:
        pre = u @ t["W_enc"]
        if architecture == "gated":
            return (pre * t["r_mag"].exp() + t["b_mag"]).relu() * (pre + t["b_gate"] > 0)
        pre = (pre + t["b_enc"]) * lengths
        if "topk" in (architecture, config.get("activation_fn"), config.get("activation_fn_str")):
            return strongest(pre, K)
        return pre.relu() * (pre > t.get("threshold", t.get("topk_threshold", 0)))

    def equation(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread, z = torch.zeros(()), torch.ones(()), x * scale
        if norm == "layer_norm":
            mean, spread = x.mean(1, keepdim=True), x.std(1, keepdim=True)
            z = (x - mean) / (spread + 1e-5)
        if norm == "constant_norm_rescale":
            spread = x.norm(dim=1, keepdim=True) / D**0.5
            z = x / spread
        f = activated(z - t["b_dec"] if config["apply_b_dec_to_input"] is True else z)
        factors = next((t[name] for name in extra), torch.ones(WIDTH))
        y = ((f * factors / lengths) @ t["W_dec"] + t["b_dec"]) / scale
        return f, (y if transcodes else y * spread + mean) + (x @ t["W_skip"].T if "W_skip" in t else 0)

    return equation


def dictionary_learning(folder: Path, kind: str, told: bool = True) -> Equation:
    """Write a dictionary of the class *kind*; with *told* the trainer's config names the class, otherwise only the tensors show it."""
    layer = {"encoder.weight": (WIDTH, D), "decoder.weight": (D, WIDTH)}
    matrices = {"W_enc": (D, WIDTH), "b_enc": (WIDTH,), "W_dec": (WIDTH, D), "b_dec": (D,)}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "AutoEncoder": {**layer, "encoder.bias": (WIDTH,), "bias": (D,)},
        "AutoEncoderNew": {**layer, "encoder.bias": (WIDTH,), "decoder.bias": (D,)},
        "GatedAutoEncoder": {**layer, "decoder_bias": (D,), "r_mag": (WIDTH,), "gate_bias": (WIDTH,), "mag_bias": (WIDTH,)},
        "AutoEncoderTopK": {**layer, "encoder.bias": (WIDTH,), "b_dec": (D,)},
        "BatchTopKSAE": {**layer, "encoder.bias": (WIDTH,), "b_dec": (D,)},
        "JumpReluAutoEncoder": {**matrices, "threshold": (WIDTH,)},
        "MatryoshkaBatchTopKSAE": matrices,
    }
    t = drawn(4, **shapes[kind])
    if "TopK" in kind:
        t |= {"k": torch.tensor(K), "threshold": torch.tensor(0.8)}
    if kind == "AutoEncoderTopK" and not told:
        del t["threshold"]  # as in files from before it was kept
    if kind == "MatryoshkaBatchTopKSAE":
        t["group_sizes"] = torch.tensor([4, 8])
    config = {"trainer": {"dict_class": kind, "k": K}, "buffer": {"ctx_len": 128}}
    save(folder, "ae.pt", t, config if told else None, "config.json")
    w_enc, w_dec = (t["W_enc"], t["W_dec"]) if "W_enc" in t else (t["encoder.weight"].T, t["decoder.weight"].T)
    lengths = w_dec.norm(dim=1)

    def equation(x: Tensor) -> tuple[Tensor, Tensor]:
        if kind == "AutoEncoderNew":  # what it reads is not centred
            f = (x @ w_enc + t["encoder.bias"]).relu()
            return f, f @ w_dec + t["decoder.bias"]
        if kind == "JumpReluAutoEncoder":
            pre = x @ w_enc + t["b_enc"]
            f = (pre * (pre > t["threshold"])).relu() * lengths
            return f, (f / lengths) @ w_dec + t["b_dec"]
        if kind == "GatedAutoEncoder":
            pre = (x - t["decoder_bias"]) @ w_enc
            f = (pre + t["gate_bias"] > 0) * (t["r_mag"].exp() * pre + t["mag_bias"]).relu() * lengths
            return f, (f / lengths) @ w_dec + t["decoder_bias"]
        bias = t["bias"] if kind == "AutoEncoder" else t["b_dec"]
        f = ((x - bias) @ w_enc + (t["b_enc"] if "b_enc" in t else t["encoder.bias"])).relu()
        f = f if kind == "AutoEncoder" else strongest(f, K) if kind == "AutoEncoderTopK" else f * (f > t["threshold"])
        return f, f @ w_dec + bias

    return equation


def openai(folder: Path, activation: str | None = "TopK", **state: Any) -> Equation:
    """Write a dictionary of OpenAI's for GPT-2: TopK on normalised vectors, or ReLU; with *activation* None the file names none."""
    t = drawn(5, **{"pre_bias": (D,), "encoder.weight": (WIDTH, D), "latent_bias": (WIDTH,), "decoder.weight": (D, WIDTH)})
    t["stats_last_nonzero"] = torch.zeros(WIDTH, dtype=torch.long)
    names = {} if activation is None else {"activation": activation}
    states = {"activation_state_dict": {"k": K, "postact_fn": "ReLU", **state}} if activation == "TopK" else {}
    save(folder, "autoencoder.pt", {**t, **names, **states})

    def equation(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = (x.mean(1, keepdim=True), x.std(1, keepdim=True)) if states else (torch.zeros(()), torch.ones(()))
        u = (x - mean) / (spread + 1e-5) if states else x
        pre = (u - t["pre_bias"]) @ t["encoder.weight"].T + t["latent_bias"]
        f = strongest(pre, K) if states else pre.relu()
        return f, (f @ t["decoder.weight"].T + t["pre_bias"]) * spread + mean

    return equation


def refusal(place: Path, named: Path | None = None) -> str:
    """Return the error for the dictionary in *place*, after checking that it is one line that names *named*."""
    with pytest.raises(UserError) as caught:
        formats.read(place)
    text = str(caught.value)
    assert str(named or place) in text
    assert "\n" not in text
    return text


ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "batchtopk")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "AutoEncoderTopK",
    "JumpReluAutoEncoder",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)
# One of every kind that is published, plain.
PLAIN: dict[str, Callable[[Path], Equation]] = {
    "sparsify": sparsify,
    "sparsify groupmax": partial(sparsify, activation="groupmax"),
    "sparsify transcoder": partial(sparsify, transcode=True, skip=True),
    "gemma scope": gemma_scope,
    "gemma scope 2": partial(gemma_scope, name="params.safetensors", d_out=4, skip=True, config={"architecture": "jump_relu"}),
    **{f"saelens {name}": partial(saelens, architecture=name) for name in (*ARCHITECTURES, *TRANSCODERS)},
    **{f"dictionary_learning {name}": partial(dictionary_learning, kind=name) for name in CLASSES},
    "openai topk": openai,
    "openai relu": partial(openai, activation="ReLU"),
}
