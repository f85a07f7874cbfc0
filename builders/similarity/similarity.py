"""How alike two dictionaries are, in numbers with intervals and chance levels: the `similarity` config; see docs/science.md#similarity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.arrays import Floats
from builders.lake.references import to_saes
from builders.lake.table import Column, Table
from builders.scorers.bootstrap import RESAMPLES, bootstrapped
from builders.seeds import seed_of
from builders.similarity.measures import Measure, blocks
from builders.similarity.partners import MEASURES, Partners, agreeing

STATISTICS = {
    "matched": "mean value of one-to-one partners (PW-MCC where the measure is `decoder`)",
    "shared-T": "share of latents whose one-to-one partner has a value of at least T",
    "mutual": "share of latents that are the nearest of their nearest",
    "agree": "share of latents to which decoder and encoder rows assign the same partner",
    "best": "mean value of the nearest latents in B of A's latents (MPPC where the measure is `pearson`)",
    "best-back": "the same of B's latents in A",
    "overlap-shared": "how much of the space that the shared latents of A write into is that of their partners",
    "overlap-rest": "the same of the latents that are not shared",
    "svcca": "mean canonical correlation of the activations of the latents that have one-to-one partners",
    "rsa": "rank correlation of how A's latents and their partners correlate among themselves",
    "transfer": "mean score of explanations of A's latents on the windows of their partners in B",
    "transfer-own": "mean score of the partners' own explanations on these windows",
    "transfer-other": "mean score of explanations of other latents of A on these windows",
}
TRANSFERS = ("transfer", "transfer-own", "transfer-other")
AGREE = "decoder"  # the measure whose records tell how often both rows assign the same partner
RELATIONS = {
    "seed": "alike but for the seed of their training",
    "layer": "of the same recipe at another layer of the subject",
    "recipe": "at one hookpoint, made in other ways",
    "hookpoint": "of one subject, with other hookpoints and recipes",
    "subject": "of two subjects",
    "reinitialised": "one of them of a subject with random weights",
}
SIMILARITY = Table(
    name="similarity",
    row="how alike two dictionaries are, by one measure and one statistic",
    key=("sae_a", "sae_b", "measure", "statistic"),
    columns=(
        Column("sae_a", "string", "the one dictionary, A", categorical=True),
        Column("sae_b", "string", "the other dictionary, B", categorical=True),
        Column("relation", "string", "; ".join(f"{name}: {meaning}" for name, meaning in RELATIONS.items()), categorical=True),
        Column("layers", "int32", "how many layers lie between them; null where their hookpoints do not tell", nullable=True, low=0),
        Column("measure", "string", "; ".join(f"{name}: {meaning}" for name, meaning in MEASURES.items()), categorical=True),
        Column(
            "statistic",
            "string",
            "; ".join(f"{name}: {meaning}" for name, meaning in STATISTICS.items()) + "; `none` where nothing could be compared",
            categorical=True,
        ),
        Column("status", "string", "ok, or why the dictionaries cannot be compared by this measure"),
        Column("n", "int32", "latents that it is a mean over", unit="latents", low=0),
        Column("value", "float64", "the statistic", nullable=True, low=-1, high=1),
        Column("low", "float64", f"lower end of its 95 % interval, from {RESAMPLES} bootstrap resamples of the latents", nullable=True),
        Column("high", "float64", "upper end of that interval", nullable=True),
        Column(
            "permuted",
            "float64",
            "chance: what latents in random order give; for `mutual`, what values in random order give",
            nullable=True,
            low=-1,
            high=1,
        ),
        Column(
            "untrained",
            "float64",
            "chance: what an untrained dictionary of B's width and sparsity, at B's hookpoint, gives in place of B",
            nullable=True,
            low=-1,
            high=1,
        ),
    ),
    references=(to_saes("sae_a"), to_saes("sae_b")),
)
Record = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """Two dictionaries, how they are related, and how many layers lie between them (None: unknown)."""

    sae_a: str
    sae_b: str
    relation: str
    layers: int | None

    def record(self, measure: str, statistic: str, **values: Any) -> Record:
        """Return a SIMILARITY record with *values*; what is not given is null."""
        known = {"sae_a": self.sae_a, "sae_b": self.sae_b, "relation": self.relation, "layers": self.layers}
        blank = dict.fromkeys(("value", "low", "high", "permuted", "untrained"))
        return {**known, "measure": measure, "statistic": statistic, "status": "ok", "n": 0, **blank, **values}


def shared(threshold: float) -> str:
    """Return the name of the statistic that counts values of at least *threshold*."""
    return f"shared-{threshold:g}"


def values_of(found: Mapping[str, Partners], measure: str, thresholds: Sequence[float]) -> dict[str, Floats]:
    """Return what each statistic of *measure* is the mean of: a value for each latent [n] of the smaller dictionary.

    Only `best` and `best-back` have a value for each latent of A and of B. A latent without a partner is not shared. *found* holds the
    partners by every measure.
    """
    own = found[measure]
    smaller = found if len(own.latents) <= len(own.others) else {name: some.flipped for name, some in found.items()}
    value = smaller[measure].value
    has = ~np.isnan(value)
    values = {"matched": value[has].astype(np.float64), "mutual": smaller[measure].mutual.astype(np.float64)}
    # Compared as float32, as in `permuted`: a share of 7 / 10 is at least 0.7 only so.
    values |= {shared(threshold): (value >= np.float32(threshold)).astype(np.float64) for threshold in thresholds}
    alike = agreeing(smaller)
    if measure == AGREE and alike is not None:
        values["agree"] = (alike & has).astype(np.float64)
    return values | {"best": own.there.value[:, 0].astype(np.float64), "best-back": own.back.value[:, 0].astype(np.float64)}


def permuted(measure: Measure, thresholds: Sequence[float]) -> dict[str, float]:
    """Return what the statistics of :func:`values_of` are if latents stand in random order: for values, the mean over all pairs of latents.

    In whatever order latents stand, as many are mutual; so for `mutual` the values of all pairs stand in random order. Then a value is the
    largest of its row and of its column (n + m − 1 values) by chance 1 / (n + m − 1), and there are n · m values. A latent of the smaller
    dictionary has any latent of the larger one as its partner alike, so `agree` is 1 / the latents of the larger dictionary.
    """
    n, m = measure.shape
    total, above = 0.0, np.zeros(len(thresholds))
    for _, block in blocks(measure):
        total += float(block.sum(dtype=np.float64))
        above += [float((block >= threshold).sum()) for threshold in thresholds]
    mean = total / (n * m)
    shares = {shared(threshold): count / (n * m) for threshold, count in zip(thresholds, above.tolist(), strict=True)}
    return {"matched": mean, "best": mean, "best-back": mean, "mutual": max(n, m) / (n + m - 1), "agree": 1 / max(n, m), **shares}


def statistic_records(
    pair: Pair, measure: str, values: Mapping[str, Floats], chance: Mapping[str, Mapping[str, float]], seed: int
) -> Iterator[Record]:
    """Yield a record for each statistic of *values*, with its bootstrap interval and its levels of *chance* (`permuted`, `untrained`)."""
    for statistic, each in values.items():
        levels = {name: some.get(statistic) for name, some in chance.items()}
        address = seed_of(seed, "similarity", pair.sae_a, pair.sae_b, measure, statistic)
        numbers = dict(zip(("value", "low", "high"), bootstrapped(each[:, None], address)[0].tolist(), strict=True)) if len(each) else {}
        yield pair.record(measure, statistic, n=len(each), **numbers, **levels)


def means(values: Mapping[str, Floats]) -> dict[str, float]:
    """Return the mean of each statistic of *values*."""
    return {statistic: float(each.mean()) for statistic, each in values.items() if len(each)}
