"""SparseCoder: encode → sparse latents, decode; the same small thing whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SparseCode:
    """The non-zero latents of *n* vectors, in order of vector: vector index, latent, value (all [nnz])."""

    vector: Tensor
    latent: Tensor
    value: Tensor
    n: int


@dataclass(frozen=True)
class TopK:
    """Keep the *k* largest pre-activations of each vector that are above zero."""

    k: int
    name = "topk"

    def select(self, pre: Tensor) -> SparseCode:
        """Return the code of pre-activations [n, width]."""
        values, latents = pre.topk(min(self.k, pre.shape[1]), dim=1)
        vectors = torch.arange(len(pre), device=pre.device)[:, None].expand_as(latents)
        fired = values > 0
        return SparseCode(vectors[fired], latents[fired], values[fired], len(pre))


@dataclass(frozen=True)
class JumpReLU:
    """Keep a pre-activation where it is above its latent's *threshold* [width] (Rajamanoharan et al. 2024, eq. 3)."""

    threshold: Tensor
    name = "jumprelu"

    def select(self, pre: Tensor) -> SparseCode:
        """Return the code of pre-activations [n, width]."""
        vectors, latents = torch.nonzero(pre > self.threshold.clamp(min=0), as_tuple=True)
        return SparseCode(vectors, latents, pre[vectors, latents], len(pre))


Activation = TopK | JumpReLU


@dataclass(frozen=True)
class SparseCoder:
    """f(x) = activation(W_enc (x − b_dec) + b_enc), x̂ = f W_dec + b_dec; rows of W_enc, W_dec [width, d] are latents."""

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    activation: Activation

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self.w_enc)

    @property
    def d_model(self) -> int:
        """Size of the vectors it reads."""
        return self.w_enc.shape[1]

    def preactivations(self, x: Tensor) -> Tensor:
        """Return W_enc (x − b_dec) + b_enc for vectors [n, d], as [n, width]."""
        return F.linear(x - self.b_dec, self.w_enc, self.b_enc)

    def encode(self, x: Tensor) -> SparseCode:
        """Return the sparse code of vectors [n, d]."""
        return self.activation.select(self.preactivations(x.to(self.w_enc.dtype)))

    def decode(self, code: SparseCode) -> Tensor:
        """Return the reconstruction [n, d] of a code, touching only the latents that fired."""
        starts = torch.searchsorted(code.vector, torch.arange(code.n, device=code.vector.device))
        summed = F.embedding_bag(code.latent, self.w_dec, starts, mode="sum", per_sample_weights=code.value)
        return summed + self.b_dec

    def to(self, device: str) -> SparseCoder:
        """Return the coder on *device*."""
        activation = self.activation
        if isinstance(activation, JumpReLU):
            activation = JumpReLU(activation.threshold.to(device))
        w_enc, b_enc, w_dec, b_dec = (t.to(device) for t in (self.w_enc, self.b_enc, self.w_dec, self.b_dec))
        return SparseCoder(w_enc, b_enc, w_dec, b_dec, activation)
