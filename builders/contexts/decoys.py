"""Decoys: silent windows that hold tokens on which the latent fires strongly elsewhere.

A reading that is too broad because it forgets the context takes such tokens for the latent's own. Fuzzing marks them. They are taken from a
sample of the corpus's windows. See docs/science.md#negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builders.arrays import Bools, Ints, among
from builders.contexts.contexts import strong
from builders.contexts.selection import KINDS, Selected
from builders.contexts.windows import window_activations
from builders.saes.activations import Firings
from builders.seeds import drawn, seed_of
from builders.text.rows import Corpus

Pairs = tuple[Ints, Ints]  # latents, and token ids on which they fire strongly


@dataclass(frozen=True)
class Decoys:
    """A sample of windows, and the tokens on which latents fire strongly.

    The sample: the windows' *number* [m] in the corpus's grid, sorted, and their *tokens* [m, window]. A latent fires strongly on a token:
    *latent* [pairs], sorted, and *token* [pairs]. *seed* addresses the draw among the windows that hold such a token.
    """

    number: Ints
    tokens: npt.NDArray[np.int32]
    latent: Ints
    token: Ints
    seed: int

    @staticmethod
    def of(number: Ints, pairs: Sequence[Pairs], corpus: Corpus, window: int, seed: int) -> Decoys:
        """Return the Decoys in the windows *number*; *pairs* are those of several files of latents, which come in order of latent."""
        row, start = corpus.grid(window).place(number)
        latent, token = (np.concatenate(part) for part in zip(*pairs, strict=True))
        return Decoys(number, corpus.ids[row[:, None], start[:, None] + np.arange(window)], latent, token, seed)

    def windows(self, latents: Ints, taken: Ints, total: int, n: int) -> tuple[Ints, Ints, Ints]:
        """Return up to *n* windows for each of *latents*, as :class:`builders.contexts.negatives.WindowSource` says."""
        found = [self.number[:0]]
        for latent in latents.tolist():
            low, high = np.searchsorted(self.latent, [latent, latent + 1])
            holds = np.isin(self.tokens, self.token[low:high]).any(axis=1)
            free = self.number[holds & ~among(taken, latent * total + self.number)]
            found.append(drawn(free, n, seed_of(self.seed, latent)))
        owner = np.repeat(latents, [len(some) for some in found[1:]])
        return owner, np.concatenate(found), np.full(len(owner), -1)


def strong_tokens(latents: Ints, selected: Selected, firings: Firings, corpus: Corpus, window: int, special: Bools) -> Pairs:
    """Return the tokens that are strong in the activating test windows of *latents*, each once; no *special* [vocabulary] token is.

    Fuzzing asks about these tokens in its positives. *firings* are all activations of the *selected* latents; *window* is in tokens.
    """
    shown = (selected.kind == KINDS.index("activating")) & ~selected.train & among(latents, selected.latent)
    latent, row, start = (values[shown] for values in (selected.latent, selected.row, selected.start))
    own = firings.take(np.flatnonzero(among(latents, firings.latent)))
    place, offset = np.nonzero(strong(window_activations(latent, row, start, own, corpus, window)))
    token = corpus.ids[row[place], start[place] + offset].astype(np.int64)
    kept = ~special[token]
    pairs = np.unique(np.stack([latent[place][kept], token[kept]]), axis=1)
    return pairs[0], pairs[1]
