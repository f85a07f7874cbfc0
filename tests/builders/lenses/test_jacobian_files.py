"""Files of Jacobian lenses: what is in them, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from builders.errors import UserError
from builders.lenses.formats import Origin
from builders.lenses.jacobian import JacobianLens
from builders.lenses.jacobian_files import REACHES, read, write

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, D, VOCABULARY = 3, 4, 9


def noise(seed: int, *shape: int) -> torch.Tensor:
    """Return normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ORIGIN = Origin("somebody/model", "abc123", LAYERS, noise(0, VOCABULARY, D))


def lens(name: str = "jacobian") -> JacobianLens:
    """Return a lens of noise."""
    return JacobianLens(REACHES[name], noise(1, LAYERS, D, D))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a lens."""
    write(lens(), tmp_path / "lens.safetensors", ORIGIN, 7)
    return tmp_path / "lens.safetensors"


@pytest.mark.parametrize("name", ["jacobian", "jacobian-later", "jacobian-state"])
def test_a_lens_comes_back(tmp_path: Path, name: str) -> None:
    """The file holds the Jacobians to the bit, and says how far they reach."""
    write(lens(name), tmp_path / "lens.safetensors", ORIGIN, 7)
    found = read(tmp_path / "lens.safetensors", ORIGIN)

    assert found.reach == REACHES[name]
    assert torch.equal(found.jacobians, lens(name).jacobians)


def test_equal_lenses_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    """A second file of the same lens has the same bytes, and its metadata say what it is."""
    again = tmp_path / "again.safetensors"
    write(lens(), again, ORIGIN, 7)
    with safe_open(path, "pt") as file:
        stated = json.loads(file.metadata()["lens"])

    assert again.read_bytes() == path.read_bytes()
    assert stated == {
        "name": "jacobian",
        "model": "somebody/model",
        "positions": 7,
        "revision": "abc123",
        "unembed_sha256": ORIGIN.unembed_sha256,
    }


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (replace(ORIGIN, revision="def456"), "its lens is of another revision: abc123, but somebody/model has def456"),
        (replace(ORIGIN, unembedding=noise(5, VOCABULARY, D)), "its lens is of another unembed_sha256: "),
        (replace(ORIGIN, layers=4), r"jacobians has shape \[3, 4, 4\], not \[4, 4, 4\]"),
    ],
)
def test_the_lens_of_another_model_is_refused(path: Path, origin: Origin, said: str) -> None:
    """Another commit, another unembedding and another number of layers are told in one line."""
    with pytest.raises(UserError, match=said):
        read(path, origin)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """A file that names no lens, lacks the tensor or is cut short is refused."""
    nameless, other, short = (tmp_path / f"{name}.safetensors" for name in ("nameless", "other", "short"))
    save_file({"jacobians": noise(1, LAYERS, D, D)}, nameless)
    save_file({"weights": noise(1, D)}, other)
    short.write_bytes(nameless.read_bytes()[:50])

    with pytest.raises(UserError, match="lens None cannot be read; these can: jacobian, jacobian-later, jacobian-state"):
        read(nameless, ORIGIN)
    with pytest.raises(UserError, match="tensors missing: jacobians"):
        read(other, ORIGIN)
    with pytest.raises(UserError, match="damaged or cut short"):
        read(short, ORIGIN)
