"""Samples of a dictionary's latents: who is drawn, with which probability, and what is estimated from those who are."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.arrays import Bools, Floats, Ints
from builders.contexts.sample import STRATA, STRATIFIED, draw, noted
from builders.saes.latents import LATENTS
from builders.scorers.estimates import spread

NEEDED = 20
DICTIONARIES = st.lists(st.tuples(st.integers(0, 60), st.floats(1e-6, 0.5)), min_size=1, max_size=80)
WAYS = st.sampled_from(sorted(STRATIFIED))


def arrays(latents: list[tuple[int, float]]) -> tuple[Ints, Floats]:
    """Return windows and densities [latents]; a latent without windows has no density."""
    windows, density = np.array(latents).T
    return windows.astype(np.int64), np.where(windows > 0, density, 0.0)


def toy() -> tuple[Ints, Floats, Floats]:
    """Return windows, densities and scores of 400 latents: most are rare, a few are dense, and the score grows with log density."""
    density = 10 ** (-4 + 3 * np.linspace(0, 1, 400) ** 6)
    return np.full(400, 100), density, 0.5 + (np.log10(density) + 4) / 6


def estimates(by: str, most: int, seeds: int) -> tuple[Floats, Floats]:
    """Return, for each seed, the weighted and the plain mean score of the toy's latents that are drawn."""
    windows, density, score = toy()
    found = []
    for seed in range(seeds):
        taken, inclusion = draw(windows, density, NEEDED, most, by, seed)
        found.append((spread(score[taken], inclusion[taken])["mean"], score[taken].mean()))
    weighted, plain = np.array(found).T
    return weighted, plain


@given(DICTIONARIES, st.integers(10, 90), WAYS, st.integers(0, 99))
def test_a_sample_has_its_size_and_its_weights_the_whole(latents: list[tuple[int, float]], most: int, by: str, seed: int) -> None:
    """Of latents with enough windows as many as asked are drawn; 1 / inclusion over the drawn adds up to all of them; others are taken."""
    windows, density = arrays(latents)
    taken, inclusion = draw(windows, density, NEEDED, most, by, seed)
    able = windows >= NEEDED

    assert (taken & able).sum() == min(most, able.sum())
    assert (1 / inclusion[taken & able]).sum() == pytest.approx(able.sum())
    assert taken[~able].all()
    assert (inclusion[~able] == 1).all()
    assert ((inclusion > 0) & (inclusion <= 1)).all()


@given(DICTIONARIES, st.integers(10, 90), st.integers(0, 30), WAYS, st.integers(0, 99))
def test_a_larger_sample_holds_a_smaller_one(latents: list[tuple[int, float]], most: int, more: int, by: str, seed: int) -> None:
    """Whoever is in a sample is in every larger one, and no probability falls."""
    windows, density = arrays(latents)
    small, large = (draw(windows, density, NEEDED, n, by, seed) for n in (most, most + more))

    assert not (small[0] & ~large[0]).any()
    assert (small[1] <= large[1]).all()


def test_without_a_number_everyone_is_taken() -> None:
    """None draws nobody out: every latent is taken with probability 1."""
    taken, inclusion = draw(*toy()[:2], NEEDED, None, "density", 0)
    assert taken.all()
    assert (inclusion == 1).all()


def test_strata_share_the_sample_evenly() -> None:
    """Each tenth of the range of log density has the same number, and one with fewer latents gives all that it has."""
    density = np.array([1e-4] * 50 + [10**-3.45] * 30 + [10**-2.5] * 2 + [0.1] * 40)
    taken, inclusion = draw(np.full(122, NEEDED), density, NEEDED, 32, "density", 0)
    counts = {value: int(taken[density == value].sum()) for value in np.unique(density)}

    assert list(counts.values()) == [10, 10, 2, 10]
    assert [inclusion[density == value][0] for value in counts] == [10 / 50, 10 / 30, 1.0, 10 / 40]


