"""The `lenses` config: how well each lens tells, at each layer, what the model will say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from builders.arrays import Ints
from builders.errors import UserError
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table
from builders.lenses.comparison import QUANTITIES, Constant, Sums, compared, error_of, readings
from builders.lenses.lens import Lens, chunks
from builders.progress import track
from builders.subjects.anatomy import Anatomy
from builders.subjects.harvest import read_rows, row_batches

MODEL, ROW = "model", "row"  # what is kept beside the lenses
DOCS: dict[str, tuple[str, str, float | None]] = {  # doc, unit, upper bound
    "ce": ("mean cross-entropy of the next token under the lens", "nats", None),
    "kl": ("mean KL(model ‖ lens), from the model's own distribution to the lens's", "nats", None),
    "entropy": ("mean entropy of the lens's distribution", "nats", None),
    "top1": ("share of tokens at which the lens's top token is the model's top token", "", 1),
    "top5": ("share of tokens at which the model's top token is among the lens's five top tokens", "", 1),
}


def _mean_and_error(name: str) -> tuple[Column, Column]:
    doc, unit, high = DOCS[name]
    error = Column(f"{name}_se", "float64", "its standard error, rows being independent; null for a single row", unit, low=0, nullable=True)
    return Column(name, "float64", doc, unit, low=0, high=high), error


LENSES = Table(
    name="lenses",
    row="a lens at a layer of a subject",
    key=("subject", "lens", "layer"),
    columns=(
        Column("subject", "string", "the language model", categorical=True),
        Column("lens", "string", "logit, tuned, jacobian, jacobian-later or jacobian-state", categorical=True),
        Column("layer", "int32", "how many blocks the vectors have gone through", unit="blocks", low=0),
        Column("depth", "float64", "layer divided by the number of blocks", low=0, high=1),
        *(column for name in QUANTITIES for column in _mean_and_error(name)),
        *(Column(f"{name}_bits", "float64", f"{name} × bits_per_nat", "bits per byte", low=0) for name in ("ce", "kl", "entropy")),
        Column("bits_per_nat", "float64", "(tokens / bytes) / ln 2; standard errors are converted in the same way", "bits per byte", low=0),
        Column("baseline_ce", "float64", "cross-entropy of the model itself", "nats", low=0),
        Column("baseline_ce_bits", "float64", "baseline_ce × bits_per_nat", "bits per byte", low=0),
        Column("ce_chance", "float64", "ce of the best distribution that is the same at every token", "nats", low=0),
        Column("kl_chance", "float64", "kl of the best distribution that is the same at every token", "nats", low=0),
        Column("top1_chance", "float64", "top1 of the best answer that is the same at every token", low=0, high=1),
        Column("top5_chance", "float64", "top5 of the best five answers that are the same at every token", low=0, high=1),
        Column("ahead", "int32", "how many positions before the model's own the vectors were read", unit="tokens", low=0),
        Column("n", "int64", "tokens that were predicted: text tokens, the first of a row only after a special token", "tokens", low=1),
        Column("rows", "int32", "rows of tokens that they stand in", "rows", low=1),
    ),
    references=(OF_SUBJECT,),
)


@dataclass(frozen=True)
class Tops:
    """The top tokens of n counted tokens: *row* [n] numbers their rows from 0, *model* [n] are the model's own.

    *lenses* holds each lens's [n, L + 1], one for each layer.
    """

    row: Ints
    model: Ints
    lenses: Mapping[str, Ints]


@dataclass(frozen=True)
class Measured:
    """What one pass over rows of a subject left: LENSES rows, and the top tokens that LENS_DECISIONS rows are made of."""

    lenses: pa.Table
    tops: Tops


def bits_per_nat(rows: pa.Table) -> float:
    """Return (tokens / bytes) / ln 2 of the text of TOKENS *rows*, which makes bits per byte of nats per token.

    Raises UserError if they hold no text.
    """
    tokens = int(read_rows(rows, "cpu")[1].sum())
    size = int(sum(rows["bytes"].to_pylist()))
    if not tokens or not size:
        raise UserError(f"lenses: the {rows.num_rows} held-out rows hold no text to measure on; hold more of the corpus out")
    return tokens / size / math.log(2)


@torch.no_grad()
def measure(
    model: nn.Module, anatomy: Anatomy, lenses: Sequence[Lens], subject: str, rows: pa.Table, batch: int, device: str, ahead: int = 0
) -> Measured:
    """Return what each of *lenses* says at layers 0 … L of TOKENS *rows*, in one pass of *model*, *batch* rows at a time.

    With *ahead*, vectors are compared with what the model says so many positions later. Raises UserError if the rows hold no token to
    predict, or if the anatomy is not the model's.
    """
    to_bits = bits_per_nat(rows)
    sums, constant, tops = Sums(rows.num_rows), Constant(anatomy.vocabulary), _Tops()
    for number, part in enumerate(track(list(row_batches(rows, batch)), "reading through lenses")):
        for chunk in chunks(model, anatomy, part, device, ahead):
            row = number * batch + chunk.place
            sums.count(row)
            sums.add(MODEL, row, chunk.loss[None])
            constant.add(chunk)
            tops.add(ROW, row)
            tops.add(MODEL, chunk.top)
            for lens, layer, logits in readings(anatomy, lenses, chunk):
                values, leaders = compared(chunk, logits)
                sums.add((lens, layer), row, values)
                tops.add((lens, layer), leaders)
    if not tops.parts:
        raise UserError(f"lenses: no row of {rows.num_rows} has a token to predict; make rows longer or hold more of the corpus out")
    fixed = {"subject": subject, "bits_per_nat": to_bits, "ahead": ahead, **constant.levels()}
    records = [_record(fixed, lens.name, layer, anatomy.last, sums) for lens in lenses for layer in range(anatomy.last + 1)]
    return Measured(LENSES.rows(records), tops.of([lens.name for lens in lenses], anatomy.last))


class _Tops:
    """Top tokens as they come in, chunk by chunk."""

    def __init__(self) -> None:
        self.parts: dict[Hashable, list[Tensor]] = defaultdict(list)

    def add(self, of: Hashable, some: Tensor) -> None:
        self.parts[of].append(some.to("cpu", torch.int32))

    def of(self, lenses: Sequence[str], last: int) -> Tops:
        joined: dict[Hashable, Ints] = {name: torch.cat(parts).numpy().astype(np.int64) for name, parts in self.parts.items()}
        by_lens = {lens: np.stack([joined[lens, layer] for layer in range(last + 1)], axis=1) for lens in lenses}
        return Tops(joined[ROW], joined[MODEL], by_lens)


def _record(fixed: dict[str, Any], lens: str, layer: int, last: int, sums: Sums) -> dict[str, Any]:
    means = dict(zip(QUANTITIES, sums.means((lens, layer)), strict=True))
    (baseline,) = sums.means(MODEL)
    nats = {name: means[name].mean for name in ("ce", "kl", "entropy")} | {"baseline_ce": baseline.mean}
    return {
        **fixed,
        "lens": lens,
        "layer": layer,
        "depth": layer / last,
        "n": int(baseline.tokens.sum()),
        "rows": len(baseline.tokens),
        **{name: found.mean for name, found in means.items()},
        **{f"{name}_se": error_of(found) for name, found in means.items()},
        **{f"{name}_bits": value * fixed["bits_per_nat"] for name, value in nats.items()},
        "baseline_ce": baseline.mean,
    }
