"""Rows as hashes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.releases.hashing import hashes_of, row_hashes, within

VALUES = {
    "string": st.text(max_size=3),
    "binary": st.binary(max_size=3),
    "bool": st.booleans(),
    "int32": st.integers(-3, 3),
    "float32": st.sampled_from([-1.5, 0.0, 0.5]),
}


def hashed(values: list[Any], kind: pa.DataType) -> list[int]:
    """Return the hashes of a column."""
    found: list[int] = hashes_of([pa.array(values, kind)], len(values)).tolist()
    return found


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_rows_are_equal_if_their_hashes_are(kind: str, data: Any) -> None:
    """Equal values have equal hashes, others have others: single values, nulls, and lists, in which the order counts."""
    value = pa.type_for_alias(kind)
    for arrow, strategy in ((value, st.none() | VALUES[kind]), (pa.list_(value), st.none() | st.lists(VALUES[kind], max_size=3))):
        values = data.draw(st.lists(strategy, min_size=1, max_size=6))
        hashes = hashed(values, arrow)
        assert [[one == other for other in hashes] for one in hashes] == [[one == other for other in values] for one in values]


def test_width_of_numbers_and_length_of_lists_do_not_count() -> None:
    """Numbers are equal whatever their width, minus zero is zero, and lists are equal whether their length is fixed or not."""
    assert hashed([-1, 2], pa.int32()) == hashed([-1, 2], pa.int64())
    assert hashed([0.5, -0.0], pa.float16()) == hashed([0.5, 0.0], pa.float64())
    assert hashed([[0.5, 1.0]], pa.list_(pa.float32(), 2)) == hashed([[0.5, 1.0]], pa.list_(pa.float32()))


def test_a_row_has_the_same_hash_in_any_batch() -> None:
    """Slices of a batch, whose columns begin elsewhere in memory, hash as the whole does; the order of columns counts."""
    rows = pa.RecordBatch.from_pydict({"a": ["x", None, "y", "x"], "b": pa.array([[1.0], [], [2.0, 1.0], None], pa.list_(pa.float32()))})
    whole = row_hashes(rows, ["a", "b"])

    assert [row_hashes(rows.slice(place, 1), ["a", "b"])[0] for place in range(4)] == whole.tolist()
    assert not np.intersect1d(whole, row_hashes(rows, ["b", "a"])).size


def test_hashes_are_looked_up_among_sorted_ones() -> None:
    """Values below, between, among and above the known ones; nothing is among none."""
    known = np.array([2, 4], dtype=np.uint64)

    assert within(np.arange(6, dtype=np.uint64), known).tolist() == [False, False, True, False, True, False]
    assert within(known, known[:0]).tolist() == [False, False]
