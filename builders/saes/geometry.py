"""Which latents of a dictionary read or write in similar directions, by cosine as in EleutherAI/delphi (docs/science.md#neighbours)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from builders.arrays import Bools
from builders.saes.coder import Coder, SparseCoder, largest
from builders.saes.neighbours import CELLS, Near, joined, nearest

ROUNDING = 1e-5  # a cosine below this is zero up to rounding


def directions_of(coder: Coder, measure: str) -> Tensor | None:
    """Return the directions [width, d] that latents write (`decoder`) or read (`encoder`); None if the coder has no encoder rows."""
    if measure == "decoder":
        return coder.directions(0, coder.width)
    return coder.w_enc if isinstance(coder, SparseCoder) else None


@torch.no_grad()
def cosines(directions: Tensor, alive: Bools, most: int) -> Near:
    """Return for each latent the *most* others whose *directions* [width, d] have the largest cosines with its own.

    Only latents that are *alive* [width] and cosines above zero count. Of equal cosines the lower latent comes first. Latents are
    handled in blocks of at most CELLS pairs.
    """
    directions = directions.float()
    width = len(directions)
    norms = directions.norm(dim=1)
    scale = torch.where((norms > 0) & torch.from_numpy(alive).to(norms.device), 1 / norms, 0)  # dead latents have no neighbours
    parts = []
    step = max(1, CELLS // width)
    for low in range(0, width, step):
        some = directions[low : low + step] @ directions.T * scale[low : low + step, None] * scale
        own = torch.arange(len(some), device=some.device)
        some[own, own + low] = 0
        values, columns = (part.cpu().numpy() for part in largest(some, most))
        values = np.where(values > ROUNDING, values, 0).astype(np.float32)
        latent = np.repeat(np.arange(low, low + len(values)), values.shape[1])
        parts.append(nearest(latent, columns.reshape(-1).astype(np.int64), np.minimum(values, 1).reshape(-1), most))
    return joined(parts)
