"""Files of tuned lenses: what is in them, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from builders.errors import UserError
from builders.lenses.formats import CONFIG, PARAMS, SAFE, Origin, read, write
from builders.lenses.translators import TunedLens

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, D, VOCABULARY = 3, 8, 200


def noise(seed: int, *shape: int) -> torch.Tensor:
    """Return normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LENS = TunedLens(noise(1, LAYERS, D, D), noise(2, LAYERS, D))
ORIGIN = Origin("somebody/model", "abc123", LAYERS, noise(3, VOCABULARY, D))
both = pytest.mark.parametrize("format_", [SAFE, PARAMS])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a lens."""
    write(LENS, tmp_path, ORIGIN)
    return tmp_path


def changed(folder: Path, **config: object) -> None:
    """Put other values in the lens's config."""
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


@both
def test_a_lens_comes_back(folder: Path, format_: str) -> None:
    """Both formats hold the lens to the bit."""
    (folder / (PARAMS if format_ == SAFE else SAFE)).unlink()
    lens = read(folder, ORIGIN)
    assert torch.equal(lens.weight, LENS.weight)
    assert torch.equal(lens.bias, LENS.bias)


def test_files_have_the_layout_of_the_package(folder: Path) -> None:
    """The config has the package's keys and no other, and the state dict names the translators by layer."""
    assert json.loads((folder / CONFIG).read_text()) == {
        "base_model_name_or_path": "somebody/model",
        "d_model": D,
        "num_hidden_layers": LAYERS,
        "bias": True,
        "base_model_revision": "abc123",
        "unembed_hash": ORIGIN.unembed_hash,
        "lens_type": "linear_tuned_lens",
    }
    state = torch.load(folder / PARAMS, weights_only=True)
    assert list(state) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert torch.equal(state["1.weight"], LENS.weight[1])
    assert torch.equal(state["2.bias"], LENS.bias[2])
    assert all(torch.equal(load_file(folder / SAFE)[name], tensor) for name, tensor in state.items())


def test_equal_lenses_are_equal_bytes(folder: Path, tmp_path: Path) -> None:
    """Writing the same lens again gives the same bytes in every file, and leaves nothing else behind."""
    paths = write(replace(LENS, weight=LENS.weight.clone()), tmp_path / "again", ORIGIN)
    assert [path.name for path in paths] == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all(path.read_bytes() == (folder / path.name).read_bytes() for path in paths)


def test_the_hash_is_that_of_the_printed_unembedding() -> None:
    """The unembedding is hashed as numpy prints it with one decimal in its usual settings, whatever this process has set."""
    small = replace(ORIGIN, unembedding=torch.tensor([[0.26, -1.0], [2.0, 3.04]], dtype=torch.float64))
    with np.printoptions(threshold=1, suppress=True, sign="+", linewidth=10):
        assert small.unembed_hash == sha256(b"[[ 0.3 -1. ]\n [ 2.   3. ]]").hexdigest()


def test_an_unembedding_with_the_same_printed_corners_is_told_apart() -> None:
    """A change inside a large matrix leaves the package's hash and changes ours; rounding to half precision changes neither."""
    other = ORIGIN.unembedding.clone()
    other[100, 4] += 1
    near, half = replace(ORIGIN, unembedding=other), replace(ORIGIN, unembedding=ORIGIN.unembedding.bfloat16())
    assert near.unembed_hash == ORIGIN.unembed_hash
    assert near.unembed_sha256 != ORIGIN.unembed_sha256
    assert half.unembed_sha256 == ORIGIN.unembed_sha256


