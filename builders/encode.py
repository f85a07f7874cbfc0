"""Where the model and the dictionary run: rows of tokens → firings, a self-test of what was stored, direct effects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import nn

from builders.activations import Firings, in_order
from builders.harvest import harvest, row_batches
from builders.latents import TOP
from builders.saes.coder import SparseCoder
from builders.table import TableError


def encode_rows(model: nn.Module, coder: SparseCoder, hookpoint: str, rows: pa.Table, batch: int, device: str) -> Firings:
    """Return the firings of TOKENS *rows*, read *batch* rows at a time."""
    parts: list[list[npt.NDArray[np.generic]]] = [[] for _ in range(4)]
    for some in row_batches(rows, batch):
        found = harvest(model, hookpoint, some, device)
        code = coder.encode(found.vectors)
        columns = (code.latent, found.row[code.vector], found.position[code.vector], code.value)
        for part, column, kind in zip(parts, columns, (np.int32, np.int32, np.int32, np.float32), strict=True):
            part.append(column.cpu().numpy().astype(kind))
    return in_order(*(np.concatenate(part) for part in parts))


def self_test(
    model: nn.Module, coder: SparseCoder, hookpoint: str, tokens: pa.Table, paths: list[Path], n: int, seed: int, device: str
) -> tuple[int, float]:
    """Recompute *n* stored values from scratch; return how many there were and the largest difference, relative to the largest value.

    Each row is read alone, and each value is the plain dot product of the SAE's equation (SCIENCE C11). Raises
    TableError where a value is off by more than a thousandth, or than the rounding of a model in half precision.
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
    worst = 0.0
    largest = float(pc.max(chosen["value"]).as_py())
    by_row: dict[int, dict[int, torch.Tensor]] = {}
    for record in chosen.to_pylist():
        row = record["row"]
        if row not in by_row:
            found = harvest(model, hookpoint, tokens.filter(pc.equal(tokens["row"], row)), device)
            by_row[row] = dict(zip(found.position.tolist(), found.vectors.to(coder.w_enc.dtype), strict=True))
        x, latent = by_row[row][record["position"]], record["latent"]
        again = float((x - coder.b_dec) @ coder.w_enc[latent] + coder.b_enc[latent])
        worst = max(worst, abs(again - record["value"]) / largest)
    allowed = max(1e-3, 8 * torch.finfo(next(model.parameters()).dtype).eps)
    if worst > allowed:
        raise TableError(f"activations: a stored value is off by {worst:.2e} of the largest when recomputed; {allowed:.0e} is rounding")
    return chosen.num_rows, worst


@torch.no_grad()
def effects(model: nn.Module, coder: SparseCoder, chunk: int = 4096) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the token ids that each latent's decoder direction promotes and suppresses, both [width, TOP]."""
    unembedding = model.get_output_embeddings().weight.float()  # type: ignore[operator]  # a method of every causal LM
    raised, lowered = zip(*_effect_chunks(unembedding, coder, chunk), strict=True)
    return torch.cat(raised).numpy(), torch.cat(lowered).numpy()


def _effect_chunks(unembedding: torch.Tensor, coder: SparseCoder, chunk: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, coder.width, chunk):
        logits = coder.w_dec[start : start + chunk] @ unembedding.T
        yield logits.topk(TOP, dim=1).indices.cpu(), (-logits).topk(TOP, dim=1).indices.cpu()
