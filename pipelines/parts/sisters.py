"""SAEs that differ by the seed of their training only, and how stable latents are among them."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from builders.lake.shards import Shelf
from builders.saes.latents import LATENTS
from builders.similarity.partners import MATCHES
from builders.similarity.stability import STABILITY, stability_rows
from pipelines.graph.stage import folder, shelf
from pipelines.params import Params, are_sisters

READ = ["latent", "other", "measure", "value", "mutual"]


def sisters_of(params: Params, sae_id: str) -> list[str]:
    """Return the other dictionaries that are compared with *sae_id* and differ from it by their seed only."""
    others = [b if a == sae_id else a for a, b in params.pairs if sae_id in (a, b)]
    return [other for other in others if are_sisters(params.saes[sae_id], params.saes[other])]


def pair_folders(params: Params, sae_id: str) -> list[Shelf]:
    """Return the outputs of stage `similarity` for *sae_id* and each of its sisters."""
    return [Shelf(folder("similarity", *sorted((sae_id, other)))) for other in sisters_of(params, sae_id)]


def stability(params: Params, sae_id: str) -> pa.Table:
    """Return the STABILITY rows of one dictionary."""
    parts = [found.read(MATCHES, columns=READ, filters=[("sae", "==", sae_id)]) for found in pair_folders(params, sae_id)]
    matches = pa.concat_tables([MATCHES.empty().select(READ), *parts])
    return stability_rows(sae_id, matches, sisters_of(params, sae_id), params.similarity.threshold) if parts else STABILITY.empty()


def counts(params: Params) -> pd.DataFrame:
    """Return how often every latent fires, by dictionary and latent."""
    parts = [shelf("contexts", sae_id).read(LATENTS, columns=["sae", "latent", "count"]) for sae_id in sorted(params.saes)]
    found: pd.DataFrame = pa.concat_tables(parts).to_pandas()
    return found