@both
def test_another_revision_is_refused(folder: Path, format_: str) -> None:
    """A lens of another commit is refused with both commits; where one side does not say its commit, it is not."""
    (folder / (PARAMS if format_ == SAFE else SAFE)).unlink()
    with pytest.raises(UserError, match=r"another revision: abc123, but somebody/model has def456; train it again, or pin that$"):
        read(folder, replace(ORIGIN, revision="def456"))
    assert torch.equal(read(folder, replace(ORIGIN, revision=None)).weight, LENS.weight)
    changed(folder, base_model_revision=None)
    assert torch.equal(read(folder, replace(ORIGIN, revision="def456")).weight, LENS.weight)


@both
def test_another_unembedding_is_refused(folder: Path, format_: str) -> None:
    """A lens of an unembedding that prints otherwise is refused by the package's hash; one without a hash passes."""
    (folder / (PARAMS if format_ == SAFE else SAFE)).unlink()
    other = replace(ORIGIN, unembedding=noise(4, VOCABULARY, D))
    with pytest.raises(UserError, match=rf"another unembedding \(unembed_hash\): {ORIGIN.unembed_hash}, but somebody/model has"):
        read(folder, other)
    changed(folder, unembed_hash=None)
    if format_ == PARAMS:
        assert torch.equal(read(folder, other).weight, LENS.weight)
    else:
        with pytest.raises(UserError, match=r"another unembedding \(unembed_sha256\)"):
            read(folder, other)


@both
def test_weights_of_which_the_config_does_not_tell_are_refused(folder: Path, format_: str) -> None:
    """Another number of translators, another width and tensors under other names are each named in one line."""
    (folder / (PARAMS if format_ == SAFE else SAFE)).unlink()
    changed(folder, num_hidden_layers=LAYERS + 1)
    with pytest.raises(UserError, match=rf"{format_}: holds 3 translators, but config.json tells of 4; fetch both again$"):
        read(folder, ORIGIN)
    changed(folder, num_hidden_layers=LAYERS, d_model=D + 1)
    with pytest.raises(UserError, match=rf"{format_}: 0.weight has shape \[8, 8\], not \[9, 9\]"):
        read(folder, ORIGIN)
    changed(folder, d_model="eight")
    with pytest.raises(UserError, match="gives d_model as 'eight'"):
        read(folder, ORIGIN)


def test_other_names_are_refused(folder: Path) -> None:
    """A translator without a bias, and tensors that no translator has, are refused by name."""
    tensors = load_file(folder / SAFE)
    lacking = {name: tensor for name, tensor in tensors.items() if name != "1.bias"}
    save_file(lacking, folder / SAFE)
    with pytest.raises(UserError, match=r"tensors missing: 1.bias"):
        read(folder, ORIGIN)
    save_file(tensors | {"1.scale": noise(5, D)}, folder / SAFE)
    with pytest.raises(UserError, match=r"tensors that no translator has: 1.scale"):
        read(folder, ORIGIN)


def test_a_model_of_another_shape_is_refused(folder: Path) -> None:
    """A whole lens of fewer layers than the model has, or of another width, is refused."""
    with pytest.raises(UserError, match=r"of 3 layers of 8 dimensions, but somebody/model has 5 of 8; train it again$"):
        read(folder, replace(ORIGIN, layers=5))


def test_a_kind_that_is_not_known_is_refused(folder: Path) -> None:
    """A lens of another kind is refused with the kind that can be read."""
    changed(folder, lens_type="mlp")
    with pytest.raises(UserError, match=r"lens_type 'mlp' cannot be read; these can: linear_tuned_lens$"):
        read(folder, ORIGIN)


@pytest.mark.parametrize("name", [CONFIG, SAFE])
def test_damaged_files_are_refused(folder: Path, name: str) -> None:
    """A file that was cut short is named."""
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=rf"{name}: damaged or cut short"):
        read(folder, ORIGIN)


def test_a_folder_without_a_lens_is_refused(tmp_path: Path) -> None:
    """A folder that lacks the files says which were looked for."""
    with pytest.raises(UserError, match=r"holds no tuned lens; looked for config.json and params.safetensors or params.pt$"):
        read(tmp_path, ORIGIN)
