"""The neuron basis and an untrained dictionary, the baselines of trained SAEs (Paulo et al. 2024; see docs/science.md#saes)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from builders.saes.coder import SparseCode, SparseCoder, TopK, moved, summed


@dataclass(frozen=True)
class Neurons:
    """Each coordinate of a vector is a latent, and the k largest are kept. As a control, *rotation* [d, d] mixes them first."""

    d: int
    activation: TopK
    rotation: Tensor | None = None

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.d

    @property
    def d_in(self) -> int:
        """Size of the vectors it reads."""
        return self.d

    @property
    def d_out(self) -> int:
        """Size of the vectors it writes."""
        return self.d

    def encode(self, x: Tensor) -> SparseCode:
        """Return the sparse code of vectors [n, d]."""
        return self.activation.select([(0, x if self.rotation is None else x @ self.rotation.T)], len(x))

    def decode(self, code: SparseCode, x: Tensor) -> Tensor:
        """Return the vectors [n, d] with all coordinates zero except the kept ones."""
        if self.rotation is not None:
            return summed(code, self.rotation)
        return x.new_zeros(code.n, self.d).index_put((code.vector, code.latent), code.value)

    def directions(self, low: int, high: int) -> Tensor:
        """Return what the latents from *low* up to *high* write [high − low, d]."""
        return torch.eye(self.d)[low:high] if self.rotation is None else self.rotation[low:high]

    def to(self, device: str) -> Neurons:
        """Return the basis on *device*."""
        return moved(self, device)


def neurons(d: int, k: int, rotated: bool, seed: int) -> Neurons:
    """Return the neuron basis of vectors of size *d*; if *rotated*, a random orthogonal basis instead (Haar distribution, by QR)."""
    if not rotated:
        return Neurons(d, TopK(k))
    q, r = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    return Neurons(d, TopK(k), (q * r.diagonal().sign()).T.float().contiguous())  # the signs make it uniform (Mezzadri 2007)


def untrained(width: int, d: int, k: int, seed: int) -> SparseCoder:
    """Return an untrained TopK SAE without biases: Gaussian rows scaled to unit norm are its encoder and its decoder."""
    rows = torch.randn(width, d, generator=torch.Generator().manual_seed(seed))
    rows /= rows.norm(dim=1, keepdim=True)
    return SparseCoder(rows, torch.zeros(width), rows, torch.zeros(d), TopK(k), b_pre=torch.zeros(d))
