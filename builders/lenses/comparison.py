"""What lenses are compared by: quantities at each token, summed by row, and the level that a lens has by chance."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor

from builders.lenses.lens import Chunk, Lens
from builders.saes.fidelity import RowSums
from builders.subjects.anatomy import Anatomy

TOP = 5
QUANTITIES = ("ce", "kl", "entropy", "top1", "top5")  # what `compared` returns of each token


class Sums:
    """Quantities of each lens and layer, summed over the counted tokens of each of *rows* rows."""

    def __init__(self, rows: int) -> None:
        self.tokens = torch.zeros(rows, dtype=torch.float64)
        self.totals: dict[Hashable, Tensor] = {}

    def count(self, row: Tensor) -> None:
        """Count tokens in these rows [n]."""
        self.tokens += torch.bincount(row.cpu(), minlength=len(self.tokens))

    def add(self, of: Hashable, row: Tensor, values: Tensor) -> None:
        """Add *values* [quantities, n] of tokens in these rows [n]; *of* says of what, such as a lens and a layer."""
        empty = torch.zeros(len(values), len(self.tokens), dtype=torch.float64)
        self.totals.setdefault(of, empty).index_add_(1, row.cpu(), values.cpu().double())

    def means(self, of: Hashable) -> list[RowSums]:
        """Return the sums of each quantity *of* something, over the rows that have counted tokens."""
        some = self.tokens > 0
        return [RowSums(total[some], self.tokens[some]) for total in self.totals[of]]


class Constant:
    """The best lens that does not look at its vector, for each quantity: the chance level of lenses."""

    def __init__(self, vocabulary: int) -> None:
        self.follows, self.tops = (torch.zeros(vocabulary, dtype=torch.int64) for _ in range(2))
        self.probability = torch.zeros(vocabulary, dtype=torch.float64)
        self.entropy = 0.0

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in."""
        vocabulary = len(self.follows)
        self.follows += torch.bincount(chunk.target.cpu(), minlength=vocabulary)
        self.tops += torch.bincount(chunk.top.cpu(), minlength=vocabulary)
        self.probability += chunk.probability.sum(0).cpu().double()
        self.entropy += float(torch.special.entr(chunk.probability).sum(dtype=torch.float64))

    def levels(self) -> dict[str, float]:
        """Return the columns of chance.

        The constant distribution of least cross-entropy is the tokens' frequencies f, whose ce is H(f). That of least KL is the mean p of
        the model's distributions p_t (Cover & Thomas 2006, lemma 10.8.1), whose kl is H(p) - mean H(p_t).
        """
        n = int(self.follows.sum())
        entropy = [float(torch.special.entr(some.double() / n).sum()) for some in (self.follows, self.probability)]
        often = self.tops.sort(descending=True).values / n
        return {
            "ce_chance": entropy[0],
            "kl_chance": max(0.0, entropy[1] - self.entropy / n),
            "top1_chance": float(often[0]),
            "top5_chance": min(1.0, float(often[:TOP].sum())),
        }


def compared(chunk: Chunk, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the QUANTITIES [5, n] of a lens's *logits* [n, vocabulary], and its top tokens [n]."""
    lens = logits.log_softmax(-1)
    leaders = lens.topk(min(TOP, lens.shape[-1]), dim=-1).indices
    agrees = leaders == chunk.top[:, None]
    ce = -lens.gather(1, chunk.target[:, None])[:, 0]
    kl = (chunk.probability * (chunk.final - lens)).sum(-1).clamp(min=0)  # rounding can take a sum of zero below it
    entropy = -(lens.exp() * lens).sum(-1)
    return torch.stack([ce, kl, entropy.clamp(min=0), agrees[:, 0].float(), agrees.any(-1).float()]), leaders[:, 0]


def readings(anatomy: Anatomy, lenses: Sequence[Lens], chunk: Chunk) -> Iterator[tuple[str, int, Tensor]]:
    """Yield each lens's name, each layer and the lens's logits [n, vocabulary] there, one at a time."""
    for lens in lenses:
        for layer, hidden in enumerate(chunk.hidden):
            yield lens.name, layer, anatomy.logits(lens.carried(layer, hidden))


def error_of(sums: RowSums) -> float | None:
    """Return the standard error of a mean, or None for a single row."""
    return sums.se if len(sums.total) > 1 else None
