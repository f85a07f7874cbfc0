from __future__ import annotations

import importlib
import pkgutil
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import builders
from builders.contexts.contexts import CONTEXTS
from builders.explainers.explanations import EXPLANATIONS
from builders.lake.failures import FAILURES
from builders.lake.shards import write_parquet
from builders.lake.table import Column, Table, TableError, list_array
from builders.saes.activations import ACTIVATIONS
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.scorers.judgements import JUDGEMENTS, SCORES
from builders.subjects.checkpoints import SUBJECTS
from builders.text.sources import DOCUMENTS
from builders.text.tokens import TOKENS
from builders.text.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMED = [ACTIVATIONS, CONTEXTS, DOCUMENTS, EXPLANATIONS, FAILURES, JUDGEMENTS, LATENTS, SAES, SCORES, SUBJECTS, TOKENS, VOCABULARY]

SMALL = Table(
    name="small",
    row="a thing",
    key=("kind", "number"),
    columns=(
        Column("kind", "string", "its kind", categorical=True),
        Column("number", "int32", "its number", low=0, high=9),
        Column("share", "float32", "a share", low=0, high=1, nullable=True),
        Column("values", "list<float32>", "values", low=-1, high=1),
        Column("raw", "binary", "bytes"),
    ),
)


def small(**columns: Any) -> pa.Table:
    """Return two valid rows of SMALL, with *columns* in place of the default ones."""
    usual = {"kind": ["a", "b"], "number": [1, 0], "share": [0.0, None], "values": [[-1.0, 1.0], []], "raw": [b"\xff", b""]}
    return SMALL.build({**usual, **columns})


def published() -> Iterator[Table]:
    """Yield every Table that any module of the package defines, each once."""
    seen: set[int] = set()
    for module in pkgutil.walk_packages(builders.__path__, "builders."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Table) and id(value) not in seen:
                seen.add(id(value))
                yield value


TABLES = pytest.mark.parametrize("table", [pytest.param(table, id=table.name) for table in published()])


def test_every_published_table_is_found() -> None:
    """The walk over the package finds every config, each under its own name."""
    names = sorted(table.name for table in published())
    assert set(names) >= {table.name for table in NAMED}
    assert len(names) == len(set(names))


@TABLES
def test_schema_is_what_datasets_would_write(table: Table) -> None:
    """The Arrow schema, its `huggingface` metadata included, is byte for byte that of the table's `datasets.Features`."""
    expected = table.features().arrow_schema
    assert table.schema.equals(expected, check_metadata=True)
    assert table.schema.metadata == expected.metadata


@TABLES
def test_features_have_the_type_of_every_column(table: Table) -> None:
    """The features are a Value or a List of Values for each column, in the table's order."""
    from datasets import Features, List, Value

    expected = {c.name: List(Value(c.dtype[5:-1])) if c.dtype.startswith("list<") else Value(c.dtype) for c in table.columns}
    assert table.features() == Features(expected)
    assert list(table.features()) == [column.name for column in table.columns]


@TABLES
def test_published_tables_are_well_formed(table: Table) -> None:
    """Every column has a description, names do not repeat, keys are columns without nulls, and only strings are categorical."""
    columns = {column.name: column for column in table.columns}
    assert len(columns) == len(table.columns)
    assert table.row
    assert all(column.doc for column in table.columns)
    assert table.key
    assert not any(columns[name].nullable or columns[name].is_list for name in table.key)
    assert {column.element for column in table.columns if column.categorical} <= {"string"}


@TABLES
def test_an_empty_table_is_valid(table: Table) -> None:
    """An empty table of any config has its schema and is valid."""
    assert table.empty().num_rows == 0
    table.validate(table.empty())


@pytest.mark.parametrize(
    ("dtype", "arrow", "element", "leaf"),
    [
        ("int32", pa.int32(), "int32", "x"),
        ("binary", pa.binary(), "binary", "x"),
        ("list<float16>", pa.list_(pa.float16()), "float16", "x.list.element"),
        ("list<string>", pa.list_(pa.string()), "string", "x.list.element"),
    ],
)
def test_a_column_names_its_arrow_type(dtype: str, arrow: pa.DataType, element: str, leaf: str) -> None:
    """A column's type as text gives its Arrow type, its element's type and the parquet path of its values."""
    column = Column("x", dtype, "a column")
    assert (column.arrow, column.element, column.leaf) == (arrow, element, leaf)
    assert column.is_list == (dtype != element)


