"""Vectors at hookpoints, streamed from token rows: only one batch is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from builders.subjects.hookpoints import capture
from builders.text.rows import padded


@dataclass(frozen=True)
class Harvest:
    """The vectors of the n text tokens of a batch, by hookpoint ([n, d] each).

    *place* is a token's row in the batch, counted from 0; *row* and *position* are its keys in `tokens` (all [n]).
    """

    place: Tensor
    row: Tensor
    position: Tensor
    vectors: dict[str, Tensor]


def row_batches(rows: pa.Table, size: int) -> Iterator[pa.Table]:
    """Yield *rows* of TOKENS, *size* at a time."""
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size)


def read_rows(rows: pa.Table, device: str) -> tuple[Tensor, Tensor]:
    """Return ids [rows, longest], padded on the right, and which of them are text: neither padding nor special tokens.

    A causal model never sees what stands to the right of a token, so the padding needs no attention mask.
    """
    ids = torch.from_numpy(padded(rows, "ids", 0).astype(np.int64))
    special = torch.from_numpy(padded(rows, "special", True))
    return ids.to(device), ~special.to(device)


def harvest(model: nn.Module, hookpoints: Sequence[str], rows: pa.Table, device: str) -> Harvest:
    """Return the vectors at each of *hookpoints* while the model reads one batch of TOKENS *rows*, without special tokens."""
    ids, is_text = read_rows(rows, device)
    flows = capture(model, hookpoints, ids)
    place, position = torch.nonzero(is_text, as_tuple=True)
    numbers = torch.tensor(rows["row"].to_numpy(), device=device)
    return Harvest(place, numbers[place], position, {name: flow[is_text].float() for name, flow in flows.items()})


def shuffled(
    vectors: Iterable[dict[str, Tensor]], size: int, passes: int, batch: int, generator: torch.Generator
) -> Iterator[dict[str, Tensor]]:
    """Fill a buffer with at least *size* vectors of each hookpoint, yield random batches of it *passes* times over, and refill it.

    The vectors of one token stay together across hookpoints. In each pass every vector is used once, except a random
    remainder that is too small for a batch. The buffer is all the memory needed.
    """
    held: list[dict[str, Tensor]] = []
    count = 0
    for part in vectors:
        held.append(part)
        count += len(next(iter(part.values())))
        if count >= size:
            yield from _draw(_together(held), count, passes, batch, generator)
            held, count = [], 0
    if count >= batch:
        yield from _draw(_together(held), count, passes, batch, generator)


def _together(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _draw(buffer: dict[str, Tensor], count: int, passes: int, batch: int, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
    for _ in range(passes):
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - batch + 1, batch):
            yield {name: held[order[start : start + batch].to(held.device)] for name, held in buffer.items()}
