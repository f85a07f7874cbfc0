"""The best of several sampled explanations, chosen on one half of the test windows and reported on the other: the `best_of` config.

The paper takes the largest score of several explanations, chosen and reported on the same examples. Some of it is luck of these examples.
Here both figures are of the same windows, so that their difference shows the luck. See docs/science.md#best-of-several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders.arrays import Bools, Floats, Ints, ranks, sort_order
from builders.explainers.explanations import named
from builders.lake.references import OF_SAE
from builders.lake.table import Column, Table
from builders.scorers.agreement import ALL, LEAST
from builders.scorers.bootstrap import RESAMPLES, bootstrapped
from builders.scorers.judging import nans
from builders.scorers.statistics import Measures, area, mean, rates
from builders.seeds import seed_of, uniforms

FIGURES = {
    "first": "mean score of the first explanation",
    "chosen": "mean score, on one half of the windows, of the explanation that is best on the other half",
    "maximum": "mean of the largest score on the same windows, as the paper takes it: some of it is luck of these windows",
    "gain": "chosen − first: what choosing among the explanations brings",
    "optimism": "maximum − chosen: what the largest score promises too much",
}
BEST = Table(
    name="best_of",
    row="the best of several sampled explanations of each latent, by one scorer, on average over latents",
    key=("kind", "sae", "explainer", "scorer"),
    columns=(
        Column("kind", "string", "the kind of the dictionaries", categorical=True),
        Column("sae", "string", "the dictionary, or `all`: all dictionaries of that kind together", categorical=True),
        Column("explainer", "string", "the explainer that was asked several times", categorical=True),
        Column("scorer", "string", "the scorer", categorical=True),
        Column("unit", "string", "what the score is", categorical=True),
        Column("chance", "float64", "the score that an explanation gets which says nothing"),
        Column("samples", "int32", "explanations of each latent", unit="explanations", low=2),
        Column("n", "int32", "latents of which each explanation has a score on either half", unit="latents", low=0),
        *(
            Column(f"{name}{end}", "float64", doc, nullable=True)
            for name, words in FIGURES.items()
            for end, doc in (
                ("", f"{words}; null below {LEAST} latents"),
                ("_low", f"lower end of its 95 % interval, from {RESAMPLES} bootstrap resamples of the latents"),
                ("_high", "upper end of that interval"),
            )
        ),
    ),
    references=(OF_SAE,),
)
READ = ["latent", "explainer", "example", "truth", "answer", "value"]  # of JUDGEMENTS


def _rates(truth: Bools, answer: Floats, _: Floats) -> Measures:
    return rates(truth, answer, nans(len(truth)))


def _area(truth: Bools, _: Floats, value: Floats) -> Measures:
    known = ~np.isnan(value)
    return area(truth[known], value[known])


def _mean(_: Bools, __: Floats, value: Floats) -> Measures:
    return mean(value[~np.isnan(value)])


# How a score of a part of the examples follows from JUDGEMENTS, by the score's unit. A simulation's correlation does not follow from them.
OF_PART: dict[str, Callable[[Bools, Floats, Floats], Measures]] = {
    "balanced accuracy": _rates,
    "AUROC": _area,
    "nats": _mean,
}


def halves(latent: Ints, truth: Bools, example: Ints, seed: int) -> Ints:
    """Return the half, 0 or 1, of each example [n]; positives and negatives of a latent are each divided evenly, at random.

    An example's half depends on latent, number and *seed*, so it is the same for all explanations of a latent.
    """
    side = 2 * latent + truth
    order = sort_order(side, uniforms(seed, latent, example))
    half = np.empty(len(side), dtype=np.int64)
    half[order] = ranks(side[order])[0] % 2
    return half


def half_scores(judgements: pa.Table, explainer: str, samples: int, unit: str, seed: int) -> Floats:
    """Return the scores [latents, samples, 2] of the explanations of *explainer* on both halves of the examples.

    *judgements* are rows of one scorer and one dictionary, with the columns READ. Latents of which some explanation has no score on some
    half are left out. *seed* addresses the halves.
    """
    found = np.full((samples, 2, int(pc.max(judgements["latent"]).as_py() or 0) + 1), np.nan)
    for sample in range(samples):
        own = judgements.filter(pc.equal(judgements["explainer"], named(explainer, sample)))
        latent, example, truth = (own[name].to_numpy() for name in ("latent", "example", "truth"))
        answer, value = (own[name].cast(pa.float64()).to_numpy() for name in ("answer", "value"))
        latent = latent.astype(np.int64)
        cell = 2 * latent + halves(latent, truth, example.astype(np.int64), seed)
        order = np.argsort(cell, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
            if len(part):
                place, half = divmod(int(cell[part[0]]), 2)
                found[sample, half, place] = OF_PART[unit](truth[part], answer[part], value[part]).get("score", np.nan)
    whole: Floats = found.transpose(2, 0, 1)
    return whole[~np.isnan(whole).any(axis=(1, 2))]


def figures(scores: Floats) -> Floats:
    """Return FIGURES [latents, 5] from the scores [latents, samples, 2] on both halves; each is the mean over both halves.

    Either half chooses in turn, and the other reports; among equals the first sample is chosen.
    """
    best = scores.argmax(axis=1)  # [latents, 2], the sample that is best on each half
    reported = np.take_along_axis(scores, best[:, None, ::-1], axis=1)[:, 0]
    first, chosen, maximum = (some.mean(axis=1) for some in (scores[:, 0], reported, scores.max(axis=1)))
    return np.stack([first, chosen, maximum, chosen - first, maximum - chosen], axis=1)


def best_records(own: Mapping[str, Any], of_sae: Mapping[str, Floats], kinds: Mapping[str, str], seed: int) -> Iterator[dict[str, Any]]:
    """Yield the BEST records of one explainer and scorer: of each dictionary, and of all dictionaries of a kind together.

    *own* are the columns that all of them share; *of_sae* holds the figures [latents, 5] of each dictionary, *kinds* its kind.
    """
    for kind in sorted({kinds[sae_id] for sae_id in of_sae}):
        some = {sae_id: values for sae_id, values in sorted(of_sae.items()) if kinds[sae_id] == kind}
        for sae_id, values in {ALL: np.concatenate(list(some.values())), **some}.items():
            if len(values):
                where = {"kind": kind, "sae": sae_id}
                address = seed_of(seed, "best of", kind, sae_id, own["explainer"], own["scorer"])
                yield {**where, **own, "n": len(values), **_means(values, address)}


def _means(values: Floats, seed: int) -> dict[str, float | None]:
    """Return the mean of each of FIGURES [n, 5] with its bootstrap interval, all from the same resamples of the latents."""
    names = [f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")]
    if len(values) < LEAST:
        return dict.fromkeys(names)
    return dict(zip(names, bootstrapped(values, seed).reshape(-1).tolist(), strict=True))
