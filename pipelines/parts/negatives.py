"""Negatives for stage `contexts` beside random ones: one pass over all firings collects what the windows are drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders.arrays import Ints
from builders.contexts import lookalikes, negatives
from builders.contexts.decoys import Decoys, strong_tokens
from builders.contexts.lookalikes import Embed
from builders.contexts.negatives import Nearby, Sources, WindowSource
from builders.contexts.selection import Selected
from builders.contexts.silent_rows import SilentRows
from builders.contexts.windows import Plan
from builders.saes.activations import Firings
from builders.saes.neighbours import neighbour_matrix
from builders.seeds import drawn, seed_of
from builders.text.rows import Corpus
from pipelines.params import Params
from pipelines.parts.windows import explained


@dataclass(frozen=True)
class Part:
    """The latents of one file of activations, their firings, those of the latents that are *taken*, and the windows selected for these."""

    latents: Ints
    firings: Firings
    taken: Firings
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
    kept, latents, places, tokens = [], [], [], []
    seed = seed_of(params.seed, "contexts", sae_id)  # of contexts, so that windows have the same ranks here
    special = pc.binary_length(pieces).to_numpy() == 0
    for part in parts:
        if asked.measures:
            most = asked.per_neighbour * negatives.DEPTH
            kept.append(negatives.strongest(part.latents, part.firings, corpus, plan, most, seed))
        latents.append(part.selected.latents)
        places.append(lookalikes.standing(part.selected, corpus))
        if asked.decoy:
            some = explained(part.selected.latents, params.seed, sae_id, asked.latents)  # those of `wanted` are among them
            tokens.append(strong_tokens(some, part.selected, part.taken, corpus, plan.window, special))
    eligible = np.concatenate(latents)
    wanted = explained(eligible, params.seed, sae_id, asked.latents)
    strongest = negatives.together(kept) if kept else None
    kinds: dict[str, tuple[int, WindowSource]] = {}
    if strongest is not None:
        for kind in asked.measures:
            matrix = neighbour_matrix(neighbours, kind, len(strongest.number))
            kinds[kind] = (asked.counts[kind], Nearby(matrix, strongest, asked.per_neighbour))
    # All dictionaries of a subject use the same sample, so an embedder that keeps its vectors embeds it once.
    sampled = seed_of(params.seed, "similar windows", params.saes[sae_id].subject)
    number = drawn(np.arange(corpus.grid(plan.window).total), asked.index, sampled)
    if embed is not None and len(wanted):
        standing = np.concatenate([some for some in places if len(some)])[np.isin(eligible, wanted)]
        kinds["similar"] = asked.similar, lookalikes.embedded(wanted, standing, corpus, plan.window, number, pieces, embed)
    if asked.decoy:
        kinds["decoy"] = asked.decoy, Decoys.of(number, tokens, corpus, plan.window, seed_of(params.seed, "decoys", sae_id))
    rows = SilentRows.of(corpus, asked.row_start, plan.window, seed_of(params.seed, "silent rows", sae_id))
    return Sources(wanted, kinds, strongest, (asked.row, rows) if asked.row else None)
