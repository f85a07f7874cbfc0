"""Beginnings: rows from their first token to the first token of a window on which the latent fires."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from contexts import windows_of
from hypothesis import given
from hypothesis import strategies as st

from builders.interventions.beginnings import beginnings

if TYPE_CHECKING:
    import numpy.typing as npt

    from builders.contexts.contexts import Examples

WINDOW, LENGTH = 8, 20


def case(active: int, silent: int = 2, seed: int = 0) -> tuple[Examples, npt.NDArray[np.int32]]:
    """Return windows anywhere in rows, and all rows; a window's first token is its number, and other tokens are larger."""
    draw = np.random.default_rng(seed)
    n = active + silent
    rows = draw.integers(100, 300, (n, LENGTH)).astype(np.int32)
    row, start = draw.permutation(n), draw.integers(0, LENGTH - WINDOW + 1, n)
    rows[row, start] = np.arange(n)
    activations = draw.random((n, WINDOW)).astype(np.float32) * (draw.random((n, WINDOW)) < 0.3)
    activations[np.arange(n), draw.integers(0, WINDOW, n)] = 1.0
    activations[active:] = 0
    tokens = rows[row[:, None], start[:, None] + np.arange(WINDOW)]
    return replace(windows_of(6, tokens, activations, np.arange(n) < active, first=40), row=row, start=start), rows


@given(st.integers(1, 50), st.integers(0, 5), st.integers(1, 20), st.integers(0, 3))
def test_a_beginning_is_a_row_up_to_the_first_activating_token(active: int, silent: int, most: int, seed: int) -> None:
    """Each one starts with its row's first token, holds all tokens to the window's first activating one, and names its window."""
    examples, rows = case(active, silent, seed)
    begun = beginnings(examples, rows, most)
    assert len(begun.tokens) == len(begun.number) == len(begun.start) == min(active, most)
    for tokens, number, start in zip(begun.tokens, begun.number, begun.start, strict=True):
        place = int(number) - 40
        assert examples.start[place] == start
        assert tokens.tolist() == rows[examples.row[place], : len(tokens)].tolist()
        assert tokens[start] == place
        inside = examples.activations[place, : len(tokens) - start] > 0
        assert inside.tolist() == [False] * (len(inside) - 1) + [True]


@given(st.integers(1, 60), st.integers(2, 20))
def test_beginnings_are_spread_over_the_order(active: int, most: int) -> None:
    """They go from the strongest window to the weakest with even gaps, all of them where there are few."""
    places = (beginnings(*case(active), most).number - 40).tolist()
    gaps = {after - before for before, after in pairwise(places)}
    assert (places[0], places[-1]) == (0, active - 1)
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
