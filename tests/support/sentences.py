"""A sentence-embedding model small enough to be made in a test: a random BERT of two blocks that reads letters."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_letters, digits, punctuation
from typing import Any

import torch

WIDTH = 24
LIMIT = 40  # tokens, [CLS] and [SEP] among them
POOLING = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}
PARTS = ("Transformer", "Pooling", "Normalize")  # of the model as it is made


def make_model(folder: Path, pooling: str = "mean", lower: bool = False) -> Path:
    """Write the model into *folder*, in the form of the sentence-transformers library."""
    from transformers import BertConfig, BertModel

    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.5,  # large enough that letters matter
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    parts = [{"idx": n, "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"} for n, kind in enumerate(PARTS)]
    write_json(folder / "modules.json", parts)
    write_json(folder / "1_Pooling/config.json", {name: kind == pooling for kind, name in POOLING.items()})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": LIMIT, "do_lower_case": lower})
    return folder


def write_json(path: Path, content: Any) -> None:
    """Write *content* as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    names = {name: number for number, name in enumerate([*marks, *ascii_letters, *digits, *punctuation])}
    backend = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))  # noqa: S106  # not a password
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")])
    backend.post_processor = processors.BertProcessing(("[SEP]", names["[SEP]"]), ("[CLS]", names["[CLS]"]))
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), marks, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def add_layer(
    folder: Path, number: int, weight: torch.Tensor, bias: torch.Tensor | None, activation: str | None, pickled: bool = False
) -> None:
    """Add a dense layer to a model's folder, as its module *number*; without an *activation* the file names none."""
    from safetensors.torch import save_file

    place = folder / f"{number}_Dense"
    settings = {"out_features": len(weight), "in_features": weight.shape[1], "bias": bias is not None}
    write_json(place / "config.json", settings | ({} if activation is None else {"activation_function": f"torch.nn.modules.{activation}"}))
    tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    if pickled:
        torch.save(tensors, place / "pytorch_model.bin")
    else:
        save_file(tensors, place / "model.safetensors")
    set_parts(folder, number, "Dense")


def set_parts(folder: Path, number: int, *kinds: str) -> None:
    """Let a model's modules from *number* on be of these *kinds*."""
    parts = json.loads((folder / "modules.json").read_text())[:number]
    added = [{"idx": n, "path": f"{n}_{kind}", "type": f"sentence_transformers.models.{kind}"} for n, kind in enumerate(kinds, number)]
    write_json(folder / "modules.json", parts + added)


OWN_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class TideConfig(PretrainedConfig):
    model_type = "tide"

    def __init__(self, vocab_size=8, hidden_size=4, scale=1.0, **more):
        super().__init__(**more)
        self.vocab_size, self.hidden_size, self.scale = vocab_size, hidden_size, scale


class TideModel(PreTrainedModel):
    config_class = TideConfig
    base_model_prefix = "tide"

    def __init__(self, config):
        super().__init__(config)
        self.letters = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.register_buffer("tide", torch.sin(torch.arange(64.0))[:, None], persistent=False)
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, input_ids=None):
        states = self.letters(input_ids) + self.config.scale * self.tide[: input_ids.shape[1]]
        return BaseModelOutput(last_hidden_state=states)
"""


def make_own_code(folder: Path) -> torch.Tensor:
    """Write a model that comes with its own code into *folder*, and return the vectors of its tokens [vocabulary, WIDTH].

    The state of a token is its vector plus the sine of its position, which the code computes and no file holds.
    """
    from safetensors.torch import save_file

    make_model(folder)
    (folder / "model.safetensors").unlink()
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    letters = torch.randn(vocabulary, WIDTH, generator=torch.Generator().manual_seed(0))
    save_file({"letters.weight": letters}, folder / "model.safetensors", {"format": "pt"})
    (folder / "tides.py").write_text(OWN_CODE)
    names = {"AutoConfig": "tides.TideConfig", "AutoModel": "tides.TideModel"}
    config = {"model_type": "tide", "architectures": ["TideModel"], "auto_map": names, "hidden_size": WIDTH, "vocab_size": vocabulary}
    write_json(folder / "config.json", config | {"scale": 1.0})
    return letters
