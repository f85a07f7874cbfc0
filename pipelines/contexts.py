"""Stage `contexts`: activations → windows for explainers and scorers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.activations import ACTIVATIONS, Firings
from builders.contexts import CONTEXTS, context_rows
from builders.corpus import TOKENS, padded
from builders.failures import FAILURES
from builders.latents import LATENTS
from builders.progress import track
from builders.seeds import seed_of
from builders.shards import Shards
from builders.vocabulary import VOCABULARY
from builders.windows import Corpus, Plan
from pipelines.params import Params, load
from pipelines.stage import folder, run, shelf


def plan_of(params: Params) -> Plan:
    """Return the window plan that params ask for."""
    spec = params.contexts.model_dump()
    centered = spec.pop("windows") == "centered"
    return Plan(**spec, centered=centered, window=params.tokens.window)


def main(name: str) -> None:
    """Write the contexts of SAE *name*, with the vocabulary that makes them readable by themselves."""
    params = load()
    subject = params.saes[name].subject
    tokens, activations = shelf("tokens", subject), shelf("activations", name)
    inputs = {"tokens": tokens.digest, "activations": activations.digest}
    shards = Shards(folder("contexts", name), inputs, {"seed": params.seed, **params.contexts.model_dump()})
    rows = tokens.read(TOKENS, columns=["ids"])
    lengths = pc.list_value_length(rows["ids"]).to_numpy().astype(np.int64)
    corpus = Corpus(padded(rows, "ids", 0), lengths)
    vocabulary = tokens.read(VOCABULARY)
    pieces = vocabulary["bytes"].combine_chunks()
    seed = seed_of(params.seed, "contexts", name)
    failed = []
    pairs = zip(activations.paths(ACTIVATIONS), activations.paths(LATENTS), strict=True)
    for number, (path, latents) in enumerate(track(list(pairs), f"contexts of {name}")):
        known = pq.read_table(latents, columns=["latent"])["latent"].to_numpy().astype(np.int64)
        found, short = context_rows(name, known, read_firings(path), corpus, plan_of(params), seed, pieces)
        shards.write(CONTEXTS, CONTEXTS.row_groups(found), number)
        failed.append(short)
    shards.write(FAILURES, [FAILURES.sort(pa.concat_tables(failed))])
    shards.write(VOCABULARY, [vocabulary])
    shards.finish()


def read_firings(path: object) -> Firings:
    """Read one file of ACTIVATIONS as arrays."""
    table = pq.read_table(path, columns=["latent", "row", "position", "value"])
    return Firings(*(table[name].to_numpy() for name in table.column_names))


if __name__ == "__main__":
    run(main)