def test_a_column_of_lists_may_have_their_length() -> None:
    """With a length a column has a fixed-size type, which readers are told; its values lie where those of other lists lie."""
    column = Column("x", "list<float32>", "a column", length=3)
    assert (column.arrow, column.type, column.leaf) == (pa.list_(pa.float32(), 3), "list<float32>[3]", "x.list.element")
    assert Column("x", "list<float32>", "a column").type == "list<float32>"


def test_a_table_is_sized() -> None:
    """A table of open lists gets their lengths once they are known; its schema is what `datasets` would write, and only such lists fit."""
    from datasets import List, Value

    table = SMALL.sized(values=2)
    assert table.schema.metadata == table.features().arrow_schema.metadata
    assert table.features() == {**SMALL.features(), "values": List(Value("float32"), length=2)}
    usual = {"kind": ["a", "b"], "number": [1, 0], "share": None, "raw": [b"", b""]}
    rows = [[0.5, -0.5], [1.0, 0.0]]
    for values in (rows, np.array(rows), pa.array(rows), pa.array(rows, pa.list_(pa.float32(), 2))):
        built = table.build({**usual, "values": values})
        table.validate(built)
        assert built["values"].to_pylist() == rows
    for wrong in ([[0.5], [1.0, 0.0]], np.zeros((2, 3)), pa.array([[0.5], [0.5]])):
        with pytest.raises(TableError, match=r"^small\.values \(list<float32>\[2\]\): "):
            table.build({**usual, "values": wrong})


@pytest.mark.parametrize(
    ("values", "message"),
    [([[0.5, None], [0.0, 0.0]], "nulls inside lists"), ([[float("nan"), 0.0]] * 2, "NaN"), ([[0.0, 0.0], [0.0, -2.0]], "below -1")],
)
def test_bad_values_in_sized_lists_are_refused(values: list[Any], message: str) -> None:
    """Nulls, NaN and values out of bounds are refused in lists of one length as in others."""
    table = SMALL.sized(values=2)
    with pytest.raises(TableError, match=message):
        table.validate(table.build({"kind": ["a", "b"], "number": [1, 0], "share": None, "raw": [b"", b""], "values": values}))


@pytest.mark.parametrize(("length", "rows"), [(8, 50_000), (2**20, 4), (2**23, 1)])
def test_long_lists_make_short_row_groups(length: int, rows: int) -> None:
    """A row group holds at most 16 MB of lists, but at least one row."""
    assert SMALL.sized(values=length).row_group == rows


def test_build_takes_arrays_lists_and_scalars() -> None:
    """Arrow arrays, numpy arrays, lists and one scalar for all rows become columns in the table's order and types."""
    columns = {
        "raw": pa.chunked_array([pa.array([b"x"]), pa.array([b"y"])]),
        "values": np.array([[0.5, -0.5], [0.25, 1.0]]),
        "share": np.float64(0.5),
        "number": np.array([3, 4]),
        "kind": "a",
    }
    built = SMALL.build(columns)
    assert built.schema.equals(SMALL.schema, check_metadata=True)
    assert built.to_pylist() == [
        {"kind": "a", "number": 3, "share": 0.5, "values": [0.5, -0.5], "raw": b"x"},
        {"kind": "a", "number": 4, "share": 0.5, "values": [0.25, 1.0], "raw": b"y"},
    ]


def test_build_of_scalars_alone_is_one_row() -> None:
    """If every column is a scalar, the table has one row."""
    table = Table("one", "a row", ("name",), (Column("name", "string", "a name"), Column("size", "int32", "a size", nullable=True)))
    assert table.build({"name": "x", "size": None}).to_pylist() == [{"name": "x", "size": None}]


def test_build_names_missing_and_unknown_columns() -> None:
    """A missing column and an unknown column are both named."""
    with pytest.raises(TableError, match=r"^small: columns missing or unknown: colour, share$"):
        SMALL.build({"kind": ["a"], "number": [1], "values": [[]], "raw": [b""], "colour": ["red"]})


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(["one", "two"], id="text"),
        pytest.param([2**40, 0], id="wide"),
        pytest.param(np.array([2**40, 0]), id="wide-numpy"),
        pytest.param(np.array([0.5, 0.0]), id="fraction"),
        pytest.param(pa.array([2**40, 0]), id="wide-arrow"),
        pytest.param(2**40, id="wide-scalar"),
        pytest.param([2**70, 0], id="wider-than-any"),
    ],
)
def test_build_refuses_values_that_do_not_fit(number: Any) -> None:
    """A value that its column's type cannot hold is refused by the column's name, never cut or wrapped."""
    with pytest.raises(TableError, match=r"^small\.number \(int32\): "):
        small(number=number)


