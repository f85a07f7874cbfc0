"""Vectors at a hookpoint, streamed from token rows: nothing is kept but the batch in hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from builders.corpus import padded
from builders.hookpoints import capture


@dataclass(frozen=True)
class Harvest:
    """The vectors [n, d] of text tokens, with the place in its batch, row and position of each (all [n])."""

    place: Tensor
    row: Tensor
    position: Tensor
    vectors: Tensor


def row_batches(rows: pa.Table, size: int) -> Iterator[pa.Table]:
    """Yield *rows* of TOKENS, *size* at a time."""
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size)


def read_rows(rows: pa.Table, device: str) -> tuple[Tensor, Tensor]:
    """Return ids [rows, longest], padded on the right, and which of them are text (not padding, not special).

    A causal model never sees what stands to the right, so the padding needs no attention mask.
    """
    ids = torch.from_numpy(padded(rows, "ids", 0).astype(np.int64))
    special = torch.from_numpy(padded(rows, "special", True))
    return ids.to(device), ~special.to(device)


def harvest(model: nn.Module, hookpoint: str, rows: pa.Table, device: str) -> Harvest:
    """Return what flows at *hookpoint* for one batch of TOKENS *rows*, special tokens left out."""
    ids, text = read_rows(rows, device)
    flow = capture(model, [hookpoint], ids)[hookpoint]
    place, position = torch.nonzero(text, as_tuple=True)
    numbers = torch.tensor(rows["row"].to_numpy(), device=device)
    return Harvest(place, numbers[place], position, flow[text].float())


def shuffled(vectors: Iterator[Tensor], size: int, passes: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches drawn at random from a buffer of at least *size* vectors, *passes* times over, then refill it.

    Every vector is used *passes* times, except the remainder of a buffer that fills no batch. Memory is the buffer.
    """
    held: list[Tensor] = []
    count = 0
    for part in vectors:
        held.append(part)
        count += len(part)
        if count >= size:
            yield from _draw(torch.cat(held), passes, batch, generator)
            held, count = [], 0
    if count >= batch:
        yield from _draw(torch.cat(held), passes, batch, generator)


def _draw(buffer: Tensor, passes: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(passes):
        order = torch.randperm(len(buffer), generator=generator).to(buffer.device)
        for start in range(0, len(buffer) - batch + 1, batch):
            yield buffer[order[start : start + batch]]
