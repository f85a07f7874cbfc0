"""Small random dictionaries, and their codes as matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from builders.saes.coder import SparseCoder

if TYPE_CHECKING:
    from torch import Tensor

    from builders.saes.coder import Activation, Norm, SparseCode


def noise(seed: int, *shape: int) -> Tensor:
    """Return a Gaussian tensor, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_coder(seed: int, width: int, d: int, activation: Activation, norm: Norm = "none") -> SparseCoder:
    """Return an SAE of random weights that subtracts its decoder's bias from what it reads."""
    b_dec = noise(seed + 3, d)
    return SparseCoder(noise(seed, width, d), noise(seed + 1, width), noise(seed + 2, width, d), b_dec, activation, b_dec, norm)


def random_transcoder(seed: int, width: int, d_in: int, d_out: int, activation: Activation, norm: Norm = "none") -> SparseCoder:
    """Return a transcoder of random weights with a skip connection."""
    weights = noise(seed, width, d_in), noise(seed + 1, width), noise(seed + 2, width, d_out), noise(seed + 3, d_out)
    return SparseCoder(*weights, activation, torch.zeros(d_in), norm, noise(seed + 4, d_out, d_in), transcodes=True)


def dense(code: SparseCode, width: int) -> Tensor:
    """Return *code* as a matrix [n, width]."""
    matrix = torch.zeros(code.n, width)
    matrix[code.vector, code.latent] = code.value
    return matrix


def strongest(pre: Tensor, k: int) -> Tensor:
    """Return *pre* with all but the *k* largest of each row that are above zero set to zero; of equal ones the first stay."""
    matrix = torch.zeros_like(pre)
    for row, values in enumerate(pre.tolist()):
        for latent in sorted(range(len(values)), key=lambda latent: -values[latent])[:k]:  # used before the next row
            matrix[row, latent] = max(values[latent], 0)
    return matrix


def run_maxima(pre: Tensor, k: int) -> Tensor:
    """Return *pre* with all but the first largest of each of *k* runs of latents that is above zero set to zero."""
    size = pre.shape[1] // k
    runs = [strongest(pre[:, low : low + size], 1) for low in range(0, pre.shape[1], size)]
    return torch.cat(runs, dim=1)
