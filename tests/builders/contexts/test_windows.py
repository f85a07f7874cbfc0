"""Windows of the corpus, and those that a latent fires in. Plain loops are the reference."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import Case, Window, cases, corpus_of, firings_of, places, tie, whole_windows

from builders.contexts.windows import activating_windows, window_activations
from builders.text.rows import Corpus

SEED = 5


def centered_windows(case: Case) -> list[Window]:
    """Return the windows around the peaks of all stretches of a window's length, the strongest first, without overlaps."""
    found: list[Window] = []
    for latent in range(case.width):
        peaks = []
        for row, length in enumerate(case.corpus.lengths.tolist()):
            for block in range(0, length, case.window):
                values = [case.at.get((latent, row, p), 0.0) for p in range(block, min(block + case.window, length))]
                if any(values) and length >= case.window:
                    centre = block + values.index(max(values))
                    shift = min(case.window - case.window // 4, case.window - 1)
                    start = min(max(centre - shift, 0), length - case.window)
                    peaks.append((-max(values), tie((latent, row, start), SEED), row, start))
        for *_, row, start in sorted(peaks):
            if all(row != r or abs(start - s) >= case.window for own, r, s in found if own == latent):
                found.append((latent, row, start))
    return found


# Activating windows


@given(cases())
@settings(max_examples=150)
def test_whole_windows_are_those_of_the_grid_that_hold_an_activation(case: Case) -> None:
    """Every whole window with an activation is found once, strongest first, with its peak, rank and number of windows."""
    windows = activating_windows(case.firings, case.corpus, case.plan(), SEED)
    expected = whole_windows(case, SEED)
    assert list(zip(places(windows), windows.peak.tolist(), strict=True)) == expected
    per_latent = Counter(place[0] for place, _ in expected)
    assert windows.count.tolist() == [per_latent[place[0]] for place, _ in expected]
    assert windows.rank.tolist() == [rank for latent in sorted(per_latent) for rank in range(per_latent[latent])]


@given(cases())
@settings(max_examples=150)
def test_centered_windows_stand_around_the_peaks(case: Case) -> None:
    """Of the windows around each stretch's first peak, pushed inside their row, the strongest that do not overlap are kept."""
    windows = activating_windows(case.firings, case.corpus, case.plan(centered=True), SEED)
    assert sorted(places(windows)) == sorted(centered_windows(case))


def test_a_centered_window_shows_its_peak_at_three_quarters() -> None:
    """A peak in the middle of a long row stands at position 24 of a window of 32."""
    case = Case(1, 32, corpus_of([256]), firings_of({(0, 0, 100): 2.0, (0, 0, 101): 1.0}), {})
    windows = activating_windows(case.firings, case.corpus, case.plan(centered=True), SEED)
    assert places(windows) == [(0, 0, 100 - 24)]


def test_a_centered_window_peaks_where_it_is_largest() -> None:
    """The peak of a centered window, by which it is ranked, is the largest activation that it shows."""
    at = {(0, 0, 7): 7.0, (0, 0, 9): 5.0, (0, 0, 12): 3.0, (0, 1, 8): 4.0}
    case = Case(1, 4, corpus_of([16, 16]), firings_of(at), at)
    windows = activating_windows(case.firings, case.corpus, case.plan(centered=True), SEED)
    assert windows.peak.tolist() == [max(case.values(*place)) for place in places(windows)]


def test_a_latent_that_never_fires_has_no_window() -> None:
    """No firings, no windows, in either mode."""
    for centered in (False, True):
        case = Case(1, 4, corpus_of([8, 8]), firings_of({}), {})
        assert places(activating_windows(case.firings, case.corpus, case.plan(centered=centered), SEED)) == []


# Ties


def test_equally_strong_windows_are_ranked_wherever_they_stand() -> None:
    """A rule's windows all peak at 1: whichever part of the corpus they come from, they are ranked alike, and anew by another seed."""
    case = Case(2, 4, corpus_of([4000]), firings_of({(latent, 0, place): 1.0 for latent in (0, 1) for place in range(0, 4000, 4)}), {})
    one, other = (activating_windows(case.firings, case.corpus, case.plan(), seed) for seed in (1, 2))
    starts = [windows.start[windows.latent == latent] for windows in (one, other) for latent in (0, 1)]

    assert all(sorted(some.tolist()) == list(range(0, 4000, 4)) for some in starts)
    assert all(abs(some[:250].mean() - 1998) < 4 * 4000 / np.sqrt(12 * 250) for some in starts)
    assert len({tuple(some.tolist()) for some in starts}) == 4


@pytest.mark.parametrize("centered", [False, True])
def test_a_tie_is_broken_alike_whatever_else_fires(centered: bool) -> None:
    """A latent's ranks do not depend on the other latents, and a stronger window comes before all equal ones."""
    at = {(latent, row, 8): 1.0 for latent in (0, 1) for row in range(30)} | {(1, 17, 8): 2.0}
    case = Case(2, 4, corpus_of([16] * 30), firings_of(at), at)
    alone = firings_of({place: value for place, value in at.items() if place[0] == 1})
    whole, own = (activating_windows(firings, case.corpus, case.plan(centered=centered), SEED) for firings in (case.firings, alone))
    rows = whole.row[whole.latent == 1].tolist()

    assert rows == own.row.tolist()
    assert rows[0] == 17
    assert rows[1:] != sorted(rows[1:])


# The grid


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.integers(1, 4))
@settings(max_examples=100)
def test_the_grid_numbers_whole_windows_row_by_row(lengths: list[int], window: int) -> None:
    """Window numbers count whole windows row by row, lead back to their places, and the rest of a row has none."""
    grid = Corpus(np.zeros((len(lengths), max(lengths)), dtype=np.int32), np.array(lengths)).grid(window)
    expected = [(row, block * window) for row, length in enumerate(lengths) for block in range(length // window)]
    assert grid.total == len(expected)
    row, start = grid.place(np.arange(grid.total))
    assert list(zip(row.tolist(), start.tolist(), strict=True)) == expected
    for place, length in enumerate(lengths):
        numbers = grid.number(np.full(length, place), np.arange(length)).tolist()
        wanted = [expected.index((place, p // window * window)) if p // window < length // window else -1 for p in range(length)]
        assert numbers == wanted


# Activations of windows


@given(cases(), st.data())
@settings(max_examples=100)
def test_window_activations_equal_a_look_up(case: Case, data: st.DataObject) -> None:
    """The activations of windows at any places, in any order, are those stored there."""
    lengths = case.corpus.lengths.tolist()
    stretches = [
        (latent, row, start)
        for latent in range(case.width)
        for row, length in enumerate(lengths)
        for start in range(length % case.window, length, case.window)
        if length >= case.window
    ]
    asked = data.draw(st.lists(st.sampled_from(stretches), unique=True, max_size=12)) if stretches else []
    latent, row, start = np.array(asked, dtype=np.int64).reshape(-1, 3).T
    found = window_activations(latent, row, start, case.firings, case.corpus, case.window)
    assert found.shape == (len(asked), case.window)
    assert found.tolist() == [case.values(*place) for place in asked]