def test_build_refuses_columns_of_different_lengths() -> None:
    """Columns of different lengths make no table."""
    with pytest.raises(ValueError, match="length"):
        small(number=[1, 2, 3])


def test_rows_come_in_key_order() -> None:
    """Records are sorted by the whole key, its first column first."""
    keys = [("b", 0), ("a", 9), ("a", 2), ("B", 5)]
    records: list[dict[str, Any]] = [{"kind": kind, "number": number, "share": None, "values": [], "raw": b""} for kind, number in keys]
    built = SMALL.rows(records)
    assert built.select(["kind", "number"]).to_pylist() == [
        {"kind": "B", "number": 5},
        {"kind": "a", "number": 2},
        {"kind": "a", "number": 9},
        {"kind": "b", "number": 0},
    ]
    SMALL.validate(built)


@pytest.mark.parametrize(("rows", "sizes"), [(0, [0]), (1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])])
def test_row_groups_cut_a_table(rows: int, sizes: list[int]) -> None:
    """A table is cut into row groups of the usual size, the last one shorter, and none is lost."""
    table = Table("n", "a number", ("n",), (Column("n", "int32", "a number"),), row_group=3)
    groups = table.row_groups(table.build({"n": list(range(rows))}))
    assert [group.num_rows for group in groups] == sizes
    assert [n for group in groups for n in group["n"].to_pylist()] == list(range(rows))


def test_list_array_keeps_rows() -> None:
    """A matrix becomes one list per row, in the column's type, also where it has no rows or no columns."""
    column = Column("x", "list<int32>", "ids")
    assert list_array(np.array([[1, 2, 3], [4, 5, 6]]).T, column).to_pylist() == [[1, 4], [2, 5], [3, 6]]
    assert list_array(np.zeros((0, 4), np.int64), column).equals(pa.array([], pa.list_(pa.int32())))
    assert list_array(np.zeros((2, 0), np.int64), column).to_pylist() == [[], []]


def test_good_rows_pass() -> None:
    """Rows at the very bounds, with nulls where they are allowed, are valid."""
    assert SMALL.validate(small(number=[0, 9], share=[0.0, 1.0])) is None
    assert SMALL.validate(small()) is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        pytest.param({"kind": ["a", None]}, r"small\.kind: 1 nulls", id="null"),
        pytest.param({"values": [None, []]}, r"small\.values: 1 nulls", id="null-list"),
        pytest.param({"values": [[0.5, None], []]}, r"small\.values: .*null", id="null-in-a-list"),
        pytest.param({"share": [float("nan"), None]}, r"small\.share: NaN", id="nan"),
        pytest.param({"values": [[0.5], [float("nan")]]}, r"small\.values: NaN", id="nan-in-a-list"),
        pytest.param({"number": [-1, 0]}, r"small\.number: -1 is below 0", id="below"),
        pytest.param({"number": [1, 10]}, r"small\.number: 10 is above 9", id="above"),
        pytest.param({"share": [1.5, None]}, r"small\.share: 1\.5 is above 1", id="above-beside-null"),
        pytest.param({"share": [float("inf"), None]}, r"small\.share: inf is above 1", id="infinite"),
        pytest.param({"values": [[], [-2.0]]}, r"small\.values: -2\.0 is below -1", id="below-in-a-list"),
        pytest.param({"kind": ["b", "a"]}, r"key does not rise: .*'b'.*'a'", id="first-key-falls"),
        pytest.param({"kind": "a"}, r"key does not rise: .*1.*0", id="second-key-falls"),
        pytest.param({"kind": "a", "number": 3}, r"key does not rise", id="key-repeats"),
    ],
)
def test_bad_rows_are_refused(columns: dict[str, Any], message: str) -> None:
    """Stray nulls, NaN, values out of bounds and keys that do not strictly rise are refused by name and value."""
    with pytest.raises(TableError, match=message):
        SMALL.validate(small(**columns))


