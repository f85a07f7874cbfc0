"""Layers after the pooling of a sentence model. The reference is their formula, computed in float64 from the model's own states."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sentences import WIDTH, add_layer, make_model, set_parts, write_json
from torch.nn import functional

from builders.embedders.dense import ACTIVATIONS
from builders.embedders.files import of_source
from builders.embedders.recipe import read_recipe
from builders.embedders.sentence import SentenceEmbedder
from builders.errors import UserError
from builders.subjects.places import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

TEXTS = ["a", "The mill, and the river.", "def rows(table)"]
# What each activation does to x, by hand.
FORMULAS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "activation.Tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "linear.Identity": lambda x: x,
    "activation.ReLU": lambda x: x * (x > 0),
    "activation.GELU": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "activation.SiLU": lambda x: x / (1 + (-x).exp()),
    "activation.Sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "activation.ELU": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "activation.LeakyReLU": lambda x: torch.where(x > 0, x, 0.01 * x),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a tiny model that takes the mean, free to be changed."""
    return make_model(tmp_path / "tiny")


def embedder_of(folder: Path) -> SentenceEmbedder:
    """Return the embedder of a folder on the CPU."""
    return SentenceEmbedder(of_source(Source(path=str(folder))), device="cpu")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return random weights."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 4


def pooled(folder: Path) -> torch.Tensor:
    """Return the mean of the states of each of TEXTS [texts, WIDTH], each text read alone."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    return torch.stack([state.double().mean(0) for state in states])


def unit(vectors: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return *vectors* [n, width] scaled to unit norm."""
    found: npt.NDArray[np.float64] = functional.normalize(vectors, dim=1).numpy()
    return found


def test_every_activation_has_a_formula() -> None:
    """The table of formulas is that of the code."""
    assert {name.partition(".")[2] for name in FORMULAS} == set(ACTIVATIONS)


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("activation", FORMULAS)
def test_a_layer_is_its_formula(activation: str, pickled: bool, folder: Path) -> None:
    """A vector is activation(W x + b) at unit norm, x the pooled states, from either file of weights, and its width is the layer's."""
    weight, bias = random(7, WIDTH), random(7, seed=1)
    add_layer(folder, 2, weight, bias, activation, pickled)

    embedder = embedder_of(folder)
    found = embedder.embed(TEXTS)

    assert embedder.width == found.shape[1] == 7
    expected = FORMULAS[activation](pooled(folder) @ weight.T.double() + bias.double())
    assert found == pytest.approx(unit(expected), abs=1e-5)


def test_without_a_name_the_activation_is_tanh(folder: Path) -> None:
    """A layer whose file names no activation has the one that sentence-transformers gives it, and may have no bias."""
    weight = random(7, WIDTH)
    add_layer(folder, 2, weight, None, None)

    assert embedder_of(folder).embed(TEXTS) == pytest.approx(unit((pooled(folder) @ weight.T.double()).tanh()), abs=1e-5)


def test_layers_and_norms_come_in_their_order(folder: Path) -> None:
    """A Normalize before a layer is applied there, one at the end makes no difference, and a second layer reads the first."""
    first, second = random(9, WIDTH), random(5, 9, seed=1)
    set_parts(folder, 2, "Normalize")
    add_layer(folder, 3, first, None, "activation.Tanh")
    add_layer(folder, 4, second, None, "linear.Identity")
    found = embedder_of(folder).embed(TEXTS)
    set_parts(folder, 5, "Normalize")

    inner = (functional.normalize(pooled(folder), dim=1) @ first.T.double()).tanh()
    assert found == pytest.approx(unit(inner @ second.T.double()), abs=1e-5)
    assert embedder_of(folder).embed(TEXTS).tobytes() == found.tobytes()


def test_a_vector_is_the_texts_own(folder: Path) -> None:
    """Bit for bit, a vector depends on neither order nor company, through a layer as well."""
    add_layer(folder, 2, random(7, WIDTH), random(7, seed=1), "activation.Tanh")
    embedder, texts = embedder_of(folder), [("abcdefghij" * 3)[:n] for n in range(30)] * 2
    found = embedder.embed(texts)

    for place in (0, 1, 7, 29, 30, 59):
        assert embedder.embed([texts[place]]).tobytes() == found[place].tobytes()
    assert embedder.embed(texts[::-1])[::-1].tobytes() == found.tobytes()


