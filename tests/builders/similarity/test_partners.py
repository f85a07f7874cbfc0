"""Partners in known dictionaries, and rows that tell the same pairs from both sides. Whole matrices are the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alike import KINDS, Given, dictionary, joined, measures_of, partners, taken
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from builders.similarity import assignment
from builders.similarity.partners import DIRECTIONS, MATCHES, MEASURES, Partners, match_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from builders.arrays import Ints
    from builders.similarity.measures import Floats32

pytestmark = pytest.mark.numeric

SIZE = 300
ORDER = np.random.default_rng(0).permutation(SIZE)
# Numbers of latents that are no places among those that are compared: the latents between them never fire.
LATENTS, OTHERS = 3 * np.arange(SIZE) + 1, 2 * np.arange(SIZE)
LEVELS = [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]


@st.composite
def tables(draw: st.DrawFn) -> Floats32:
    """Draw values [n, m] of which many are equal."""
    n, m = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    return np.array(draw(st.lists(st.sampled_from(LEVELS), min_size=n * m, max_size=n * m)), np.float32).reshape(n, m)


def rows_of(rows: pa.Table, sae: str, measure: str) -> list[dict[str, Any]]:
    """Return the rows of one dictionary by one measure."""
    return [row for row in rows.to_pylist() if (row["sae"], row["measure"]) == (sae, measure)]


def column(rows: pa.Table, name: str, sae: str = "a", measure: str = "decoder") -> list[Any]:
    """Return the cells of a column that one dictionary has by one measure."""
    return [row[name] for row in rows_of(rows, sae, measure)]


# Known dictionaries


@pytest.fixture(scope="module")
def shuffled() -> pa.Table:
    """Return the rows, by every measure, of a dictionary and the same one in another order."""
    a = dictionary(0, SIZE)
    found = {name: partners(measure, latents=LATENTS, others=OTHERS) for name, measure in measures_of(a, taken(a, ORDER)).items()}
    return match_rows("a", "b", found)


def test_there_is_a_known_answer_for_every_measure() -> None:
    """The measures that are tried on known dictionaries are all that there are."""
    assert list(KINDS) == list(MEASURES)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("sae", "own", "expected"),
    [("a", LATENTS, OTHERS[np.argsort(ORDER)]), ("b", OTHERS, LATENTS[ORDER])],
    ids=["of the dictionary", "of its copy"],
)
def test_a_permuted_dictionary_is_recovered(shuffled: pa.Table, measure: str, sae: str, own: Ints, expected: Ints) -> None:
    """By every measure and from both sides, the nearest, the mutual and the assigned partner of each latent is its copy."""
    found = {name: column(shuffled, name, sae, measure) for name in MATCHES.schema.names}

    assert found["latent"] == own.tolist()
    assert found["partner"] == found["assigned"] == expected.tolist()
    assert found["mutual"] == [True] * SIZE
    assert found["agree"] == [True if measure in DIRECTIONS else None] * SIZE
    # Some kernels sum a pair's products in another order from the other side.
    assert [found[name] for name in ("value", "assigned_value")] == [pytest.approx(np.ones(SIZE), abs=1e-6)] * 2
    assert min(found["margin"]) > 0.3


def test_rows_of_known_dictionaries_are_rows_of_the_table(shuffled: pa.Table) -> None:
    """Both sides of every measure are there, in the order of the key."""
    MATCHES.validate(shuffled)
    assert shuffled.num_rows == 2 * len(MEASURES) * SIZE


@pytest.mark.parametrize("measure", MEASURES)
def test_latents_are_told_from_noise(measure: str) -> None:
    """Half of the latents are replaced: those that are left are found, mutual and far ahead, and the others are like nobody."""
    a, kept = dictionary(0, SIZE), SIZE // 2
    b = taken(joined(taken(a, np.arange(kept)), dictionary(1, SIZE - kept)), ORDER)
    rows = rows_of(match_rows("a", "b", {measure: partners(measures_of(a, b)[measure])}), "a", measure)
    left, noise = rows[:kept], rows[kept:]

    assert [row["partner"] for row in left] == [row["assigned"] for row in left] == np.argsort(ORDER)[:kept].tolist()
    assert all(row["mutual"] and row["margin"] > 0.3 for row in left)
    assert max(max(row["value"], row["assigned_value"]) for row in noise) < 0.7
    assert max(row["margin"] for row in noise) < 0.3


# Any values


@given(tables(), st.integers(1, 9))
@settings(max_examples=100)
def test_rows_are_those_of_the_matrix(values: Floats32, most: int) -> None:
    """For any values, ties and different widths included, both sides hold what the whole matrix says."""
    numbers = 3 * np.arange(values.shape[0]) + 1, 2 * np.arange(values.shape[1])
    rows = match_rows("a", "b", {"decoder": partners(Given(values), most, *numbers)})
    MATCHES.validate(rows)
    for sae, table, (own, others) in (("a", values, numbers), ("b", values.T, numbers[::-1])):
        nearest, ordered = table.argmax(axis=1), -np.sort(-table, axis=1)
        second = min(most, len(others)) > 1

        assert column(rows, "latent", sae) == own.tolist()
        assert column(rows, "partner", sae) == others[nearest].tolist()
        assert column(rows, "value", sae) == ordered[:, 0].tolist()
        assert column(rows, "mutual", sae) == (table.argmax(axis=0)[nearest] == np.arange(len(own))).tolist()
        assert column(rows, "margin", sae) == ((ordered[:, 0] - ordered[:, 1]).tolist() if second else [None] * len(own))


@given(tables())
@settings(max_examples=100)
def test_both_sides_tell_the_same_pairs(values: Floats32) -> None:
    """For any values, partners one to one and mutual ones are the same pairs with the same values from both sides."""
    rows = match_rows("a", "b", {"decoder": partners(Given(values))})
    a, b = (rows_of(rows, sae, "decoder") for sae in ("a", "b"))

    assert {(row["latent"], row["assigned"], row["assigned_value"]) for row in a if row["assigned"] is not None} == {
        (row["assigned"], row["latent"], row["assigned_value"]) for row in b if row["assigned"] is not None
    }
    assert {(row["latent"], row["partner"], row["value"]) for row in a if row["mutual"]} == {
        (row["partner"], row["latent"], row["value"]) for row in b if row["mutual"]
    }


@given(tables())
@settings(max_examples=100)
def test_the_smaller_dictionary_is_assigned_whole(values: Floats32) -> None:
    """For any values, each latent of the smaller dictionary has a partner of its own, and the sum of values is the largest."""
    found = rows_of(match_rows("a", "b", {"decoder": partners(Given(values))}), "a", "decoder")
    has = [row for row in found if row["assigned"] is not None]

    assert len({row["assigned"] for row in has}) == len(has) == min(values.shape)
    assert [row["assigned_value"] for row in has] == [values[row["latent"], row["assigned"]] for row in has]
    assert {row["assigned_value"] for row in found if row["assigned"] is None} <= {None}
    assert sum(row["assigned_value"] for row in has) == values[linear_sum_assignment(values, maximize=True)].sum()


# Where something is missing

UNEVEN = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.4]]  # by the decoder: the third of A's latents is left alone
TURNED = [[0.9, 0.1], [0.1, 0.2], [0.2, 0.8]]  # by the encoder: the second is left alone


def uneven(**tables: Any) -> pa.Table:
    """Return the rows of dictionaries of three and two latents with the values of *tables*, by measure."""
    rows = match_rows("a", "b", {name: partners(Given(table)) for name, table in tables.items()})
    MATCHES.validate(rows)
    return rows


def test_a_latent_may_stay_alone() -> None:
    """Of three latents and two partners, one has a nearest latent but none of its own."""
    rows = uneven(decoder=UNEVEN)

    assert column(rows, "partner") == [0, 1, 1]
    assert column(rows, "mutual") == [True, True, False]
    assert column(rows, "assigned") == [0, 1, None]
    assert column(rows, "assigned_value") == [np.float32(0.9), np.float32(0.8), None]
    assert column(rows, "assigned", "b") == [0, 1]


def test_agreement_needs_both_partners() -> None:
    """Rows of both measures say the same of it: nothing where the decoder or the encoder assigns no partner."""
    rows = uneven(decoder=UNEVEN, encoder=TURNED, pearson=UNEVEN)

    for measure in DIRECTIONS:
        assert column(rows, "agree", "a", measure) == [True, None, None]
        assert column(rows, "agree", "b", measure) == [True, False]
    assert set(column(rows, "agree", "a", "pearson") + column(rows, "agree", "b", "pearson")) == {None}


@pytest.mark.parametrize("measure", DIRECTIONS)
def test_agreement_needs_both_measures(measure: str) -> None:
    """Where only one of decoder and encoder could be compared, nothing is said of agreement."""
    assert set(column(uneven(**{measure: UNEVEN, "pearson": UNEVEN}), "agree", "a", measure)) == {None}


def test_where_all_are_candidates_nobody_need_have_a_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    """In wide dictionaries a latent that is like nobody stays alone, on both sides, and has no agreement."""
    monkeypatch.setattr(assignment, "EXACT", 1)
    values = np.zeros((20, 20))
    values[13, 17] = 0.5
    table = partners(Given(values))
    rows = uneven(decoder=values, encoder=values)

    assert table.place.tolist() == [17 if latent == 13 else -1 for latent in range(20)]
    assert column(rows, "assigned") == [17 if latent == 13 else None for latent in range(20)]
    assert column(rows, "assigned", "b") == [13 if latent == 17 else None for latent in range(20)]
    assert column(rows, "agree") == [True if latent == 13 else None for latent in range(20)]


@pytest.mark.parametrize(("most", "values"), [(1, [[0.5, 0.25]]), (4, [[0.5], [0.25]])], ids=["one looked for", "one there"])
def test_without_a_second_there_is_no_margin(most: int, values: Any) -> None:
    """Where only one latent was looked for, or there is only one, the margin is null."""
    assert set(column(match_rows("a", "b", {"decoder": partners(Given(values), most)}), "margin")) == {None}


def test_dictionaries_that_nothing_compares_have_no_rows() -> None:
    """Without a measure there are no rows, and they are of the table."""
    rows = match_rows("a", "b", {})

    MATCHES.validate(rows)
    assert rows.num_rows == 0


def test_flipping_twice_changes_nothing() -> None:
    """The partners of B's latents in A, flipped, are those of A's in B, the lonely included."""
    table = partners(Given(UNEVEN), 4, np.array([2, 5, 9]), np.array([1, 4]))
    again = table.flipped.flipped

    assert isinstance(again, Partners)
    assert (again.latents.tolist(), again.others.tolist()) == ([2, 5, 9], [1, 4])
    assert again.place.tolist() == [0, 1, -1]
    np.testing.assert_array_equal(again.value, table.value)
    assert (again.there, again.back) == (table.there, table.back)
    assert table.flipped.place.tolist() == [0, 1]
