"""Damaged dictionaries: the error for anything missing, cut or of another shape is one line that names the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from dictionaries import PLAIN, gemma_scope, openai, raw, refusal, save

from builders.errors import UserError
from builders.saes import formats

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = {"sparsify": "sae.safetensors", "gemma scope": "params.npz", "dictionary_learning AutoEncoder": "ae.pt"}


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
    """Return whether the changed tensor is valid for another dictionary: a transcoder may read vectors of any size."""
    if case in ("gemma scope", "saelens transcoder", "saelens jumprelu_transcoder"):
        return (name.lower(), shape) == ("w_enc", "longer")
    return False


@pytest.mark.parametrize("case", PLAIN)
def test_a_missing_tensor_is_named(case: str, tmp_path: Path) -> None:
    """A file that lacks a tensor is refused; the error names that tensor and those that are there."""
    PLAIN[case](tmp_path)
    path = formats.files(tmp_path)[-1]
    whole = raw(path)
    unread = {"threshold"} if case == "dictionary_learning AutoEncoderTopK" else set()
    for name in set(needed(whole)) - OPTIONAL - unread:
        save(tmp_path, path.name, {own: value for own, value in whole.items() if own != name})
        assert f"missing: {name};" in refusal(tmp_path, path)


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
            except Exception as error:  # every error that is no UserError is reported together
                taken.append((name, repr(error)))
    assert not taken


@pytest.mark.parametrize("case", ["saelens batchtopk", "dictionary_learning BatchTopKSAE", "dictionary_learning MatryoshkaBatchTopKSAE"])
def test_one_threshold_is_one_number(case: str, tmp_path: Path) -> None:
    """If all latents share a threshold, several numbers are refused; a list of one number is accepted."""
    PLAIN[case](tmp_path)
    path = formats.files(tmp_path)[-1]
    name = "topk_threshold" if "saelens" in case else "threshold"
    save(tmp_path, path.name, {**raw(path), name: torch.tensor([0.5])})
    assert formats.read(tmp_path).activation.threshold.tolist() == [0.5] * 12  # type: ignore[union-attr]  # a JumpReLU
    save(tmp_path, path.name, {**raw(path), name: torch.tensor([0.5, 0.6])})
    assert name in refusal(tmp_path, path)


# Files: cut, empty, something else


def test_what_is_no_dictionary_lists_what_was_looked_for(tmp_path: Path) -> None:
    """The error for a folder of another kind lists what is in it, and the files of every format."""
    (tmp_path / "model.bin").write_bytes(b"?")
    text = refusal(tmp_path)
    assert "there is: model.bin" in text
    for name in ("cfg.json", "sae.safetensors", "sae_weights.safetensors", "params.npz", "params.safetensors", "ae.pt", ".pt file"):
        assert name in text
    assert all(name in text for name in formats.FORMATS)


def test_an_empty_folder_and_a_missing_one_are_told_apart(tmp_path: Path) -> None:
    """The errors for an empty folder, a missing folder and a file of another kind each say what it is."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("?")
    assert "there is: nothing" in refusal(tmp_path / "empty")
    assert "no such dictionary" in refusal(tmp_path / "nowhere")
    assert "there is: a file" in refusal(tmp_path / "notes.txt")


def test_two_files_of_one_kind_are_not_chosen_between(tmp_path: Path) -> None:
    """A folder with two .pt files of no known name is refused with both names; one of them can be named itself."""
    openai(tmp_path)
    (tmp_path / "autoencoder.pt").rename(tmp_path / "1.pt")
    openai(tmp_path)
    assert "1.pt, autoencoder.pt" in refusal(tmp_path)
    assert formats.read(tmp_path / "1.pt").width == formats.read(tmp_path / "autoencoder.pt").width


@pytest.mark.parametrize("share", [0, 0.02, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_cut_anywhere_are_never_read(case: str, share: float, tmp_path: Path) -> None:
    """A weights file that is cut anywhere is refused, for each of the three kinds of file."""
    PLAIN[case](tmp_path)
    path = tmp_path / WEIGHTS[case]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "fetch it again" in refusal(tmp_path, path)


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
    """The error for a pointer, a web page, zeros, another container or a folder in place of the weights is one line."""
    PLAIN[case](tmp_path)
    WRONG[wrong](tmp_path / WEIGHTS[case])
    assert refusal(tmp_path)


ARRAYS: dict[str, Callable[[Path], object]] = {
    "compressed and damaged": compressed,
    "one array": one_array,
    "objects": lambda path: np.savez(path, w_enc=np.array([{}], dtype=object)),
    "text": lambda path: np.savez(path, **dict.fromkeys(raw(path), np.array(["a"]))),  # type: ignore[arg-type]  # the same
}


@pytest.mark.parametrize("arrays", ARRAYS)
def test_arrays_that_are_no_tensors_are_one_line(arrays: str, tmp_path: Path) -> None:
    """The error for an .npz file that is damaged inside, or holds objects, text or one bare array, is one line."""
    gemma_scope(tmp_path)
    ARRAYS[arrays](tmp_path / "params.npz")
    refusal(tmp_path, tmp_path / "params.npz")
    assert (tmp_path / "params.npz").exists()