def test_an_identity_tells_layers(folder: Path, tmp_path: Path) -> None:
    """A model without layers has no word of them in its identity; other weights or another activation are another identity."""
    plain = embedder_of(folder).identity
    for name, seed, activation in (("a", 0, "activation.Tanh"), ("b", 1, "activation.Tanh"), ("c", 0, "linear.Identity")):
        add_layer(shutil.copytree(folder, tmp_path / name), 2, random(7, WIDTH, seed=seed), None, activation)
    others = [embedder_of(tmp_path / name).identity for name in "abc"]

    assert "layers" not in plain
    assert len({str(other["layers"]) for other in others}) == 3
    assert len(str(others[0]["layers"][0].pop("sha256"))) == 64
    assert others[0]["layers"] == [{"inputs": WIDTH, "outputs": 7, "bias": False, "activation": "Tanh", "normed": False}]


class Opened:
    """Runs code when it is unpickled, which never happens."""

    def __reduce__(self) -> tuple[Any, ...]:
        return SystemExit, ()


def layer_with(**changes: Any) -> Callable[[Path], None]:
    """Return what changes the config.json of a folder's layer; None leaves a key out."""

    def change(folder: Path) -> None:
        config = {"in_features": WIDTH, "out_features": 7, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
        write_json(folder / "2_Dense/config.json", {name: value for name, value in (config | changes).items() if value is not None})

    return change


def pickled(folder: Path) -> None:
    """Put a pickle that is more than tensors in place of the weights."""
    (folder / "2_Dense/model.safetensors").unlink()
    torch.save(Opened(), folder / "2_Dense/pytorch_model.bin")


READ: dict[str, tuple[Callable[[Path], Any], str]] = {
    "its activation is somebody's code": (
        layer_with(activation_function="theirs.Magic"),
        "has the activation theirs.Magic, not one of ELU, GELU, Identity, LeakyReLU, ReLU, SiLU, Sigmoid, Tanh of torch.nn",
    ),
    "its activation is not known": (
        layer_with(activation_function="torch.nn.modules.activation.Softmax"),
        "activation.Softmax, not one of",
    ),
    "it adds what it reads": (layer_with(use_residual=True), "adds what it reads, or reads something else than the text's vector"),
    "it reads tokens": (layer_with(module_input_name="token_embeddings"), "reads something else than the text's vector"),
    "it reads another width": (layer_with(in_features=9), f"2_Dense reads 9 dimensions and is given {WIDTH}"),
    "no sizes": (layer_with(in_features=None), "its config.json gives no in_features and out_features"),
    "no weights": (lambda f: (f / "2_Dense/model.safetensors").unlink(), "has neither model.safetensors nor pytorch_model.bin"),
    "another module": (lambda f: set_parts(f, 2, "Dense", "LSTM"), "consists of Transformer, Pooling, Dense, LSTM, but only"),
}
LOADED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights of another shape": (
        layer_with(out_features=8),
        "where its config.json asks for {'linear.weight': (8, 24), 'linear.bias': (8,)}",
    ),
    "a bias too many": (layer_with(bias=False), "where its config.json asks for {'linear.weight': (7, 24)}"),
    "a pointer": (lambda f: (f / "2_Dense/model.safetensors").write_text("version"), "weights that cannot be read"),
    "pickle": (pickled, "needs pickle, which can run code; convert it to safetensors"),
}


@pytest.mark.parametrize("mistake", [*READ, *LOADED])
def test_a_layer_that_cannot_be_run_is_one_line(mistake: str, folder: Path) -> None:
    """What a layer does is read before anything is embedded, its weights with the model's; what does not fit names the folder."""
    add_layer(folder, 2, random(7, WIDTH), random(7, seed=1), "activation.Tanh")
    spoil, told = (READ | LOADED)[mistake]
    spoil(folder)

    with pytest.raises(UserError) as caught:
        read_recipe(folder) if mistake in READ else embedder_of(folder).embed(["mill"])
    assert str(caught.value).startswith(str(folder))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
