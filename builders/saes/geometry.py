"""Which latents of a dictionary read or write in nearly the same direction. SCIENCE A4."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from builders.saes.coder import Coder, SparseCoder, largest
from builders.saes.neighbours import CELLS, Near, joined, nearest

ROUNDING = 1e-5  # a cosine below it is what rounding leaves of none


def directions_of(coder: Coder, measure: str) -> Tensor | None:
    """Return what the latents write (`decoder`) or read (`encoder`) [width, d]; None where they read no direction of their own."""
    if measure == "decoder":
        return coder.directions(0, coder.width)
    return coder.w_enc if isinstance(coder, SparseCoder) else None


@torch.no_grad()
def cosines(directions: Tensor, alive: npt.NDArray[np.bool_], most: int) -> Near:
    """Return the *most* latents whose *directions* [width, d] have the largest cosine with each one's, of those *alive* [width].

    Only a cosine above zero counts. Some latents at a time; of equals the lower latent comes first.
    """
    directions = directions.float()
    width = len(directions)
    norms = directions.norm(dim=1)
    scale = torch.where((norms > 0) & torch.from_numpy(alive).to(norms.device), 1 / norms, 0)  # the dead are near nothing
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
