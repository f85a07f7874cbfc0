"""Cues: what a lexical explanation says. They are written as plain words, and read back from these words alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Floats
from builders.engines.prompts import quote


@dataclass(frozen=True)
class Cue:
    """A token, the token before it, or both, on which a latent fires.

    Both numbers refer to the windows shown to the explainer, half of which are silent. *share* is the cue's share of the activation,
    without the activation of cues named before it; *reliability* is the share of the cue's occurrences at which the latent fires.
    """

    token: str | None
    after: str | None
    share: float
    reliability: float


QUOTED = r'"(?:[^"\\]|\\.)*"'
CLAUSE = re.compile(
    rf"on (?:whatever follows (?P<only>{QUOTED})|(?P<token>{QUOTED})(?: after (?P<after>{QUOTED}))?)"
    r" \((?P<share>\d+)% of the activation shown, (?P<reliability>\d+)% of its occurrences\)"
)


def write(cues: list[Cue]) -> str:
    """Return the explanation that *cues* make: one sentence."""
    return f"Fires {', '.join(map(_clause, cues))}."


def _clause(cue: Cue) -> str:
    if cue.token is None:
        what = f"whatever follows {quote(cue.after or '')}"
    else:
        what = quote(cue.token) + (f" after {quote(cue.after)}" if cue.after is not None else "")
    share, reliability = round(100 * cue.share), round(100 * cue.reliability)
    return f"on {what} ({share}% of the activation shown, {reliability}% of its occurrences)"


def read(explanation: str) -> list[Cue]:
    """Return the cues that *explanation* names, in order; an explanation that :func:`write` did not write names none."""
    cues = []
    for clause in CLAUSE.finditer(explanation):
        after = clause["only"] or clause["after"]
        token, before = (json.loads(piece) if piece else None for piece in (clause["token"], after))
        cues.append(Cue(token, before, int(clause["share"]) / 100, int(clause["reliability"]) / 100))
    return cues


def strengths(cues: list[Cue], tokens: npt.NDArray[np.int32], ids: dict[str, list[int]], size: int) -> Floats:
    """Return, for every token of the windows [n, window], the reliability of the best cue that fits there, or 0.

    *tokens* [n, window] are token ids; *ids* are the token ids of each piece; *size* is the size of the vocabulary.
    """
    best = np.zeros(tokens.shape)
    for cue in cues:
        fits = np.ones(tokens.shape, dtype=bool)
        if cue.token is not None:
            fits &= _is(cue.token, ids, size)[tokens]
        if cue.after is not None:
            fits[:, 1:] &= _is(cue.after, ids, size)[tokens[:, :-1]]
            fits[:, 0] = False  # what came before the window is not shown
        best = np.where(fits, np.maximum(best, cue.reliability), best)
    return best


def _is(piece: str, ids: dict[str, list[int]], size: int) -> Bools:
    """Return which token ids [size] are spelled *piece*."""
    mask = np.zeros(size, dtype=bool)
    mask[ids.get(piece, [])] = True
    return mask
