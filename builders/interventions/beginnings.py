"""Beginnings: rows of `tokens` from their first token to one on which a latent fires.

The model reads all of a row up to there, as it did when the activations were stored. So the latent fires at the last token of every
beginning, as strongly as stored. Explainers and judges are shown what lies in the latent's own window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.arrays import Ints
from builders.contexts.contexts import Examples, evenly

TokenIds = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Beginnings:
    """A latent's beginnings: token ids of each, and, both [n], the *number* and the *start* in the row of the window that each ends in."""

    tokens: list[TokenIds]
    number: Ints
    start: Ints


def beginnings(examples: Examples, rows: TokenIds, most: int) -> Beginnings:
    """Return the beginnings of at most *most* activating windows, evenly over their order, each up to the window's first activating token.

    *rows* [rows, length] are the token ids of all rows of `tokens`.
    """
    chosen = examples.take(evenly(np.flatnonzero(examples.activating), most))
    ends = chosen.start + (chosen.activations > 0).argmax(axis=1) + 1
    tokens = [rows[row, :end] for row, end in zip(chosen.row, ends, strict=True)]
    return Beginnings(tokens, chosen.number, chosen.start)
