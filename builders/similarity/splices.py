"""Whether a matched latent can do the work of its partner: the model's loss with the one in place of the other.

See docs/science.md#similarity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from builders.arrays import Ints
from builders.errors import UserError
from builders.lake.references import to_saes
from builders.lake.table import Column, Table
from builders.progress import track
from builders.saes.coder import Coder, Mounted, SparseCode
from builders.saes.fidelity import RowSums, row_losses
from builders.seeds import seed_of, uniforms
from builders.subjects.harvest import read_rows, row_batches
from builders.subjects.hookpoints import capture, edited

SPLICES = Table(
    name="splices",
    row="the loss of a subject that runs on A's reconstruction, with A's latents replaced by their partners in B",
    key=("sae_a", "sae_b", "partners", "variant"),
    columns=(
        Column("sae_a", "string", "the dictionary A, whose reconstruction is put in place of the activations", categorical=True),
        Column("sae_b", "string", "the dictionary B, whose latents take the place of A's", categorical=True),
        Column("partners", "string", "sae_b, or untrained: an untrained dictionary in its place, as chance", categorical=True),
        Column(
            "variant",
            "string",
            "original: nothing replaced; partner: half of the latents replaced by their one-to-one partners, one half in half of the rows; "
            "random: by partners of the other half; removed: left out",
            categorical=True,
        ),
        Column("latents", "int32", "pairs of latents that took part", unit="latents", low=0),
        Column("tokens", "int64", "held-out tokens that were predicted", unit="tokens", low=0),
        Column("ce", "float64", "cross-entropy", unit="nats per token", low=0),
        Column("ce_se", "float64", "standard error of ce, over rows", unit="nats per token", nullable=True, low=0),
        Column("added", "float64", "ce − ce of `original`", unit="nats per token"),
        Column("added_se", "float64", "standard error of added, over rows", unit="nats per token", nullable=True, low=0),
        Column("recovered", "float64", "1 − added / added of `removed`; null where leaving the latents out adds nothing", nullable=True),
        Column("recovered_se", "float64", "standard error of recovered, over rows", nullable=True, low=0),
    ),
    references=(to_saes("sae_a"), to_saes("sae_b")),
)
VARIANTS = {
    "original": "A's reconstruction, with nothing replaced",
    "partner": "what the listed latents of A write, replaced by what their partners in B write",
    "random": "replaced by what partners of other listed latents write",
    "removed": "left out",
}
NOTHING = 1e-5  # nats: a smaller loss is rounding, and no share of it can be told
NEITHER = -1  # the half of a latent that is in no half


@dataclass(frozen=True)
class Splice:
    """The loss of one of VARIANTS over *tokens* predicted tokens, in nats per token, with standard errors over rows.

    *latents* pairs took part, half of them in each row. *added* is *ce* minus that of `original`, paired by row. *recovered* is
    1 − added / (added of `removed`): 1 if nothing is lost, 0 if the latents might as well be missing. It is None if leaving them out
    adds no loss, and may be below 0.
    """

    variant: str
    latents: int
    tokens: int
    ce: float
    ce_se: float
    added: float
    added_se: float
    recovered: float | None
    recovered_se: float | None


@dataclass(frozen=True)
class Swap:
    """Two coders, and the half (0 or 1) of each latent that is replaced [latents of A] or replaces [latents of B]; NEITHER for the rest."""

    a: Coder
    b: Coder
    replaced: Tensor
    replacing: Tensor

    def written(self, x: Tensor, half: Tensor) -> Iterator[Tensor]:
        """Yield what each of VARIANTS writes [n, d_out] for vectors *x* [n, d_in]; of each, the latents of one *half* [n] are replaced.

        A's norm scales what A's latents write, and B's norm what B's write. What B writes without a latent (its bias, the mean that its
        norm adds back, its skip connection) is not the latents' doing, so it is taken away.
        """
        own, other = self.a.encode(x), self.b.encode(x)
        replaced, replacing = self.replaced[own.latent], self.replacing[other.latent]
        rest = self.a.decode(_only(own, replaced != half[own.vector]), x)
        without = self.b.decode(_only(other, torch.zeros_like(replacing, dtype=torch.bool)), x)
        yield self.a.decode(own, x)
        for of in (half, 1 - half):
            yield rest + (self.b.decode(_only(other, replacing == of[other.vector]), x) - without)
        yield rest


@torch.no_grad()
def splices(model: nn.Module, a: Mounted, b: Mounted, pairs: Ints, rows: pa.Table, batch: int, device: str, seed: int) -> list[Splice]:
    """Return the loss of each of VARIANTS on TOKENS *rows*; *pairs* [n, 2] are latents of A and of B, each latent in one pair at most.

    If all pairs were replaced at once, it would not matter which latent of B stands for which of A: the sum of what they write is the
    same. So the pairs are cut into two halves, and so are the rows: a row replaces one half of the pairs. `partner` puts this half's
    partners in place, and `random` those of the other half, so that every latent has one other latent's partner and none its own. Both
    cuts are drawn with *seed*; of an odd number of pairs one is left out. Special tokens keep their own vectors. The model reads
    *batch* rows at a time. Raises UserError if A and B have different hookpoints, and for fewer than two pairs.
    """
    _require_exchange(a, b, pairs)
    half = halves(pairs[:, 0], seed_of(seed, "latents"))
    placed = (_placed(mounted.coder.width, latents, half, device) for mounted, latents in zip((a, b), pairs.T, strict=True))
    swap = Swap(a.coder, b.coder, *placed)
    turns = torch.from_numpy(halves(rows["row"].to_numpy(), seed_of(seed, "rows"), even=False)).to(device)
    losses: dict[str, list[Tensor]] = {variant: [] for variant in VARIANTS}
    tokens: list[Tensor] = []
    for part, turn in track(list(zip(row_batches(rows, batch), turns.split(batch), strict=True)), "splicing partners"):
        ids, is_text = read_rows(part, device)
        x = capture(model, [a.reads], ids)[a.reads][is_text].float()
        place = torch.nonzero(is_text)[:, 0]
        for variant, written in zip(VARIANTS, swap.written(x, turn[place]), strict=True):
            with edited(model, a.writes, partial(_put, is_text, written)):
                losses[variant].append(row_losses(model, ids, is_text).cpu().double())
        tokens.append(is_text[:, 1:].sum(1).cpu().double())
    return _records({variant: torch.cat(parts) for variant, parts in losses.items()}, torch.cat(tokens), int((half != NEITHER).sum()))


def halves(ids: Ints, seed: int, *, even: bool = True) -> Ints:
    """Return the half, 0 or 1, that each of *ids* [n] falls into; both are equally large, and an odd one out is NEITHER if *even*.

    The halves depend on the ids and on *seed*, and not on the order of the ids.
    """
    order = np.argsort(uniforms(seed, ids), kind="stable")
    found = np.full(len(ids), NEITHER, dtype=np.int64)
    most = len(ids) - len(ids) % 2 if even else len(ids)
    found[order[:most]] = np.arange(most) % 2
    return found


def _placed(width: int, latents: Ints, half: Ints, device: str) -> Tensor:
    """Return the half of each of *width* latents, where *latents* [n] have the halves *half* [n]."""
    found = np.full(width, NEITHER, dtype=np.int64)
    found[latents] = half
    return torch.from_numpy(found).to(device)


def _only(code: SparseCode, kept: Tensor) -> SparseCode:
    return SparseCode(code.vector[kept], code.latent[kept], code.value[kept], code.n)


def _put(is_text: Tensor, written: Tensor, flow: Tensor) -> Tensor:
    changed = flow.clone()
    changed[is_text] = written.to(flow.dtype)
    return changed


def _records(losses: dict[str, Tensor], tokens: Tensor, latents: int) -> list[Splice]:
    """Return the record of each variant from the summed *losses* [rows] of each, and the rows' numbers of predicted tokens [rows]."""
    original, removed = losses["original"], losses["removed"]
    told = RowSums(removed - original, tokens).mean > NOTHING
    found = []
    for variant, loss in losses.items():
        plain, added = RowSums(loss, tokens), RowSums(loss - original, tokens)
        kept = RowSums(removed - loss, removed - original)  # a ratio of two sums over rows, and so is its error
        recovery = (kept.mean, kept.se) if told else (None, None)
        found.append(Splice(variant, latents, int(tokens.sum()), plain.mean, plain.se, added.mean, added.se, *recovery))
    return found


def _require_exchange(a: Mounted, b: Mounted, pairs: Ints) -> None:
    """Raise UserError unless A and B stand at the same place and there are pairs to tell apart; ValueError unless pairs are one to one."""
    if (a.reads, a.writes) != (b.reads, b.writes):
        raise UserError(
            f"dictionaries of {a.writes} and {b.writes} cannot stand in for one another; splice two dictionaries of one hookpoint"
        )
    if len(pairs) < 2:
        raise UserError(f"{len(pairs)} pairs of latents leave no other partner to compare with; splice at least two pairs")
    if any(len(np.unique(side)) < len(pairs) for side in pairs.T):
        raise ValueError("a latent is in several pairs")
