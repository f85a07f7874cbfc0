"""Published dictionaries: the coder computes the equation of its format, for each of the five formats."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from coders import dense, noise, random_coder, random_transcoder
from dictionaries import (
    ARCHITECTURES,
    CLASSES,
    PLAIN,
    TRANSCODERS,
    D,
    Equation,
    K,
    dictionary_learning,
    gemma_scope,
    openai,
    raw,
    saelens,
    save,
    sparsify,
)
from safetensors.torch import load_file

from builders.errors import UserError
from builders.lake.shards import file_sha256
from builders.saes import formats
from builders.saes.coder import Gated, GroupMax, JumpReLU, ReLU, TopK
from builders.saes.formats import saelens as saelens_format
from builders.saes.formats import sparsify as sparsify_format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builders.saes.coder import Activation, SparseCoder

pytestmark = pytest.mark.numeric

SCALE = 0.37
FACTORS = ("finetuning_scaling_factor", "scaling_factor")
OLD_TOPK = {"activation_fn_kwargs": {"k": K}, "k": "left out"}
CASES: dict[str, Callable[[Path], Equation]] = {
    **PLAIN,
    "sparsify old": partial(sparsify, activation=None),
    "sparsify multi-topk": partial(sparsify, multi_topk=True),
    "sparsify transcoder without skip": partial(sparsify, transcode=True),
    "sparsify skip": partial(sparsify, skip=True),
    "sparsify groupmax transcoder": partial(sparsify, activation="groupmax", transcode=True, skip=True),
    "gemma scope transcoder": partial(gemma_scope, d_out=4),
    "gemma scope 2 SAE": partial(gemma_scope, name="params.safetensors", config={"architecture": "jump_relu"}),
    "gemma scope 2 transcoder": partial(gemma_scope, name="params.safetensors", config={"hf_hook_point_out": "post_feedforward"}),
    **{f"saelens {name} not centred": partial(saelens, architecture=name, apply_b_dec_to_input=False) for name in ARCHITECTURES},
    **{
        f"saelens {name} {norm}": partial(saelens, architecture=name, normalize_activations=norm)
        for name in (*ARCHITECTURES, *TRANSCODERS)
        for norm in ("none", "layer_norm", "constant_norm_rescale")
    },
    **{
        f"saelens {name} rescaled": partial(saelens, architecture=name, rescale_acts_by_decoder_norm=True) for name in ("topk", "batchtopk")
    },
    **{
        f"saelens {name} {factor}": partial(saelens, architecture=name, extra=(factor,), finetuning_scaling_factor=True)
        for name in ("standard", "gated", "jumprelu")
        for factor in FACTORS
    },
    "saelens old relu": partial(saelens, activation_fn_str="relu", activation_fn_kwargs={}, normalize_activations=None),
    "saelens old norm": partial(saelens, normalize_activations=False),
    "saelens old topk": partial(saelens, architecture="standard", activation_fn="topk", **OLD_TOPK),
    "saelens older topk": partial(saelens, architecture="standard", activation_fn_str="topk", **OLD_TOPK),
    "saelens oldest topk": partial(saelens, architecture="standard", activation_fn_str="topk", apply_b_dec_to_input=False, **OLD_TOPK),
    **{
        f"dictionary_learning {name} untold": partial(dictionary_learning, kind=name, told=False)
        for name in CLASSES
        if name != "BatchTopKSAE"
    },
    "openai relu untold": partial(openai, activation=None),
}
SCALED: dict[str, Callable[[Path], Equation]] = {
    **{
        f"{name} scaled": partial(saelens, architecture=name, scale=SCALE, normalize_activations="expected_average_only_in")
        for name in ARCHITECTURES
    },
    **{
        f"{name} scaled, rescaled": partial(
            saelens, architecture=name, scale=SCALE, normalize_activations="expected_average_only_in", rescale_acts_by_decoder_norm=True
        )
        for name in ("topk", "batchtopk")
    },
    "old standard scaled": partial(saelens, architecture="standard", scale=SCALE, normalize_activations=True),
}


def assert_same(coder: SparseCoder, equation: Equation) -> None:
    """Check that *coder* fires and writes what *equation* says on random vectors; some latents fire, and not all of them."""
    x = 2 * noise(77, 30, D) + 0.5
    latents, written = equation(x)
    code = coder.encode(x)
    assert 0 < len(code.value) < latents.numel()
    torch.testing.assert_close(dense(code, coder.width), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(coder.decode(code, x), written, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_file_means_what_its_format_says(case: str, tmp_path: Path) -> None:
    """Code and reconstruction equal those of the published equation, computed from the raw tensors."""
    equation = CASES[case](tmp_path)
    assert_same(formats.read(tmp_path), equation)


@pytest.mark.parametrize("case", SCALED)
def test_the_scale_of_training_is_folded_in(case: str, tmp_path: Path) -> None:
    """A SAELens SAE trained on scaled activations reads unscaled ones if the factor is given, and asks for it otherwise."""
    equation = SCALED[case](tmp_path)
    assert_same(formats.read(tmp_path, SCALE), equation)
    with pytest.raises(UserError, match=r"cfg\.json: .*`input_scale`"):
        formats.read(tmp_path)


def is_float(value: object) -> bool:
    """Return whether *value* is a tensor of floating point."""
    return isinstance(value, torch.Tensor) and value.is_floating_point()


@pytest.mark.parametrize("case", PLAIN)
def test_a_dictionary_in_half_precision_is_read_in_single(case: str, tmp_path: Path) -> None:
    """Published weights in half precision become float32 wherever they are, their values unchanged."""
    PLAIN[case](tmp_path)
    path = formats.files(tmp_path)[-1]
    save(tmp_path, path.name, {name: value.half() if is_float(value) else value for name, value in raw(path).items()})
    coder = formats.read(tmp_path)
    tensors = [value for thing in (coder, coder.activation) for value in vars(thing).values() if isinstance(value, torch.Tensor)]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


FORMATS = {"sparsify": sparsify, "saelens": saelens, "gemma-scope": gemma_scope, "openai": openai}


@pytest.mark.parametrize("name", [*FORMATS, "dictionary-learning"])
def test_a_format_is_seen_from_its_files(name: str, tmp_path: Path) -> None:
    """The files in a folder tell its format, and other files beside them do not matter."""
    write = FORMATS.get(name, partial(dictionary_learning, kind="AutoEncoder"))
    write(tmp_path)
    (tmp_path / "README.md").write_text("# what it is")
    assert formats.format_of(tmp_path) == name


def test_one_file_can_be_named_itself(tmp_path: Path) -> None:
    """A dictionary in OpenAI's format is found by its file or by its folder."""
    equation = openai(tmp_path)
    assert_same(formats.read(tmp_path / "autoencoder.pt"), equation)
    assert formats.files(tmp_path / "autoencoder.pt") == formats.files(tmp_path) == [tmp_path / "autoencoder.pt"]


