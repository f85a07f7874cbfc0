"""How a sentence-embedding model makes a vector of a text, as the files of a sentence-transformers folder say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.embedders.dense import Dense, read_dense
from builders.embedders.files import json_of, kind_of
from builders.errors import UserError, one_of

FIRST = ("Transformer", "Pooling")  # the modules that a model begins with
LATER = ("Dense", "Normalize")  # those that may follow, in any order
# Ways to pool, by the names that they have in files: as keys that are true in older ones, as `pooling_mode` in newer ones.
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
POOLINGS |= {"mean": "mean", "cls": "cls", "lasttoken": "last"}
WIDTHS = ("hidden_size", "word_embedding_dimension", "embedding_dimension")  # what files call the width of the token states


@dataclass(frozen=True)
class Recipe:
    """How a model makes a vector: *pooling* over tokens, then *layers*; *width* is the number of its dimensions.

    The input is cut at *limit* tokens, and put in lower case first if *lower*. *prompts* are the instructions that the model knows by name.
    """

    pooling: str
    limit: int
    lower: bool
    layers: tuple[Dense, ...]
    width: int
    prompts: dict[str, str]

    @property
    def identity(self) -> dict[str, Any]:
        """What vectors depend on beside the weights of the transformer."""
        own: dict[str, Any] = {name: getattr(self, name) for name in ("pooling", "limit", "lower")}
        return own | ({"layers": [layer.identity for layer in self.layers]} if self.layers else {})


def read_recipe(folder: Path) -> Recipe:
    """Return what the files of a sentence-transformers model ask for.

    Raises UserError if they do not say, or ask for something that is not supported here.
    """
    parts = json_of(folder / "modules.json")
    if not parts:
        raise UserError(f"{folder}: has no modules.json, so it is no model of the sentence-transformers library; choose one that is")
    kinds = [kind_of(part) for part in parts]
    if kinds[:2] != list(FIRST) or set(kinds[2:]) - set(LATER):
        able = ", ".join((*FIRST, *LATER))
        raise UserError(f"{folder}: consists of {', '.join(kinds)}, but only {able} can be run here; choose another model")
    config, pooling = json_of(folder / "config.json"), json_of(folder / parts[1]["path"] / "config.json")
    settings = json_of(folder / "sentence_bert_config.json")
    layers = _layers(folder, parts[2:])
    return Recipe(
        _pooling(folder, pooling),
        _limit(folder, config, settings),
        bool(settings.get("do_lower_case")),
        layers,
        _width(folder, {**pooling, **config}, layers),
        json_of(folder / "config_sentence_transformers.json").get("prompts") or {},
    )


def _pooling(folder: Path, pooling: dict[str, Any]) -> str:
    """Return how token states are pooled; raise UserError unless it is in one way, which is known here."""
    named = pooling.get("pooling_mode", [])
    older = (name for name, value in pooling.items() if name.startswith("pooling_mode_") and value)
    chosen = sorted([named] if isinstance(named, str) else named or older)
    if len(chosen) != 1 or chosen[0] not in POOLINGS or not pooling.get("include_prompt", True):
        raise UserError(
            f"{folder}: pools by {one_of(chosen) or 'nothing'}, not by one of {one_of(POOLINGS)}, instruction included; choose another"
        )
    return POOLINGS[chosen[0]]


def _layers(folder: Path, parts: Sequence[dict[str, Any]]) -> tuple[Dense, ...]:
    """Return the dense layers; a Normalize at the end is left out, since every vector gets unit norm."""
    kinds = ["Pooling", *(kind_of(part) for part in parts)]
    pairs = zip(kinds, parts, strict=False)  # each part after the kind of the one before it
    return tuple(read_dense(folder / part["path"], before == "Normalize") for before, part in pairs if kind_of(part) == "Dense")


def _width(folder: Path, stated: dict[str, Any], layers: Sequence[Dense]) -> int:
    """Return the number of dimensions after all *layers*; raise UserError if one of them does not fit what is before it."""
    width = next((int(stated[name]) for name in WIDTHS if stated.get(name)), 0)
    if not width:
        raise UserError(f"{folder}: states no width; set hidden_size in config.json")
    for layer in layers:
        if layer.inputs != width:
            raise UserError(f"{folder}: {layer.weights.parent.name} reads {layer.inputs} dimensions and is given {width}; fetch it again")
        width = layer.outputs
    return width


def _limit(folder: Path, config: dict[str, Any], settings: dict[str, Any]) -> int:
    """Return the longest input in tokens: the least that the files state."""
    known = (settings.get("max_seq_length"), json_of(folder / "tokenizer_config.json").get("model_max_length"))
    limits = [int(limit) for limit in (*known, config.get("max_position_embeddings")) if limit]
    if not limits:
        raise UserError(f"{folder}: states no longest input; set max_seq_length in sentence_bert_config.json")
    return min(limits)
