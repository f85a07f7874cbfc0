"""The nearest latents of each latent: those that fire on the same tokens, or read or write in similar directions.

The measures are those of EleutherAI/delphi (docs/science.md#neighbours), but counts are sparse: a dense matrix of 131,072 latents
takes 137 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from builders.arrays import Ints, ranks, sort_order
from builders.lake.references import OF_LATENT, to_latents
from builders.lake.table import Column, Table

NEIGHBOURS = Table(
    name="neighbours",
    row="a latent and one of the latents nearest to it",
    key=("sae", "latent", "measure", "rank"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent; one that never fires has no neighbours and is nobody's neighbour", low=0),
        Column(
            "measure",
            "string",
            "cofiring: tokens on which both fire / tokens on which either fires (Jaccard); decoder, encoder: cosine of their directions",
            categorical=True,
        ),
        Column("rank", "int32", "rank among the latent's neighbours by this measure; 0 is the nearest", low=0),
        Column("neighbour", "int32", "the latent that is near it", low=0),
        Column("value", "float32", "the value of the measure; only pairs with a value above zero are listed", low=0),
    ),
    references=(OF_LATENT, to_latents("sae", "neighbour")),
)
CELLS = 2**23  # most pairs of latents in memory at a time


@dataclass(frozen=True)
class Near:
    """Pairs of a latent and a neighbour with the value of a measure, nearest first within each latent: all [n]."""

    latent: Ints
    neighbour: Ints
    value: npt.NDArray[np.float32]


def cofiring(latent: npt.NDArray[np.integer], token: npt.NDArray[np.integer], width: int, most: int) -> Near:
    """Return for each latent the *most* others with the largest C_ij / (C_ii + C_jj − C_ij); C_ij counts the tokens on which both fire.

    *latent* and *token* (both [n]) are the pairs of all firings, each once, in any order. Of equal values the lower latent comes
    first. Counts are sparse and computed in blocks of latents.
    """
    names, column = np.unique(token, return_inverse=True)  # only tokens on which something fires
    fired = sparse.csr_array((np.ones(len(latent), dtype=np.int32), (latent, column)), shape=(width, len(names)))
    by_token = fired.T.tocsr()
    count = np.bincount(latent, minlength=width)
    parts = []
    step = max(1, CELLS // width)
    for low in range(0, width, step):
        together = fired[low : low + step] @ by_token
        together.sort_indices()
        own = np.repeat(np.arange(low, low + together.shape[0]), np.diff(together.indptr))
        other, both = together.indices.astype(np.int64), together.data
        value = (both / (count[own] + count[other] - both)).astype(np.float32)
        parts.append(nearest(own, other, np.where(own == other, 0, value), most))
    return joined(parts)


def nearest(latent: Ints, neighbour: Ints, value: npt.NDArray[np.float32], most: int) -> Near:
    """Return for each latent the *most* pairs with the largest values above zero; pairs must come in order of latent, then neighbour."""
    there = np.flatnonzero(value > 0)
    latent, neighbour, value = latent[there], neighbour[there], value[there]
    order = sort_order(latent, value, descending=True)
    order = order[ranks(latent[order])[0] < most]
    return Near(latent[order], neighbour[order], value[order])


def joined(parts: list[Near]) -> Near:
    """Return the pairs of several blocks of latents, or of several measures, one after the other."""
    nothing = Near(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    columns = ([getattr(part, field.name) for part in (nothing, *parts)] for field in fields(Near))
    return Near(*(np.concatenate(column) for column in columns))


def neighbour_rows(sae: str, found: Mapping[str, Near]) -> pa.Table:
    """Return the NEIGHBOURS rows of the pairs *found*, by measure."""
    names = sorted(found)
    near = joined([found[name] for name in names])
    measure = np.repeat(np.arange(len(names)), [len(found[name].latent) for name in names])
    order = np.lexsort((measure, near.latent))  # stable, so that the nearest stay first
    latent, measure = near.latent[order], measure[order]
    return NEIGHBOURS.build(
        {
            "sae": sae,
            "latent": latent,
            "measure": pa.array(names, pa.string()).take(pa.array(measure)),
            "rank": ranks(latent * len(names) + measure)[0],
            "neighbour": near.neighbour[order],
            "value": near.value[order],
        }
    )


def neighbour_matrix(rows: pa.Table, measure: str, width: int) -> Ints:
    """Return from NEIGHBOURS *rows* each latent's neighbours by *measure*, in order of rank [width, most]; -1 fills short rows."""
    rows = rows.filter(pc.equal(rows["measure"], measure))
    latent, rank, neighbour = (rows[name].to_numpy() for name in ("latent", "rank", "neighbour"))
    matrix = np.full((width, int(rank.max(initial=-1)) + 1), -1, dtype=np.int64)
    matrix[latent, rank] = neighbour
    return matrix
