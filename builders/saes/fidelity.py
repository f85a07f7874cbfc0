"""How faithful an SAE is on held-out tokens: the measured columns of the `saes` config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.errors import UserError
from builders.progress import track
from builders.saes.coder import Mounted
from builders.subjects.harvest import read_rows, row_batches
from builders.subjects.hookpoints import spliced, watched


@dataclass(frozen=True)
class RowSums:
    """A quantity summed over each row's tokens, and the rows' numbers of tokens (both [rows]); rows are the independent units."""

    total: Tensor
    tokens: Tensor

    @property
    def mean(self) -> float:
        """The mean per token."""
        return float(self.total.sum() / self.tokens.sum())

    @property
    def se(self) -> float:
        """The standard error of the mean, as a ratio of two sums over rows (Cochran 1977, section 6.4); NaN for a single row."""
        n = len(self.total)
        if n < 2:
            return math.nan
        residual = self.total - self.mean * self.tokens
        return math.sqrt(residual.square().sum() / (n - 1) * n) / float(self.tokens.sum())


def require_width(mounted: Mounted, sae: str, reads: int | None, writes: int | None) -> None:
    """Raise UserError unless the SAE reads and writes vectors of the sizes at its hookpoints; None is a size that is not known."""
    ends = ((mounted.reads, "reads", mounted.coder.d_in, reads), (mounted.writes, "writes", mounted.coder.d_out, writes))
    for hookpoint, does, own, there in ends:
        if there is not None and own != there:
            raise UserError(f"saes.{sae}: {does} vectors of {own} dimensions, but {hookpoint} gives {there}; name another hookpoint")


@torch.no_grad()
def fidelity(model: nn.Module, mounted: Mounted, rows: pa.Table, batch: int, device: str) -> dict[str, Any]:
    """Return the measured columns of SAES on the held-out TOKENS *rows*, reading *batch* rows at a time."""
    coder = mounted.coder
    fired = torch.zeros(coder.width, dtype=torch.bool, device=device)
    firings: list[Tensor] = []  # of each row, as are the tokens
    lengths: list[Tensor] = []
    losses: list[list[Tensor]] = [[], [], [], []]  # clean, spliced, zeroed, tokens
    squares = torch.zeros((), dtype=torch.float64)
    total = torch.zeros(coder.d_out, dtype=torch.float64)
    power = torch.zeros((), dtype=torch.float64)
    for part in track(list(row_batches(rows, batch)), "measuring the SAE"):
        ids, is_text = read_rows(part, device)
        with watched(model, [mounted.reads, mounted.writes]) as seen:
            clean = row_losses(model, ids, is_text)
        x, y = (seen[hookpoint][is_text].float() for hookpoint in (mounted.reads, mounted.writes))
        place = torch.nonzero(is_text)[:, 0]
        code = coder.encode(x)
        fired[code.latent] = True
        squares += (y - coder.decode(code, x)).square().sum().cpu().double()
        total += y.sum(0).cpu().double()
        power += y.square().sum().cpu().double()
        firings.append(torch.bincount(place[code.vector], minlength=part.num_rows).cpu())
        lengths.append(torch.bincount(place, minlength=part.num_rows).cpu())
        for store, value in zip(losses, (clean, *_splice_losses(model, mounted, ids, is_text)), strict=True):
            store.append(value.cpu().double())
    n = torch.cat(lengths).double()
    variance = power - total.square().sum() / n.sum()
    clean, rebuilt, zeroed, tokens = (torch.cat(parts) for parts in losses)
    ce = [RowSums(loss, tokens).mean for loss in (clean, rebuilt, zeroed)]
    added = RowSums(rebuilt - clean, tokens)
    return {
        **sparsity(torch.cat(firings), n, float(fired.float().mean())),
        "fvu": float(squares / variance),
        "ce_clean": ce[0],
        "ce_spliced": ce[1],
        "ce_zeroed": ce[2],
        "loss_added": added.mean,
        "loss_added_se": added.se,
        "loss_recovered": (ce[2] - ce[1]) / (ce[2] - ce[0]),
    }


def sparsity(firings: Tensor, tokens: Tensor, alive: float) -> dict[str, Any]:
    """Return the columns of SAES about sparsity.

    *firings* counts the firings in each row and *tokens* the tokens measured there (both [rows]); *alive* is the share of latents
    that fired at all.
    """
    l0 = RowSums(firings.double(), tokens.double())
    return {"measured_tokens": int(tokens.sum()), "l0": l0.mean, "l0_se": l0.se, "dead_share": 1 - alive}


def _splice_losses(model: nn.Module, mounted: Mounted, ids: Tensor, is_text: Tensor) -> tuple[Tensor, ...]:
    """Return each row's summed loss with the reconstruction and with zeros in place, and its number of predicted tokens."""

    def rebuilt(read: Tensor, written: Tensor) -> Tensor:
        changed, x = written.clone(), read[is_text].float()  # special tokens and padding keep their own activations
        changed[is_text] = mounted.coder.decode(mounted.coder.encode(x), x).to(written.dtype)
        return changed

    def zero(_: Tensor, written: Tensor) -> Tensor:
        return written.masked_fill(is_text[..., None], 0)

    losses = []
    for edit in (rebuilt, zero):
        with spliced(model, mounted.reads, mounted.writes, edit):
            losses.append(row_losses(model, ids, is_text))
    return (*losses, is_text[:, 1:].sum(1))


def row_losses(model: nn.Module, ids: Tensor, is_text: Tensor) -> Tensor:
    """Return the summed loss of each row [rows] over its predicted tokens that are text; *ids* and *is_text* are [rows, longest]."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
    return (losses * is_text[:, 1:]).sum(1)
