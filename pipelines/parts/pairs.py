"""How two dictionaries of params are related, such as by the seed of their training only."""

from __future__ import annotations

import re

from builders.similarity.similarity import Pair
from pipelines.params import InModelParams, Params, SaeParams, are_sisters, decisive

LAYER = re.compile(r"\d+")  # the first number of a hookpoint, such as layers.3 or h.5.mlp
PLACES = {"hookpoint", "writes", "path", "folder"}  # what one recipe may differ in between the layers of a model


def pair_of(params: Params, sae_a: str, sae_b: str) -> Pair:
    """Return two dictionaries with their relation, and with the number of layers between them."""
    a, b = params.saes[sae_a], params.saes[sae_b]
    if a.subject != b.subject:
        random = any(params.subjects[spec.subject].reinitialised for spec in (a, b))
        return Pair(sae_a, sae_b, "reinitialised" if random else "subject", None)
    layers = [int(found[0]) for spec in (a, b) if (found := LAYER.search(getattr(spec, "hookpoint", "")))]
    return Pair(sae_a, sae_b, relation_of(a, b), abs(layers[0] - layers[1]) if len(layers) == 2 else None)


def relation_of(a: SaeParams, b: SaeParams) -> str:
    """Return how two dictionaries of one subject are related."""
    if not (isinstance(a, InModelParams) and isinstance(b, InModelParams)):
        return "hookpoint"
    if (a.reads, a.rebuilds) == (b.reads, b.rebuilds):
        return "seed" if are_sisters(a, b) else "recipe"
    return "layer" if _of_any_layer(a) == _of_any_layer(b) and _sites(a) == _sites(b) else "hookpoint"


def _sites(spec: InModelParams) -> tuple[str, ...]:
    """Return the hookpoints of a dictionary without their layer: two that differ in more are no two layers of one kind."""
    return tuple(LAYER.sub("", hookpoint, count=1) for hookpoint in (spec.reads, spec.rebuilds))


def _of_any_layer(spec: InModelParams) -> dict[str, object]:
    return {name: value for name, value in decisive(spec).items() if name not in PLACES}
