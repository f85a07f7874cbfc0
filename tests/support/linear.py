"""Linear toy models whose Jacobians are known: blocks that add a matrix product, and blocks that also remember."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

D, VOCABULARY = 6, 11


class Block(nn.Module):
    """Adds A x(t) and, if it remembers, B s(t) to x(t), where s(t) = R s(t − 1) + C x(t − 1); all are random [d, d] matrices."""

    def __init__(self, *, remembers: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.r = (torch.randn(D, D) / 4 for _ in range(4))
        self.remembers = remembers

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output [rows, length, d]."""
        memory, added = torch.zeros_like(x[:, 0]), []
        for token in x.unbind(1):
            added.append(token @ self.a.T + memory @ self.b.T * self.remembers)
            memory = memory @ self.r.T + token @ self.c.T
        return x + torch.stack(added, dim=1)


class LinearModel(nn.Module):
    """An embedding, linear blocks in `layers`, and a linear head without a norm."""

    def __init__(self, layers: int = 3, *, remembers: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embed = nn.Embedding(VOCABULARY, D)
            self.blocks = [Block(remembers=remembers) for _ in range(layers)]
            self.layers = nn.ModuleList(self.blocks)
            self.head = nn.Linear(D, VOCABULARY, bias=False)
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=layers))
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, input_ids: Tensor, *, use_cache: bool = False) -> Tensor:  # what models of transformers take
        """Return logits [rows, length, vocabulary]."""
        x: Tensor = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x)
        return logits
