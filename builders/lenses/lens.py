"""What a lens is, the logit lens, and the tokens that lenses are compared at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import pyarrow as pa
import torch
from torch import Tensor, nn

from builders.subjects.anatomy import Anatomy, require_whole
from builders.subjects.harvest import read_rows
from builders.subjects.hookpoints import watched

CELLS = 2**22  # logits of a chunk of tokens: 16 MiB in float32


class Lens(Protocol):
    """What turns a vector of an early layer into one of the last layer; its logits are `anatomy.logits(lens.carried(layer, hidden))`.

    Layer ℓ is the residual stream after ℓ blocks, 0 … L.
    """

    @property
    def name(self) -> str:
        """What it is called: logit, tuned, jacobian, jacobian-later, jacobian-state."""

    def carried(self, layer: int, hidden: Tensor) -> Tensor:
        """Return vectors *hidden* [n, d_model] of *layer* as those of layer L [n, d_model]."""


@dataclass(frozen=True)
class LogitLens:
    """The vector itself: every layer is read as if it were the last (nostalgebraist 2020).

    RWKV's early vectors are larger than its last ones by powers of two. That is left as it is: the final norm takes it out.
    """

    name: str = "logit"

    def carried(self, layer: int, hidden: Tensor) -> Tensor:  # noqa: ARG002  # the layer makes no difference
        """Return *hidden* [n, d_model]."""
        return hidden


@dataclass(frozen=True)
class Chunk:
    """Some counted tokens of a batch, and what lenses are compared with there.

    *place* [n] is a token's row in the batch and *target* [n] the token that follows it; *final* [n, vocabulary] are the model's own
    log-probabilities of what follows, in float32. *hidden* holds the residual stream [n, d_model] of each layer 0 … L, in float32.
    """

    place: Tensor
    target: Tensor
    final: Tensor
    hidden: list[Tensor]

    @property
    def loss(self) -> Tensor:
        """The model's own cross-entropy at each token [n], in nats."""
        return -self.final.gather(1, self.target[:, None])[:, 0]

    @cached_property
    def probability(self) -> Tensor:
        """The model's own distributions [n, vocabulary]."""
        return self.final.exp()

    @cached_property
    def top(self) -> Tensor:
        """The model's own top tokens [n]."""
        return self.final.argmax(-1)


def counted(is_text: Tensor) -> Tensor:
    """Return the positions at which lenses are compared [rows, longest]: those that a text token follows in the same row.

    These are the predictions that :func:`builders.saes.fidelity.row_losses` counts: also the one that is made at a special token that
    begins a row, but none of special tokens or padding.
    """
    follows = torch.zeros_like(is_text)
    follows[:, :-1] = is_text[:, 1:]
    return follows


@torch.no_grad()
def chunks(model: nn.Module, anatomy: Anatomy, rows: pa.Table, device: str, ahead: int = 0, cells: int = CELLS) -> Iterator[Chunk]:
    """Yield the counted tokens of one batch of TOKENS *rows*, in order, after one pass of *model*.

    The vectors are those of *ahead* positions before: 1 suits a lens that says what the next position will be, and leaves out the first
    position of a row. A chunk has at most *cells* log-probabilities. Raises UserError unless the last layer gives the model's own
    logits.
    """
    ids, is_text = read_rows(rows, device)
    place, position = torch.nonzero(counted(is_text)[:, ahead:], as_tuple=True)
    with watched(model, anatomy.layers) as seen:
        own: Tensor = model(input_ids=ids, use_cache=False).logits
    size = max(1, cells // own.shape[-1])
    for start in range(0, len(place), size):
        row, before = place[start : start + size], position[start : start + size]
        here = before + ahead
        logits = own[row, here].float()
        if start == 0:
            require_whole(anatomy, seen[anatomy.layers[-1]][row, here], logits)
        hidden = [seen[layer][row, before].float() for layer in anatomy.layers]
        yield Chunk(row, ids[row, here + 1], logits.log_softmax(-1), hidden)
