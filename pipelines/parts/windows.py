"""The windows that `contexts` left, latent by latent, and which latents are drawn to be asked about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from builders.contexts.contexts import CONTEXTS, READ, Examples, by_latent
from builders.lake.shards import Shelf
from builders.seeds import Number, drawn, seed_of


def windows(contexts: Shelf, split: str) -> Iterator[Examples]:
    """Yield the windows of *split* of every latent, in order."""
    for path in contexts.paths(CONTEXTS):
        yield from by_latent(pq.read_table(path, columns=READ), split)


def drawn_latents(contexts: Shelf, seed: int, name: str, most: int | None) -> set[int]:
    """Return at most *most* latents of dictionary *name* that have contexts, the same for whoever asks for as many."""
    return set(explained(np.unique(contexts.read(CONTEXTS, columns=["latent"])["latent"].to_numpy()), seed, name, most).tolist())


def explained(latents: npt.NDArray[Number], seed: int, name: str, most: int | None) -> npt.NDArray[Number]:
    """Return at most *most* of the *latents* of dictionary *name* that have contexts, drawn by address and in their order."""
    return drawn(latents, most, seed_of(seed, "explained latents", name))
