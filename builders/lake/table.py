"""Table and Column: the one source of a dataset's schema, key, order, units and descriptions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datasets import Features


GROUP = 2**24  # bytes that the long lists of a row group take: readers hold a row group at a time


class TableError(ValueError):
    """Rows that break a rule of their table. This is a bug in the code, not a user's mistake, so its traceback is shown."""


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type as text (``int32``, ``list<float32>``), meaning, unit and bounds (inclusive).

    All lists of a column with a *length* have that many values; without one they have any number.
    """

    name: str
    dtype: str
    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    nullable: bool = False
    categorical: bool = False  # few distinct strings: stored with a dictionary, and the dataset viewer draws bars
    length: int | None = None

    @property
    def is_list(self) -> bool:
        """Whether a cell holds several values."""
        return self.dtype.startswith("list<")

    @property
    def element(self) -> str:
        """The type of one value."""
        return self.dtype[5:-1] if self.is_list else self.dtype

    @property
    def type(self) -> str:
        """The type as readers are told it, with the length of its lists where they have one: ``list<float32>[128]``."""
        return self.dtype if self.length is None else f"{self.dtype}[{self.length}]"

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        value = pa.type_for_alias(self.element)
        return pa.list_(value, -1 if self.length is None else self.length) if self.is_list else value

    @property
    def leaf(self) -> str:
        """The path of the column's values inside a parquet file."""
        return f"{self.name}.list.element" if self.is_list else self.name


