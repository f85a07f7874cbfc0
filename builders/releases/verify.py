"""Checking a release against what its release.json says: files, schemas, bounds, keys and foreign keys. Rows pass by in batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders.lake.shards import file_sha256
from builders.lake.table import Table, TableError
from builders.releases.foreign import dangling, key_text
from builders.releases.hashing import Hashes, row_hashes, within
from builders.releases.release import CONTENTS, Release

AGAIN = "build the release again with `dvc repro`, or fetch it again"
# What publishing, the Hub and its client add to a release.
ADDED = ("CHANGELOG.md", "run.json", ".gitattributes", ".cache/")


def verify(release: Release) -> list[str]:
    """Return what is wrong with a release, each problem on one line with its place and what to do; nothing where it is whole.

    Contents are looked at only where all files are as they were written, and references only where all contents are right.
    """
    for problems in (damaged, broken, dangling):
        if found := [f"{line}; {AGAIN}" for line in problems(release)]:
            return found
    return []


def damaged(release: Release) -> Iterator[str]:
    """Yield one line for each file that is missing, changed, or not listed."""
    there = {path.relative_to(release.root).as_posix() for path in release.root.rglob("*") if path.is_file()}
    for name, file in release.files.items():
        if name not in there:
            yield f"{release.root / name}: missing"
        elif (size := (release.root / name).stat().st_size) != file.bytes:
            yield f"{release.root / name}: has {size:,} bytes, and {CONTENTS} says {file.bytes:,}"
        elif file_sha256(release.root / name) != file.sha256:
            yield f"{release.root / name}: its SHA-256 is not that of {CONTENTS}"
    for name in sorted(there - release.files.keys() - {CONTENTS}):
        if not name.startswith(ADDED):
            yield f"{release.root / name}: not listed in {CONTENTS}"


def broken(release: Release) -> Iterator[str]:
    """Yield one line for each parquet file that breaks a rule of its table, and for each config with a key that occurs twice."""
    for name in sorted(release.files):
        if name.endswith(".parquet") and name.partition("/")[0] not in release.tables:
            yield f"{name}: belongs to no config of {CONTENTS}"
    for config, table in release.tables.items():
        names = release.parquet(config)
        if not names:
            yield f"{config}: has no parquet file"
        found = [line for name in names if (line := _broken(release, table, name)) is not None]
        yield from found or _twice(release, table)


def _broken(release: Release, table: Table, name: str) -> str | None:
    """Return the line about the first mistake in a file, None where it has none."""
    schema = pq.read_schema(release.path(name))
    if not schema.equals(table.schema):
        return f"{name}: its columns are not those of {CONTENTS}: {_columns(schema, table.schema)}"
    last, rows = None, 0
    for batch in release.batches(table.name, among=[name]):
        group = pa.Table.from_batches([batch], table.schema)
        if said := _fault(table, group, last):
            place, said = _first(table, group, last, said)
            return f"{name}: row {rows + place} ({key_text(group.select(table.key).slice(place, 1).to_pylist()[0])}): {said}"
        last, rows = group.slice(group.num_rows - 1), rows + group.num_rows
    return None if rows else f"{name}: has no rows, and such a file cannot be loaded"


def _columns(found: pa.Schema, expected: pa.Schema) -> str:
    """Return in words how the columns of two schemas differ."""
    types = [{field.name: field.type for field in schema} for schema in (found, expected)]
    names = [name for name in dict.fromkeys((*found.names, *expected.names)) if types[0].get(name) != types[1].get(name)]
    wrong = [f"{name} is {types[0].get(name, 'missing')}, not {types[1].get(name, 'there')}" for name in names]
    return ", ".join(wrong) or "they have another order, or differ in nulls"


def _fault(table: Table, rows: pa.Table, after: pa.Table | None) -> str:
    try:
        table.validate(rows, after=after)
    except TableError as error:
        return str(error)
    return ""


def _first(table: Table, rows: pa.Table, after: pa.Table | None, said: str) -> tuple[int, str]:
    """Return the place of the first row that breaks a rule, which *said* says of some row, and what it breaks, by halving."""
    low, high = 0, rows.num_rows  # rows before low are right, and one before high is wrong
    while high - low > 1:
        middle = (low + high) // 2
        before = rows.slice(low - 1, 1) if low else after
        if half := _fault(table, rows.slice(low, middle - low), before):
            high, said = middle, half
        else:
            low = middle
    return low, _fault(table, rows.slice(low, 1), rows.slice(low - 1, 1) if low else after) or said


def _twice(release: Release, table: Table) -> Iterator[str]:
    """Yield a line if a key occurs twice in a config whose files each rise by key.

    Where each file begins after the one before it ends, there is nothing to look up. Elsewhere memory holds eight bytes a row.
    """
    names = release.parquet(table.name)
    ends = [_ends(release, table, name) for name in names]
    if all(last < first for (_, last), (first, _) in pairwise(ends)):
        return
    keys = np.sort(np.concatenate([row_hashes(batch, table.key) for batch in release.batches(table.name, table.key)]))
    double = np.unique(keys[1:][keys[1:] == keys[:-1]])
    if len(double):
        yield f"{table.name}: keys that occur twice: {len(double):,}, such as {key_text(_with_key(release, table, double[:1]))}"


def _ends(release: Release, table: Table, name: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the keys of the first and of the last row of a file."""
    with pq.ParquetFile(release.path(name)) as file:
        first, last = (file.read_row_group(group, columns=list(table.key)) for group in (0, file.num_row_groups - 1))
    one, other = (rows.select(table.key).slice(place, 1).to_pylist()[0] for rows, place in ((first, 0), (last, last.num_rows - 1)))
    return tuple(one.values()), tuple(other.values())


def _with_key(release: Release, table: Table, wanted: Hashes) -> dict[str, object]:
    for batch in release.batches(table.name, table.key):
        places = np.flatnonzero(within(row_hashes(batch, table.key), wanted))
        if len(places):
            found: dict[str, object] = batch.slice(int(places[0]), 1).to_pylist()[0]
            return found
    raise AssertionError("a key that occurs twice occurs")
