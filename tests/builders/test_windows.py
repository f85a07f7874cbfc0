"""Windows: which a latent fires in, which are drawn from them, which it is silent in. Plain loops are the reference."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sparse import SAMPLERS, Case, cases, corpus_of, firings_of, random_case

from builders.windows import Corpus, Grid, Plan, Windows, activating_windows, choose, quantile_of, silent_windows, touched_windows

Window = tuple[int, int, int]  # latent, row, start


def places(windows: Windows) -> list[Window]:
    """Return the windows as (latent, row, start)."""
    return list(zip(windows.latent.tolist(), windows.row.tolist(), windows.start.tolist(), strict=True))


def drawn(case: Case, plan: Plan, seed: int) -> tuple[list[Window], list[Window], dict[Window, int]]:
    """Return the chosen training windows, test windows, and the quantile of each."""
    chosen, train, quantile = choose(activating_windows(case.firings, case.corpus, plan), plan, seed)
    where = places(chosen)
    quantiles = dict(zip(where, quantile.tolist(), strict=True))
    trained = [place for place, is_train in zip(where, train.tolist(), strict=True) if is_train]
    return trained, [place for place in where if place not in set(trained)], quantiles


def whole_windows(case: Case) -> list[tuple[Window, float]]:
    """Return the windows of the grid that hold an activation, by (latent, descending peak, row, start)."""
    found = [((latent, *place), max(case.values(latent, *place))) for latent in range(case.width) for place in case.active(latent)]
    return sorted(found, key=lambda item: (item[0][0], -item[1], item[0][1:]))


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
                    peaks.append((-max(values), row, start))
        for _, row, start in sorted(peaks):
            if all(row != r or abs(start - s) >= case.window for own, r, s in found if own == latent):
                found.append((latent, row, start))
    return found


def is_silent(case: Case, latent: int, row: int, start: int) -> bool:
    """Return whether *latent* fires nowhere in the window."""
    return not any(case.values(latent, row, start))


# Activating windows


@given(cases())
@settings(max_examples=150)
def test_whole_windows_are_those_of_the_grid_that_hold_an_activation(case: Case) -> None:
    """Every whole window with an activation is found once, strongest first, with its peak, rank and number of windows."""
    windows = activating_windows(case.firings, case.corpus, case.plan())
    expected = whole_windows(case)
    assert list(zip(places(windows), windows.peak.tolist(), strict=True)) == expected
    per_latent = Counter(place[0] for place, _ in expected)
    assert windows.count.tolist() == [per_latent[place[0]] for place, _ in expected]
    assert windows.rank.tolist() == [rank for latent in sorted(per_latent) for rank in range(per_latent[latent])]


@given(cases())
@settings(max_examples=150)
def test_centered_windows_stand_around_the_peaks(case: Case) -> None:
    """Of the windows around each stretch's first peak, pushed inside their row, the strongest that do not overlap are kept."""
    windows = activating_windows(case.firings, case.corpus, case.plan(centered=True))
    assert sorted(places(windows)) == sorted(centered_windows(case))


def test_a_centered_window_shows_its_peak_at_three_quarters() -> None:
    """A peak in the middle of a long row stands at position 24 of a window of 32."""
    case = Case(1, 32, corpus_of([256]), firings_of({(0, 0, 100): 2.0, (0, 0, 101): 1.0}), {})
    windows = activating_windows(case.firings, case.corpus, case.plan(centered=True))
    assert places(windows) == [(0, 0, 100 - 24)]


def test_a_centered_window_peaks_where_it_is_largest() -> None:
    """The peak of a centered window, by which it is ranked, is the largest activation that it shows."""
    at = {(0, 0, 7): 7.0, (0, 0, 9): 5.0, (0, 0, 12): 3.0, (0, 1, 8): 4.0}
    case = Case(1, 4, corpus_of([16, 16]), firings_of(at), at)
    windows = activating_windows(case.firings, case.corpus, case.plan(centered=True))
    assert windows.peak.tolist() == [max(case.values(*place)) for place in places(windows)]


def test_a_latent_that_never_fires_has_no_window() -> None:
    """No firings, no windows, in either mode."""
    for centered in (False, True):
        case = Case(1, 4, corpus_of([8, 8]), firings_of({}), {})
        assert places(activating_windows(case.firings, case.corpus, case.plan(centered=centered))) == []


# Quantiles


