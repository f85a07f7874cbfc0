"""The Jacobian lens: a layer's vector times the mean Jacobian of the last layer's vector by it, for any architecture.

The lens reads logits = unembed(norm(J_ℓ h)). It has no bias: where blocks add constants, J_ℓ h leaves them out.
Which Jacobian is averaged is a :class:`Reach`. POSITION takes the last layer at the same position t. LATER sums the last layer at all
positions from t on, as Anthropic's `jlens` (2026) and the lenses that Neuronpedia hosts do. STATE, in
:mod:`builders.lenses.state_jacobian`, takes the last layer at the next position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from builders.arrays import Bools, Ints, ranks
from builders.errors import UserError
from builders.lenses.accumulator import Accumulator, Trace
from builders.seeds import seed_of, uniforms
from builders.subjects.harvest import read_rows, row_batches
from builders.subjects.hookpoints import base_of, edited, watched

SKIP = 16  # first positions of a row, which `jlens` leaves out: attention rests on them, and their vectors are unlike all others


@dataclass(frozen=True)
class Reach:
    """Which Jacobian a lens averages over positions t: ∂h_L(t + *offset*) / ∂h_ℓ(t), or, with None, Σ over s ≥ t of ∂h_L(s) / ∂h_ℓ(t).

    *name* is the lens's name. The sum over s ends with the last eligible position of the row.
    """

    name: str
    offset: int | None


POSITION = Reach("jacobian", 0)
LATER = Reach("jacobian-later", None)


@dataclass(frozen=True)
class Sampling:
    """Which positions are averaged: at most *positions* of each row, drawn by an address under *seed*. LATER takes all eligible ones.

    *together* of a row's positions share one backward pass. With 1, each position's Jacobian is exact. With more, each carries a random
    sign at each output dimension (Hutchinson's estimator): then the influence of one position on another enters as noise of mean zero,
    the mean Jacobian is unbiased, and its error is in LENS_CONVERGENCE. Rows are cut after *length* tokens, as `jlens` does, and their
    first *skip* positions are left out. *batch* rows are read at a time, which changes memory, speed and last bits only.
    """

    seed: int
    positions: int = 4
    together: int = 1
    skip: int = SKIP
    length: int = 128
    batch: int = 16


@dataclass(frozen=True)
class _Places:
    """Positions of a batch: *row* in the batch and *position*, and their *address* in `tokens` (the row's number); all int64 [n]."""

    row: Ints
    position: Ints
    address: Ints

    def __getitem__(self, which: Bools) -> _Places:
        return _Places(self.row[which], self.position[which], self.address[which])


@dataclass(frozen=True)
class JacobianLens:
    """A Lens that multiplies by mean *jacobians*, float32 [layers, d, d], of a *reach*; what it says is about position t + offset.

    The last layer's own Jacobian is not stored. It is the identity, and zero if the offset is above 0: no later position sees that layer.
    """

    reach: Reach
    jacobians: Tensor

    @property
    def name(self) -> str:
        """The lens's name."""
        return self.reach.name

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return vectors *hidden* [n, d] of *layer* as vectors of the last layer, float32 [n, d]."""
        if layer == len(self.jacobians):
            return torch.zeros_like(hidden.float()) if self.reach.offset else hidden.float()
        return hidden.float() @ self.jacobians[layer].T


def fit(
    model: nn.Module, layers: Sequence[str], rows: pa.Table, reach: Reach, sampling: Sampling, trace: Trace, device: str
) -> Accumulator:
    """Return the sums of the Jacobians of *reach* over TOKENS *rows*, read until *trace* says that their mean has settled.

    *layers* are the hookpoints of layers 0 … L. Batches are the shards: sums of some batches and sums of the others merge to the bits of
    one run, in any order. It takes 16 bytes for each entry of the Jacobians, and the graph of one batch. Raises UserError if no row has
    an eligible position.
    """
    total: Accumulator | None = None
    for part in row_batches(rows, sampling.batch):
        shard = of_batch(model, layers, part, reach, sampling, device)
        total = shard if total is None else total.merge(shard)
        if trace.note(total):
            return total
    if total is None or not total.positions:
        raise UserError(f"no row has two text tokens in a row after its first {sampling.skip}; take longer rows or skip fewer tokens")
    trace.note(total, last=True)
    return total


def lens_of(sums: Accumulator, reach: Reach, device: str = "cpu") -> JacobianLens:
    """Return the lens of the mean Jacobians of *sums*."""
    return JacobianLens(reach, sums.mean().float().to(device))


def of_batch(model: nn.Module, layers: Sequence[str], rows: pa.Table, reach: Reach, sampling: Sampling, device: str) -> Accumulator:
    """Return the sums of the Jacobians of *reach* at the sampled positions of one batch of TOKENS *rows*.

    One forward pass serves all layers and positions. Each group of positions then costs d backward passes, which serve all layers.
    """
    ids, is_text = (part[:, : sampling.length] for part in read_rows(rows, device))
    flows = _flows(model, layers, ids)
    sums = Accumulator.empty(len(flows) - 1, flows[-1].shape[-1])
    places = _drawn(_eligible(is_text, sampling.skip), rows["row"].to_numpy().astype(np.int64), reach, sampling)
    for group in _groups(places, reach, sampling.together):
        half = torch.from_numpy((uniforms(seed_of(sampling.seed, "half"), group.address) < 0.5).astype(np.int64))
        largest = max(sums.add(output, values, half) for output, values in _gradients(flows, group, reach, sampling.seed))
        sums.counted(half, largest)
    return sums


def _flows(model: nn.Module, layers: Sequence[str], ids: Tensor) -> list[Tensor]:
    """Return the vectors of each of *layers* [rows, length, d], joined by the graph of a forward pass without the unembedding."""

    def start(flow: Tensor) -> Tensor:
        return flow.detach().requires_grad_()  # the weights need no gradients, so the graph begins here

    with torch.enable_grad(), edited(model, layers[0], start), watched(model, layers) as seen:
        base_of(model)(input_ids=ids, use_cache=False)
    return [seen[name] for name in layers]


def _eligible(is_text: Tensor, skip: int) -> Bools:
    """Return where a Jacobian may be taken [rows, length]: text after the first *skip* tokens, before another text token.

    So all reaches average over the same positions. (The last token of a row has no next token to predict.)
    """
    text: Bools = is_text.cpu().numpy()
    found = np.zeros_like(text)
    found[:, :-1] = text[:, :-1] & text[:, 1:]
    found[:, :skip] = False
    return found


def _drawn(eligible: Bools, numbers: Ints, reach: Reach, sampling: Sampling) -> _Places:
    """Return the sampled positions, ordered by row and then as drawn; a larger draw begins with every smaller one."""
    row, position = np.nonzero(eligible)
    if reach.offset is None:
        return _Places(row, position, numbers[row])
    chance = uniforms(seed_of(sampling.seed, "position"), numbers[row], position)
    order = np.lexsort((chance, row))
    rank, _ = ranks(row[order])
    kept = order[rank < sampling.positions]
    return _Places(row[kept], position[kept], numbers[row[kept]])


def _groups(places: _Places, reach: Reach, together: int) -> Iterator[_Places]:
    """Yield the positions that share backward passes: all of them for a sum over positions, else at most *together* of each row."""
    rank, _ = ranks(places.row)
    group = rank // together if reach.offset is not None else np.zeros_like(rank)
    for number in np.unique(group):
        yield places[group == number]


def _gradients(flows: list[Tensor], places: _Places, reach: Reach, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Yield each dimension of the last layer, and its gradients by the vectors at *places*: [layers, n, d].

    A plain loop: with some rows in a batch it was as fast as `is_grads_batched`, and every architecture's backward pass supports it.
    """
    *early, last = flows
    row, position = (torch.from_numpy(index).to(last.device) for index in (places.row, places.position))
    for output in range(last.shape[-1]):
        signs = _signs(places, reach, seed, output).to(last)
        start = torch.zeros_like(last)
        start[row, position + (reach.offset or 0), output] = signs
        gradients = torch.autograd.grad(last, early, start, retain_graph=True)
        yield output, torch.stack([gradient[row, position] for gradient in gradients]) * signs[:, None]


def _signs(places: _Places, reach: Reach, seed: int, output: int) -> Tensor:
    """Return +1 or −1 for each of *places* [n] at the dimension *output*, drawn by address; only +1 for a sum over positions."""
    if reach.offset is None:
        return torch.ones(len(places.row))
    drawn = uniforms(seed_of(seed, "sign"), places.address, places.position, output)
    return torch.from_numpy(np.where(drawn < 0.5, -1.0, 1.0))
