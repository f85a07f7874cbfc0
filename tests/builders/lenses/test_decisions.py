"""How deep an answer is decided: known answers, chance levels, and standard errors by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from builders.arrays import Floats, Ints
from builders.lenses.decisions import LENS_DECISIONS, decision_rows, depths, partners, quarters
from builders.lenses.lenses import Tops

# What a lens says at layers 0 … 4 where the answer is 7, and the depth at which it is decided.
KNOWN = [
    ([7, 7, 7, 7, 7], 0.0),
    ([1, 7, 7, 7, 7], 0.25),
    ([7, 1, 7, 7, 7], 0.5),
    ([7, 7, 7, 1, 7], 1.0),
    ([1, 2, 3, 4, 7], 1.0),
    ([7, 7, 7, 7, 1], 0.0),  # layer L agrees by definition, whatever rounding does to equal logits
]


@pytest.mark.parametrize(("tops", "depth"), KNOWN)
def test_depths_by_hand(tops: list[int], depth: float) -> None:
    """The depth is that of the layer after the last one that says something else."""
    assert depths(np.array([tops]), np.array([7])).tolist() == [depth]


def plain_depth(tops: Ints, answer: int) -> float:
    """Return the depth of one token the plain way."""
    last = len(tops) - 1
    return next(layer for layer in range(last + 1) if all(tops[later] == answer for later in range(layer, last))) / last


@given(arrays(np.int64, (6, 5), elements=st.integers(0, 2)), arrays(np.int64, 6, elements=st.integers(0, 2)))
def test_depths_are_those_of_single_tokens(tops: Ints, answer: Ints) -> None:
    """Depths of many tokens are those of each by itself."""
    assert depths(tops, answer).tolist() == [plain_depth(some, token) for some, token in zip(tops, answer.tolist(), strict=True)]


def test_quarters_by_hand() -> None:
    """Eight different counts fall into quarters of two, and equal counts are never torn apart."""
    assert quarters(np.array([80, 10, 20, 30, 40, 50, 60, 70])).tolist() == [3, 0, 0, 1, 1, 2, 2, 3]
    assert quarters(np.array([1, 5, 5, 5, 5, 5, 5, 9])).tolist() == [0, 0, 0, 0, 0, 0, 0, 3]


@given(arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 9)))
def test_quarters_rise_with_the_count(count: Ints) -> None:
    """A larger count is never in a lower quarter, equal counts share one, and the rarest token is in the first."""
    quarter = quarters(count)
    order = np.argsort(count, kind="stable")
    assert (np.diff(quarter[order]) >= 0).all()
    assert len(set(zip(count.tolist(), quarter.tolist(), strict=True))) == len(set(count.tolist()))
    assert quarter[order[0]] == 0


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(0, 99))
def test_partners_stand_in_other_rows(sizes: list[int], seed: int) -> None:
    """Each token has one of another row, at the same place where that row is long enough, and each row serves one row."""
    row = np.repeat(3 * np.arange(len(sizes)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    other = partners(row, seed)
    assert other is not None
    served: dict[int, set[int]] = {}
    for here, there in enumerate(other.tolist()):
        assert row[here] != row[there]
        assert place[there] == place[here] % sizes[row[there] // 3]
        served.setdefault(int(row[there]), set()).add(int(row[here]))
    assert len(served) == len(sizes)
    assert all(len(rows) == 1 for rows in served.values())


def test_a_single_row_has_no_partner() -> None:
    """Vectors of another row need another row."""
    assert partners(np.array([4, 4, 4]), 0) is None


def tops(lens: list[list[int]], model: list[int], row: list[int]) -> Tops:
    """Return the top tokens of one lens."""
    return Tops(np.array(row), np.array(model), {"logit": np.array(lens)})


def test_a_lens_that_always_says_the_same_is_no_earlier_than_chance() -> None:
    """A lens that says the most frequent token before the last layer decides that token at once, and just as soon for any other vectors."""
    model = [5, 5, 5, 8, 5, 9, 5, 5]
    found = decision_rows("s", tops([[5, 5, 5, token] for token in model], model, [0, 0, 1, 1, 2, 2, 3, 3]), np.arange(10), 0).to_pylist()
    everything = found[0]
    assert everything["frequency"] == "all"
    assert everything["depth"] == everything["chance"] == pytest.approx(2 / 8)
    assert (everything["earlier"], everything["earlier_se"]) == (0, 0)
    assert everything["last"] == pytest.approx(2 / 8)


def test_a_lens_that_knows_is_earlier_than_chance() -> None:
    """A lens that knows each token's own answer from the start has depth 0, and depth 1 on vectors of another row."""
    model = [1, 2, 3, 4, 5, 6]
    found = decision_rows("s", tops([[token] * 4 for token in model], model, [0, 0, 1, 1, 2, 2]), np.arange(10), 0)
    LENS_DECISIONS.validate(found)
    for row in found.to_pylist():
        assert (row["depth"], row["chance"], row["earlier"]) == (0, 1, 1)


