"""The partners of each latent in another dictionary: nearest, mutually nearest, and one to one: the `matches` config.

One-to-one assignment of unit-norm rows is that of Paulo & Belrose 2025 (arXiv 2501.16615); see docs/science.md#similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.arrays import Bools, Ints
from builders.lake.references import OF_LATENT, to_latents
from builders.lake.table import Column, Table
from builders.similarity.assignment import assigned
from builders.similarity.measures import Measure
from builders.similarity.nearest import Nearest, mutual, nearest

MEASURES = {
    "decoder": "cosine of decoder rows",
    "encoder": "cosine of encoder rows",
    "pearson": "correlation of activations over the tokens of one text",
    "jaccard": "tokens on which both fire / tokens on which either fires",
    "explanation": "cosine of the embeddings of their explanations, less the mean of all explanations of both dictionaries",
}
MATCHES = Table(
    name="matches",
    row="a latent and its partners in another dictionary, by one measure",
    key=("sae", "latent", "other", "measure"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent; one that never fires, or that lacks what the measure reads, has no partners", low=0),
        Column("other", "string", "the other dictionary", categorical=True),
        Column("measure", "string", "; ".join(f"{name}: {meaning}" for name, meaning in MEASURES.items()), categorical=True),
        Column("partner", "int32", "the latent of the other dictionary with the largest value", low=0),
        Column("value", "float32", "the measure of both", low=-1, high=1),
        Column("margin", "float32", "by how much the second largest value is below it; null without a second", nullable=True, low=0),
        Column("mutual", "bool", "whether this latent is its partner's partner, too"),
        Column(
            "assigned",
            "int32",
            "its partner where every latent has at most one, and the sum of values is the largest; null where none is left",
            nullable=True,
            low=0,
        ),
        Column("assigned_value", "float32", "the measure of these two", nullable=True, low=-1, high=1),
        Column(
            "agree",
            "bool",
            "whether the rows of decoder and encoder assign it the same partner; null for other measures, or where one side assigns none",
            nullable=True,
        ),
    ),
    references=(OF_LATENT, to_latents("other", "partner"), to_latents("other", "assigned")),
)
DIRECTIONS = ("decoder", "encoder")
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Partners:
    """What a measure says of the latents of A in B: *latents* and *others* are their numbers, of the n in A and the m in B compared.

    *there* and *back* hold the nearest of each side; *place* [n] is the place in *others* of each latent's partner one to one, −1 without
    one, and *value* [n] the measure of both, NaN without one.
    """

    latents: Ints
    others: Ints
    there: Nearest
    back: Nearest
    place: Ints
    value: Values

    @property
    def mutual(self) -> Bools:
        """Which latents of A are the nearest of their nearest [n]."""
        return mutual(self.there, self.back)

    @property
    def flipped(self) -> Partners:
        """The same, said of the latents of B in A."""
        place, value = np.full(len(self.others), -1, dtype=np.int64), np.full(len(self.others), np.nan, dtype=np.float32)
        own = np.flatnonzero(self.place >= 0)
        place[self.place[own]], value[self.place[own]] = own, self.value[own]
        return Partners(self.others, self.latents, self.back, self.there, place, value)


def partners_of(measure: Measure, latents: Ints, others: Ints, most: int) -> Partners:
    """Return the partners by *measure*, whose latents have the numbers *latents* [n] and *others* [m].

    *most* nearest latents are candidates where there are too many latents for an exact assignment.
    """
    there, back = nearest(measure, most), nearest(measure.flipped(), most)
    return Partners(latents, others, there, back, *assigned(measure, there, back))


def agreeing(found: Mapping[str, Partners]) -> Bools | None:
    """Return for which latents of A the rows of decoder and encoder assign the same partner; None where one of them is not compared."""
    if not set(DIRECTIONS) <= found.keys():
        return None
    return np.asarray(found["decoder"].place == found["encoder"].place)


def match_rows(sae: str, other: str, found: Mapping[str, Partners]) -> pa.Table:
    """Return the MATCHES rows of two dictionaries by every measure of *found*, from both sides."""
    back = {measure: partners.flipped for measure, partners in found.items()}
    parts = [part for names in ((sae, other, found), (other, sae, back)) for part in _side(*names)]
    return MATCHES.sort(pa.concat_tables([MATCHES.empty(), *parts]))


def _side(sae: str, other: str, found: Mapping[str, Partners]) -> list[pa.Table]:
    agree = _agreement(found)
    return [_rows(sae, other, measure, found[measure], agree if measure in DIRECTIONS else None) for measure in found]


def _agreement(found: Mapping[str, Partners]) -> pa.Array | None:
    """Return the column `agree` of the rows of decoder and encoder; None where one of them is not compared."""
    alike = agreeing(found)
    return None if alike is None else pa.array(alike, mask=np.any([found[name].place < 0 for name in DIRECTIONS], axis=0))


def _rows(sae: str, other: str, measure: str, some: Partners, agree: pa.Array | None) -> pa.Table:
    """Return the MATCHES rows of one dictionary's latents by one measure; *agree* [n] says where decoder and encoder agree."""
    has = some.place >= 0
    margin = some.there.margin
    return MATCHES.build(
        {
            "sae": sae,
            "latent": some.latents,
            "other": other,
            "measure": measure,
            "partner": some.others[some.there.best],
            "value": some.there.value[:, 0],
            "margin": pa.array(margin, mask=np.isnan(margin)),
            "mutual": some.mutual,
            "assigned": pa.array(some.others[some.place], mask=~has),
            "assigned_value": pa.array(some.value, mask=~has),
            "agree": agree,
        }
    )