def test_nan_is_refused_in_a_column_without_bounds() -> None:
    """A float column without bounds holds numbers or nulls, never NaN."""
    table = Table("free", "a number", ("n",), (Column("n", "int32", "a number"), Column("x", "float64", "any number", nullable=True)))
    table.validate(table.build({"n": [0, 1], "x": [None, -1e300]}))
    with pytest.raises(TableError, match=r"free\.x: NaN"):
        table.validate(table.build({"n": [0, 1], "x": [None, float("nan")]}))


def test_other_schemas_are_refused() -> None:
    """A column of another type, name or place is another schema."""
    good = small()
    wide = good.set_column(1, "number", good["number"].cast(pa.int64()))
    for bad in (wide, good.drop_columns(["raw"]), good.select(["number", "kind", "share", "values", "raw"])):
        with pytest.raises(TableError, match="schema differs"):
            SMALL.validate(bad)


def test_the_key_rises_across_row_groups() -> None:
    """The first row of a group must follow the last row of the group before it."""
    before = small(number=[1, 5]).slice(1)
    SMALL.validate(small(kind=["b", "c"], number=[6, 0]), after=before)
    SMALL.validate(SMALL.empty(), after=before)
    for number in (5, 4):
        with pytest.raises(TableError, match="key does not rise"):
            SMALL.validate(small(kind=["b", "c"], number=[number, 0]), after=before)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=6))
def test_order_is_checked_as_python_would(keys: list[tuple[str, int]]) -> None:
    """Keys are valid exactly if each is greater than the one before, compared as tuples."""
    columns = {"kind": [k for k, _ in keys], "number": [n for _, n in keys], "share": [None] * len(keys)}
    table = SMALL.build({**columns, "values": [[]] * len(keys), "raw": [b""] * len(keys)})
    if all(here < after for here, after in pairwise(keys)):
        SMALL.validate(table)
    else:
        with pytest.raises(TableError, match="key does not rise"):
            SMALL.validate(table)


CELLS: dict[str, st.SearchStrategy[Any]] = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float16": st.floats(width=16, allow_nan=False),
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(max_size=4),
    "binary": st.binary(max_size=4),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, list[dict[str, Any]]]:
    """Draw a Table keyed by a number, and records for it."""
    columns = [Column("n", "int64", "a number")]
    lengths = st.none() | st.integers(1, 3)
    kinds = draw(st.lists(st.tuples(st.sampled_from(sorted(CELLS)), st.booleans(), st.booleans(), st.booleans(), lengths), max_size=4))
    cells: dict[str, st.SearchStrategy[Any]] = {}
    for place, (element, is_list, nullable, categorical, length) in enumerate(kinds):
        dtype, length = (f"list<{element}>", length) if is_list else (element, None)
        name = f"c{place}"
        columns.append(Column(name, dtype, "drawn", nullable=nullable, categorical=categorical and element == "string", length=length))
        cell = st.lists(CELLS[element], min_size=length or 0, max_size=length or 3) if is_list else CELLS[element]
        cells[name] = st.none() | cell if nullable else cell
    records = draw(st.lists(st.fixed_dictionaries({"n": CELLS["int64"], **cells}), unique_by=lambda record: str(record["n"]), max_size=5))
    return Table("drawn", "a drawn row", ("n",), tuple(columns), row_group=2), records


@settings(max_examples=60)
@given(drawn=tables())
def test_rows_survive_a_parquet_file(drawn: tuple[Table, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the columns, rows written in groups are read back equal, sorted by key, with their schema."""
    table, records = drawn
    path = tmp_path_factory.getbasetemp() / "drawn.parquet"
    rows = table.rows(records)
    assert write_parquet(path, table, table.row_groups(rows)) == len(records)
    back = pq.read_table(path)
    assert back.schema.equals(table.schema)
    assert back.schema.metadata == table.schema.metadata
    assert back.to_pylist() == sorted(records, key=lambda record: record["n"])


def test_datasets_reads_the_features_back(tmp_path: Path) -> None:
    """`load_dataset` finds in a shard exactly the features that the table declares, and its rows."""
    from datasets import load_dataset

    path = tmp_path / "small.parquet"
    write_parquet(path, SMALL, [small()])
    loaded = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features == SMALL.features()
    assert loaded.to_list() == small().to_pylist()
