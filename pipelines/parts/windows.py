"""The windows that stage `contexts` wrote, latent by latent, and the draw of the latents that are explained and scored."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from builders.contexts.contexts import CONTEXTS, READ, Examples, by_latent
from builders.contexts.pool import KIND, POOL, Pool
from builders.lake.shards import Shelf
from builders.seeds import Number, drawn, seed_of
from pipelines.params import DrawnParams, Params


def windows(contexts: Shelf, split: str) -> Iterator[Examples]:
    """Yield the windows of each latent in *split*, in order of latent."""
    for path in contexts.paths(CONTEXTS):
        yield from by_latent(pq.read_table(path, columns=READ), split)


def scored_windows(contexts: Shelf, wanted: Collection[int], negatives: str) -> Iterator[Examples]:
    """Yield the test windows of the *wanted* latents, in order of latent; where *negatives* are the pool, with its windows."""
    pool = Pool.of(contexts.read(POOL)) if negatives == KIND else None
    for examples in windows(contexts, "test"):
        if examples.latent in wanted:
            yield examples if pool is None else pool.beside(examples)


def judged_windows(examples: Examples, spec: Any) -> Examples:
    """Return the windows of a latent that a scorer with the params *spec* judges: with `windows`, at most so many of each side."""
    most = getattr(spec, "windows", None)
    return examples if most is None else examples.some(spec.negatives, most)


def drawn_latents(contexts: Shelf, seed: int, sae_id: str, most: int | None, saes: Collection[str] | None = None) -> set[int]:
    """Return at most *most* latents of dictionary *sae_id* that have contexts; explainers and scorers with equal *most* get the same.

    There are none where *saes* names other dictionaries only.
    """
    if saes is not None and sae_id not in saes:
        return set()
    return set(explained(np.unique(contexts.read(CONTEXTS, columns=["latent"])["latent"].to_numpy()), seed, sae_id, most).tolist())


def scored_latents(params: Params, sae_id: str, spec: DrawnParams, contexts: Shelf) -> set[int]:
    """Return the latents of dictionary *sae_id* that a scorer with the params *spec* works on: none if it is not scored."""
    return drawn_latents(contexts, params.seed, sae_id, spec.latents, spec.saes if params.saes[sae_id].scored else ())


def explained(latents: npt.NDArray[Number], seed: int, sae_id: str, most: int | None) -> npt.NDArray[Number]:
    """Return at most *most* of the *latents* of dictionary *sae_id* (all that have contexts), drawn by address, in their order."""
    return drawn(latents, most, seed_of(seed, "explained latents", sae_id))
