"""Rows as 64-bit hashes: equal values give equal hashes whatever their file, batch or width of number, so that rows can be joined cheaply.

Two different rows get the same hash with probability 2⁻⁶⁴.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

Hashes = npt.NDArray[np.uint64]
MISSING = np.uint64(0x9E3779B97F4A7C15)  # the hash of null


def row_hashes(rows: pa.RecordBatch, columns: Sequence[str]) -> Hashes:
    """Return a hash of the values of *columns* in each row [rows]."""
    return hashes_of([rows[name] for name in columns], rows.num_rows)


def hashes_of(columns: Sequence[pa.Array], rows: int) -> Hashes:
    """Return a hash of the values of all *columns* in each of *rows*; their order counts."""
    found = np.zeros(rows, dtype=np.uint64)
    for column in columns:
        found = hash_array(found + _hashes(column))
    return found


def within(hashes: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """Return which of *hashes* are among *known*, which is sorted."""
    if not len(known):
        return np.zeros(len(hashes), dtype=bool)
    found: npt.NDArray[np.bool_] = known[np.searchsorted(known, hashes).clip(max=len(known) - 1)] == hashes
    return found


def _hashes(column: pa.Array) -> Hashes:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        found = _of_lists(column)
    elif pa.types.is_floating(column.type):
        found = hash_array(column.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0)  # -0.0 becomes 0.0, which it equals
    elif pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        found = hash_array(column.fill_null(False if pa.types.is_boolean(column.type) else 0).cast(pa.int64()).to_numpy())
    else:
        coded = column.dictionary_encode()
        distinct = hash_array(coded.dictionary.to_numpy(zero_copy_only=False), categorize=False)
        found = distinct[coded.indices.fill_null(0).to_numpy()] if len(distinct) else np.zeros(len(column), dtype=np.uint64)
    if column.null_count:
        found[column.is_null().to_numpy(zero_copy_only=False)] = MISSING
    return found


def _of_lists(column: pa.Array) -> Hashes:
    """Return a hash of each list: the sum over its values of a hash of the value and its place."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    values = hash_array(_hashes(pc.list_flatten(column)) + hash_array(place + 1))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(values, dtype=np.uint64)])
    return hash_array(sums[ends] - sums[ends - lengths] + lengths.astype(np.uint64))
