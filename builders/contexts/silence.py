"""Silent windows: where a latent does not fire, and which of these windows are drawn at random.

Source: Paulo et al. 2024 (arXiv:2410.13928); see docs/science.md#contexts.
"""

from __future__ import annotations

import numpy as np

from builders.arrays import Ints, among, ranks
from builders.contexts.windows import Windows
from builders.saes.activations import Firings
from builders.seeds import uniforms
from builders.text.rows import Grid


def silent_windows(latents: Ints, touched: Ints, total: int, n: int, seed: int) -> tuple[Ints, Ints]:
    """Return (latent, window number) of up to *n* random windows for each of *latents*: none twice, none *touched*.

    There are *total* windows, and *touched* are sorted keys latent · total + window number. Every latent has its own sequence of draws,
    which depends on *seed* and latent alone. A latent that is still short after many draws goes through all windows in a random order
    instead.
    """
    found: list[tuple[Ints, Ints]] = []
    draws, asking = 2 * n + 16, latents
    while len(asking):
        exhaustive = draws >= total
        short = []
        for part in np.array_split(asking, max(1, -(-len(asking) * min(draws, total) // 2**24))):
            latent, number = _fresh(part, touched, total, draws, seed, exhaustive)
            place, _ = ranks(latent)
            full = np.bincount(np.searchsorted(part, latent), minlength=len(part)) >= n
            full |= exhaustive
            done = (place < n) & full[np.searchsorted(part, latent)]
            found.append((latent[done], number[done]))
            short.append(part[~full])
        asking, draws = np.concatenate(short), draws * 4
    if not found:
        return latents, latents
    latent = np.concatenate([part for part, _ in found])
    order = np.argsort(latent, kind="stable")
    return latent[order], np.concatenate([number for _, number in found])[order]


def _fresh(latents: Ints, touched: Ints, total: int, draws: int, seed: int, exhaustive: bool) -> tuple[Ints, Ints]:
    """Return (latent, window number) drawn for *latents*, in order of draw, without repeated and without touched windows."""
    if exhaustive:
        drawn = np.argsort(uniforms(seed, latents[:, None], np.arange(total)[None, :]), axis=1)
    else:
        drawn = (uniforms(seed, latents[:, None], np.arange(draws)[None, :]) * total).astype(np.int64)
    latent = np.repeat(latents, drawn.shape[1])
    key = latent * total + drawn.reshape(-1)
    new = np.zeros(len(key), dtype=bool)
    new[np.unique(key, return_index=True)[1]] = True
    keep = new & ~among(touched, key)
    return latent[keep], drawn.reshape(-1)[keep]


def touched_windows(firings: Firings, chosen: Windows, grid: Grid) -> Ints:
    """Return sorted keys latent · grid.total + window number of the windows that hold a firing or overlap a *chosen* window."""
    fired = _keys(firings.latent.astype(np.int64), firings.row.astype(np.int64), firings.position.astype(np.int64), grid)
    fired = fired[np.concatenate([[True], fired[1:] != fired[:-1]])] if len(fired) else fired  # already sorted
    edges = [_keys(chosen.latent, chosen.row, chosen.start + edge, grid) for edge in (0, grid.window - 1)]
    return np.sort(np.concatenate([fired, *edges]), kind="stable")


def _keys(latent: Ints, row: Ints, position: Ints, grid: Grid) -> Ints:
    number = grid.number(row, position)
    keys: Ints = (latent * grid.total + number)[number >= 0]
    return keys
