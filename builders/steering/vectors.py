"""Steering vectors: the contrast between a subject's activations after one answer and after the other.

The question of a pair is read once. From there the letter of the matching and the letter of the other answer are read. At this last token
the output of every block and the recurrent state of every layer are recorded.
Sources: Rimsky et al. 2024; for the state, Paulo, Marshall and Belrose 2024 (arXiv:2404.05971); see docs/science.md#steering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from builders.errors import UserError
from builders.steering.behaviours import Prompt
from builders.steering.ways import DIFFERENCE, LDA
from builders.subjects.hookpoints import blocks_of, watched
from builders.subjects.states import Parts, advance, family_of

MATCHING, OTHER = 0, 1


@dataclass(frozen=True)
class Contrast:
    """What a model holds after either answer to every pair.

    *residual* is the residual stream [pairs, 2, layers, width], the matching answer first; *state* is, for every layer, the mean difference
    of each part of its recurrent state.
    """

    residual: Tensor
    state: list[Parts]


@dataclass(frozen=True)
class Directions:
    """The steering vectors of one method: for the residual stream [layers, width], and for the parts of each layer's state, if any."""

    residual: Tensor
    state: list[Parts]


def alike(texts: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Yield the places of texts of equal length, at most *most* at a time.

    So batches need no padding, which a recurrent model would read.
    """
    lengths = np.array([len(ids) for ids in texts])
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        yield from (places[low : low + most].tolist() for low in range(0, len(places), most))


@torch.no_grad()
def contrast(model: nn.Module, prompts: Sequence[Prompt], batch: int) -> Contrast:
    """Return what *model* holds after either answer to each of *prompts*; it reads at most *batch* rows at a time."""
    family, blocks, device = family_of(model), blocks_of(model), next(model.parameters()).device
    residual: Tensor | None = None
    totals: list[Parts] = [{} for _ in blocks]
    for places in alike([prompt.ids for prompt in prompts], max(1, batch // 2)):
        some = [prompts[place] for place in places]
        _, memory = advance(model, torch.tensor([prompt.ids for prompt in some], device=device))
        twice = family.rows(memory, torch.arange(len(some), device=device).repeat_interleave(2))
        letters = torch.tensor([letter for prompt in some for letter in (prompt.matching, prompt.other)], device=device)
        with watched(model, blocks) as seen:
            advance(model, letters[:, None], twice)
        stream = torch.stack([seen[name][:, -1].float() for name in blocks], dim=1).unflatten(0, (-1, 2)).cpu()
        residual = torch.empty(len(prompts), *stream.shape[1:]) if residual is None else residual
        residual[places] = stream
        for layer, total in enumerate(totals):
            for name, part in family.parts(twice, layer).items():
                both = part.cpu().double().unflatten(0, (-1, 2))
                total[name] = total.get(name, torch.zeros(())) + (both[:, MATCHING] - both[:, OTHER]).sum(0).cpu()
    if residual is None:
        raise ValueError("there is no contrast without prompts; give at least one")
    return Contrast(residual, [{name: (total / len(prompts)).float() for name, total in totals_.items()} for totals_ in totals])


def difference(found: Contrast) -> Directions:
    """Return the mean after the matching answer minus the mean after the other, without normalisation (Rimsky et al. 2024, equation 1)."""
    return Directions((found.residual[:, MATCHING] - found.residual[:, OTHER]).mean(0), found.state)


def discriminant(found: Contrast) -> Directions:
    """Return Fisher's linear discriminants of the residual stream: the inverse within-class covariance times the mean difference.

    The covariance is shrunk (Ledoit-Wolf). Each vector is as long as the mean difference of its layer, so that a multiplier means a push of
    the same length. The state gets no vectors, because its parts have more dimensions than there are pairs. Raises UserError for a
    single pair, which has no covariance, and for a residual stream that is not finite.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # this import takes a second, which most stages need not spend

    pairs, _, layers, _ = found.residual.shape
    if pairs < 2:
        raise UserError("vectors by lda cannot be made from a single question; give more questions, or leave the method lda out")
    if not found.residual.isfinite().all():
        raise UserError("the residual stream holds numbers that are not finite; run the subject in float32, or leave the method lda out")
    labels = np.tile([1, 0], pairs)
    lengths = difference(found).residual.norm(dim=-1, keepdim=True)
    rows = []
    for layer in range(layers):
        fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(found.residual[:, :, layer].flatten(0, 1).numpy(), labels)
        rows.append(torch.from_numpy(fitted.coef_[0]).float())
    directions = torch.stack(rows)
    return Directions(nn.functional.normalize(directions, dim=-1) * lengths, [{} for _ in range(layers)])


METHODS: dict[str, Callable[[Contrast], Directions]] = {DIFFERENCE: difference, LDA: discriminant}