@pytest.mark.parametrize("case", PLAIN)
def test_a_copy_is_the_same_bytes(case: str, tmp_path: Path) -> None:
    """Exactly the files of a dictionary, weights last, are copied, and their hashes equal those of the source."""
    equation = PLAIN[case](tmp_path / "source")
    (tmp_path / "source" / "README.md").write_text("not part of it")
    formats.copy(tmp_path / "source", tmp_path / "copy")
    source, copy = formats.files(tmp_path / "source"), formats.files(tmp_path / "copy")
    assert sorted(copy) == sorted((tmp_path / "copy").iterdir())
    assert [(path.name, file_sha256(path)) for path in copy] == [(path.name, file_sha256(path)) for path in source]
    assert copy[-1].suffix in (".safetensors", ".npz", ".pt")
    assert_same(formats.read(tmp_path / "copy"), equation)


# What is made here


@pytest.mark.parametrize(
    "activation", [TopK(3), JumpReLU(torch.tensor([0.1, 0.0, 2.5, 1e-7, 3.0])), ReLU(torch.zeros(5))], ids=lambda a: a.name
)
def test_what_is_written_is_read_back_exactly(activation: Activation, tmp_path: Path) -> None:
    """Every tensor and the activation are read back bit by bit, and only the two files were written."""
    coder = random_coder(4, 5, 3, activation)
    formats.write(coder, tmp_path / "layers.1")
    assert sorted(formats.files(tmp_path / "layers.1")) == sorted((tmp_path / "layers.1").iterdir())
    again = formats.read(tmp_path / "layers.1")
    for name in ("w_enc", "b_enc", "w_dec", "b_dec", "b_pre"):
        assert torch.equal(getattr(again, name), getattr(coder, name))
    assert type(again.activation) is type(activation)
    assert again.activation == activation if isinstance(activation, TopK) else torch.equal(again.activation.threshold, activation.threshold)
    assert (again.norm, again.w_skip, again.transcodes) == ("none", None, False)


@pytest.mark.parametrize("activation", [TopK(2), JumpReLU(torch.ones(5))], ids=lambda a: a.name)
def test_equal_coders_are_equal_bytes(activation: Activation, tmp_path: Path) -> None:
    """The same coder written twice gives the same bytes."""
    for name in "ab":
        formats.write(random_coder(4, 5, 3, activation), tmp_path / name)
    first, second = (formats.files(tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_tied_coder_can_be_written(tmp_path: Path) -> None:
    """A coder whose decoder is its encoder, as in an untrained baseline, is written like any other."""
    coder = random_coder(4, 5, 3, TopK(2))
    formats.write(replace(coder, w_dec=coder.w_enc), tmp_path)
    assert torch.equal(formats.read(tmp_path).w_dec, coder.w_enc)


def test_the_files_are_those_of_sparsify(tmp_path: Path) -> None:
    """Names, shapes and config are those that sparsify's own loader expects."""
    formats.write(random_coder(4, 6, 3, TopK(2)), tmp_path)
    shapes = {name: list(tensor.shape) for name, tensor in load_file(tmp_path / "sae.safetensors").items()}
    assert shapes == {"encoder.weight": [6, 3], "encoder.bias": [6], "W_dec": [6, 3], "b_dec": [3]}
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config.items() >= {"d_in": 3, "num_latents": 6, "k": 2, "activation": "topk", "transcode": False}.items()


UNWRITTEN: dict[str, Activation] = {
    "gated": Gated(torch.zeros(4), torch.ones(4), torch.zeros(4)),
    "groupmax": GroupMax(2, 2),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_what_is_never_made_here_is_not_written(name: str, tmp_path: Path) -> None:
    """Both writers refuse an activation that no trainer here produces, and leave no file."""
    for module in (sparsify_format, saelens_format):
        with pytest.raises(TypeError, match=name):
            module.write(random_coder(0, 4, 3, UNWRITTEN[name]), tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("activation", [TopK(2), ReLU(torch.zeros(4))], ids=lambda a: a.name)
def test_a_coder_that_the_format_cannot_hold_is_not_written_as_another(activation: Activation, tmp_path: Path) -> None:
    """Nothing is written that would not compute what the coder computes: a skip connection or a norm is never lost."""
    for number, coder in enumerate([random_transcoder(0, 4, 3, 3, activation), random_coder(0, 4, 3, activation, "layer_norm")]):
        folder = tmp_path / str(number)
        with pytest.raises((TypeError, ValueError)):
            formats.write(coder, folder)
        assert not folder.exists()
