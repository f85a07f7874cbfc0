"""Foreign keys of a release: every reference of a table is looked up in the table that it names.

Of the table that is referred to, memory holds eight bytes a row; the rows that refer to it pass by in batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from builders.lake.table import Reference
from builders.releases.hashing import Hashes, hashes_of, row_hashes, within
from builders.releases.release import Release

Named = tuple[str, Reference]  # a config and one of its references
SHOWN = 3  # rows that a problem names


def references(release: Release) -> list[Named]:
    """Return all references of a release's configs; those to the same rows follow one another."""
    found = [(table.name, reference) for table in release.tables.values() for reference in table.references]
    return sorted(found, key=lambda named: (*_target(named), named[0], named[1].columns))


def dangling(release: Release) -> Iterator[str]:
    """Yield one line for each reference with rows that refer to nothing which is there."""
    for _, group in groupby(references(release), key=_target):
        named = list(group)
        known = _known(release, named[0][1])
        for config, reference in named:
            if (line := _dangling(release, config, reference, known)) is not None:
                yield line


def _target(named: Named) -> tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]:
    return named[1].to, named[1].theirs, named[1].where


def _known(release: Release, reference: Reference) -> Hashes:
    """Return the sorted hashes of all values that may be referred to; none where the release does not have the config."""
    if reference.to not in release.tables:
        return np.zeros(0, dtype=np.uint64)
    columns = [*reference.theirs, *(name for name, _ in reference.where)]
    parts = [
        row_hashes(batch, reference.theirs)[_having(batch, reference.where, start=True)]
        for batch in release.batches(reference.to, list(dict.fromkeys(columns)))
    ]
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.uint64)


def _having(batch: pa.RecordBatch, pairs: tuple[tuple[str, str], ...], *, start: bool) -> npt.NDArray[np.bool_]:
    """Return which rows have all values of *pairs* (*start* is True), or which have none of them (False gives those that have one)."""
    found = np.full(batch.num_rows, start)
    for name, value in pairs:
        equal = pc.equal(batch[name], value).fill_null(False).to_numpy(zero_copy_only=False)
        found = found & equal if start else found | equal
    return found


def _dangling(release: Release, config: str, reference: Reference, known: Hashes) -> str | None:
    """Return the line about a reference's rows that refer to nothing, None where there are none."""
    columns = [*reference.columns, *(name for name, _ in reference.unless), *release.tables[config].key]
    mapped = _mapped(release, reference)
    count = 0
    shown: list[dict[str, object]] = []
    for batch in release.batches(config, list(dict.fromkeys(columns))):
        arrays = [batch[name] for name in reference.columns]
        asked = ~_having(batch, reference.unless, start=False) & ~_missing(arrays)
        if mapped is not None:
            arrays[0] = mapped[1].take(pc.index_in(arrays[0], mapped[0]))
        lost = np.flatnonzero(asked & ~within(hashes_of(arrays, batch.num_rows), known))
        count += len(lost)
        if len(shown) < SHOWN:
            shown += batch.take(pa.array(lost[: SHOWN - len(shown)])).to_pylist()
    if not count:
        return None
    where = "".join(f" and {name} {value!r}" for name, value in reference.where)
    keys = "; ".join(key_text(row) for row in shown)
    theirs = ", ".join(reference.theirs)
    own = ", ".join(reference.columns)
    return f"{config}: rows whose {own} no row of {reference.to} has as {theirs}{where}: {count:,}, such as {keys}"


def _missing(arrays: list[pa.Array]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.logical_or.reduce([array.is_null().to_numpy(zero_copy_only=False) for array in arrays])
    return found


def _mapped(release: Release, reference: Reference) -> tuple[pa.Array, pa.Array] | None:
    """Return the keys of the table that *reference* goes through, and the value that stands in place of each; None without such a table."""
    if not reference.through:
        return None
    names = [reference.columns[0], reference.theirs[0]]
    rows = release.read(reference.through, names).combine_chunks()
    return rows[names[0]].combine_chunks(), rows[names[1]].combine_chunks()


def key_text(row: dict[str, object]) -> str:
    """Return the values of a row's columns on one line, as in sae='lab', latent=3."""
    return ", ".join(f"{name}={value!r}" for name, value in row.items())
