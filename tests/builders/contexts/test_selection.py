"""Which windows are drawn from those that a latent fires in. Plain loops are the reference."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse import SAMPLERS, Case, Window, cases, places, random_case, whole_windows

from builders.contexts.selection import choose, quantile_of
from builders.contexts.windows import Plan, activating_windows


def drawn(case: Case, plan: Plan, seed: int) -> tuple[list[Window], list[Window], dict[Window, int]]:
    """Return the chosen training windows, test windows, and the quantile of each."""
    chosen, train, quantile = choose(activating_windows(case.firings, case.corpus, plan, seed), plan, seed)
    where = places(chosen)
    quantiles = dict(zip(where, quantile.tolist(), strict=True))
    trained = [place for place, is_train in zip(where, train.tolist(), strict=True) if is_train]
    return trained, [place for place in where if place not in set(trained)], quantiles


# Quantiles


@given(cases(), st.integers(1, 6), st.booleans())
@settings(max_examples=100)
def test_quantiles_have_equal_numbers_of_windows(case: Case, quantiles: int, centered: bool) -> None:
    """Every window belongs to a quantile, their sizes differ by at most one, and a stronger window is never in a weaker one."""
    windows = activating_windows(case.firings, case.corpus, case.plan(centered=centered), 1)
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
    candidates = places(activating_windows(case.firings, case.corpus, plan, seed))
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
        left = [place for place, _ in whole_windows(case, 8) if place[0] == latent and place not in tested]
        assert {place for place in trained if place[0] == latent} == set(left[:10])


def test_the_mix_sampler_trains_on_the_strongest_and_on_all_quantiles() -> None:
    """A share of `mix` is the strongest windows left by the test set; the rest comes from every quantile."""
    case = random_case(4, 0.15, width=4, rows=60, length=32, window=4)
    trained, tested, quantile = drawn(case, case.plan(sampler="mix", top_share=0.2, quantiles=4, train=40, test=40), 8)
    for latent in range(4):
        left = [place for place, _ in whole_windows(case, 8) if place[0] == latent and place not in tested]
        mine = {place for place in trained if place[0] == latent}
        assert set(left[:8]) <= mine
        rest = Counter(quantile[place] for place in mine - set(left[:8]))
        assert rest[0] > 0
        assert max(rest[q] for q in (1, 2, 3)) - min(rest[q] for q in (1, 2, 3)) <= 1


def test_the_random_sampler_knows_no_rank() -> None:
    """The training windows of `random` are, on average over many latents, of middling rank."""
    case = random_case(5, 0.1, width=40, rows=12, length=24, window=4)
    plan = case.plan(sampler="random", train=10, test=5)
    windows = activating_windows(case.firings, case.corpus, plan, 1)
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
