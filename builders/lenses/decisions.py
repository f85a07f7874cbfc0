"""The `lens_decisions` config: how deep in the model its final answer is first the top one, by how frequent the answer is.

The decision depth of a token is ℓ / L for the least layer ℓ from which on the lens's top token is the model's own top token, at every layer
up to L; at layer L this holds by definition. Frequent tokens are guessed early, with or without reason. The chance level shows how early:
it is the depth at which the same answer would be decided if the vectors were those of another row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch

from builders.arrays import Bools, Floats, Ints
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Table
from builders.lenses.comparison import error_of
from builders.lenses.lenses import Tops
from builders.saes.fidelity import RowSums
from builders.seeds import seed_of, uniforms

ALL = "all"
QUARTERS = ("q1", "q2", "q3", "q4")  # rarest to most frequent

_ERROR = "its standard error, rows being independent; null for a single row"
LENS_DECISIONS = Table(
    name="lens_decisions",
    row="a lens of a subject, over tokens whose final answer is of some frequency",
    key=("subject", "lens", "frequency"),
    columns=(
        Column("subject", "string", "the language model", categorical=True),
        Column("lens", "string", "logit, tuned, jacobian, jacobian-later or jacobian-state", categorical=True),
        Column("frequency", "string", "all, or a quarter of the tokens by the count of their answer: q1 (rarest) … q4", categorical=True),
        Column("depth", "float64", "mean share of blocks after which the final answer is the top one and stays so", low=0, high=1),
        Column("depth_se", "float64", _ERROR, low=0, nullable=True),
        Column(
            "chance",
            "float64",
            "mean depth of the same answers on vectors of another row; null if there is one row",
            low=0,
            high=1,
            nullable=True,
        ),
        Column("chance_se", "float64", _ERROR, low=0, nullable=True),
        Column("earlier", "float64", "chance minus depth: how much earlier than by chance", low=-1, high=1, nullable=True),
        Column("earlier_se", "float64", _ERROR, low=0, nullable=True),
        Column("last", "float64", "share of tokens that are decided at the last layer only, depth 1", low=0, high=1),
        Column("least", "int64", "least count of an answer in the corpus", unit="tokens", low=0),
        Column("most", "int64", "largest count of an answer in the corpus", unit="tokens", low=0),
        Column("n", "int64", "tokens", unit="tokens", low=1),
        Column("rows", "int32", "rows of tokens that they stand in", unit="rows", low=1),
    ),
    references=(OF_SUBJECT,),
)


def depths(tops: Ints, answer: Ints) -> Floats:
    """Return the decision depth [n] of *answer* [n], given a lens's top tokens *tops* [n, L + 1]; layer L counts as agreeing."""
    differs = tops[:, :-1] != answer[:, None]
    last = differs.shape[1]
    after_last_miss = last - np.argmax(differs[:, ::-1], axis=1)  # the layer after the last one that differs
    decided: Floats = np.where(differs.any(1), after_last_miss, 0) / last
    return decided


def quarters(count: Ints) -> Ints:
    """Return the quarter 0 … 3 of each of *count* [n]: how many of the three quartiles it exceeds; equal counts share a quarter."""
    cuts = np.quantile(count, [0.25, 0.5, 0.75], method="inverted_cdf")
    return np.searchsorted(cuts, count, side="left")


def partners(row: Ints, seed: int) -> Ints | None:
    """Return for each of n tokens a token of another row [n]: the same place of the row that follows in a random order of the rows.

    *row* [n] must be sorted. A shorter row begins anew. None if all stand in one row.
    """
    _, place, size = np.unique(row, return_inverse=True, return_counts=True)
    if len(size) < 2:
        return None
    order = np.argsort(uniforms(seed, np.arange(len(size))), kind="stable")
    follows = np.empty_like(order)
    follows[order] = np.roll(order, -1)
    first: Ints = np.cumsum(size) - size
    other: Ints = follows[place]
    chosen: Ints = first[other] + (np.arange(len(row)) - first[place]) % size[other]
    return chosen


def decision_rows(subject: str, tops: Tops, counts: Ints, seed: int) -> pa.Table:
    """Return the LENS_DECISIONS rows of a subject; *counts* [vocabulary] says how often each token occurs in its corpus.

    *seed* is that of the run. A quarter without tokens, where many answers are equally frequent, has no row.
    """
    frequency = counts[tops.model]
    other = partners(tops.row, seed_of(seed, "lens decisions", subject))
    records = []
    for lens, top in tops.lenses.items():
        depth = depths(top, tops.model)
        chance = None if other is None else depths(top[other], tops.model)
        for name, which in _groups(frequency):
            some = frequency[which]
            group = {
                "frequency": name,
                "least": int(some.min()),
                "most": int(some.max()),
                "n": len(some),
                "last": float((depth[which] == 1).mean()),
            }
            means = _means(tops.row[which], depth[which], None if chance is None else chance[which])
            records.append({"subject": subject, "lens": lens, **group, **means})
    return LENS_DECISIONS.rows(records)


def _groups(frequency: Ints) -> Iterator[tuple[str, Bools]]:
    yield ALL, np.ones(len(frequency), dtype=bool)
    quarter = quarters(frequency)
    for number, name in enumerate(QUARTERS):
        which = quarter == number
        if which.any():
            yield name, which


def _means(row: Ints, depth: Floats, chance: Floats | None) -> dict[str, float | None]:
    """Return the columns of means over tokens of these rows [n], with errors that are clustered by row."""
    values = {"depth": depth, "chance": chance, "earlier": None if chance is None else chance - depth}
    _, place = np.unique(row, return_inverse=True)
    tokens = torch.from_numpy(np.bincount(place)).double()
    found: dict[str, float | None] = {"rows": len(tokens)}
    for name, value in values.items():
        if value is None:
            found |= {name: None, f"{name}_se": None}
        else:
            sums = RowSums(torch.from_numpy(np.bincount(place, value)), tokens)
            found |= {name: sums.mean, f"{name}_se": error_of(sums)}
    return found
