"""Dictionaries that cannot be read: whatever is amiss is one line that names the file, and nothing in it is run."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from dictionaries import PLAIN, D, K, dictionary_learning, gemma_scope, openai, raw, saelens, save, sparsify

from builders.errors import UserError
from builders.saes import formats

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = {"sparsify": "sae.safetensors", "gemma scope": "params.npz", "dictionary_learning AutoEncoder": "ae.pt"}


def told(place: Path, named: Path | None = None) -> str:
    """Return what is said of the dictionary in *place*, once it is seen to be one line that names *named*."""
    with pytest.raises(UserError) as caught:
        formats.read(place)
    text = str(caught.value)
    assert str(named or place) in text
    assert "\n" not in text
    return text


def one_line_each(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """Return what is said of the dictionary in *folder* after a *change* of its tensors."""
    path = formats.files(folder)[-1]
    save(folder, path.name, change(raw(path)))
    return told(folder, folder)


# Tensors: every one of every kind, missing or of another shape

OPTIONAL = {"affine_skip_connection"}  # Gemma Scope 2 has it or not
SHAPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "longer": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "wider": lambda tensor: torch.cat([tensor, tensor[..., :1]], dim=-1),
    "flat": lambda tensor: tensor.flatten()[:-1],
    "deep": lambda tensor: tensor[None],
    "one number": lambda tensor: tensor.flatten()[0],
}


def needed(tensors: dict[str, Any]) -> list[str]:
    """Return the names of the tensors that a reader needs; counts kept from training are not among them."""
    return [name for name, value in tensors.items() if isinstance(value, torch.Tensor) and value.is_floating_point()]


def fits(case: str, name: str, shape: str) -> bool:
    """Return whether a tensor so changed is a right one of another dictionary: what a transcoder reads has any size."""
    if case in ("gemma scope", "saelens transcoder", "saelens jumprelu_transcoder"):
        return (name.lower(), shape) == ("w_enc", "longer")
    return False


@pytest.mark.parametrize("case", PLAIN)
def test_a_missing_tensor_is_named(case: str, tmp_path: Path) -> None:
    """A file that lacks any one tensor of its kind is refused with that tensor's name, and those that there are."""
    PLAIN[case](tmp_path)
    path = formats.files(tmp_path)[-1]
    whole = raw(path)
    unread = {"threshold"} if case == "dictionary_learning AutoEncoderTopK" else set()
    for name in set(needed(whole)) - OPTIONAL - unread:
        save(tmp_path, path.name, {own: value for own, value in whole.items() if own != name})
        assert f"missing: {name};" in told(tmp_path, path)


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_tensor_of_another_shape_is_one_line(case: str, shape: str, tmp_path: Path) -> None:
    """A tensor that does not fit the others, or has more or fewer dimensions, is refused as the file is read."""
    PLAIN[case](tmp_path)
    path = formats.files(tmp_path)[-1]
    whole = raw(path)
    taken = []
    for name in needed(whole):
        if whole[name].ndim and not fits(case, name, shape):
            save(tmp_path, path.name, {**whole, name: SHAPES[shape](whole[name])})
            try:
                formats.read(tmp_path)
                taken.append((name, "was read"))
            except UserError as error:
                taken += [] if "shape" in str(error) and str(path) in str(error) else [(name, str(error))]
            except Exception as error:  # all that are no UserError are told together
                taken.append((name, repr(error)))
    assert not taken


@pytest.mark.parametrize("case", ["saelens batchtopk", "dictionary_learning BatchTopKSAE", "dictionary_learning MatryoshkaBatchTopKSAE"])
def test_one_threshold_is_one_number(case: str, tmp_path: Path) -> None:
    """Where all latents share a threshold, several numbers are refused; one number in a list is one."""
    PLAIN[case](tmp_path)
    path = formats.files(tmp_path)[-1]
    name = "topk_threshold" if "saelens" in case else "threshold"
    save(tmp_path, path.name, {**raw(path), name: torch.tensor([0.5])})
    assert formats.read(tmp_path).activation.threshold.tolist() == [0.5] * 12  # type: ignore[union-attr]  # a JumpReLU
    save(tmp_path, path.name, {**raw(path), name: torch.tensor([0.5, 0.6])})
    assert name in told(tmp_path, path)


