"""Steering vectors: the contrast between a subject's activations after one answer and after the other.

The question of a pair is read once. From there the letter of the matching and the letter of the other answer are read. At this last token
the output of every block and the recurrent state of every layer are recorded.
Sources: Rimsky et al. 2024; for the state, Paulo, Marshall and Belrose 2024 (arXiv:2404.05971); see docs/science.md#steering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from builders.arrays import Floats
from builders.errors import UserError
from builders.steering.asking import Prompt
from builders.steering.ways import DIFFERENCE, LDA
from builders.steering.weights import Letters, balanced
from builders.subjects.hookpoints import blocks_of, watched
from builders.subjects.states import Parts, advance, family_of

MATCHING, OTHER = 0, 1


@dataclass(frozen=True)
class Labels:
    """Which answer to each pair is called the matching one, and how much the pair counts.

    *signs* [draws, pairs] are 1 where the labels are the true ones and −1 where they are exchanged; *weights* [draws, pairs] add up to 1 in
    each draw. The first draw has the true labels.
    """

    signs: Floats
    weights: Floats


def labels_of(letters: Letters, signs: Floats) -> Labels:
    """Return labels with weights that balance the letters of the matching options, draw by draw; *letters* are those of the true labels.

    Raises UserError if one letter is always the matching one, so that no weights balance the letters.
    """
    turned = [[(other, match) if sign < 0 else (match, other) for (match, other), sign in zip(letters, row, strict=True)] for row in signs]
    weights = np.stack([balanced(some) for some in turned])
    if not weights[0].any():
        raise UserError(
            f"every answer that matches the behaviour is ({letters[0][0]}), so its letter looks like the behaviour; "
            "ask in both orders of the options (`steering.orders: both`), or give questions that match with either letter"
        )
    return Labels(signs, weights)


@dataclass(frozen=True)
class Contrast:
    """What a model holds after either answer to every pair.

    *residual* is the residual stream [pairs, 2, layers, width], the matching answer first; *state* is, for every layer, the weighted mean
    difference of each part of its recurrent state [draws, ...] under each draw of *labels*.
    """

    residual: Tensor
    state: list[Parts]
    labels: Labels


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
def contrast(model: nn.Module, prompts: Sequence[Prompt], batch: int, labels: Labels | None = None) -> Contrast:
    """Return what *model* holds after either answer to each of *prompts*; it reads at most *batch* rows at a time.

    Without *labels* all prompts count alike.
    """
    if not prompts:
        raise ValueError("there is no contrast without prompts; give at least one")
    labels = labels or Labels(np.ones((1, len(prompts))), np.full((1, len(prompts)), 1 / len(prompts)))
    signed = torch.from_numpy(labels.signs * labels.weights)
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
                change = torch.tensordot(signed[:, places], both[:, MATCHING] - both[:, OTHER], dims=1)
                total[name] = total[name] + change if name in total else change
    return Contrast(residual, [{name: total.float() for name, total in parts.items()} for parts in totals], labels)  # type: ignore[arg-type]


def difference(found: Contrast, draw: int = 0) -> Directions:
    """Return the mean after the matching answer minus the mean after the other, under the labels of *draw*, without normalisation.

    Source: Rimsky et al. 2024, equation 1; there every pair counts alike.
    """
    signed = torch.from_numpy(found.labels.signs[draw] * found.labels.weights[draw]).float()
    stream = torch.tensordot(signed, found.residual[:, MATCHING] - found.residual[:, OTHER], dims=1)
    return Directions(stream, [{name: part[draw] for name, part in parts.items()} for parts in found.state])


def discriminant(found: Contrast, draw: int = 0) -> Directions:
    """Return Fisher's linear discriminants of the residual stream: the inverse within-class covariance times the mean difference.

    The covariance is the mean of both classes', each shrunk (Ledoit-Wolf) in units of its standard deviations. Each vector is as long as
    the mean difference of its layer, so that a multiplier means a push of the same length. The state gets no vectors, because its parts
    have more dimensions than there are pairs. Raises UserError for a single pair, which has no covariance, and for a residual stream that
    is not finite.
    """
    pairs, _, layers, _ = found.residual.shape
    if pairs < 2:
        raise UserError("vectors by lda cannot be made from a single question; give more questions, or leave the method lda out")
    if not found.residual.isfinite().all():
        raise UserError("the residual stream holds numbers that are not finite; run the subject in float32, or leave the method lda out")
    exchanged = torch.from_numpy(found.labels.signs[draw] < 0)[:, None, None, None]
    stream = torch.where(exchanged, found.residual.flip(1), found.residual)
    means = difference(found, draw).residual
    rows = [_discriminant(stream[:, :, layer].numpy(), means[layer].double().numpy()) for layer in range(layers)]
    directions = torch.from_numpy(np.stack(rows)).float()
    return Directions(nn.functional.normalize(directions, dim=-1) * means.norm(dim=-1, keepdim=True), [{} for _ in range(layers)])


def _discriminant(classes: npt.NDArray[np.float32], mean: Floats) -> Floats:
    """Return Σ⁻¹ *mean* [width], Σ being the mean of the shrunk covariances of both *classes* [pairs, 2, width]."""
    from sklearn.covariance import ledoit_wolf  # this import takes a second, which most stages need not spend

    within = np.zeros((len(mean), len(mean)))
    for side in range(2):
        scale = classes[:, side].std(0)
        scale[scale == 0] = 1
        within += np.outer(scale, scale) * ledoit_wolf((classes[:, side] - classes[:, side].mean(0)) / scale)[0] / 2
    within += np.eye(len(mean)) * max(float(within.trace()) * 1e-12, 1e-300)  # a width in which nothing varies has no inverse
    return np.linalg.solve(within, mean).astype(np.float64)


def random_like(directions: Directions, seed: int) -> Directions:
    """Return random directions as long as *directions*, layer by layer and part by part; what is zero stays zero."""
    generator = torch.Generator().manual_seed(seed)

    def one(vector: Tensor) -> Tensor:
        drawn = (torch.randn(vector.shape, generator=generator) * (vector != 0)).flatten()
        found: Tensor = nn.functional.normalize(drawn, dim=0).view_as(vector) * vector.norm()
        return found

    return Directions(
        torch.stack([one(vector) for vector in directions.residual]),
        [{name: one(part) for name, part in parts.items()} for parts in directions.state],
    )


METHODS: dict[str, Callable[..., Directions]] = {DIFFERENCE: difference, LDA: discriminant}
