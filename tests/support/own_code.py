"""Checkpoints that come with code of their own, which the transformers library runs only where it is told to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

# A language model that sums what it reads. What `state` is, and how it is handed on, is what the test is about.
RECURRENT = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class DeltaConfig(PretrainedConfig):
    model_type = "delta_rwkv"

    def __init__(self, vocab_size=8, hidden_size=4, num_hidden_layers=1, memory="three", **more):
        super().__init__(**more)
        self.vocab_size, self.hidden_size, self.num_hidden_layers, self.memory = vocab_size, hidden_size, num_hidden_layers, memory


class Held:
    def __init__(self, total):
        self.total = total


MEMORIES = {
    "three": lambda total: [total, total.clone(), total.clone()],
    "tuple": lambda total: (total,) * 5,
    "object": Held,
    "none": lambda total: None,
}


class DeltaForCausalLM(PreTrainedModel):
    config_class = DeltaConfig
    base_model_prefix = "delta"

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(config.num_hidden_layers))
        self.head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, input_ids=None, state=None, use_cache=True):
        total = self.embeddings(input_ids).cumsum(1)
        for block in self.blocks:
            total = block(total)
        return ModelOutput(logits=self.head(total), state=MEMORIES[self.config.memory](total[:, -1]))
"""


def modules_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the transformers library keep the code that it copies from checkpoints in *folder*."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder))


def make_recurrent(folder: Path, checkpoint: Path, memory: str, layers: int = 1) -> Path:
    """Write a random model of DeltaForCausalLM whose `state` is of the kind *memory* into *folder*, with the tokenizer of *checkpoint*."""
    folder.mkdir(parents=True)
    for path in checkpoint.glob("tokenizer*"):
        shutil.copy(path, folder)
    own = json.loads((checkpoint / "config.json").read_text())
    names = {"AutoConfig": "delta.DeltaConfig", "AutoModelForCausalLM": "delta.DeltaForCausalLM"}
    config: dict[str, Any] = {"model_type": "delta_rwkv", "architectures": ["DeltaForCausalLM"], "auto_map": names, "memory": memory}
    config |= {"vocab_size": own["vocab_size"], "hidden_size": 4, "num_hidden_layers": layers, "tie_word_embeddings": False}
    draw = torch.Generator().manual_seed(0)
    shape = own["vocab_size"], 4
    weights = {name: torch.randn(shape, generator=draw) for name in ("embeddings.weight", "head.weight")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "delta.py").write_text(RECURRENT)
    (folder / "config.json").write_text(json.dumps(config | {name: own[name] for name in ("bos_token_id", "eos_token_id")}))
    return folder
