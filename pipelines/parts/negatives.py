"""Hard windows for stage `contexts`: one pass over all firings collects what the windows are drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from builders.arrays import Ints
from builders.contexts import lookalikes, negatives
from builders.contexts.lookalikes import Embed
from builders.contexts.negatives import Nearby, Sources, WindowSource
from builders.contexts.selection import Selected
from builders.contexts.windows import Plan
from builders.saes.activations import Firings
from builders.saes.neighbours import neighbour_matrix
from builders.seeds import drawn, seed_of
from builders.text.rows import Corpus
from pipelines.params import Params
from pipelines.parts.windows import explained


@dataclass(frozen=True)
class Part:
    """The latents of one file of activations, their firings, and the windows selected for them."""

    latents: Ints
    firings: Firings
    selected: Selected


def sources_of(
    params: Params,
    sae_id: str,
    parts: Iterable[Part],
    corpus: Corpus,
    plan: Plan,
    neighbours: pa.Table,
    pieces: pa.Array,
    embed: Embed | None,
) -> Sources:
    """Return the sources of the hard windows of dictionary *sae_id*, after one pass over all *parts*.

    *neighbours* are its NEIGHBOURS rows. *pieces* are the bytes of each token id, empty for special tokens.
    """
    asked = params.contexts.negatives
    near = [kind for kind in asked.counts if kind != "similar"]
    kept, latents, places = [], [], []
    for part in parts:
        if near:
            most = asked.per_neighbour * negatives.DEPTH
            kept.append(negatives.strongest(part.latents, part.firings, corpus, plan, most))
        latents.append(part.selected.latents)
        places.append(lookalikes.standing(part.selected, corpus))
    eligible = np.concatenate(latents)
    wanted = explained(eligible, params.seed, sae_id, asked.latents)
    strongest = negatives.together(kept) if kept else None
    kinds: dict[str, tuple[int, WindowSource]] = {}
    if strongest is not None:
        for kind in near:
            matrix = neighbour_matrix(neighbours, kind, len(strongest.number))
            kinds[kind] = (asked.counts[kind], Nearby(matrix, strongest, asked.per_neighbour))
    if embed is not None and len(wanted):
        standing = np.concatenate([some for some in places if len(some)])[np.isin(eligible, wanted)]
        # All dictionaries of a subject use the same sample, so an embedder that keeps its vectors embeds it once.
        seed = seed_of(params.seed, "similar windows", params.saes[sae_id].subject)
        number = drawn(np.arange(corpus.grid(plan.window).total), asked.index, seed)
        kinds["similar"] = asked.similar, lookalikes.embedded(wanted, standing, corpus, plan.window, number, pieces, embed)
    return Sources(wanted, kinds, strongest)
