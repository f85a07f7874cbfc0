"""GGUF files of tiny checkpoints, written with the package of llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

MISSING = "GGUF files need `pip install 'interplake[local]'`"
gguf: Any = pytest.importorskip("gguf", reason=MISSING)
pytest.importorskip("accelerate", reason=MISSING)

# The names of a Llama's tensors there, by their names in transformers.
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CONTROL, NORMAL = 3, 1  # kinds of tokens


def name_of(name: str) -> str:
    """Return the name in a GGUF file of the tensor *name* of a Llama."""
    if not name.startswith("model.layers."):
        return f"{NAMES[name.removesuffix('.weight')]}.weight"
    layer, _, rest = name.removeprefix("model.layers.").removesuffix(".weight").partition(".")
    return f"blk.{layer}.{NAMES[rest]}.weight"


def turned(weights: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Return the weights of queries or keys in llama.cpp's order, in which rotary pairs are neighbours."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, weights.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weights.shape))


def write_gguf(
    path: Path, checkpoint: Path, kind: str = "F32", lacking: tuple[str, ...] = (), further: Mapping[str, int] | None = None, **changed: Any
) -> Path:
    """Write the Llama of the folder *checkpoint* as a GGUF file with matrices in the format *kind*, and return its path.

    Tensors of the names *lacking* are left out; *further* ones, by name and size, are added, full of ones. The values of *changed*, whose
    keys have `__` for each dot, take the place of metadata; a value of None removes an entry.
    """
    config = json.loads((checkpoint / "config.json").read_bytes())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    architecture = changed.get("general__architecture", "llama")
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**metadata(config, checkpoint, kind), **{name.replace("__", "."): value for name, value in changed.items()}}.items():
        if value is not None and key != "general.architecture":
            add(writer, key, value)
    for name, weights in load_file(checkpoint / "model.safetensors").items():
        known = name_of(name)
        if known in lacking:
            continue
        ordered = next((turned(weights, count) for part, count in heads.items() if f".{part}." in known), weights)
        form = gguf.GGMLQuantizationType[kind if weights.ndim == 2 else "F32"]
        writer.add_tensor(known, gguf.quants.quantize(ordered, form), raw_dtype=form)
    for name, size in (further or {}).items():
        writer.add_tensor(name, np.ones(size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: Any, key: str, value: Any) -> None:
    """Add an entry of metadata by the type of its value."""
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
    kinds[type(value)](key, value)


def metadata(config: dict[str, Any], checkpoint: Path, kind: str) -> dict[str, Any]:
    """Return what the file says of the model and of its byte-level vocabulary, which cuts text as GPT-2 does."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = {index: token for token, index in tokenizer.get_vocab().items()}
    tokens = [ids.get(index, f"[PAD{index}]") for index in range(config["vocab_size"])]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return {
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": config["vocab_size"],
        "general.file_type": int(gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"]),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in tokenizer.all_special_tokens else NORMAL for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
    }
