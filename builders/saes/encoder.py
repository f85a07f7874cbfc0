"""Where the model and the dictionary run: rows of tokens → firings, a self-test of what was stored, direct effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from builders.lake.table import TableError
from builders.saes.activations import Firings, in_order
from builders.saes.coder import Mounted
from builders.saes.latents import TOP
from builders.subjects.harvest import Harvest, harvest, row_batches
from builders.subjects.hookpoints import into_residual

Effects = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
EFFECT_CHUNK = 4096


class Dictionary(Protocol):
    """Whatever says which of *width* latents fire on TOKENS rows: an SAE at work in a model, or rules over text.

    *truths* are the latents' true explanations, where they are known; *rounding* is how exactly a value can be computed again.
    """

    @property
    def width(self) -> int: ...  # noqa: D102  # said above
    @property
    def truths(self) -> list[str] | None: ...  # noqa: D102
    @property
    def rounding(self) -> float: ...  # noqa: D102
    def firings(self, rows: pa.Table) -> Firings: ...  # noqa: D102
    def effects(self) -> Effects | None: ...  # noqa: D102


@dataclass(frozen=True)
class Encoder:
    """A coder at work in a model that reads *batch* rows at a time."""

    model: nn.Module
    mounted: Mounted
    batch: int
    device: str

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.mounted.coder.width

    @property
    def truths(self) -> None:
        """Nobody knows what its latents mean."""
        return

    @property
    def rounding(self) -> float:
        """How far two ways to compute a value may lie apart in the model's number format, relative to the largest."""
        return max(1e-3, 8 * torch.finfo(next(self.model.parameters()).dtype).eps)

    def firings(self, rows: pa.Table) -> Firings:
        """Return the firings of TOKENS *rows*."""
        return read_together([self], rows)[0]

    def columns(self, found: Harvest) -> list[npt.NDArray[np.generic]]:
        """Return latent, row, position and value of every firing on one batch, token by token."""
        code = self.mounted.coder.encode(found.vectors[self.mounted.reads])
        columns = (code.latent, found.row[code.vector], found.position[code.vector], code.value)
        kinds = (np.int32, np.int32, np.int32, np.float32)
        return [column.cpu().numpy().astype(kind) for column, kind in zip(columns, kinds, strict=True)]

    @torch.no_grad()
    def effects(self) -> Effects | None:
        """Return the token ids that each latent's direction promotes and suppresses, both [width, TOP].

        None where what the coder writes does not enter the residual stream as it is.
        """
        unembedding = self.model.get_output_embeddings().weight.float()  # type: ignore[operator]  # a method of every causal LM
        raised: list[Tensor] = []
        lowered: list[Tensor] = []
        for low in range(0, self.width, EFFECT_CHUNK):
            directions = self.mounted.coder.directions(low, min(low + EFFECT_CHUNK, self.width)).to(self.device)
            entering = into_residual(self.model, self.mounted.writes, directions, unembedding.shape[1])
            if entering is None:
                return None
            logits = entering.float() @ unembedding.T
            raised.append(logits.topk(TOP, dim=1).indices.cpu())
            lowered.append((-logits).topk(TOP, dim=1).indices.cpu())
        return torch.cat(raised).numpy(), torch.cat(lowered).numpy()


def read_together(dictionaries: Sequence[Dictionary], rows: pa.Table) -> list[Firings]:
    """Return the firings of several dictionaries on TOKENS *rows*; those in one model share its one pass over each batch."""
    encoders = [one for one in dictionaries if isinstance(one, Encoder)]
    if len(encoders) < len(dictionaries):
        return [one.firings(rows) for one in dictionaries]
    first, hookpoints = encoders[0], sorted({one.mounted.reads for one in encoders})
    parts: list[list[list[npt.NDArray[np.generic]]]] = [[] for _ in encoders]
    for some in row_batches(rows, first.batch):
        found = harvest(first.model, hookpoints, some, first.device)
        for encoder, part in zip(encoders, parts, strict=True):
            part.append(encoder.columns(found))
    return [in_order(*(np.concatenate(columns) for columns in zip(*part, strict=True))) for part in parts]


def self_test(dictionary: Dictionary, tokens: pa.Table, paths: list[Path], n: int, seed: int) -> tuple[int, float]:
    """Recompute *n* stored values, each row read alone; return how many there were and the largest difference (SCIENCE C11).

    Differences are relative to the largest value; TableError is raised where one is more than rounding.
    """
    rng = np.random.default_rng(seed)
    sizes = [pq.read_metadata(path).num_rows for path in paths]
    if not sum(sizes):
        return 0, 0.0
    places = np.sort(rng.choice(sum(sizes), min(n, sum(sizes)), replace=False))
    starts = np.cumsum([0, *sizes])
    parts = []
    for path, low, size in zip(paths, starts, sizes, strict=False):
        parts.append(pq.read_table(path).take(places[(places >= low) & (places < low + size)] - low))
    chosen = pa.concat_tables(parts)
    largest = float(pc.max(chosen["value"]).as_py())
    worst = 0.0
    by_row: dict[int, dict[tuple[int, int], float]] = {}
    for record in chosen.to_pylist():
        row = record["row"]
        if row not in by_row:
            found = dictionary.firings(tokens.filter(pc.equal(tokens["row"], row)))
            keys = zip(found.latent.tolist(), found.position.tolist(), strict=True)
            by_row[row] = dict(zip(keys, found.value.tolist(), strict=True))
        again = by_row[row].get((record["latent"], record["position"]), 0.0)
        worst = max(worst, abs(again - record["value"]) / largest)
    if worst > dictionary.rounding:
        raise TableError(
            f"activations: a stored value is off by {worst:.2e} of the largest when recomputed; {dictionary.rounding:.0e} is rounding"
        )
    return chosen.num_rows, worst
