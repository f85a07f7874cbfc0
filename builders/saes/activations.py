"""Subject × SAE × tokens → every non-zero activation, sparse from the encoder to the disk: the `activations` config.

Token rows are read in chunks. The activations of each chunk are sorted by latent and spilled to disk; then the spills are
merged, one range of latents at a time. Memory holds the ids of all tokens, but only one chunk or one range of activations
(a latent with more firings than a range may hold is a range of its own). Both steps resume shard by shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import safe_open
from safetensors.numpy import save_file

from builders.arrays import Ints
from builders.lake.references import OF_LATENT, OF_ROW
from builders.lake.table import Column, Table

ACTIVATIONS = Table(
    name="activations",
    row="one non-zero activation of a latent on a token",
    key=("sae", "latent", "row", "position"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("row", "int32", "the row of `tokens`", low=0),
        Column("position", "int32", "the position in that row", low=0),
        Column("value", "float32", "the latent's activation, in units of the hookpoint's vectors", low=0),
    ),
    row_group=65_536,
    references=(OF_LATENT, OF_ROW),
)

Ints32 = npt.NDArray[np.int32]
Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Firings:
    """Non-zero activations in key order: latent, row, position, value, all [nnz]."""

    latent: Ints32
    row: Ints32
    position: Ints32
    value: Floats32

    def __len__(self) -> int:
        return len(self.latent)

    def slice(self, start: int, stop: int) -> Firings:
        """Return the firings from *start* to *stop*."""
        cut = slice(start, stop)
        return Firings(self.latent[cut], self.row[cut], self.position[cut], self.value[cut])

    def take(self, index: npt.NDArray[np.integer]) -> Firings:
        """Return the firings at *index*."""
        return Firings(self.latent[index], self.row[index], self.position[index], self.value[index])


def in_order(latent: Ints32, row: Ints32, position: Ints32, value: Floats32) -> Firings:
    """Return firings sorted by latent. They must come in order of row and position, and keep it within each latent."""
    order = np.argsort(latent, kind="stable")
    return Firings(latent[order], row[order], position[order], value[order])


def spill(firings: Firings, width: int, path: Path) -> None:
    """Write *firings* and the offset at which each latent begins [width + 1], so that a range of latents is one slice."""
    offsets = np.searchsorted(firings.latent, np.arange(width + 1)).astype(np.int64)
    temporary = path.with_name(f".{path.name}.tmp")
    arrays: dict[str, npt.NDArray[Any]] = {"offsets": offsets, "row": firings.row, "position": firings.position, "value": firings.value}
    save_file(arrays, temporary)
    temporary.replace(path)


class Spills:
    """The spilled chunks of one SAE, in order of row."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [safe_open(path, framework="numpy") for path in paths]
        self.offsets = np.stack([file.get_tensor("offsets") for file in self.files])

    @property
    def counts(self) -> Ints:
        """How often each latent fires [width]."""
        counts: Ints = np.diff(self.offsets.sum(0))
        return counts

    def read(self, low: int, high: int) -> Firings:
        """Return the firings of the latents from *low* up to *high*, in key order."""
        columns: dict[str, list[npt.NDArray[np.generic]]] = {"latent": [], "row": [], "position": [], "value": []}
        for file, offsets in zip(self.files, self.offsets, strict=True):
            start, stop = int(offsets[low]), int(offsets[high])
            each = np.diff(offsets[low : high + 1])
            columns["latent"].append(np.repeat(np.arange(low, high, dtype=np.int32), each))
            for name in ("row", "position", "value"):
                columns[name].append(file.get_slice(name)[start:stop] if start < stop else file.get_tensor(name)[:0])
        return in_order(*(np.concatenate(parts) for parts in columns.values()))


def ranges(counts: Ints, limit: int) -> list[tuple[int, int]]:
    """Cut the latents into ranges (low, high) of at most *limit* firings; a latent with more firings is a range of its own."""
    cuts, held = [0], 0
    for latent, count in enumerate(counts.tolist()):
        if held and held + count > limit:
            cuts.append(latent)
            held = 0
        held += count
    return list(zip(cuts, [*cuts[1:], len(counts)], strict=True))


def row_groups(sae: str, firings: Firings) -> Iterator[pa.Table]:
    """Yield ACTIVATIONS rows. Each table is one row group, and no latent is split between two of them."""
    ends = np.flatnonzero(np.diff(firings.latent)) + 1
    start = 0
    for end in [*ends.tolist(), len(firings)]:
        if end - start >= ACTIVATIONS.row_group or end == len(firings):
            part = firings.slice(start, end)
            yield ACTIVATIONS.build({"sae": sae, "latent": part.latent, "row": part.row, "position": part.position, "value": part.value})
            start = end