# Files: cut, empty, something else


def test_what_is_no_dictionary_lists_what_was_looked_for(tmp_path: Path) -> None:
    """A folder of another kind is told with what is in it, and every format's files are named."""
    (tmp_path / "model.bin").write_bytes(b"?")
    text = told(tmp_path)
    assert "there is: model.bin" in text
    for name in ("cfg.json", "sae.safetensors", "sae_weights.safetensors", "params.npz", "params.safetensors", "ae.pt", ".pt file"):
        assert name in text
    assert all(name in text for name in formats.FORMATS)


def test_an_empty_folder_and_a_missing_one_are_told_apart(tmp_path: Path) -> None:
    """An empty folder holds nothing, a missing one is missing, and a file of another kind is a file."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("?")
    assert "there is: nothing" in told(tmp_path / "empty")
    assert "no such dictionary" in told(tmp_path / "nowhere")
    assert "there is: a file" in told(tmp_path / "notes.txt")


def test_two_files_of_one_kind_are_not_chosen_between(tmp_path: Path) -> None:
    """A folder with two .pt files of no known name is refused with both names; one of them can be named itself."""
    openai(tmp_path)
    (tmp_path / "autoencoder.pt").rename(tmp_path / "1.pt")
    openai(tmp_path)
    assert "1.pt, autoencoder.pt" in told(tmp_path)
    assert formats.read(tmp_path / "1.pt").width == formats.read(tmp_path / "autoencoder.pt").width


@pytest.mark.parametrize("share", [0, 0.02, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_cut_anywhere_are_never_read(case: str, share: float, tmp_path: Path) -> None:
    """No cut of a weights file passes for a whole one, in any of the three kinds of file."""
    PLAIN[case](tmp_path)
    path = tmp_path / WEIGHTS[case]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "fetch it again" in told(tmp_path, path)


def compressed(path: Path) -> None:
    """Write *path*'s arrays compressed, with bytes amiss in the middle of each."""
    arrays = {name: np.zeros((40, 40), np.float32) + np.arange(40, dtype=np.float32) for name in raw(path)}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # names of arrays, not of options
    data = bytearray(path.read_bytes())
    for place in range(60, len(data) - 700, 40):
        data[place] ^= 0xFF
    path.write_bytes(data)


def one_array(path: Path) -> None:
    """Write one array where a table of them should be."""
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


