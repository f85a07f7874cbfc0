"""Rows of two releases matched by key: which came, went and changed. Of a row, memory holds the hashes of its key and of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from builders.releases.hashing import Hashes, row_hashes, within
from builders.releases.release import Release

SHOWN = 3  # examples of each kind of row that differs


@dataclass(frozen=True)
class RowCounts:
    """How many rows of a config a later release has added, removed, and given other values."""

    added: int
    removed: int
    changed: int


@dataclass(frozen=True)
class RowExamples:
    """The keys of the first rows that were added, removed and changed, at most SHOWN of each."""

    added: tuple[Mapping[str, Any], ...] = ()
    removed: tuple[Mapping[str, Any], ...] = ()
    changed: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class RowChanges:
    """The sorted hashes of the keys of rows that a later release has added, removed, and given other values."""

    added: Hashes
    removed: Hashes
    changed: Hashes

    @property
    def counts(self) -> RowCounts:
        """How many rows were added, removed and changed."""
        return RowCounts(len(self.added), len(self.removed), len(self.changed))


def changed_rows(a: Release, b: Release, config: str) -> RowChanges:
    """Return which rows of a config differ from *a* to *b*, by the columns that both have; both have the same key.

    Files that both releases have, under whatever name, are not read.
    """
    table, other = b.tables[config], {column.name for column in a.tables[config].columns}
    values = [column.name for column in table.columns if column.name in other and column.name not in table.key]
    only_a, only_b = _differing(a, b, config), _differing(b, a, config)
    (key_a, row_a), (key_b, row_b) = (_hashed(*side, config, table.key, values) for side in ((a, only_a), (b, only_b)))
    both, in_a, in_b = np.intersect1d(key_a, key_b, assume_unique=True, return_indices=True)
    return RowChanges(
        added=np.setdiff1d(key_b, key_a, assume_unique=True),
        removed=np.setdiff1d(key_a, key_b, assume_unique=True),
        changed=both[row_a[in_a] != row_b[in_b]],
    )


def examples_of(a: Release, b: Release, config: str, rows: RowChanges) -> RowExamples:
    """Return the keys of some of the *rows* that differ in a config."""
    return RowExamples(*(_first(*side, config) for side in ((b, a, rows.added), (a, b, rows.removed), (b, a, rows.changed))))


def _first(release: Release, other: Release, wanted: Hashes, config: str) -> tuple[Mapping[str, Any], ...]:
    key = release.tables[config].key
    found: list[Mapping[str, Any]] = []
    for batch in release.batches(config, key, among=_differing(release, other, config) if len(wanted) else ()):
        found += batch.filter(pa.array(within(row_hashes(batch, key), wanted))).slice(0, SHOWN - len(found)).to_pylist()
        if len(found) == SHOWN:
            break
    return tuple(found)


def taken(release: Release, config: str, wanted: Hashes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a config, in key order, whose keys have one of the hashes *wanted*, which are sorted."""
    table = release.tables[config]
    names = [column.name for column in table.columns] if columns is None else list(columns)
    read = list(dict.fromkeys([*table.key, *names]))
    parts = [batch.filter(pa.array(within(row_hashes(batch, table.key), wanted))) for batch in release.batches(config, read)]
    return table.sort(pa.Table.from_batches(parts)).select(names)


def _differing(release: Release, other: Release, config: str) -> list[str]:
    """Return the files of a config that *other* does not have."""
    held = {other.files[name].sha256 for name in other.parquet(config)}
    return [name for name in release.parquet(config) if release.files[name].sha256 not in held]


def _hashed(release: Release, names: Sequence[str], config: str, key: Sequence[str], values: Sequence[str]) -> tuple[Hashes, Hashes]:
    """Return the hashes of key and values of all rows of the files *names*, in order of the key's hash."""
    parts = [(row_hashes(batch, key), row_hashes(batch, values)) for batch in release.batches(config, [*key, *values], among=names)]
    if not parts:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    keys, rows = (np.concatenate(side) for side in zip(*parts, strict=True))
    order = np.argsort(keys)
    return keys[order], rows[order]