def test_the_rare_and_the_dense_are_in_every_sample() -> None:
    """By density, the few dense latents of a dictionary of rare ones are drawn; drawn alike, hardly any is."""
    windows, density, _ = toy()
    dense = density > 0.05
    by = {way: np.mean([draw(windows, density, NEEDED, 40, way, seed)[0][dense].mean() for seed in range(20)]) for way in STRATIFIED}

    assert dense.sum() < 25
    assert by["none"] < 0.2 < 0.3 < by["density"]


def test_latents_of_one_density_are_one_stratum() -> None:
    """Where densities do not differ, everyone has the same probability."""
    _, inclusion = draw(np.full(40, NEEDED), np.full(40, 0.01), NEEDED, 10, "density", 0)
    assert (inclusion == 0.25).all()


@pytest.mark.parametrize("by", STRATIFIED)
def test_the_probability_is_that_of_being_drawn(by: str) -> None:
    """Over many seeds each latent is drawn as often as its probability says, within five standard errors."""
    windows, density, _ = toy()
    seeds = 400
    draws = [draw(windows, density, NEEDED, 60, by, seed) for seed in range(seeds)]
    share, inclusion = np.mean([taken for taken, _ in draws], axis=0), draws[0][1]

    assert all((own == inclusion).all() for _, own in draws)
    assert (np.abs(share - inclusion) <= 5 * np.sqrt(inclusion * (1 - inclusion) / seeds) + 1e-12).all()


def test_the_weighted_mean_is_unbiased() -> None:
    """Where the score depends on density, weighted means over seeds average to the mean of all latents, and plain means do not."""
    truth = toy()[2].mean()
    weighted, plain = estimates("density", 60, 1000)
    error = weighted.std(ddof=1) / np.sqrt(len(weighted))

    assert abs(weighted.mean() - truth) < 4 * error < 0.003
    assert plain.mean() - truth > 0.1


def test_the_error_is_no_smaller_than_the_truth() -> None:
    """The published standard error covers the spread of the estimate over seeds, drawn by density and alike."""
    windows, density, score = toy()
    for by in STRATIFIED:
        spreads = []
        for seed in range(100):
            taken, inclusion = draw(windows, density, NEEDED, 60, by, seed)
            spreads.append(spread(score[taken], inclusion[taken])["mean_se"])
        assert np.mean(spreads) > estimates(by, 60, 200)[0].std(ddof=1)


def test_the_weighted_mean_of_every_sample_averages_to_the_whole() -> None:
    """Over all samples that can be drawn of a small dictionary, each as likely as any other, the weighted mean averages to the truth."""
    density = np.array([1e-4, 1.1e-4, 1.2e-4, 1.05e-4, 1e-2, 1.1e-2, 1.15e-2, 0.9, *np.geomspace(3e-4, 5e-3, 6)])
    score = np.log(density) ** 2
    taken, inclusion = draw(np.full(14, NEEDED), density, NEEDED, 12, "density", 0)
    groups = [np.flatnonzero(STRATIFIED["density"](density) == stratum) for stratum in range(STRATA)]
    choices = [list(combinations(group, int(taken[group].sum()))) for group in groups if len(group)]
    samples = [np.concatenate([np.array(part, dtype=np.int64) for part in parts]) for parts in product(*choices)]

    assert len(samples) > 5
    assert np.mean([spread(score[own], inclusion[own])["mean"] for own in samples]) == pytest.approx(score.mean())


@given(DICTIONARIES)
@settings(max_examples=10)
def test_latents_are_noted_with_their_probability(latents: list[tuple[int, float]]) -> None:
    """The rows of latents keep everything else, and stay rows of their table."""
    windows, density = arrays(latents)
    inclusion: Floats = draw(windows, density, NEEDED, 10, "density", 0)[1]
    dead: Bools = windows == 0
    rows = LATENTS.build(
        {column.name: [[]] * len(latents) if column.is_list else None for column in LATENTS.columns}
        | {"sae": "toy", "latent": np.arange(len(latents)), "windows": windows, "density": density, "inclusion": 1.0}
        | {"status": np.where(dead, "dead", "alive").tolist(), "count": windows}
    )
    found = noted(rows, inclusion)

    LATENTS.validate(found)
    assert found["inclusion"].to_pylist() == inclusion.tolist()
    assert found.drop_columns("inclusion").equals(rows.drop_columns("inclusion"))