@given(cases(), st.integers(1, 6), st.booleans())
@settings(max_examples=100)
def test_quantiles_have_equal_numbers_of_windows(case: Case, quantiles: int, centered: bool) -> None:
    """Every window belongs to a quantile, their sizes differ by at most one, and a stronger window is never in a weaker one."""
    windows = activating_windows(case.firings, case.corpus, case.plan(centered=centered))
    quantile = quantile_of(windows, quantiles)
    for latent in set(windows.latent.tolist()):
        mine = quantile[windows.latent == latent].tolist()
        sizes = [mine.count(q) for q in range(quantiles)]
        assert sum(sizes) == len(mine)
        assert max(sizes) - min(sizes) <= 1
        assert mine == sorted(mine)


# The choice of training and test windows


@given(cases(), st.sampled_from(SAMPLERS), st.booleans(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**62))
@settings(max_examples=150)
def test_latents_give_their_whole_quota_or_nothing(case: Case, sampler: str, centered: bool, train: int, test: int, seed: int) -> None:
    """A latent with enough windows gives exactly its quota of each split, from its own windows; another gives none."""
    plan = case.plan(sampler=sampler, centered=centered, train=train, test=test)
    candidates = places(activating_windows(case.firings, case.corpus, plan))
    trained, tested, _ = drawn(case, plan, seed)
    assert len(set(trained + tested)) == len(trained + tested)
    assert set(trained + tested) <= set(candidates)
    for latent in range(case.width):
        enough = sum(own == latent for own, _, _ in candidates) >= train + test
        assert sum(own == latent for own, _, _ in trained) == (train if enough else 0)
        assert sum(own == latent for own, _, _ in tested) == (test if enough else 0)


@given(cases(), st.sampled_from(SAMPLERS), st.booleans(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**62))
@settings(max_examples=150)
def test_chosen_windows_never_share_a_token(case: Case, sampler: str, centered: bool, train: int, test: int, seed: int) -> None:
    """No two chosen windows of a latent overlap, so training and test share nothing, whatever the sampler."""
    trained, tested, _ = drawn(case, case.plan(sampler=sampler, centered=centered, train=train, test=test), seed)
    for one, other in combinations(trained + tested, 2):
        assert one[:2] != other[:2] or abs(one[2] - other[2]) >= case.window


@given(cases(), st.booleans(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**62))
@settings(max_examples=75)
def test_test_windows_do_not_depend_on_the_sampler(case: Case, centered: bool, train: int, test: int, seed: int) -> None:
    """All samplers are scored on the same windows."""
    tests = [drawn(case, case.plan(sampler=s, centered=centered, train=train, test=test), seed)[1] for s in SAMPLERS]
    assert all(other == tests[0] for other in tests)


@given(cases(), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**62))
@settings(max_examples=100)
def test_test_windows_come_evenly_from_all_quantiles(case: Case, quantiles: int, test: int, seed: int) -> None:
    """The test windows of a latent are as many from one quantile as from another, give or take one."""
    _, tested, quantile = drawn(case, case.plan(quantiles=quantiles, test=test), seed)
    for latent in {place[0] for place in tested}:
        mine = Counter(quantile[place] for place in tested if place[0] == latent)
        sizes = [mine[q] for q in range(quantiles)]
        assert max(sizes) - min(sizes) <= 1


def test_the_paper_s_test_set_has_ten_windows_of_every_decile() -> None:
    """With 100 test windows and 10 quantiles, each latent is tested on 10 windows of each decile."""
    case = random_case(1, 0.15, width=3, rows=60, length=32, window=4)
    _, tested, quantile = drawn(case, case.plan(quantiles=10, train=40, test=100), 5)
    assert Counter((place[0], quantile[place]) for place in tested) == {(latent, q): 10 for latent in range(3) for q in range(10)}


def test_the_quantiles_sampler_trains_on_every_quantile_alike() -> None:
    """With 40 training windows and 10 quantiles of which the test set leaves enough, each gives 4."""
    case = random_case(2, 0.15, width=3, rows=60, length=32, window=4)
    trained, _, quantile = drawn(case, case.plan(quantiles=10, train=40, test=50, sampler="quantiles"), 5)
    assert Counter((place[0], quantile[place]) for place in trained) == {(latent, q): 4 for latent in range(3) for q in range(10)}


def test_the_top_sampler_trains_on_the_strongest_left() -> None:
    """The training windows of `top` are the strongest of those that are not in the test set."""
    case = random_case(3, 0.1, width=4, rows=20, length=20, window=4)
    plan = case.plan(sampler="top", train=10, test=10)
    trained, tested, _ = drawn(case, plan, 8)
    for latent in range(4):
        left = [place for place, _ in whole_windows(case) if place[0] == latent and place not in tested]
        assert {place for place in trained if place[0] == latent} == set(left[:10])


