"""Silent rows: windows from token rows in which a latent never fires, as in the paper of Paulo et al. 2024 (arXiv:2410.13928).

Its code takes the tokens from position 10 on, one window from a row, with repetition; here no row comes twice. See
docs/science.md#negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from builders.arrays import Ints
from builders.contexts.selection import Selected
from builders.contexts.silence import silent_windows
from builders.saes.activations import Firings
from builders.text.rows import Corpus


@dataclass(frozen=True)
class SilentRows:
    """Gives a latent at most one window of each row in which it never fires: *window* tokens from position *start* on.

    *row* are the rows that are long enough, *place* [rows] says where each stands among them, -1 elsewhere; *seed* addresses the draw.
    """

    row: Ints
    place: Ints
    start: int
    window: int
    seed: int

    @staticmethod
    def of(corpus: Corpus, start: int, window: int, seed: int) -> SilentRows:
        """Return the windows from position *start* on of all rows of *corpus* that have so many tokens."""
        long = corpus.lengths >= start + window
        return SilentRows(np.flatnonzero(long), np.where(long, np.cumsum(long) - 1, -1), start, window, seed)

    def windows(self, latents: Ints, n: int, firings: Firings, selected: Selected) -> tuple[Ints, Ints, Ints]:
        """Return latent, row and start of up to *n* windows for each of *latents* (sorted), drawn at random.

        They overlap none of the latent's *selected* windows. *firings* are all activations of these latents and maybe of others.
        """
        near = np.flatnonzero(np.abs(selected.start - self.start) < self.window)
        fired = self._keys(firings.latent.astype(np.int64), firings.row.astype(np.int64))
        touched = np.unique(np.concatenate([fired, self._keys(selected.latent[near], selected.row[near])]))
        latent, number = silent_windows(latents, touched, len(self.row), n, self.seed)
        return latent, self.row[number], np.full(len(latent), self.start)

    def _keys(self, latent: Ints, row: Ints) -> Ints:
        """Return latent · rows + place of each row that is long enough; equal keys that follow one another come once."""
        place = self.place[row]
        keys: Ints = (latent * len(self.row) + place)[place >= 0]
        return keys[np.flatnonzero(np.diff(keys, prepend=-1))]
