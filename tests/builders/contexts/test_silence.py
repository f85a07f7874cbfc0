"""In which windows a latent is silent, and which of them are drawn. Plain loops are the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sparse import Case, Window, cases, corpus_of, firings_of, places, random_case

from builders.contexts.selection import choose
from builders.contexts.silence import silent_windows, touched_windows
from builders.contexts.windows import Plan, activating_windows
from builders.text.rows import Grid


def is_silent(case: Case, latent: int, row: int, start: int) -> bool:
    """Return whether *latent* fires nowhere in the window."""
    return not any(case.values(latent, row, start))


def silent(case: Case, plan: Plan, n: int, seed: int) -> tuple[Grid, dict[int, list[tuple[int, int]]], list[Window]]:
    """Return the silent windows drawn for each chosen latent, with the windows chosen before."""
    chosen, _, _ = choose(activating_windows(case.firings, case.corpus, plan, seed), plan, seed)
    grid = case.corpus.grid(plan.window)
    asked = np.unique(chosen.latent)
    latent, number = silent_windows(asked, touched_windows(case.firings, chosen, grid), grid.total, n, seed + 2)
    row, start = grid.place(number)
    found: dict[int, list[tuple[int, int]]] = {one: [] for one in asked.tolist()}
    for one, where in zip(latent.tolist(), zip(row.tolist(), start.tolist(), strict=True), strict=True):
        found[one].append(where)
    return grid, found, places(chosen)


@given(cases(), st.booleans(), st.integers(1, 12), st.integers(0, 2**62))
@settings(max_examples=150)
def test_silent_windows_are_silent_distinct_and_apart(case: Case, centered: bool, n: int, seed: int) -> None:
    """Silent windows hold no firing, come once, overlap no chosen window, and are as many as asked for or as there are."""
    plan = case.plan(centered=centered)
    assume(places(choose(activating_windows(case.firings, case.corpus, plan, seed), plan, seed)[0]))
    _, found, chosen = silent(case, plan, n, seed)
    for latent, windows in found.items():
        apart = {
            (row, start)
            for row, start in case.grid()
            if is_silent(case, latent, row, start)
            and all(own != latent or r != row or abs(s - start) >= case.window for own, r, s in chosen)
        }
        assert len(set(windows)) == len(windows) == min(n, len(apart))
        assert set(windows) <= apart


@pytest.mark.parametrize("n", [3, 10, 200])
def test_sparse_and_dense_latents_get_silent_windows_alike(n: int) -> None:
    """A latent that is silent in few of many windows gets as many as a rare one, or all there are, through any number of rounds."""
    rows, length, window = 40, 40, 2  # 800 windows
    rng = np.random.default_rng(3)
    quiet = {latent: rng.choice(rows * length // window, count, replace=False) for latent, count in enumerate((790, 60, 12, 4, 1))}
    at = {
        (latent, number * window // length, number * window % length): float(1 + number % 5)
        for latent, silent_in in quiet.items()
        for number in set(range(rows * length // window)) - set(silent_in.tolist())
    }
    case = Case(len(quiet), window, corpus_of([length] * rows), firings_of(at), at)
    grid, found, _ = silent(case, case.plan(), n, 9)
    for latent, silent_in in quiet.items():
        numbers = [grid.number(np.array(row), np.array(start)).item() for row, start in found[latent]]
        assert len(set(numbers)) == len(numbers) == min(n, len(silent_in))
        assert set(numbers) <= set(silent_in.tolist())


def test_silent_windows_of_a_latent_do_not_depend_on_the_others() -> None:
    """Asked alone, each latent gets the windows that it gets among others, in the same order."""
    case = random_case(8, 0.3, width=6, rows=20, length=24, window=4)
    grid = case.corpus.grid(4)
    nothing = activating_windows(firings_of({}), case.corpus, case.plan(), 0)
    touched = touched_windows(case.firings, nothing, grid)
    latent, number = silent_windows(np.arange(6), touched, grid.total, 10, 4)
    for one in range(6):
        alone, numbers = silent_windows(np.array([one]), touched, grid.total, 10, 4)
        assert alone.tolist() == [one] * len(alone)
        assert numbers.tolist() == number[latent == one].tolist()


def test_silent_windows_differ_between_latents() -> None:
    """Each latent has its own sequence of draws: two latents silent everywhere get different windows."""
    grid = corpus_of([64] * 20).grid(4)
    latent, number = silent_windows(np.arange(2), np.zeros(0, dtype=np.int64), grid.total, 20, 0)
    assert set(number[latent == 0].tolist()) != set(number[latent == 1].tolist())


def test_silent_windows_are_drawn_evenly() -> None:
    """Over many latents that fire nowhere, every window of the corpus is drawn about equally often."""
    grid = corpus_of([32] * 10).grid(4)  # 80 windows, 8 drawn by each of 2000 latents
    _, number = silent_windows(np.arange(2000), np.zeros(0, dtype=np.int64), grid.total, 8, 1)
    counts = np.bincount(number, minlength=grid.total)
    spread = np.sqrt(2000 * 0.1 * 0.9)
    assert np.abs(counts - 200).max() < 5 * spread


def test_nobody_asked_nothing_drawn() -> None:
    """No latents, no silent windows."""
    nobody = np.zeros(0, dtype=np.int64)
    latent, number = silent_windows(nobody, nobody, corpus_of([8]).grid(4).total, 3, 0)
    assert (len(latent), len(number)) == (0, 0)