def test_the_mix_sampler_trains_on_the_strongest_and_on_all_quantiles() -> None:
    """A share of `mix` is the strongest windows left by the test set; the rest comes from every quantile."""
    case = random_case(4, 0.15, width=4, rows=60, length=32, window=4)
    trained, tested, quantile = drawn(case, case.plan(sampler="mix", top_share=0.2, quantiles=4, train=40, test=40), 8)
    for latent in range(4):
        left = [place for place, _ in whole_windows(case) if place[0] == latent and place not in tested]
        mine = {place for place in trained if place[0] == latent}
        assert set(left[:8]) <= mine
        rest = Counter(quantile[place] for place in mine - set(left[:8]))
        assert rest[0] > 0
        assert max(rest[q] for q in (1, 2, 3)) - min(rest[q] for q in (1, 2, 3)) <= 1


def test_the_random_sampler_knows_no_rank() -> None:
    """The training windows of `random` are, on average over many latents, of middling rank."""
    case = random_case(5, 0.1, width=40, rows=12, length=24, window=4)
    plan = case.plan(sampler="random", train=10, test=5)
    windows = activating_windows(case.firings, case.corpus, plan)
    share = dict(zip(places(windows), (windows.rank / windows.count).tolist(), strict=True))
    trained, _, _ = drawn(case, plan, 1)
    error = np.sqrt(1 / 12 / len(trained))
    assert abs(np.mean([share[place] for place in trained]) - 0.5) < 4 * error


def test_the_draw_depends_on_the_seed_alone() -> None:
    """The same seed draws the same windows, another seed other ones."""
    case = random_case(6, 0.1, width=4, rows=20, length=20, window=4)
    plan = case.plan(train=10, test=10)
    assert drawn(case, plan, 1) == drawn(case, plan, 1)
    assert set(drawn(case, plan, 1)[1]) != set(drawn(case, plan, 2)[1])


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


# Silent windows


def silent(case: Case, plan: Plan, n: int, seed: int) -> tuple[Grid, dict[int, list[tuple[int, int]]], list[Window]]:
    """Return the silent windows drawn for each chosen latent, with the windows chosen before."""
    chosen, _, _ = choose(activating_windows(case.firings, case.corpus, plan), plan, seed)
    grid = case.corpus.grid(plan.window)
    asked = np.unique(chosen.latent)
    latent, number = silent_windows(asked, touched_windows(case.firings, chosen, grid), grid, n, seed + 2)
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
    assume(places(choose(activating_windows(case.firings, case.corpus, plan), plan, seed)[0]))
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
    nothing = activating_windows(firings_of({}), case.corpus, case.plan())
    touched = touched_windows(case.firings, nothing, grid)
    latent, number = silent_windows(np.arange(6), touched, grid, 10, 4)
    for one in range(6):
        alone, numbers = silent_windows(np.array([one]), touched, grid, 10, 4)
        assert alone.tolist() == [one] * len(alone)
        assert numbers.tolist() == number[latent == one].tolist()


def test_silent_windows_differ_between_latents() -> None:
    """Each latent has its own sequence of draws: two latents silent everywhere get different windows."""
    grid = corpus_of([64] * 20).grid(4)
    latent, number = silent_windows(np.arange(2), np.zeros(0, dtype=np.int64), grid, 20, 0)
    assert set(number[latent == 0].tolist()) != set(number[latent == 1].tolist())


def test_silent_windows_are_drawn_evenly() -> None:
    """Over many latents that fire nowhere, every window of the corpus is drawn about equally often."""
    grid = corpus_of([32] * 10).grid(4)  # 80 windows, 8 drawn by each of 2000 latents
    _, number = silent_windows(np.arange(2000), np.zeros(0, dtype=np.int64), grid, 8, 1)
    counts = np.bincount(number, minlength=grid.total)
    spread = np.sqrt(2000 * 0.1 * 0.9)
    assert np.abs(counts - 200).max() < 5 * spread


def test_nobody_asked_nothing_drawn() -> None:
    """No latents, no silent windows."""
    nobody = np.zeros(0, dtype=np.int64)
    latent, number = silent_windows(nobody, nobody, corpus_of([8]).grid(4), 3, 0)
    assert (len(latent), len(number)) == (0, 0)
