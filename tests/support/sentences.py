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
PARTS = ("Transformer", "Pooling", "Normalize")


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
