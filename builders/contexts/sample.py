"""A sample of a dictionary's latents, drawn before any window is cut, with the probability at which each latent is in it.

See docs/science.md#contexts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from builders.arrays import Bools, Floats, Ints, ranks, sort_order
from builders.saes.latents import LATENTS
from builders.seeds import uniforms

STRATA = 10


def _by_density(density: Floats) -> Ints:
    """Return the stratum of each density [n], all above zero: STRATA equal parts of the range of their logarithms, 0 the rarest."""
    log = np.log(density)
    low, width = log.min(initial=np.inf), np.ptp(log) if len(log) else 0.0
    strata: Ints = np.minimum((log - low) / max(width, 1e-12) * STRATA, STRATA - 1).astype(np.int64)
    return strata


def _one(density: Floats) -> Ints:
    return np.zeros(len(density), dtype=np.int64)


STRATIFIED: dict[str, Callable[[Floats], Ints]] = {"density": _by_density, "none": _one}


def draw(windows: Ints, density: Floats, needed: int, most: int | None, by: str, seed: int) -> tuple[Bools, Floats]:
    """Return which latents are taken, and the probability of each to be taken; all arrays are [latents].

    Of the latents that fire in *needed* windows or more, at most *most* (None: all) are drawn. The strata *by* which they are drawn take
    turns, each with a latent drawn at random, until *most* are drawn; one that is used up is passed over. So a larger sample holds every
    smaller one. Latents with fewer windows are not drawn but all taken, so that each is told as a failure.
    """
    able = np.flatnonzero(windows >= needed)
    taken, inclusion = np.ones(len(windows), dtype=bool), np.ones(len(windows))
    if most is None or len(able) <= most:
        return taken, inclusion
    stratum = STRATIFIED[by](density[able])
    order = sort_order(stratum, uniforms(seed, able))
    turn = np.empty(len(able), dtype=np.int64)
    turn[order] = ranks(stratum[order])[0]
    drawn = np.lexsort((stratum, turn))[:most]
    sizes = np.bincount(stratum, minlength=STRATA)
    inclusion[able] = (np.bincount(stratum[drawn], minlength=STRATA) / np.maximum(sizes, 1))[stratum]
    taken[able] = False
    taken[able[drawn]] = True
    return taken, inclusion


def noted(latents: pa.Table, inclusion: Floats) -> pa.Table:
    """Return LATENTS rows with the probability of each to be taken."""
    place = LATENTS.schema.get_field_index("inclusion")
    return latents.set_column(place, LATENTS.schema.field(place), pa.array(inclusion))
