"""Sentence-embedding models, run by the transformers library: float32, vectors that do not depend on which texts come together.

Texts of equal padded length are run in batches of one shape, with at least one row of filling, so that every text meets the
same kernels and the same kind of mask, whatever its company.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from builders import subjects
from builders.embedders.embedder import Model, Vectors, normed
from builders.embedders.files import Files
from builders.errors import UserError, one_of

if TYPE_CHECKING:
    import torch

STEP = 16  # lengths are padded to multiples of it, in tokens
ROWS = {"cpu": 16}  # in a batch; few stay in a processor's cache
MANY = 128  # on any other device
PARTS = ("Transformer", "Pooling", "Normalize")  # what a model may be made of
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}


@dataclass(frozen=True)
class Recipe:
    """How a model makes a vector: *pooling* over tokens, the longest input in tokens, and whether letters are made small."""

    pooling: str
    limit: int
    lower: bool


def read_recipe(folder: Path) -> Recipe:
    """Return what the files of a sentence-transformers model say of pooling and truncation.

    Raises UserError where they say nothing, or what is not done here.
    """
    parts = _json(folder / "modules.json")
    if not parts:
        raise UserError(f"{folder}: no modules.json, so this is no model of the sentence-transformers library")
    kinds = [part["type"].rpartition(".")[2] for part in parts]
    if kinds[:2] != list(PARTS[:2]) or set(kinds) - set(PARTS):
        raise UserError(f"{folder}: made of {', '.join(kinds)}; only {', '.join(PARTS)} can be run here: choose another model")
    pooling = _json(folder / parts[1]["path"] / "config.json")
    chosen = sorted(name for name, value in pooling.items() if name.startswith("pooling_mode") and value)
    if len(chosen) != 1 or chosen[0] not in POOLINGS or not pooling.get("include_prompt", True):
        raise UserError(
            f"{folder}: pools by {one_of(chosen) or 'nothing'}; only one of {one_of(POOLINGS)}, instruction included, can be run"
        )
    settings = _json(folder / "sentence_bert_config.json")
    known = (settings.get("max_seq_length"), _json(folder / "tokenizer_config.json").get("model_max_length"))
    limits = [int(limit) for limit in (*known, _json(folder / "config.json").get("max_position_embeddings")) if limit]
    if not limits:
        raise UserError(f"{folder}: no longest input; set max_seq_length in sentence_bert_config.json")
    return Recipe(POOLINGS[chosen[0]], min(limits), bool(settings.get("do_lower_case")))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); fetch it afresh") from error


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def _first(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden.gather(1, (mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]


POOL: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"mean": _mean, "cls": _first, "last": _last}


class SentenceEmbedder(Model):
    """Runs the model of *files*, which is loaded for the first text; longer texts are cut at the model's own limit."""

    def __init__(self, files: Files, instruction: str = "", device: str = "auto") -> None:
        self.files, self.instruction, self.device = files, instruction, device
        self.recipe = read_recipe(files.folder)
        self.name = files.model
        self.width = int(_json(files.folder / "config.json")["hidden_size"])
        self.identity = {"kind": "sentence", "model": files.model, "revision": files.revision, **asdict(self.recipe)}

    @cached_property
    def _loaded(self) -> tuple[Any, Any, str]:
        source, device = subjects.Source(path=str(self.files.folder)), subjects.resolve_device(self.device)
        subjects.config_of(source, self.files.folder)  # tells what is wrong with it in one line
        tokenizer = subjects.tokenizer_of(source, self.files.folder)
        return tokenizer, subjects.load(source, self.files.folder, "float32", device, "AutoModel"), device

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of *texts*, bit for bit the same in any company and order."""
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        if not texts:
            return vectors
        tokenizer, _, device = self._loaded
        plain = [text.lower() for text in texts] if self.recipe.lower else list(texts)
        ids = tokenizer(plain, truncation=True, max_length=self.recipe.limit)["input_ids"]
        lengths = np.array([max(len(own), 1) for own in ids])
        padded = np.minimum(-(-lengths // STEP) * STEP, self.recipe.limit)
        rows = ROWS.get(device, MANY)
        for length in np.unique(padded).tolist():
            own = np.flatnonzero(padded == length)
            for start in range(0, len(own), rows - 1):
                part = own[start : start + rows - 1]
                vectors[part] = self._run([ids[place] for place in part], (rows, length))
        return normed(vectors)

    def _run(self, ids: list[list[int]], shape: tuple[int, int]) -> Vectors:
        """Return the pooled vectors of token ids in a batch of *shape* (rows, length), whose last row at least is filling."""
        import torch

        tokenizer, model, device = self._loaded
        tokens, mask = np.full(shape, tokenizer.pad_token_id or 0), np.zeros(shape, dtype=np.int64)
        mask[:, 0] = 1  # a row without any token has no mean
        for row, own in enumerate(ids):
            tokens[row, : len(own)] = own
            mask[row, : len(own)] = 1
        with torch.inference_mode():
            read = torch.from_numpy(mask).to(device)
            hidden = model(input_ids=torch.from_numpy(tokens).to(device), attention_mask=read).last_hidden_state
            pooled: Vectors = POOL[self.recipe.pooling](hidden, read)[: len(ids)].cpu().numpy()
        return pooled