@dataclass(frozen=True)
class Reference:
    """A foreign key: the values of *columns* in each row are those of the columns *theirs* in some row of the table *to*.

    Rows where one of *columns* is null or among the values of *unless* refer to nothing.
    """

    columns: tuple[str, ...]
    to: str
    theirs: tuple[str, ...]
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A published config: what one row is, its columns, the key that identifies and orders its rows, and what they refer to."""

    name: str
    row: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    row_group: int = 50_000
    references: tuple[Reference, ...] = ()

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with the metadata from which `datasets` rebuilds exactly :meth:`features`."""
        features = {column.name: _feature(column) for column in self.columns}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema([(c.name, c.arrow) for c in self.columns], metadata=metadata)

    def features(self) -> Features:
        """Return the same schema as `datasets.Features`."""
        from datasets import Features  # this import takes two seconds, and most stages never need it

        return Features.from_arrow_schema(self.schema)

    def sized(self, **lengths: int) -> Table:
        """Return this table with lists of these *lengths*, by column, and with row groups whose lists take at most GROUP bytes."""
        columns = tuple(replace(column, length=lengths.get(column.name, column.length)) for column in self.columns)
        row = sum(column.length * pa.type_for_alias(column.element).bit_width // 8 for column in columns if column.length)
        return replace(self, columns=columns, row_group=min(self.row_group, max(1, GROUP // max(row, 1))))

    def build(self, columns: Mapping[str, Any]) -> pa.Table:
        """Return Arrow rows from *columns* (arrays, lists, or one scalar for all rows), in this table's order.

        Raises TableError where the names differ from the table's or a value does not fit its type.
        """
        expected = [column.name for column in self.columns]
        if set(columns) != set(expected):
            wrong = sorted(set(columns) ^ set(expected))
            raise TableError(f"{self.name}: columns missing or unknown: {', '.join(wrong)}")
        rows = next((len(v) for v in columns.values() if not _is_scalar(v)), 1)
        arrays = [_array(self.name, column, columns[column.name], rows) for column in self.columns]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def rows(self, records: list[dict[str, Any]]) -> pa.Table:
        """Return Arrow rows from *records*, sorted by key."""
        table = self.build({c.name: [record[c.name] for record in records] for c in self.columns})
        return self.sort(table)

    def sort(self, table: pa.Table) -> pa.Table:
        """Return *table* in key order."""
        return table.sort_by([(name, "ascending") for name in self.key])

    def row_groups(self, table: pa.Table) -> list[pa.Table]:
        """Cut *table* into row groups of this table's usual size."""
        return [table.slice(start, self.row_group) for start in range(0, max(table.num_rows, 1), self.row_group)]

    def empty(self) -> pa.Table:
        """Return a table of no rows."""
        return self.schema.empty_table()

    def validate(self, table: pa.Table, after: pa.Table | None = None) -> None:
        """Raise TableError unless *table* has this schema, no stray nulls, values in bounds, and a strictly rising key.

        *after* is the last row already written, which the first row must follow.
        """
        if not table.schema.equals(self.schema):
            raise TableError(f"{self.name}: schema differs:\n{table.schema}\nexpected\n{self.schema}")
        for column in self.columns:
            self._validate_column(column, table[column.name])
        keys = table.select(self.key)
        if after is not None and table.num_rows:
            keys = pa.concat_tables([after.select(self.key), keys])
        self._validate_order(keys)

    def _validate_column(self, column: Column, values: pa.ChunkedArray) -> None:
        if values.null_count and not column.nullable:
            raise TableError(f"{self.name}.{column.name}: {values.null_count} nulls in a column without nulls")
        flat = pc.list_flatten(values) if column.is_list else values
        if column.is_list and flat.null_count:
            raise TableError(f"{self.name}.{column.name}: {flat.null_count} nulls inside lists")
        if pa.types.is_floating(flat.type) and pc.any(pc.is_nan(flat)).as_py():
            raise TableError(f"{self.name}.{column.name}: NaN where a number is due; use null for 'no value'")
        if column.low is None and column.high is None:
            return
        bounds = pc.min_max(flat).as_py()
        least, most = bounds["min"], bounds["max"]
        if least is not None and column.low is not None and least < column.low:
            raise TableError(f"{self.name}.{column.name}: {least} is below {column.low}")
        if most is not None and column.high is not None and most > column.high:
            raise TableError(f"{self.name}.{column.name}: {most} is above {column.high}")

    def _validate_order(self, keys: pa.Table) -> None:
        if keys.num_rows < 2:
            return
        rising: Any = pa.scalar(False)
        for name in reversed(self.key):
            column = keys[name].combine_chunks()
            before, here = column[:-1], column[1:]
            rising = pc.or_(pc.less(before, here), pc.and_(pc.equal(before, here), rising))
        if not pc.all(rising).as_py():
            first = pc.index(rising, pa.scalar(False)).as_py()
            pair = keys.slice(first, 2).to_pylist()
            raise TableError(f"{self.name}: key does not rise: {pair[0]} then {pair[1]}")


def _feature(column: Column) -> dict[str, Any]:
    value = {"dtype": column.element, "_type": "Value"}
    if not column.is_list:
        return value
    return {"feature": value, **({} if column.length is None else {"length": column.length}), "_type": "List"}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool, int, float, np.generic))


def _array(table: str, column: Column, value: Any, rows: int) -> pa.Array:
    try:
        if _is_scalar(value):
            return pa.repeat(pa.scalar(value, column.arrow), rows)
        if isinstance(value, pa.ChunkedArray):
            value = value.combine_chunks()
        if isinstance(value, pa.Array):
            return value.cast(column.arrow)
        if isinstance(value, np.ndarray) and column.is_list and value.ndim == 2:
            return list_array(value, column)
        return pa.array(value, column.arrow)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise TableError(f"{table}.{column.name} ({column.type}): {error}") from error


def list_array(matrix: np.ndarray[Any, Any], column: Column) -> pa.Array:
    """Return the rows of *matrix* [rows, n] as lists of *column*'s type, without copying cell by cell."""
    rows, length = matrix.shape
    values = pa.array(np.ascontiguousarray(matrix).reshape(-1)).cast(pa.type_for_alias(column.element))
    if column.length is None:
        return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * length, values)
    if column.length != length:
        raise pa.ArrowInvalid(f"lists of {length} values, not {column.length}")
    return pa.FixedSizeListArray.from_arrays(values, length)
