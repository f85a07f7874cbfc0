"""Stage `contexts`: activations → windows for explainers and scorers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.arrays import Bools, Floats
from builders.contexts import sample
from builders.contexts.contexts import CONTEXTS, context_rows
from builders.contexts.lookalikes import Embed
from builders.contexts.negatives import NOTHING, hard_windows, shortfalls
from builders.contexts.pool import POOL, pairs_of, pool_rows
from builders.contexts.selection import select
from builders.contexts.windows import Plan
from builders.lake.failures import FAILURES
from builders.lake.shards import Shards, Shelf
from builders.progress import track
from builders.saes.activations import ACTIVATIONS, Firings
from builders.saes.latents import LATENTS
from builders.saes.neighbours import NEIGHBOURS
from builders.seeds import drawn, seed_of
from builders.text.rows import Corpus, padded
from builders.text.tokens import TOKENS
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, for_each, run, shelf
from pipelines.params import NegativesParams, Params
from pipelines.parts.ahead import Job
from pipelines.parts.negatives import Part, sources_of


def plan_of(params: Params) -> Plan:
    """Return the plan of the windows that params ask for."""
    spec = params.contexts.model_dump(exclude={"negatives", "latents"})
    centered = spec.pop("windows") == "centered"
    return Plan(**spec, centered=centered, window=params.tokens.window)


def main(*only: str) -> None:
    """Write the contexts of every dictionary, or of *only* the one given."""
    params = declared("contexts")
    for_each("contexts", params.by_subject, only, lambda sae_id: cut(params, sae_id))


def cut(params: Params, sae_id: str) -> None:
    """Write the contexts of dictionary *sae_id*, unless they are finished."""
    asked, settings = negatives_of(params, sae_id), {"seed": params.seed, **params.contexts.model_dump()}
    settings["scored"] = params.saes[sae_id].scored
    tokens, activations = shelf("tokens", params.saes[sae_id].subject), shelf("activations", sae_id)
    inputs = {"tokens": tokens.digest, "activations": activations.digest}
    neighbours, embed = NEIGHBOURS.empty(), None
    if asked.measures:
        shelf_neighbours = shelf("neighbours", sae_id)
        neighbours, inputs["neighbours"] = shelf_neighbours.read(NEIGHBOURS), shelf_neighbours.digest
    if asked.embedder is not None and asked.similar:
        from pipelines.opened.embedders import open_embedder  # it loads a model, which most runs do not need

        embedder = open_embedder(params, asked.embedder)
        embed, settings["embedded by"] = embedder.embed, {**embedder.identity, "name": embedder.name}
    job = Job("contexts", (sae_id,), inputs, settings, code("contexts"))
    job.fill(lambda shards: write(params, sae_id, Read(tokens, activations, neighbours, embed), shards))


def negatives_of(params: Params, sae_id: str) -> NegativesParams:
    """Return which negatives dictionary *sae_id* gets beside random ones: none if it is not scored."""
    return params.contexts.negatives if params.saes[sae_id].scored else NegativesParams()


@dataclass(frozen=True)
class Read:
    """What the contexts of a dictionary are cut from: its NEIGHBOURS rows among it, and what embeds windows, if any are embedded."""

    tokens: Shelf
    activations: Shelf
    neighbours: pa.Table
    embed: Embed | None


def write(params: Params, sae_id: str, read: Read, shards: Shards) -> bool:
    """Write CONTEXTS, POOL and FAILURES of a dictionary, with copies of its vocabulary and latents, so that later stages need nothing else.

    Another try gives the same.
    """
    asked, tokens, activations = negatives_of(params, sae_id), read.tokens, read.activations
    rows = tokens.read(TOKENS, columns=["ids"])
    lengths = pc.list_value_length(rows["ids"]).to_numpy().astype(np.int64)
    corpus, plan = Corpus(padded(rows, "ids", 0), lengths), plan_of(params)
    vocabulary = tokens.read(VOCABULARY)
    latents = activations.read(LATENTS)
    taken, inclusion = taken_latents(params, sae_id, latents, plan)
    parts, sources = Parts(sae_id, activations, taken, corpus, plan, seed_of(params.seed, "contexts", sae_id)), NOTHING
    if asked.counts:
        text = pa.array(text_pieces(vocabulary), pa.binary())
        sources = sources_of(params, sae_id, parts, corpus, plan, read.neighbours, text, read.embed)
    failed, held = [], []
    whole = seed_of(params.seed, "pool", params.saes[sae_id].subject)  # all dictionaries of a subject have the same pool
    pool = drawn(np.arange(corpus.grid(plan.window).total), asked.pool, whole)
    for number, part in enumerate(parts):
        hard = hard_windows(sources, part.selected, part.taken, corpus, plan.window)
        found = context_rows(sae_id, part.selected, hard, part.taken, corpus, plan.window, vocabulary["bytes"].combine_chunks())
        shards.write(CONTEXTS, CONTEXTS.row_groups(found), number)
        failed += part.selected.failed + shortfalls(sae_id, sources, part.selected, hard)
        held.append(pairs_of(pool, part.selected, part.firings, corpus, plan.window))
    shards.write(POOL, [pool_rows(sae_id, pool, held, corpus, plan.window, vocabulary["bytes"].combine_chunks())])
    shards.write(FAILURES, [FAILURES.rows(failed)])
    shards.write(VOCABULARY, [vocabulary])
    shards.write(LATENTS, [sample.noted(latents, inclusion)])
    return True


def taken_latents(params: Params, sae_id: str, latents: pa.Table, plan: Plan) -> tuple[Bools, Floats]:
    """Return which of dictionary *sae_id*'s *latents* get windows, and the probability of each to be among them."""
    windows, density = (latents[name].to_numpy() for name in ("windows", "density"))
    asked, needed = params.contexts.latents, max(plan.train + plan.test, plan.at_least)
    most, by = (None, "none") if asked is None else (asked.sample, asked.by)
    return sample.draw(windows, density, needed, most, by, seed_of(params.seed, "sampled latents", sae_id))


@dataclass
class Parts:
    """The latents of dictionary *sae_id*, one part for each file of activations, with their firings and the windows of those *taken*.

    A caller may go through the parts twice. The last part is kept, so that windows are selected once where all latents are in one file.
    """

    sae_id: str
    activations: Shelf
    taken: Bools
    corpus: Corpus
    plan: Plan
    seed: int
    _last: tuple[Path, Part] | None = None

    def __iter__(self) -> Iterator[Part]:
        """Yield the parts in order."""
        pairs = zip(self.activations.paths(ACTIVATIONS), self.activations.paths(LATENTS), strict=True)
        for path, latents in track(list(pairs), f"contexts of {self.sae_id}"):
            if self._last is None or self._last[0] != path:
                self._last = None  # one part in memory at a time
                known = pq.read_table(latents, columns=["latent"])["latent"].to_numpy().astype(np.int64)
                firings, some = read_firings(path), known[self.taken[known]]
                taken = firings if len(some) == len(known) else firings.take(np.flatnonzero(self.taken[firings.latent]))
                self._last = path, Part(known, firings, taken, select(self.sae_id, some, taken, self.corpus, self.plan, self.seed))
            yield self._last[1]


def read_firings(path: object) -> Firings:
    """Read one file of ACTIVATIONS as arrays."""
    table = pq.read_table(path, columns=["latent", "row", "position", "value"])
    return Firings(*(table[name].to_numpy() for name in table.column_names))


if __name__ == "__main__":
    run(main)
