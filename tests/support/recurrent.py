"""Tiny random models with every kind of memory (recurrent, attention, and both), and functions that compare memories."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    FalconMambaConfig,
    JambaConfig,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MiniMaxConfig,
    OpenAIGPTConfig,
    RecurrentGemmaConfig,
    RwkvConfig,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

LAYERS, WIDTH, VOCABULARY = 3, 16, 50
RECURRENT = ("mamba", "mamba2", "falcon_mamba", "rwkv")
ARCHITECTURES = (*RECURRENT, "llama")
HYBRIDS = ("jamba", "falcon_h1", "lfm2")  # other layers are attention; every layer is both; convolutions without an SSM
UNKNOWN = ("openai-gpt", "recurrent_gemma", "minimax")  # nothing is remembered; in the model itself; in a cache of its own

_SMALL: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS}
_HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32, "max_position_embeddings": 128}
_JAMBA: dict[str, Any] = {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1}
_FALCON_H1: dict[str, Any] = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 6, "mamba_chunk_size": 4}
_CONFIGS: dict[str, PretrainedConfig] = {
    "mamba": MambaConfig(**_SMALL, state_size=6),
    "mamba2": Mamba2Config(**_SMALL, state_size=6, num_heads=4, head_dim=8, n_groups=2, chunk_size=4),
    "falcon_mamba": FalconMambaConfig(**_SMALL, state_size=6),
    "rwkv": RwkvConfig(**_SMALL, attention_hidden_size=WIDTH, context_length=64, rescale_every=2),
    "llama": LlamaConfig(**_SMALL, **_HEADS),
    "jamba": JambaConfig(**_SMALL, **_HEADS, **_JAMBA, mamba_d_state=6, mamba_dt_rank=4),
    "falcon_h1": FalconH1Config(**_SMALL, **_HEADS, **_FALCON_H1),
    "lfm2": Lfm2Config(**_SMALL, **_HEADS, layer_types=["conv", "full_attention", "conv"]),
    "openai-gpt": OpenAIGPTConfig(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=2),
    "recurrent_gemma": RecurrentGemmaConfig(**_SMALL, **_HEADS),
    "minimax": MiniMaxConfig(**_SMALL, **_HEADS),
}


def tiny(architecture: str, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """Return a random model of three layers of width 16, with noise on every weight, so that nothing starts as zeros or ones."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        config = deepcopy(_CONFIGS[architecture])
        config.vocab_size = vocabulary
        random: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for weight in random.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    made: PreTrainedModel = random.eval().requires_grad_(False)
    return made


@torch.no_grad()
def whole(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return logits [rows, length, vocabulary] of *ids*, each row read alone, in one pass and without a memory."""
    return torch.cat([model(input_ids=row[None], use_cache=False).logits for row in ids])


def held(memory: Any, path: str = "") -> dict[str, Any]:
    """Return all that is in *memory* by its path: copies of tensors, and numbers, flags and types as they are."""
    if type(memory).__module__ == "transformers.cache_utils":
        memory = vars(memory)
    if isinstance(memory, list):
        memory = dict(enumerate(memory))
    if not isinstance(memory, dict):
        return {path: memory.clone() if isinstance(memory, Tensor) else memory}
    return {deep: found for name, inner in memory.items() for deep, found in held(inner, f"{path}.{name}").items()}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Return the paths of values that are on one side only, or that differ in any bit."""
    return {path for path in before.keys() | after.keys() if not _same(before.get(path, ...), after.get(path, ...))}


def _same(one: Any, other: Any) -> bool:
    tensors = isinstance(one, Tensor), isinstance(other, Tensor)
    return torch.equal(one, other) if all(tensors) else not any(tensors) and one == other
