from __future__ import annotations

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from builders.seeds import seed_of, uniforms

SEEDS = st.integers(0, 2**63 - 1)
PARTS = st.integers(0, 2**62)
ADDRESSES = st.lists(st.text(st.characters(categories=("L", "Nd", "P", "Zs")), max_size=6), max_size=3).map(tuple)


def reference(seed: int, *parts: int) -> float:
    """Return the draw computed in plain integers with splitmix64's finaliser, as its authors publish it."""
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1

    def mix(state: int) -> int:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        return state ^ (state >> 31)

    state = mix((seed + golden) & mask)
    for part in parts:
        state = mix(((state ^ part) + golden) & mask)
    return (state >> 11) / 2**53


def test_seeds_are_known_numbers() -> None:
    """Seeds never change: a release that is rebuilt next year makes the same draws."""
    assert seed_of(0) == 0x5FECEB66FFC86F38 >> 1  # the SHA-256 of "0"
    assert seed_of(17, "contexts", "sae", 3) == 0xADA8B4DE1C4CA363 >> 1  # of "17", "contexts", "sae", "3", joined by 0x1F


def test_first_draw_is_that_of_splitmix64() -> None:
    """Seed 0 with no parts gives splitmix64's published first output, 0xE220A8397B1DCDAF, as a fraction of 2**64."""
    assert float(uniforms(0)) == (0xE220A8397B1DCDAF >> 11) / 2**53


@given(SEEDS, ADDRESSES, ADDRESSES)
def test_other_addresses_have_other_seeds(run: int, one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Equal addresses share a seed of 63 bits, and any difference in place, number or spelling gives another."""
    assert 0 <= seed_of(run, *one) < 2**63
    assert (seed_of(run, *one) == seed_of(run, *other)) == (one == other)


@given(SEEDS)
def test_other_runs_have_other_seeds(run: int) -> None:
    """The run's own seed is part of every address."""
    assert seed_of(run, "contexts") != seed_of(run + 1, "contexts")


def test_neighbouring_parts_do_not_run_together() -> None:
    """("ab", "c") and ("a", "bc") are different addresses, and so are a path and its two halves."""
    assert len({seed_of(0, "ab", "c"), seed_of(0, "a", "bc"), seed_of(0, "abc"), seed_of(0, "", "abc")}) == 4


@given(SEEDS, st.lists(PARTS, max_size=3))
def test_draws_are_splitmix64(seed: int, parts: list[int]) -> None:
    """A draw is the 53-bit fraction that splitmix64 makes of the seed and its parts."""
    assert float(uniforms(seed, *parts)) == reference(seed, *parts)


@given(SEEDS, st.lists(PARTS, min_size=1, max_size=5), st.lists(PARTS, min_size=1, max_size=5))
def test_draws_depend_on_their_own_parts_alone(seed: int, rows: list[int], columns: list[int]) -> None:
    """Parts broadcast, and each element equals its draw alone, in any batch and order."""
    drawn = uniforms(seed, np.array(rows)[:, None], np.array(columns))
    assert drawn.shape == (len(rows), len(columns))
    assert drawn.tolist() == [[reference(seed, row, column) for column in columns] for row in rows]
    assert uniforms(seed, np.array(rows)[::-1, None], np.array(columns))[::-1].tolist() == drawn.tolist()


@given(SEEDS, st.sampled_from([np.int32, np.int64, np.uint8, np.uint64]))
def test_the_type_of_a_part_does_not_matter(seed: int, dtype: type[np.generic]) -> None:
    """The same integers in another integer type draw the same."""
    parts = [0, 1, 200]
    assert uniforms(seed, np.array(parts, dtype)).tolist() == uniforms(seed, parts).tolist()


def test_draws_are_uniform_and_unrelated() -> None:
    """A grid of draws fills [0, 1) evenly, and draws at neighbouring parts or seeds are not correlated."""
    drawn = uniforms(5, np.arange(300)[:, None], np.arange(300))
    assert 0 <= drawn.min() < drawn.max() < 1
    counts = np.bincount((drawn * 100).astype(int).ravel(), minlength=100)
    chi_square = float(((counts - 900) ** 2 / 900).sum())
    assert 55 < chi_square < 160  # 99 degrees of freedom: 1 in 10,000 lies beyond either end
    other = uniforms(6, np.arange(300)[:, None], np.arange(300))
    swapped = uniforms(5, np.arange(300), np.arange(1, 301)[:, None])  # no pair of it is a pair of *drawn* in the same place
    for one, two in ((drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1]), (drawn, other), (drawn, swapped)):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.02  # the standard error is 0.0033


def test_draws_warn_of_nothing() -> None:
    """The arithmetic overflows on purpose and raises no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = uniforms(2**63 - 1, 2**62, np.arange(3))
    assert ((drawn >= 0) & (drawn < 1)).all()
