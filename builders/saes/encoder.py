"""Run a model with its dictionaries: token rows → firings, a self-test of stored activations, and direct effects on the logits."""

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

from builders.arrays import Ints
from builders.lake.table import TableError
from builders.saes.activations import Firings, in_order
from builders.saes.coder import Mounted
from builders.saes.latents import TOP
from builders.subjects.harvest import Harvest, harvest, row_batches
from builders.subjects.hookpoints import into_residual

Effects = tuple[Ints, Ints]  # token ids that each latent promotes, and those that it suppresses, both [width, TOP]
EFFECT_CHUNK = 4096  # latents at a time


class Dictionary(Protocol):
    """Anything that says which of *width* latents fire on TOKENS rows: an SAE mounted in a model, or rules over text.

    *truths* are the true explanations of the latents, if they are known. *rounding* is the largest difference, relative to the
    largest value, that rounding may cause when a value is computed again.
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
    """A coder mounted in a model that reads *batch* rows at a time."""

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
        """None, because nobody knows what its latents mean."""
        return

    @property
    def rounding(self) -> float:
        """How far two computations of a value may differ in the model's number format, relative to the largest value."""
        return max(1e-3, 8 * torch.finfo(next(self.model.parameters()).dtype).eps)

    def firings(self, rows: pa.Table) -> Firings:
        """Return the firings of TOKENS *rows*."""
        return read_together([self], rows)[0]

    def columns(self, found: Harvest) -> list[npt.NDArray[np.generic]]:
        """Return latent, row, position and value of every firing in one batch, token by token."""
        code = self.mounted.coder.encode(found.vectors[self.mounted.reads])
        columns = (code.latent, found.row[code.vector], found.position[code.vector], code.value)
        kinds = (np.int32, np.int32, np.int32, np.float32)
        return [column.cpu().numpy().astype(kind) for column, kind in zip(columns, kinds, strict=True)]

    @torch.no_grad()
    def effects(self) -> Effects | None:
        """Return the token ids whose logits each latent's direction raises and lowers most, both [width, TOP].

        The direction is multiplied by the unembedding, without the final norm. Returns None if what the coder writes does not
        enter the residual stream directly.
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
    """Return the firings of each of *dictionaries* on TOKENS *rows*. SAEs of one model share one forward pass over each batch."""
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
    """Recompute *n* stored values, reading each row alone; return how many were checked and the largest difference.

    Differences are relative to the largest value. Raises TableError if one of them exceeds rounding. The test finds activations
    that are not the latent's, such as an SAE's input stored in place of its latents (EleutherAI/delphi, pull request 131).
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
            f"activations: a stored value is off by {worst:.2e} of the largest when recomputed; rounding explains {dictionary.rounding:.0e}"
        )
    return chosen.num_rows, worst
