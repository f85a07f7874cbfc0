"""Dense layers that stand after the pooling of a sentence-embedding model, such as those of stella_en_400M_v5."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.embedders.files import PICKLED, WEIGHTS, json_of
from builders.errors import UserError, first_line, one_of
from builders.lake.shards import file_sha256

if TYPE_CHECKING:
    from torch import Tensor

# The activations that a layer may have, by their names in torch.nn; without a name it is the first, as in sentence-transformers.
ACTIVATIONS = ("Tanh", "Identity", "ReLU", "GELU", "SiLU", "Sigmoid", "ELU", "LeakyReLU")
OWN = "sentence_embedding"  # what sentence-transformers calls the vector of a text


@dataclass(frozen=True)
class Dense:
    """A layer activation(W x + b) from *inputs* to *outputs* dimensions; *weights* is its file. With *normed*, x has unit norm."""

    weights: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str
    normed: bool

    @property
    def identity(self) -> dict[str, Any]:
        """What vectors depend on: the layer's settings, and the SHA-256 of its weights."""
        settings = {name: value for name, value in vars(self).items() if name != "weights"}
        return settings | {"sha256": file_sha256(self.weights)}

    def on(self, device: str) -> Callable[[Tensor], Tensor]:
        """Return the layer in float32 on *device*, as a function of vectors [rows, inputs]; raise UserError if its weights do not fit."""
        import torch

        names = {"linear.weight": (self.outputs, self.inputs)} | ({"linear.bias": (self.outputs,)} if self.bias else {})
        tensors = _tensors(self.weights)
        shapes = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in tensors.items()}
        if shapes != names:
            raise UserError(f"{self.weights}: holds {shapes}, where its config.json asks for {names}; fetch it again")
        weight = tensors["linear.weight"].float().to(device)
        bias = tensors["linear.bias"].float().to(device) if self.bias else None
        activation = getattr(torch.nn, self.activation)()

        def layer(vectors: Tensor) -> Tensor:
            read = torch.nn.functional.normalize(vectors, dim=1) if self.normed else vectors
            found: Tensor = activation(torch.nn.functional.linear(read, weight, bias))
            return found

        return layer


def read_dense(folder: Path, normed: bool) -> Dense:
    """Return the layer of a *folder*; raise UserError if it does what is not done here, or has no weights."""
    config = json_of(folder / "config.json")
    if not {"in_features", "out_features"} <= config.keys():
        raise UserError(f"{folder}: its config.json gives no in_features and out_features; fetch it again")
    place, _, activation = config.get("activation_function", f"torch.nn.{ACTIVATIONS[0]}").rpartition(".")
    if not place.startswith("torch.nn") or activation not in ACTIVATIONS:
        given = config["activation_function"]
        raise UserError(f"{folder}: has the activation {given}, not one of {one_of(ACTIVATIONS)} of torch.nn; choose another model")
    if config.get("use_residual") or {config.get(f"module_{way}_name") or OWN for way in ("input", "output")} != {OWN}:
        raise UserError(f"{folder}: adds what it reads, or reads something else than the text's vector; choose another model")
    weights = next((path for name in (WEIGHTS, PICKLED) if (path := folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder}: has neither {WEIGHTS} nor {PICKLED}; fetch it too")
    return Dense(weights, int(config["in_features"]), int(config["out_features"]), bool(config.get("bias", True)), activation, normed)


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of weights; raise UserError if it is damaged or needs more of pickle than tensors."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor]
        found = load_file(path) if path.name == WEIGHTS else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: needs pickle, which can run code; convert it to safetensors") from error
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"{path}: weights that cannot be read ({first_line(error)}); fetch the file, not a Git LFS pointer") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no dict of tensors; fetch it again")
    return found
