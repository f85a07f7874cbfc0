"""Sentence-embedding models, run by the transformers library in float32; a vector does not depend on the other texts of its batch.

Texts of equal length are run together in batches of one shape; missing rows are filled with copies of the first. So there is no padding
token and no mask, and every text of one length runs through the same kernels.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from builders.embedders.embedder import Model, Vectors, normed
from builders.embedders.files import Files, json_of
from builders.embedders.recipe import read_recipe
from builders.errors import UserError, one_of
from builders.subjects import checkpoints, places

if TYPE_CHECKING:
    import torch

# Tokens in a batch (a longer text is a batch by itself). On a CPU few tokens fit its cache better and need few filling rows.
TOKENS = {"cpu": 192}
MANY = 4096  # tokens in a batch on any other device


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


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run: its *tokenizer*, the *transformer*, the *layers* after its pooling, and its *device*."""

    tokenizer: Any
    transformer: Any
    layers: list[Callable[[torch.Tensor], torch.Tensor]]
    device: str


class SentenceEmbedder(Model):
    """Runs the model of *files*, which is loaded when the first text comes. Texts longer than the model's limit are cut.

    *instruction* may be the name of one of the model's own prompts. Code of the model's folder runs only with *trust_remote_code*. The
    values of *config* take the place of those of its config.json.
    """

    def __init__(
        self,
        files: Files,
        instruction: str = "",
        device: str = "auto",
        trust_remote_code: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.files, self.device, self.config = files, device, dict(config or {})
        require_known(files, self.config)
        self.source = places.Source(path=str(files.folder), trust_remote_code=trust_remote_code)
        self.recipe = read_recipe(files.folder)
        self.instruction = self.recipe.prompts.get(instruction, instruction)
        self.name, self.width = files.model, self.recipe.width
        self.identity = {"kind": "sentence", "model": files.model, "revision": files.revision, **self.recipe.identity}
        self.identity |= {"config": self.config} if self.config else {}
        self.identity |= {"code": code_sha256(files)} if trust_remote_code else {}

    @cached_property
    def _loaded(self) -> Loaded:
        folder, device = self.files.folder, checkpoints.resolve_device(self.device)
        checkpoints.config_of(self.source, folder)  # raises an error of one line if the model's config is wrong
        tokenizer = checkpoints.tokenizer_of(self.source, folder)
        transformer = checkpoints.load(self.source, folder, "float32", device, "AutoModel", **self.config)
        return Loaded(tokenizer, transformer, [layer.on(device) for layer in self.recipe.layers], device)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of *texts*; a text's vector has the same bits whatever the other texts and their order."""
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        if not texts:
            return vectors
        tokenizer, device = self._loaded.tokenizer, self._loaded.device
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

        loaded = self._loaded
        filling = ids[:1] * (rows_of(len(ids[0]), loaded.device) - len(ids))
        tokens = torch.tensor(ids + filling, device=loaded.device)
        with torch.inference_mode():
            vectors = POOL[self.recipe.pooling](loaded.transformer(input_ids=tokens).last_hidden_state)
            for layer in loaded.layers:
                vectors = layer(vectors)
            found: Vectors = vectors[: len(ids)].cpu().numpy()
        return found


def require_known(files: Files, config: Mapping[str, Any]) -> None:
    """Raise UserError where *config* names what the model's config.json does not hold."""
    held = json_of(files.folder / "config.json")
    if unknown := config.keys() - held.keys():
        raise UserError(f"{files.folder}: its config.json has no {one_of(unknown)} that `config` could replace; it has {one_of(held)}")


def code_sha256(files: Files) -> str:
    """Return the SHA-256 of the Python code of a model; raise UserError if code of another repository would run with it."""
    maps = [json_of(files.folder / place).get("auto_map") for place in ("config.json", "tokenizer_config.json")]
    foreign = set(re.findall(r'"([\w./-]+?)--', json.dumps(maps)))
    if foreign:
        raise UserError(f"{files.folder}: its code lies in {one_of(foreign)}, at no pinned commit; choose a model that holds its own code")
    code = [path.name.encode() + b"\n" + path.read_bytes() for pattern in places.CODE for path in sorted(files.folder.glob(pattern))]
    return hashlib.sha256(b"\n".join(code)).hexdigest()
