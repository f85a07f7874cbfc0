"""Which latents of a dictionary are near which: they fire on the same tokens, or read or write alike. SCIENCE A4, D3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from builders.arrays import Ints, ranks, sort_order
from builders.lake.table import Column, Table

NEIGHBOURS = Table(
    name="neighbours",
    row="a latent and one of the latents nearest to it",
    key=("sae", "latent", "measure", "rank"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent; one that never fires has no neighbour, and is none", low=0),
        Column(
            "measure",
            "string",
            "cofiring: tokens on which both fire over those on which either does (Jaccard); decoder, encoder: cosine of their directions",
            categorical=True,
        ),
        Column("rank", "int32", "place among the latent's neighbours by this measure, 0 the nearest", low=0),
        Column("neighbour", "int32", "the latent that is near", low=0),
        Column("value", "float32", "the measure; only what is above zero counts as near", low=0),
    ),
)
MEASURES = ("cofiring", "decoder", "encoder")
CELLS = 2**23  # pairs of latents in memory at a time, at most


@dataclass(frozen=True)
class Near:
    """Pairs of a latent and a neighbour with the value of a measure, nearest first within each latent: all [n]."""

    latent: Ints
    neighbour: Ints
    value: npt.NDArray[np.float32]


def cofiring(latent: npt.NDArray[np.integer], token: npt.NDArray[np.integer], width: int, most: int) -> Near:
    """Return the *most* latents that fire together with each: C_ij / (C_ii + C_jj − C_ij), C the tokens on which both fire.

    The pairs (latent, token) of all firings come in any order, each once. Counts are sparse, some latents at a time;
    of equals the lower latent comes first.
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
    """Return the *most* pairs of each latent by largest value above zero; pairs come by latent, then neighbour."""
    there = np.flatnonzero(value > 0)
    latent, neighbour, value = latent[there], neighbour[there], value[there]
    order = sort_order(latent, value, descending=True)
    order = order[ranks(latent[order])[0] < most]
    return Near(latent[order], neighbour[order], value[order])


def joined(parts: list[Near]) -> Near:
    """Return the pairs of several blocks of latents, or of several measures, as one."""
    nothing = Near(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    columns = ([getattr(part, field.name) for part in (nothing, *parts)] for field in fields(Near))
    return Near(*(np.concatenate(column) for column in columns))


def neighbour_rows(sae: str, found: Mapping[str, Near]) -> pa.Table:
    """Return the NEIGHBOURS rows of the pairs *found* by each measure."""
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
    """Return the neighbours by *measure* in order of rank [width, most], -1 where a latent has fewer, of NEIGHBOURS *rows*."""
    rows = rows.filter(pc.equal(rows["measure"], measure))
    latent, rank, neighbour = (rows[name].to_numpy() for name in ("latent", "rank", "neighbour"))
    matrix = np.full((width, int(rank.max(initial=-1)) + 1), -1, dtype=np.int64)
    matrix[latent, rank] = neighbour
    return matrix