def test_means_and_errors_by_hand() -> None:
    """Rows of depths (0, 1), (1, 1) and (½) have mean 0.7 and residuals −0.4, 0.6 and −0.2, hence an error of √(0.56 · 3 / 2) / 5."""
    lens = [[7, 7, 7], [1, 1, 7], [1, 1, 7], [1, 1, 7], [1, 7, 7]]
    counts = np.zeros(8, dtype=np.int64)
    counts[7] = 12
    (row,) = (row for row in decision_rows("s", tops(lens, [7] * 5, [0, 0, 1, 1, 2]), counts, 0).to_pylist() if row["frequency"] == "all")
    assert row["depth"] == pytest.approx(0.7)
    assert row["depth_se"] == pytest.approx(math.sqrt(0.56 * 3 / 2) / 5)
    assert (row["n"], row["rows"], row["least"], row["most"], row["last"]) == (5, 3, 12, 12, pytest.approx(0.6))
    assert row["earlier"] == pytest.approx(row["chance"] - row["depth"])


def test_groups_by_frequency() -> None:
    """Each quarter has its own mean, and its bounds are counts in the corpus; together the quarters are all tokens."""
    model = [0, 1, 2, 3, 4, 5, 6, 7]
    lens = [[token if token >= 4 else -1, token] for token in model]  # only the frequent half is known before the last layer
    found = {
        row["frequency"]: row for row in decision_rows("s", tops(lens, model, [0, 0, 0, 0, 1, 1, 1, 1]), 10 * np.arange(8), 0).to_pylist()
    }
    assert {name: (row["depth"], row["least"], row["most"], row["n"]) for name, row in found.items()} == {
        "all": (0.5, 0, 70, 8),
        "q1": (1, 0, 10, 2),
        "q2": (1, 20, 30, 2),
        "q3": (0, 40, 50, 2),
        "q4": (0, 60, 70, 2),
    }


def test_answers_of_one_frequency_have_one_quarter() -> None:
    """If all answers are equally frequent, there is no row of a quarter without tokens."""
    found = decision_rows("s", tops([[1, 1], [2, 2]], [1, 2], [0, 1]), np.full(3, 5), 0).to_pylist()
    assert [row["frequency"] for row in found] == ["all", "q1"]


def test_a_single_row_has_no_chance_and_no_error() -> None:
    """With one row there is no other row's vector and no spread; both are null."""
    found = decision_rows("s", tops([[1, 1], [2, 2]], [1, 2], [0, 0]), np.arange(3), 0)
    LENS_DECISIONS.validate(found)
    for row in found.to_pylist():
        assert [row[name] for name in ("chance", "chance_se", "earlier", "earlier_se", "depth_se")] == [None] * 5


def random_tops(seed: int) -> tuple[Tops, Floats]:
    """Return top tokens that know nothing of the answer: a lens that says one of two tokens, at random, at each of two layers."""
    rng = np.random.default_rng(seed)
    model = rng.integers(0, 2, 2000)
    lens = np.concatenate([rng.integers(0, 2, (2000, 2)), model[:, None]], axis=1)
    return Tops(np.repeat(np.arange(100), 20), model, {"logit": lens}), np.arange(2)


def test_a_lens_that_guesses_is_at_chance() -> None:
    """A lens that guesses between two tokens decides at depth ½·1 + ¼·½ + ¼·0, and so it does on vectors of other rows."""
    some, counts = random_tops(0)
    row = decision_rows("s", some, counts, 0).to_pylist()[0]
    for name in ("depth", "chance"):
        assert row[name] == pytest.approx(0.625, abs=4 * row[f"{name}_se"])
    assert row["earlier"] == pytest.approx(0, abs=4 * row["earlier_se"])


def test_chance_depends_on_the_seed_alone() -> None:
    """The same seed gives the same rows, and another seed draws other partners but leaves the depth."""
    some, counts = random_tops(1)
    one, same, other = (decision_rows("s", some, counts, seed).to_pylist()[0] for seed in (0, 0, 1))
    assert one == same
    assert one["depth"] == other["depth"]
    assert one["chance"] != other["chance"]
