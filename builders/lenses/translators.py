"""The tuned lens: an affine translator for each layer, its divergence from the model's own prediction, and the gradient of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from builders.subjects.anatomy import Anatomy

CELLS = 2**19  # logits that are held at a time: 2 MiB in float32, so that the passes over them stay in a core's cache
LEAST = 256  # tokens whose logits are held at a time, however large the vocabulary is: fewer would read the unembedding too often


@dataclass(frozen=True)
class TunedLens:
    """One affine translator for each layer 0 … L − 1: h + W h + b (Belrose et al. 2023, equation 8, as the tuned-lens package has it).

    *weight* is [L, d_model, d_model] and *bias* [L, d_model], both float32. Layer L is the identity.
    """

    weight: Tensor
    bias: Tensor
    name: str = "tuned"

    @classmethod
    def zeros(cls, layers: int, d_model: int, device: str) -> TunedLens:
        """Return translators [layers] of zeros: the logit lens."""
        return cls(torch.zeros(layers, d_model, d_model, device=device), torch.zeros(layers, d_model, device=device))

    @property
    def tensors(self) -> list[Tensor]:
        """The weight and the bias."""
        return [self.weight, self.bias]

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return vectors *hidden* [n, d_model] of *layer* as those of layer L [n, d_model], in float32."""
        hidden = hidden.float()
        return hidden if layer == len(self.weight) else hidden + F.linear(hidden, self.weight[layer], self.bias[layer])

    def all_carried(self, hidden: Tensor) -> Tensor:
        """Return float32 vectors *hidden* [L, n, d_model] of layers 0 … L − 1 as those of layer L [L, n, d_model]."""
        return torch.baddbmm(hidden + self.bias[:, None], hidden, self.weight.mT)


@torch.no_grad()
def divergences(anatomy: Anatomy, lens: TunedLens, hidden: Sequence[Tensor], slopes: TunedLens | None = None) -> Tensor:
    """Return KL(final ‖ lens) of each layer 0 … L − 1 and token [L, n], in nats; *hidden* holds layers 0 … L ([n, d_model] each).

    The gradient of each layer's sum over tokens is added to *slopes*, whose tensors have the shapes of the lens's. Logits are held for one
    layer and some tokens at a time.
    """
    size = max(LEAST, CELLS // anatomy.vocabulary)
    parts = (torch.stack([layer[start : start + size] for layer in hidden]) for start in range(0, len(hidden[0]), size))
    found = [_of_chunk(anatomy, lens, part.float(), slopes) for part in parts]
    return torch.cat(found, dim=1) if found else lens.bias.new_zeros(len(lens.bias), 0)


def _of_chunk(anatomy: Anatomy, lens: TunedLens, hidden: Tensor, slopes: TunedLens | None) -> Tensor:
    """Do the same for a chunk of tokens, whose *hidden* is [L + 1, n, d_model]."""
    early, carried = hidden[:-1], lens.all_carried(hidden[:-1])
    logits = anatomy.logits(hidden[-1])
    p = logits.softmax(-1)
    settled = torch.linalg.vecdot(p, logits) - _log_sum(logits, p)  # minus the entropy of the model's own prediction
    kl = torch.empty_like(carried[..., 0])
    for layer, vectors in enumerate(carried):
        with torch.set_grad_enabled(slopes is not None):
            leaf = vectors.detach().requires_grad_(slopes is not None)
            logits = anatomy.logits(leaf)
        here = logits.detach()
        q = here.softmax(-1)
        kl[layer] = settled - torch.linalg.vecdot(p, here) + _log_sum(here, q)
        if slopes is not None:  # the derivative of the divergence by the logits is q − p
            carried[layer] = torch.autograd.grad(logits, leaf, q.sub_(p))[0]
    if slopes is not None:
        slopes.weight.baddbmm_(carried.mT, early)
        slopes.bias.add_(carried.sum(1))
    return kl


def _log_sum(logits: Tensor, softmax: Tensor) -> Tensor:
    """Return log Σ exp(logits) [n] from the largest logit and its probability, which saves a pass of exponentials."""
    return logits.amax(-1) - softmax.amax(-1).log()
