"""Where a language model keeps what turns its residual stream into logits: blocks, final norm, unembedding, scales and soft cap."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from builders.errors import UserError, one_of
from builders.subjects.hookpoints import INPUT, base_of, blocks_of

NO_NORM = "none"  # what a person writes where a model has no final norm
# What configs call the factor of all logits, and the power with which it acts: Cohere and Falcon-H1 multiply, Granite divides.
FACTORS = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
MULTIPLIES = {("hyperclovax", "logits_scaling")}  # a model type that means the opposite by the same word
# What configs call c where logits become c · tanh(logits / c): Gemma, RecurrentGemma, xLSTM.
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
# How far computed logits may be from the model's own, of the largest of these: rounding, but no forgotten factor.
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
COARSE = 5e-2  # the same in half precision


@dataclass(frozen=True)
class Anatomy:
    """Where a language model keeps what lenses need: blocks, final norm, unembedding (with bias, scale and soft cap).

    *layers* are the hookpoints of layers 0 … L: layer ℓ is the residual stream after ℓ blocks. *scales* [L + 1] says how large the stream
    is kept there: RWKV halves it now and then, and 1 is the size that it would have without. *shrink* is what vectors of layer L are
    multiplied by before *norm*. *unembedding* maps [..., d_model] to [..., vocabulary], its logits are multiplied by *factor*, and *cap*
    is c in c · tanh(logits / c), or None.
    """

    layers: list[str]
    d_model: int
    norm: nn.Module
    unembedding: nn.Module
    scales: list[float]
    shrink: float = 1.0
    factor: float = 1.0
    cap: float | None = None

    @property
    def last(self) -> int:
        """The number L of blocks, which is the last layer."""
        return len(self.layers) - 1

    @property
    def vocabulary(self) -> int:
        """The number of logits."""
        weight: Tensor = self.unembedding.weight  # type: ignore[assignment]  # a Linear
        return len(weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the float32 logits [..., vocabulary] of layer-L vectors *hidden* [..., d_model]; gradients flow through."""
        weight: Tensor = self.unembedding.weight  # type: ignore[assignment]  # a Linear
        normed = self.norm(hidden.float() * self.shrink)
        logits: Tensor = self.unembedding(normed.to(weight.dtype)).float() * self.factor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def anatomy_of(model: nn.Module, norm: str | None = None) -> Anatomy:
    """Return the anatomy of *model* in eval mode; *norm* names the final norm inside the base model, or is `none` if there is none.

    Raises UserError if the blocks, the final norm or the unembedding cannot be found, or if their sizes do not fit.
    """
    config: Any = model.config.get_text_config()  # type: ignore[union-attr,operator]  # of a model of the transformers library
    blocks = blocks_of(model)
    d_model = int(config.hidden_size)
    halved = _halvings(config, len(blocks)) if not model.training else [0] * (len(blocks) + 1)
    # A block reads the stream as the halvings before it left it, and writes it so; the halving after a block comes after its hookpoint.
    scales = [0.5**times for times in (0, *halved[:-1])]
    return Anatomy(
        layers=[blocks[0] + INPUT, *blocks],
        d_model=d_model,
        norm=_exact(_final_norm(model, blocks, norm)),
        unembedding=_unembedding(model, d_model),
        scales=scales,
        shrink=0.5 ** halved[-1] / scales[-1],
        factor=_factor(config),
        cap=next((float(cap) for name in CAPS if (cap := getattr(config, name, None))), None),
    )


def require_whole(anatomy: Anatomy, hidden: Tensor, logits: Tensor) -> None:
    """Raise UserError unless layer-L vectors *hidden* [n, d_model] give the model's own *logits* [n, vocabulary], up to rounding.

    It finds what an unknown architecture does besides: another factor, another norm.
    """
    weight: Tensor = anatomy.unembedding.weight  # type: ignore[assignment]  # a Linear
    off = float((anatomy.logits(hidden) - logits.float()).abs().max() / logits.float().abs().max())
    if not off <= ROUNDING.get(weight.dtype, COARSE):
        raise UserError(
            f"the last block's vectors through the final norm ({type(anatomy.norm).__name__}) and the unembedding are not this model's"
            f" logits (off by {off:.2g} of the largest); name another final norm in params (`norm`), or leave this subject out"
        )


def _halvings(config: Any, blocks: int) -> list[int]:
    """Return how often the stream has been halved after 0, 1, … *blocks* blocks [blocks + 1]."""
    every = int(getattr(config, "rescale_every", 0)) if config.model_type == "rwkv" else 0
    return [layer // every if every > 0 else 0 for layer in range(blocks + 1)]


def _factor(config: Any) -> float:
    factor = 1.0
    for name, power in FACTORS.items():
        value = getattr(config, name, None)
        if value is not None:
            factor *= float(value) ** (1 if (config.model_type, name) in MULTIPLIES else power)
    return factor


def _exact(norm: nn.Module) -> nn.Module:
    """Return *norm* in float32: residual streams may be kept more exactly than weights, as Mamba's is."""
    coarse = any(weight.dtype != torch.float32 for weight in norm.parameters())
    return copy.deepcopy(norm).float() if coarse else norm


def _final_norm(model: nn.Module, blocks: list[str], name: str | None) -> nn.Module:
    """Return the module *name*, or else the last norm beside the list of blocks."""
    if name == NO_NORM:
        return nn.Identity()
    modules: dict[str, nn.Module] = dict(base_of(model).named_modules())
    beside = _beside(model, blocks)
    if name is None:
        norms = [module for module in beside.values() if "norm" in type(module).__name__.lower()]
        if norms:
            return norms[-1]
    elif name and name in modules:
        return modules[name]
    sought = f"a final norm called {name!r}" if name is not None else "a module beside its blocks whose class is called a norm"
    raise UserError(
        f"{type(model).__name__}: found no final norm; looked for {sought}; name it in params (`norm`), or write `{NO_NORM}`"
        f" if the model has none; beside its blocks are: {one_of(beside)}"
    )


def _beside(model: nn.Module, blocks: list[str]) -> dict[str, nn.Module]:
    """Return, by path, the modules that have the same parent as the list of *blocks*."""
    parent = ".".join(blocks[0].split(".")[:-2])
    home = base_of(model).get_submodule(parent)
    return {f"{parent}.{name}".removeprefix("."): module for name, module in home.named_children()}


def _unembedding(model: nn.Module, d_model: int) -> nn.Module:
    found: Any = model.get_output_embeddings()  # type: ignore[operator]  # of a model of the transformers library
    if found is None:
        raise UserError(f"{type(model).__name__}: get_output_embeddings() is None; choose a model with a language-modelling head")
    if found.weight.shape[1] != d_model:
        raise UserError(
            f"{type(model).__name__}: its unembedding reads {found.weight.shape[1]} dimensions, its residual stream has {d_model};"
            " lenses cannot read this model, so leave this subject out"
        )
    unembedding: nn.Module = found
    return unembedding
