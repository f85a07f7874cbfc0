"""The lexical explainer: contrastive token statistics put into words. An honest baseline, not a language model.

It compares where the latent fires with where it stays silent, and names, best first, the tokens, preceding tokens
and pairs that carry its activation and seldom occur without it; then what usually stands around them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.contexts.contexts import Examples
from builders.engines.prompts import quote
from builders.explainers.cues import Cue, write

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """At most *cues* clauses, each with at least *least_share* of the activation; *neighbours* named around it."""

    cues: int = 6
    least_share: float = 0.03
    neighbours: int = 3


def explain(examples: Examples, pieces: list[str], settings: Settings) -> str | None:
    """Return what the latent fires on, or None where nothing recurs in its windows."""
    tokens = examples.tokens.astype(np.int64)
    before = np.full_like(tokens, -1)
    before[:, 1:] = tokens[:, :-1]
    cues = _find_cues(tokens.ravel(), before.ravel(), examples.activations.ravel(), pieces, settings)
    if not cues:
        return None
    around = _around(examples, pieces, settings.neighbours)
    return " ".join([write(cues), *around])


def _find_cues(tokens: Ints, before: Ints, values: npt.NDArray[np.float32], pieces: list[str], settings: Settings) -> list[Cue]:
    """Return cues by greedy cover: each takes the activation that the ones before it left."""
    size = len(pieces)
    # The three kinds of cue as one integer each: a token; what follows a token; a pair. -1 where there is no token before.
    kinds = [tokens, np.where(before < 0, -1, size + before), np.where(before < 0, -1, (2 + before) * size + tokens)]
    total = float(values.sum())
    left = values.astype(np.float64)
    found: list[Cue] = []
    counted = [_occurrences(kind, values > 0) for kind in kinds]
    while len(found) < settings.cues:
        best = max((_best(left, *counts) for counts in counted), default=None)
        if best is None or not best[1] or best[1] < settings.least_share * total:
            break
        _, mass, code, reliability = best
        found.append(_cue(code, size, pieces, mass / total, reliability))
        left[kinds[min(code // size, 2)] == code] = 0.0
    return found


def _occurrences(codes: Ints, fires: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the distinct codes, each element's place among them, how often each occurs, and how often it fires."""
    distinct, place, count = np.unique(codes, return_inverse=True, return_counts=True)
    return distinct, place, count, np.bincount(place, weights=fires, minlength=len(distinct)).astype(np.int64)


def _best(left: npt.NDArray[np.float64], distinct: Ints, place: Ints, count: Ints, fired: Ints) -> tuple[float, float, int, float]:
    """Return (merit, activation taken, code, reliability) of the best cue of one kind.

    Merit is activation times reliability; one firing is no pattern, so a cue needs two.
    """
    mass = np.bincount(place, weights=left, minlength=len(distinct))
    reliability = fired / (count + 1)
    merit = mass * reliability * (fired >= 2) * (distinct >= 0)
    at = int(merit.argmax())
    return float(merit[at]), float(mass[at]) if merit[at] > 0 else 0.0, int(distinct[at]), float(reliability[at])


def _cue(code: int, size: int, pieces: list[str], share: float, reliability: float) -> Cue:
    if code < size:
        return Cue(pieces[code], None, share, reliability)
    if code < 2 * size:
        return Cue(None, pieces[code - size], share, reliability)
    before, token = divmod(code, size)
    return Cue(pieces[token], pieces[before - 2], share, reliability)


def _around(examples: Examples, pieces: list[str], most: int) -> list[str]:
    """Return sentences on what often stands before and after the firing tokens, weighted by activation."""
    sentences = []
    for words, shift in (("Often before it", 1), ("Often after it", -1)):
        tokens = np.roll(examples.tokens, shift, axis=1)
        values = examples.activations.copy()
        values[:, 0 if shift == 1 else -1] = 0.0  # rolled round from the other end
        mass = np.bincount(tokens.ravel(), weights=values.ravel(), minlength=len(pieces))
        top = np.argsort(-mass, kind="stable")[:most]
        named = [quote(pieces[token]) for token in top if mass[token] >= 0.1 * mass.sum() > 0]
        if named:
            sentences.append(f"{words}: {', '.join(named)}.")
    return sentences
