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
from builders.hookpoints import spliced
from builders.progress import track
from builders.saes.coder import Mounted
from builders.table import Column, Table

SAES = Table(
    name="saes",
    row="a sparse dictionary of a subject's activations, with how faithful it is on held-out tokens",
    key=("sae",),
    columns=(
        Column("sae", "string", "its id in this release"),
        Column("subject", "string", "the language model it reads", categorical=True),
        Column("hookpoint", "string", "the module whose output (or `.input`) it reads; null where it reads tokens", nullable=True),
        Column("writes", "string", "the hookpoint it rebuilds: the same, but for transcoders", nullable=True),
        Column("kind", "string", "trained (here), pretrained (by others), neurons, random or planted", categorical=True),
        Column("format", "string", "the file format it is stored in; none where it follows from this row", categorical=True),
        Column("source", "string", "where it came from: made here, a Hub repository, a folder"),
        Column("revision", "string", "the pinned commit of the Hub repository", nullable=True),
        Column("sha256", "string", "SHA-256 of its weights file", nullable=True),
        Column("activation", "string", "activation function", categorical=True),
        Column("width", "int32", "number of latents", unit="latents", low=1),
        Column("d_in", "int32", "size of the vectors it reads", unit="dimensions", nullable=True, low=1),
        Column("d_out", "int32", "size of the vectors it writes", unit="dimensions", nullable=True, low=1),
        Column("k", "int32", "latents kept per token (TopK, groupmax)", nullable=True, low=1),
        Column("measured_tokens", "int64", "held-out tokens behind the figures below", unit="tokens", low=1),
        Column("l0", "float64", "mean number of latents that fire on a token", unit="latents", low=0),
        Column("l0_se", "float64", "standard error of l0, over rows", unit="latents", low=0),
        Column("fvu", "float64", "fraction of variance unexplained by the reconstruction (0 is perfect, 1 the mean)", nullable=True, low=0),
        Column("dead_share", "float64", "share of latents that fire on none of the measured tokens", low=0, high=1),
        Column("ce_clean", "float64", "the model's own cross-entropy", unit="nats per token", nullable=True, low=0),
        Column(
            "ce_spliced",
            "float64",
            "cross-entropy with the reconstruction in place of the activations",
            unit="nats per token",
            nullable=True,
        ),
        Column("ce_zeroed", "float64", "cross-entropy with zeros in place of the activations", unit="nats per token", nullable=True),
        Column("loss_added", "float64", "ce_spliced − ce_clean", unit="nats per token", nullable=True),
        Column("loss_added_se", "float64", "its standard error, over rows", unit="nats per token", nullable=True, low=0),
        Column("loss_recovered", "float64", "(ce_zeroed − ce_spliced) / (ce_zeroed − ce_clean); 1 is lossless", nullable=True),
        Column("recipe", "string", "how it was made, as JSON", nullable=True),
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
        return math.sqrt(residual.square().sum() / (n - 1) * n) / float(self.tokens.sum())


def require_width(mounted: Mounted, sae: str, reads: int | None, writes: int | None) -> None:
    """Raise UserError unless the SAE reads and writes vectors of the sizes at its hookpoints, as far as they are known."""
    ends = ((mounted.reads, "reads", mounted.coder.d_in, reads), (mounted.writes, "writes", mounted.coder.d_out, writes))
    for hookpoint, does, own, there in ends:
        if there is not None and own != there:
            raise UserError(f"saes.{sae}: {does} vectors of {own} dimensions, but {hookpoint} gives {there}; name another hookpoint")


@torch.no_grad()
def fidelity(model: nn.Module, mounted: Mounted, rows: pa.Table, batch: int, device: str) -> dict[str, Any]:
    """Return the measured columns of SAES from the held-out TOKENS *rows*, *batch* rows at a time."""
    coder = mounted.coder
    fired = torch.zeros(coder.width, dtype=torch.bool, device=device)
    l0: list[Tensor] = []
    weights: list[Tensor] = []
    losses: list[list[Tensor]] = [[], [], [], []]  # clean, spliced, zeroed, tokens
    squares = torch.zeros((), dtype=torch.float64)
    total = torch.zeros(coder.d_out, dtype=torch.float64)
    power = torch.zeros((), dtype=torch.float64)
    for part in track(list(row_batches(rows, batch)), "measuring the SAE"):
        found = harvest(model, [mounted.reads, mounted.writes], part, device)
        x, y = found.vectors[mounted.reads], found.vectors[mounted.writes]
        code = coder.encode(x)
        fired[code.latent] = True
        squares += (y - coder.decode(code, x)).square().sum().cpu().double()
        total += y.sum(0).cpu().double()
        power += y.square().sum().cpu().double()
        l0.append(torch.bincount(found.place[code.vector], minlength=part.num_rows).cpu())
        weights.append(torch.bincount(found.place, minlength=part.num_rows).cpu())
        for store, value in zip(losses, _splice_losses(model, mounted, *read_rows(part, device)), strict=True):
            store.append(value.cpu().double())
    n = torch.cat(weights).double()
    variance = power - total.square().sum() / n.sum()
    clean, rebuilt, zeroed, tokens = (torch.cat(parts) for parts in losses)
    ce = [Moments(loss, tokens).mean for loss in (clean, rebuilt, zeroed)]
    added = Moments(rebuilt - clean, tokens)
    return {
        **sparsity(torch.cat(l0), n, float(fired.float().mean())),
        "fvu": float(squares / variance),
        "ce_clean": ce[0],
        "ce_spliced": ce[1],
        "ce_zeroed": ce[2],
        "loss_added": added.mean,
        "loss_added_se": added.se,
        "loss_recovered": (ce[2] - ce[1]) / (ce[2] - ce[0]),
    }


def sparsity(firings: Tensor, tokens: Tensor, alive: float) -> dict[str, Any]:
    """Return the columns of SAES that follow from how many latents fired in each row, of how many *tokens* (both [rows])."""
    l0 = Moments(firings.double(), tokens.double())
    return {"measured_tokens": int(tokens.sum()), "l0": l0.mean, "l0_se": l0.se, "dead_share": 1 - alive}


def _splice_losses(model: nn.Module, mounted: Mounted, ids: Tensor, text: Tensor) -> tuple[Tensor, ...]:
    """Return per-row summed losses of text tokens, clean, spliced and zeroed, and how many tokens were predicted."""

    def rebuilt(read: Tensor, written: Tensor) -> Tensor:
        changed, x = written.clone(), read[text].float()  # special tokens and padding keep their own activations
        changed[text] = mounted.coder.decode(mounted.coder.encode(x), x).to(written.dtype)
        return changed

    def zero(_: Tensor, written: Tensor) -> Tensor:
        return written.masked_fill(text[..., None], 0)

    losses = [_row_losses(model, ids, text)]
    for edit in (rebuilt, zero):
        with spliced(model, mounted.reads, mounted.writes, edit):
            losses.append(_row_losses(model, ids, text))
    return (*losses, text[:, 1:].sum(1))


def _row_losses(model: nn.Module, ids: Tensor, text: Tensor) -> Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
    return (losses * text[:, 1:]).sum(1)
