"""Random sparse firings and small corpora, for property tests of everything that is computed from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from builders.contexts.windows import Plan, Windows
from builders.saes.activations import Firings
from builders.seeds import seed_of, uniforms
from builders.text.rows import Corpus

PLAN = Plan(train=1, test=1, train_random=1, test_random=1, quantiles=2, sampler="quantiles", top_share=0.5, centered=False, window=4)
SAMPLERS = ("top", "random", "quantiles", "mix")
Triple = tuple[int, int, int]
Place = tuple[int, int]  # row, start
Window = tuple[int, int, int]  # latent, row, start


@dataclass(frozen=True)
class Case:
    """Firings of *width* latents over a small corpus; *at* holds the same firings as a plain dict."""

    width: int
    window: int
    corpus: Corpus
    firings: Firings
    at: dict[Triple, float]

    def plan(self, **changes: object) -> Plan:
        """Return a small plan for this case's windows, with *changes*."""
        return replace(PLAN, **{"window": self.window, **changes})  # type: ignore[arg-type]  # the names say the types

    def values(self, latent: int, row: int, start: int) -> list[float]:
        """Return the activations of *latent* in the window at *start* of *row*, one position after another."""
        return [self.at.get((latent, row, position), 0.0) for position in range(start, start + self.window)]

    def grid(self) -> list[Place]:
        """Return every whole window of the grid, row by row."""
        lengths = self.corpus.lengths.tolist()
        return [(row, block * self.window) for row, length in enumerate(lengths) for block in range(length // self.window)]

    def active(self, latent: int) -> list[Place]:
        """Return the windows of the grid in which *latent* fires."""
        return [place for place in self.grid() if any(self.values(latent, *place))]


def firings_of(at: dict[Triple, float]) -> Firings:
    """Return the firings of *at* (latent, row, position → value), in key order."""
    keys = sorted(at)
    columns = np.array(keys, dtype=np.int32).reshape(-1, 3).T
    return Firings(columns[0], columns[1], columns[2], np.array([at[key] for key in keys], dtype=np.float32))


def corpus_of(lengths: Iterable[int], vocabulary: int = 7) -> Corpus:
    """Return a corpus of rows of these *lengths* whose ids run 0, 1, 2 … and start again at *vocabulary*."""
    sizes = np.array(list(lengths), dtype=np.int64)
    ids = (np.arange(len(sizes) * sizes.max()) % vocabulary).astype(np.int32).reshape(len(sizes), -1)
    ids[np.arange(ids.shape[1]) >= sizes[:, None]] = 0
    return Corpus(ids, sizes)


def pieces_of(vocabulary: int = 7) -> pa.Array:
    """Return the bytes of each token id of :func:`corpus_of`: letters from `a` on."""
    return pa.array([bytes([97 + token]) for token in range(vocabulary)], pa.binary())


@st.composite
def cases(draw: st.DrawFn, most_rows: int = 5, most_length: int = 18) -> Case:
    """Draw rows of unequal length (some shorter than a window), few values (so that there are ties), any density."""
    window = draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(1, most_length), min_size=1, max_size=most_rows))
    width = draw(st.integers(1, 4))
    places = [(latent, row, p) for latent in range(width) for row, length in enumerate(lengths) for p in range(length)]
    chosen = draw(st.lists(st.sampled_from(places), unique=True, max_size=len(places)))
    strength = st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.25])
    at = {place: draw(strength) for place in chosen}
    return Case(width, window, corpus_of(lengths), firings_of(at), at)


def random_case(seed: int, density: float, width: int, rows: int, length: int, window: int) -> Case:
    """Return a larger case in which every latent fires on a *density* share of all tokens."""
    rng = np.random.default_rng(seed)
    fired = np.argwhere(rng.random((width, rows, length)) < density).tolist()
    strengths = rng.exponential(size=len(fired)).astype(np.float32) + np.float32(0.01)
    at = {(latent, row, position): float(v) for (latent, row, position), v in zip(fired, strengths, strict=True)}
    return Case(width, window, corpus_of([length] * rows), firings_of(at), at)


def places(windows: Windows) -> list[Window]:
    """Return the windows as (latent, row, start)."""
    return list(zip(windows.latent.tolist(), windows.row.tolist(), windows.start.tolist(), strict=True))


def tie(window: Window, seed: int) -> float:
    """Return the number by which a window is ranked among equally strong ones of its latent."""
    return float(np.float32(uniforms(seed_of(seed, "ties"), *window)))


def whole_windows(case: Case, seed: int) -> list[tuple[Window, float]]:
    """Return the windows of the grid that hold an activation, by (latent, descending peak, draw)."""
    found = [((latent, *place), max(case.values(latent, *place))) for latent in range(case.width) for place in case.active(latent)]
    return sorted(found, key=lambda item: (item[0][0], -item[1], tie(item[0], seed)))