WRONG: dict[str, Callable[[Path], object]] = {
    "a pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
    "a page": lambda path: path.write_text("<!DOCTYPE html>\n<html>not found</html>\n"),
    "zeros": lambda path: path.write_bytes(bytes(2000)),
    "the wrong container": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_something_else_are_one_line(case: str, wrong: str, tmp_path: Path) -> None:
    """A pointer to the file, a web page, zeros, another container or a folder in place of the weights are told in one line."""
    PLAIN[case](tmp_path)
    WRONG[wrong](tmp_path / WEIGHTS[case])
    assert told(tmp_path)


ARRAYS: dict[str, Callable[[Path], object]] = {
    "compressed and damaged": compressed,
    "one array": one_array,
    "objects": lambda path: np.savez(path, w_enc=np.array([{}], dtype=object)),
    "text": lambda path: np.savez(path, **dict.fromkeys(raw(path), np.array(["a"]))),  # type: ignore[arg-type]  # the same
}


@pytest.mark.parametrize("arrays", ARRAYS)
def test_arrays_that_are_no_tensors_are_one_line(arrays: str, tmp_path: Path) -> None:
    """An .npz file that is damaged inside, or holds objects or text, or no table of arrays, is told in one line."""
    gemma_scope(tmp_path)
    ARRAYS[arrays](tmp_path / "params.npz")
    told(tmp_path, tmp_path / "params.npz")
    assert (tmp_path / "params.npz").exists()


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
    "code in a bare pickle": lambda path, trap: path.write_bytes(pickle.dumps(Trap(trap))),
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
    assert "needs pickle, which can run code" in told(tmp_path, path)
    assert not trap.exists()


TABLES: dict[str, object] = {
    "a list": [torch.zeros(2)],
    "one tensor": torch.zeros(2),
    "text": "weights",
    "numbers for tensors": {"encoder.weight": 1, "encoder.bias": 2, "decoder.weight": 3, "bias": 4},
}


@pytest.mark.parametrize("table", TABLES)
def test_a_file_without_a_table_of_tensors_is_one_line(table: str, tmp_path: Path) -> None:
    """A .pt file that is harmless, but holds no table of tensors, is told in one line."""
    buffer = io.BytesIO()
    torch.save(TABLES[table], buffer)
    (tmp_path / "ae.pt").write_bytes(buffer.getvalue())
    assert "ae.pt" in told(tmp_path)


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
    """A config that is cut, empty, or something else than a JSON object is told in one line that names it."""
    write, name = CONFIGS[case]
    write(tmp_path)
    (tmp_path / name).write_bytes(NO_JSON[damage])
    assert "fetch it again" in told(tmp_path, tmp_path / name)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "sparsify of another activation": (partial(sparsify, activation="relu"), "activation 'relu'"),
    "sparsify without k": (partial(sparsify, k=None), "k as None"),
    "sparsify with text for k": (partial(sparsify, k="3"), "k as '3'"),
    "sparsify with k of 0": (partial(sparsify, k=0), "k as 0"),
    "sparsify with half a k": (partial(sparsify, k=2.5), "k as 2.5"),
    "sparsify with true for k": (partial(sparsify, k=True), "k as True"),
    "sparsify groupmax that does not divide": (partial(sparsify, activation="groupmax", k=5), "groupmax cuts 12 latents"),
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
    """An activation, an architecture, a norm or a k that cannot be meant or is unknown is told with the file it stands in."""
    write, words = UNFIT[case]
    write(tmp_path)
    assert words in told(tmp_path)


def test_a_transcoder_to_several_layers_is_refused(tmp_path: Path) -> None:
    """A cross-layer transcoder, whose decoder has three dimensions, is named for what it is."""
    gemma_scope(tmp_path, "params.safetensors")
    text = one_line_each(tmp_path, lambda tensors: {**tensors, "w_dec": torch.zeros(12, 2, D)})
    assert "several layers" in text


TRAINERS: dict[str, tuple[object, str]] = {
    "of another class": ({"trainer": {"dict_class": "CrossCoder"}}, "dict_class 'CrossCoder'"),
    "of a class with other tensors": ({"trainer": {"dict_class": "GatedAutoEncoder"}}, "tensors missing"),
    "that is no table": ({"trainer": [K]}, "config.json"),
}


@pytest.mark.parametrize("case", TRAINERS)
def test_a_trainer_that_does_not_fit_is_one_line(case: str, tmp_path: Path) -> None:
    """A trainer's config of an unknown class, of one with other tensors, or of another form is told in one line."""
    dictionary_learning(tmp_path, "AutoEncoder")
    config, words = TRAINERS[case]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert words in told(tmp_path)


@pytest.mark.parametrize("change", [{"k": torch.tensor(0)}, {"k": torch.tensor([1, 2])}, {"k": "three"}], ids=["zero", "two", "text"])
def test_a_k_that_cannot_be_meant_is_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    """A TopK dictionary that keeps no whole number of latents above 0 is told in one line."""
    dictionary_learning(tmp_path, "AutoEncoderTopK")
    assert "k" in one_line_each(tmp_path, lambda tensors: {**tensors, **change})


def test_classes_that_look_the_same_are_not_guessed(tmp_path: Path) -> None:
    """TopK and BatchTopK have the same tensors, so without the trainer's config the reader asks for it."""
    dictionary_learning(tmp_path, "BatchTopKSAE", told=False)
    assert "config.json beside it" in told(tmp_path)
