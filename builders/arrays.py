"""Helpers for numpy arrays: sort by group, rank within a group, look values up in a sorted array; and the arrays' types."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def ranks(groups: Ints) -> tuple[Ints, Ints]:
    """Return each element's rank within its group, from 0, and the size of its group (both [n]); *groups* [n] must be sorted."""
    new = np.concatenate([[True], groups[1:] != groups[:-1]]) if len(groups) else np.zeros(0, dtype=bool)
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(groups)))
    return np.arange(len(groups)) - np.repeat(starts, lengths), np.repeat(lengths, lengths)


def sort_order(groups: Ints, value: npt.NDArray[Any], *, descending: bool = False) -> Ints:
    """Return the indices [n] that sort by *groups*, then by *value*; equal elements keep their order.

    *groups* must be below 2³²; *value* must not be negative and is compared as float32. Both are packed into one integer,
    because sorting by one key is several times as fast as sorting by two.
    """
    bits = value.astype(np.float32).view(np.uint32)
    key = (groups.astype(np.uint64) << np.uint64(32)) | (~bits if descending else bits)
    return np.argsort(key, kind="stable")


def among(keys: Ints, asked: npt.NDArray[np.integer]) -> Bools:
    """Return which of *asked* (any shape) occur in *keys*, which must be sorted; the result has the shape of *asked*."""
    if not len(keys):
        return np.zeros(asked.shape, dtype=bool)
    found: Bools = keys[np.minimum(np.searchsorted(keys, asked), len(keys) - 1)] == asked
    return found
