"""The lexical explainer: token statistics put into words. It is a baseline, not a language model.

It compares where a latent fires with where it stays silent. It names, best first, the tokens, preceding tokens and pairs of both that carry
the latent's activation and seldom occur without it; then the tokens that often stand before and after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Floats, Ints
from builders.contexts.contexts import Examples
from builders.engines.prompts import quote
from builders.explainers.cues import Cue, write


@dataclass(frozen=True)
class Settings:
    """At most *cues* cues, each with at least *least_share* of the activation; at most *neighbours* tokens named before and after."""

    cues: int = 6
    least_share: float = 0.03
    neighbours: int = 3


def explain(examples: Examples, pieces: list[str], settings: Settings) -> str | None:
    """Return the explanation of a latent from its windows, or None if nothing recurs in them; *pieces* are the text of each token id."""
    tokens = examples.tokens.astype(np.int64)
    before = np.full_like(tokens, -1)
    before[:, 1:] = tokens[:, :-1]
    cues = _find_cues(tokens.ravel(), before.ravel(), examples.activations.ravel(), pieces, settings)
    if not cues:
        return None
    around = _around(examples, pieces, settings.neighbours)
    return " ".join([write(cues), *around])


def _find_cues(tokens: Ints, before: Ints, values: npt.NDArray[np.float32], pieces: list[str], settings: Settings) -> list[Cue]:
    """Return cues by greedy cover: the best cue takes its activation, then the best cue for the rest, and so on."""
    size = len(pieces)
    # Every cue is one integer. There are three kinds: a token; whatever follows a token; a pair. -1: no token stands before.
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


def _occurrences(codes: Ints, fires: Bools) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the distinct codes, each element's place among them, how often each code occurs, and how often the latent fires there."""
    distinct, place, count = np.unique(codes, return_inverse=True, return_counts=True)
    return distinct, place, count, np.bincount(place, weights=fires, minlength=len(distinct)).astype(np.int64)


def _best(left: Floats, distinct: Ints, place: Ints, count: Ints, fired: Ints) -> tuple[float, float, int, float]:
    """Return (merit, activation taken, code, reliability) of the best cue of one kind.

    Merit is activation times reliability. A single firing is no pattern, so a cue needs at least two.
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
    """Return sentences that name the tokens often standing before and after the firing tokens, weighted by activation."""
    sentences = []
    for heading, shift in (("Often before it", 1), ("Often after it", -1)):
        tokens = np.roll(examples.tokens, shift, axis=1)
        values = examples.activations.copy()
        values[:, 0 if shift == 1 else -1] = 0.0  # it was rolled here from the other end of the window
        mass = np.bincount(tokens.ravel(), weights=values.ravel(), minlength=len(pieces))
        top = np.argsort(-mass, kind="stable")[:most]
        named = [quote(pieces[token]) for token in top if mass[token] >= 0.1 * mass.sum() > 0]
        if named:
            sentences.append(f"{heading}: {', '.join(named)}.")
    return sentences
