"""Sentence-embedding models, run by the transformers library in float32; a vector does not depend on the other texts of its batch.

Texts of equal length are run together in batches of one shape; missing rows are filled with copies of the first. So there is no padding
token and no mask, and every text of one length runs through the same kernels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from builders.embedders.embedder import Model, Vectors, normed
from builders.embedders.files import Files
from builders.errors import UserError, one_of
from builders.subjects import checkpoints

if TYPE_CHECKING:
    import torch

# Tokens in a batch (a longer text is a batch by itself). On a CPU few tokens fit its cache better and need few filling rows.
TOKENS = {"cpu": 192}
MANY = 4096  # tokens in a batch on any other device
PARTS = ("Transformer", "Pooling", "Normalize")  # the modules that a model may consist of
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}


@dataclass(frozen=True)
class Recipe:
    """How a model makes a vector: *pooling* over tokens, *limit* of the input in tokens, and whether text is put in lower case first."""

    pooling: str
    limit: int
    lower: bool


def read_recipe(folder: Path) -> Recipe:
    """Return the pooling and the truncation that the files of a sentence-transformers model ask for.

    Raises UserError if they do not say, or ask for something that is not supported here.
    """
    parts = _json(folder / "modules.json")
    if not parts:
        raise UserError(f"{folder}: has no modules.json, so it is no model of the sentence-transformers library; choose one that is")
    kinds = [part["type"].rpartition(".")[2] for part in parts]
    if kinds[:2] != list(PARTS[:2]) or set(kinds) - set(PARTS):
        raise UserError(f"{folder}: consists of {', '.join(kinds)}, but only {', '.join(PARTS)} can be run here; choose another model")
    pooling = _json(folder / parts[1]["path"] / "config.json")
    chosen = sorted(name for name, value in pooling.items() if name.startswith("pooling_mode") and value)
    if len(chosen) != 1 or chosen[0] not in POOLINGS or not pooling.get("include_prompt", True):
        raise UserError(
            f"{folder}: pools by {one_of(chosen) or 'nothing'}, not by one of {one_of(POOLINGS)}, instruction included; choose another"
        )
    settings = _json(folder / "sentence_bert_config.json")
    known = (settings.get("max_seq_length"), _json(folder / "tokenizer_config.json").get("model_max_length"))
    limits = [int(limit) for limit in (*known, _json(folder / "config.json").get("max_position_embeddings")) if limit]
    if not limits:
        raise UserError(f"{folder}: states no longest input; set max_seq_length in sentence_bert_config.json")
    return Recipe(POOLINGS[chosen[0]], min(limits), bool(settings.get("do_lower_case")))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); fetch the model again") from error


def _mean(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.mean(1)


def _first(hidden: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _last(hidden: torch.Tensor) -> torch.Tensor:
    return hidden[:, -1]


POOL: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"mean": _mean, "cls": _first, "last": _last}


def rows_of(length: int, device: str) -> int:
    """Return how many texts of *length* tokens make a batch; it depends on length and device alone."""
    return max(1, TOKENS.get(device, MANY) // length)


def _at_once(device: str) -> int:
    """Return how many batches run at the same time: on a CPU, as many as it takes to use all processors; elsewhere one."""
    import torch

    return max(1, (os.cpu_count() or 1) // torch.get_num_threads()) if device == "cpu" else 1


class SentenceEmbedder(Model):
    """Runs the model of *files*, which is loaded when the first text comes. Texts longer than the model's limit are cut."""

    def __init__(self, files: Files, instruction: str = "", device: str = "auto") -> None:
        self.files, self.instruction, self.device = files, instruction, device
        self.recipe = read_recipe(files.folder)
        self.name = files.model
        self.width = int(_json(files.folder / "config.json")["hidden_size"])
        self.identity = {"kind": "sentence", "model": files.model, "revision": files.revision, **asdict(self.recipe)}

    @cached_property
    def _loaded(self) -> tuple[Any, Any, str]:
        source, device = checkpoints.Source(path=str(self.files.folder)), checkpoints.resolve_device(self.device)
        checkpoints.config_of(source, self.files.folder)  # raises an error of one line if the model's config is wrong
        tokenizer = checkpoints.tokenizer_of(source, self.files.folder)
        return tokenizer, checkpoints.load(source, self.files.folder, "float32", device, "AutoModel"), device

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of *texts*; a text's vector has the same bits whatever the other texts and their order."""
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        if not texts:
            return vectors
        tokenizer, _, device = self._loaded
        plain = [text.lower() for text in texts] if self.recipe.lower else list(texts)
        read = tokenizer(plain, truncation=True, max_length=self.recipe.limit)["input_ids"]
        ids = [own or [tokenizer.pad_token_id or 0] for own in read]  # an empty text has no mean of tokens
        lengths, parts = np.array([len(own) for own in ids]), []
        for length in np.unique(lengths).tolist():
            places, rows = np.flatnonzero(lengths == length), rows_of(length, device)
            parts += [places[start : start + rows] for start in range(0, len(places), rows)]
        with ThreadPoolExecutor(_at_once(device)) as pool:
            batches = pool.map(lambda part: self._run([ids[place] for place in part]), parts)
            for part, found in zip(parts, batches, strict=True):
                vectors[part] = found
        return normed(vectors)

    def _run(self, ids: list[list[int]]) -> Vectors:
        """Return the pooled vectors of texts of one length, run as one batch of that length's shape."""
        import torch

        _, model, device = self._loaded
        filling = ids[:1] * (rows_of(len(ids[0]), device) - len(ids))
        tokens = torch.tensor(ids + filling, device=device)
        with torch.inference_mode():
            hidden = model(input_ids=tokens).last_hidden_state
            pooled: Vectors = POOL[self.recipe.pooling](hidden)[: len(ids)].cpu().numpy()
        return pooled
