"""Token rows as arrays, and the grid of windows that they hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.arrays import Ints


@dataclass(frozen=True)
class Corpus:
    """The token rows: ids [rows, length] (padded), and how many tokens each row has."""

    ids: npt.NDArray[np.int32]
    lengths: Ints

    @property
    def row_length(self) -> int:
        """Length of the longest row."""
        return int(self.ids.shape[1])

    def grid(self, window: int) -> Grid:
        """Return the grid of whole, non-overlapping windows of all rows."""
        return Grid(self.lengths // window, window)


@dataclass(frozen=True)
class Grid:
    """All whole windows of a corpus, numbered row by row. *per_row* [rows] counts the windows of each row; *window* is their length."""

    per_row: Ints
    window: int

    @cached_property
    def first(self) -> Ints:
        """The number of each row's first window."""
        return np.cumsum(self.per_row) - self.per_row

    @property
    def total(self) -> int:
        """How many windows there are."""
        return int(self.per_row.sum())

    def number(self, row: Ints, position: Ints) -> Ints:
        """Return the number of the window that holds *position* of *row*; -1 in the end of a row that is too short for a window."""
        block = position // self.window
        return np.where(block < self.per_row[row], self.first[row] + block, -1)

    def place(self, number: Ints) -> tuple[Ints, Ints]:
        """Return the row and the first position of each window in *number*."""
        row = np.searchsorted(self.first, number, side="right") - 1
        # A row without a window has the same first number as the next row. Of equal entries the last row is the one that has the window.
        return row, (number - self.first[row]) * self.window


def padded(rows: pa.Table, column: str, fill: int) -> np.ndarray[Any, Any]:
    """Return a list column of *rows* as a matrix [rows, longest]; short rows are padded on the right with *fill*."""
    lists = rows[column].combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    values = lists.flatten().to_numpy(zero_copy_only=False)
    matrix = np.full((len(lengths), int(lengths.max(initial=0))), fill, dtype=values.dtype)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = values
    return matrix
