"""How faithful an SAE is, measured by us on held-out tokens: the `saes` config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.errors import UserError
from builders.harvest import harvest, read_rows, row_batches
from builders.hookpoints import edited
from builders.progress import track
from builders.saes.coder import SparseCoder
from builders.table import Column, Table

SAES = Table(
    name="saes",
    row="a sparse dictionary of a subject's activations, with how faithful it is on held-out tokens",
    key=("sae",),
    columns=(
        Column("sae", "string", "its id in this release"),
        Column("subject", "string", "the language model it reads", categorical=True),
        Column("hookpoint", "string", "the module whose output it reads", categorical=True),
        Column("format", "string", "the file format it is stored in", categorical=True),
        Column("source", "string", "where it came from: trained here, a Hub repository, a folder"),
        Column("revision", "string", "the pinned commit of the Hub repository", nullable=True),
        Column("sha256", "string", "SHA-256 of its weights file"),
        Column("activation", "string", "activation function", categorical=True),
        Column("width", "int32", "number of latents", unit="latents", low=1),
        Column("d_model", "int32", "size of the vectors it reads", unit="dimensions", low=1),
        Column("k", "int32", "latents kept per token (TopK)", nullable=True, low=1),
        Column("measured_tokens", "int64", "held-out tokens behind the figures below", unit="tokens", low=1),
        Column("l0", "float64", "mean number of latents that fire on a token", unit="latents", low=0),
        Column("l0_se", "float64", "standard error of l0, over rows", unit="latents", low=0),
        Column("fvu", "float64", "fraction of variance unexplained by the reconstruction (0 is perfect, 1 the mean)", low=0),
        Column("dead_share", "float64", "share of latents that fire on none of the measured tokens", low=0, high=1),
        Column("ce_clean", "float64", "the model's own cross-entropy", unit="nats per token", low=0),
        Column("ce_spliced", "float64", "cross-entropy with the reconstruction in place of the activations", unit="nats per token"),
        Column("ce_zeroed", "float64", "cross-entropy with zeros in place of the activations", unit="nats per token"),
        Column("loss_added", "float64", "ce_spliced − ce_clean", unit="nats per token"),
        Column("loss_added_se", "float64", "its standard error, over rows", unit="nats per token", low=0),
        Column("loss_recovered", "float64", "(ce_zeroed − ce_spliced) / (ce_zeroed − ce_clean); 1 is lossless"),
        Column("recipe", "string", "how it was trained, as JSON", nullable=True),
    ),
)


@dataclass(frozen=True)
class Moments:
    """Per-row sums from which means and their standard errors follow; rows are the independent units."""

    total: Tensor
    tokens: Tensor

    @property
    def mean(self) -> float:
        """The mean per token."""
        return float(self.total.sum() / self.tokens.sum())

    @property
    def se(self) -> float:
        """The standard error of a ratio of sums over rows (Cochran 1977, 6.4)."""
        n = len(self.total)
        if n < 2:
            return math.nan
        residual = self.total - self.mean * self.tokens
        return float(residual.square().sum().div(n - 1).sqrt() * math.sqrt(n) / self.tokens.sum())


def require_width(coder: SparseCoder, sae: str, hookpoint: str, width: int) -> None:
    """Raise UserError unless the SAE reads vectors of the hookpoint's *width*."""
    if coder.d_model != width:
        raise UserError(f"saes.{sae}: reads vectors of {coder.d_model} dimensions, but {hookpoint} gives {width}; name another hookpoint")


@torch.no_grad()
def fidelity(model: nn.Module, hookpoint: str, coder: SparseCoder, rows: pa.Table, batch: int, device: str) -> dict[str, Any]:
    """Return the measured columns of SAES from the held-out TOKENS *rows*, *batch* rows at a time."""
    fired = torch.zeros(coder.width, dtype=torch.bool, device=device)
    l0: list[Tensor] = []
    clean: list[Tensor] = []
    spliced: list[Tensor] = []
    zeroed: list[Tensor] = []
    tokens: list[Tensor] = []
    weights: list[Tensor] = []
    squares = torch.zeros((), dtype=torch.float64)
    total = torch.zeros(coder.d_model, dtype=torch.float64)
    power = torch.zeros((), dtype=torch.float64)
    for part in track(list(row_batches(rows, batch)), "measuring the SAE"):
        found = harvest(model, hookpoint, part, device)
        code = coder.encode(found.vectors)
        fired[code.latent] = True
        squares += (found.vectors - coder.decode(code)).square().sum().cpu().double()
        total += found.vectors.sum(0).cpu().double()
        power += found.vectors.square().sum().cpu().double()
        l0.append(torch.bincount(found.place[code.vector], minlength=part.num_rows).cpu())
        weights.append(torch.bincount(found.place, minlength=part.num_rows).cpu())
        ids, text = read_rows(part, device)
        losses = _splice_losses(model, hookpoint, coder, ids, text)
        for store, value in zip((clean, spliced, zeroed, tokens), losses, strict=True):
            store.append(value.cpu().double())
    n = torch.cat(weights).double()
    variance = power - total.square().sum() / n.sum()
    ce = [Moments(torch.cat(loss), torch.cat(tokens)) for loss in (clean, spliced, zeroed)]
    added = Moments(torch.cat(spliced) - torch.cat(clean), torch.cat(tokens))
    sparsity = Moments(torch.cat(l0).double(), n)
    return {
        "measured_tokens": int(n.sum()),
        "l0": sparsity.mean,
        "l0_se": sparsity.se,
        "fvu": float(squares / variance),
        "dead_share": 1 - float(fired.float().mean()),
        "ce_clean": ce[0].mean,
        "ce_spliced": ce[1].mean,
        "ce_zeroed": ce[2].mean,
        "loss_added": added.mean,
        "loss_added_se": added.se,
        "loss_recovered": (ce[2].mean - ce[1].mean) / (ce[2].mean - ce[0].mean),
    }


def _splice_losses(model: nn.Module, hookpoint: str, coder: SparseCoder, ids: Tensor, text: Tensor) -> tuple[Tensor, ...]:
    """Return per-row summed losses of text tokens, clean, spliced and zeroed, and how many tokens were predicted."""

    def splice(flow: Tensor) -> Tensor:
        changed = flow.clone()  # special tokens and padding keep their own activations
        changed[text] = coder.decode(coder.encode(flow[text].float())).to(flow.dtype)
        return changed

    def zero(flow: Tensor) -> Tensor:
        return flow.masked_fill(text[..., None], 0)

    losses = [_row_losses(model, ids, text)]
    for edit in (splice, zero):
        with edited(model, hookpoint, edit):
            losses.append(_row_losses(model, ids, text))
    return (*losses, text[:, 1:].sum(1))


def _row_losses(model: nn.Module, ids: Tensor, text: Tensor) -> Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
    return (losses * text[:, 1:]).sum(1)
