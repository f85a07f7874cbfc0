"""Dictionaries that are refused: nothing in them is run, and the error is one line that names the file."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from dictionaries import D, K, dictionary_learning, gemma_scope, openai, raw, refusal, saelens, save, sparsify

from builders.saes import formats

if TYPE_CHECKING:
    from pathlib import Path


def changed(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """Return the error for the dictionary in *folder* after a *change* of its tensors."""
    path = formats.files(folder)[-1]
    save(folder, path.name, change(raw(path)))
    return refusal(folder, folder)


# Pickles


class Trap:
    """An object that makes a folder as it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.place),)


class Plain:
    """A class of one's own, as in files that hold a whole module."""


PICKLED: dict[str, Callable[[Path, Path], object]] = {
    "code": lambda path, trap: torch.save({"encoder.weight": Trap(trap)}, path),
    "code alone": lambda path, trap: torch.save(Trap(trap), path),
    "code in the old container": lambda path, trap: torch.save({"a": Trap(trap)}, path, _use_new_zipfile_serialization=False),
    "code in a bare pickle": lambda path, trap: path.write_bytes(pickle.dumps(Trap(trap), protocol=2)),
    "a class": lambda path, _: torch.save(Plain(), path),
    "a class in a table": lambda path, _: torch.save({"encoder.weight": torch.zeros(2), "cfg": Plain()}, path),
    "a module": lambda path, _: torch.save(torch.nn.Linear(2, 2), path),
}


@pytest.mark.parametrize("name", ["ae.pt", "autoencoder.pt"])
@pytest.mark.parametrize("pickled", PICKLED)
def test_what_needs_pickle_is_refused_and_not_run(pickled: str, name: str, tmp_path: Path) -> None:
    """A .pt file that holds more than tensors, numbers and text is refused for that reason, and nothing in it is run."""
    path, trap = tmp_path / name, tmp_path / "sprung"
    PICKLED[pickled](path, trap)
    assert "needs pickle, which can run code" in refusal(tmp_path, path)
    assert not trap.exists()


TABLES: dict[str, object] = {
    "a list": [torch.zeros(2)],
    "one tensor": torch.zeros(2),
    "text": "weights",
    "numbers for tensors": {"encoder.weight": 1, "encoder.bias": 2, "decoder.weight": 3, "bias": 4},
}


@pytest.mark.parametrize("table", TABLES)
def test_a_file_without_a_table_of_tensors_is_one_line(table: str, tmp_path: Path) -> None:
    """The error for a harmless .pt file that holds no dict of tensors is one line."""
    torch.save(TABLES[table], tmp_path / "ae.pt")
    assert "ae.pt" in refusal(tmp_path)


# Configs

NO_JSON: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"k": 3, "d_in"',
    "no text": b'{"k": "\xff"}',
    "a list": b"[1, 2]",
    "a number": b"3",
    "a page": b"<!DOCTYPE html>\n<html>",
}
CONFIGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "sparsify": (sparsify, "cfg.json"),
    "saelens": (saelens, "cfg.json"),
    "gemma scope": (partial(gemma_scope, config={}), "config.json"),
    "dictionary_learning": (partial(dictionary_learning, kind="AutoEncoder"), "config.json"),
}


@pytest.mark.parametrize("damage", NO_JSON)
@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_is_no_object_is_one_line(case: str, damage: str, tmp_path: Path) -> None:
    """The error for a config that is cut, empty, or not a JSON object is one line that names it."""
    write, name = CONFIGS[case]
    write(tmp_path)
    (tmp_path / name).write_bytes(NO_JSON[damage])
    assert "fetch it again" in refusal(tmp_path, tmp_path / name)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "sparsify of another activation": (partial(sparsify, activation="relu"), "activation 'relu'"),
    "sparsify without k": (partial(sparsify, k=None), "k as None"),
    "sparsify with text for k": (partial(sparsify, k="3"), "k as '3'"),
    "sparsify with k of 0": (partial(sparsify, k=0), "k as 0"),
    "sparsify with half a k": (partial(sparsify, k=2.5), "k as 2.5"),
    "sparsify with true for k": (partial(sparsify, k=True), "k as True"),
    "sparsify groupmax that does not divide": (partial(sparsify, activation="groupmax", k=5), "k = 5 does not divide 12 latents"),
    "saelens of another architecture": (partial(saelens, architecture="temporal"), "architecture 'temporal'"),
    "saelens of another norm": (partial(saelens, normalize_activations="covariance_whitening"), "'covariance_whitening'"),
    "saelens topk without k": (partial(saelens, architecture="topk", k=None), "k as None"),
    "saelens topk with settings of null": (partial(saelens, architecture="topk", k=None, activation_fn_kwargs=None), "k as None"),
    "gemma scope of another architecture": (partial(gemma_scope, config={"architecture": "topk"}), "architecture 'topk'"),
    "openai of another activation": (partial(openai, activation="GELU"), "activation 'GELU'"),
    "openai with something after TopK": (partial(openai, postact_fn="Identity"), "Identity after TopK"),
    "openai with k of 0": (partial(openai, k=0), "k as 0"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_setting_that_is_not_read_here_is_named(case: str, tmp_path: Path) -> None:
    """The error for an unknown activation, architecture or norm, or for an impossible k, names the setting and its file."""
    write, words = UNFIT[case]
    write(tmp_path)
    assert words in refusal(tmp_path)


def test_a_transcoder_to_several_layers_is_refused(tmp_path: Path) -> None:
    """The error for a decoder of three dimensions says that it is a transcoder that writes to several layers."""
    gemma_scope(tmp_path, "params.safetensors")
    text = changed(tmp_path, lambda tensors: {**tensors, "w_dec": torch.zeros(12, 2, D)})
    assert "several layers" in text


TRAINERS: dict[str, tuple[object, str]] = {
    "of another class": ({"trainer": {"dict_class": "CrossCoder"}}, "dict_class 'CrossCoder'"),
    "of a class with other tensors": ({"trainer": {"dict_class": "GatedAutoEncoder"}}, "tensors missing"),
    "that is no table": ({"trainer": [K]}, "config.json"),
}


@pytest.mark.parametrize("case", TRAINERS)
def test_a_trainer_that_does_not_fit_is_one_line(case: str, tmp_path: Path) -> None:
    """The error for a trainer's config of an unknown class, a class with other tensors, or another form is one line."""
    dictionary_learning(tmp_path, "AutoEncoder")
    config, words = TRAINERS[case]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("change", [{"k": torch.tensor(0)}, {"k": torch.tensor([1, 2])}, {"k": "three"}], ids=["zero", "two", "text"])
def test_a_k_that_cannot_be_meant_is_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    """The error for a TopK dictionary whose k is not a whole number above 0 is one line."""
    dictionary_learning(tmp_path, "AutoEncoderTopK")
    assert "k" in changed(tmp_path, lambda tensors: {**tensors, **change})


def test_classes_that_look_the_same_are_not_guessed(tmp_path: Path) -> None:
    """TopK and BatchTopK have the same tensors, so without the trainer's config the reader asks for it."""
    dictionary_learning(tmp_path, "BatchTopKSAE", told=False)
    assert "config.json beside it" in refusal(tmp_path)
