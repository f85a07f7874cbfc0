"""The rows of one dictionary, a latent at a time: memory holds one latent and a row group of each file, however long the config is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.exports.dictionaries import Row
from builders.releases.release import Release

BINS = 50  # of the histogram of a latent's activations
PERCENTILES = np.arange(1, 100)
Group = tuple[int, pa.Table]  # a latent and its rows


@dataclass(frozen=True)
class Firing:
    """How strongly a latent fires where it does: *counts* of BINS equal bins between 0 and its largest activation.

    *centres* are the middles of the bins, and *percentiles* the activations that 1, 2, … 99 % of the firings reach at most.
    """

    counts: list[int]
    centres: list[float]
    percentiles: list[float]


NEVER = Firing([], [], [])


def by_latent(release: Release, config: str, sae: str, columns: Sequence[str]) -> Iterator[Group]:
    """Yield each latent of dictionary *sae* with its rows of *config*, in order of latent; nothing where the release lacks the config.

    Files of one config are sorted each for itself, such as the judgements of one scorer, so they are merged.
    """
    paths = release.paths(config) if config in release.tables else []
    groups = merge(*(_groups(path, sae, columns) for path in paths), key=_latent)
    for latent, parts in groupby(groups, key=_latent):
        yield latent, pa.concat_tables(rows for _, rows in parts)


def key_rows(release: Release, config: str, sae: str) -> Iterator[Row]:
    """Yield the whole rows of *config* about dictionary *sae*, in key order; nothing where the release lacks the config."""
    if config in release.tables:
        table = release.tables[config]
        for _, rows in by_latent(release, config, sae, [column.name for column in table.columns]):
            yield from sorted(rows.to_pylist(), key=itemgetter(*table.key))


def beside(latents: Iterable[int], groups: Iterator[Group]) -> Iterator[pa.Table | None]:
    """Yield for each of the rising *latents* its rows among *groups*, None where it has none."""
    ahead = next(groups, None)
    for latent in latents:
        while ahead is not None and ahead[0] < latent:
            ahead = next(groups, None)
        yield ahead[1] if ahead is not None and ahead[0] == latent else None


def latent_rows(release: Release, sae: str) -> Iterator[tuple[Row, Firing]]:
    """Yield the row of `latents` of each latent of dictionary *sae*, with how it fires."""
    numbers = (latent for latent, _ in by_latent(release, "latents", sae, []))
    fires = beside(numbers, by_latent(release, "activations", sae, ["value"]))
    for row, values in zip(key_rows(release, "latents", sae), fires, strict=True):
        yield row, NEVER if values is None else firing(values["value"].to_numpy())


def firing(values: npt.NDArray[np.float32]) -> Firing:
    """Return the Firing of a latent from its non-zero activations."""
    ordered = np.sort(values).astype(np.float64)
    bins = np.minimum(ordered * BINS / ordered[-1], BINS - 1).astype(np.int64)
    centres = (np.arange(BINS) + 0.5) * ordered[-1] / BINS
    percentiles = ordered[PERCENTILES * (len(ordered) - 1) // 100]
    found = pa.array(np.concatenate([centres, percentiles]), pa.float32())
    decimals = shortest(found).to_pylist()
    return Firing(np.bincount(bins, minlength=BINS).tolist(), decimals[:BINS], decimals[BINS:])


def activating(rows: pa.Table) -> list[Row]:
    """Return those of a latent's rows of `contexts` in which it fires."""
    return [row for row in rows.to_pylist() if row["kind"] == "activating"]  # for few rows faster than a filter of Arrow


def pieces_of(release: Release, subject: str) -> npt.NDArray[np.object_]:
    """Return the text of each token id of a subject; bytes that are no text by themselves stand there in hexadecimal."""
    rows = release.read("vocabulary", ["token", "piece"], [("subject", "==", subject)])
    return np.array(rows["piece"].to_pylist(), dtype=object)


def shortest(values: pa.Array) -> pa.Array:
    """Return float32 *values* as float64 whose decimals are the shortest that are read as the same float32."""
    return values.cast(pa.string()).cast(pa.float64())


def _latent(group: Group) -> int:
    return group[0]


def _groups(path: Path, sae: str, columns: Sequence[str]) -> Iterator[Group]:
    """Yield each latent of dictionary *sae* in one file, with its rows; the file is sorted."""
    latent, held = -1, list[pa.Table]()
    with pq.ParquetFile(path, pre_buffer=False) as file:  # the buffer would keep all that was read of the file
        names = dict.fromkeys(["sae", "latent", *columns])
        for number in _row_groups(file, sae):
            rows = _decimals(file.read_row_group(number, list(names)).filter(pc.field("sae") == sae))
            numbers = rows["latent"].to_numpy()
            starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
            for start, stop in pairwise([*starts, len(numbers)]):
                if held and numbers[start] != latent:
                    yield latent, pa.concat_tables(held)
                    held = []
                latent = int(numbers[start])
                held.append(rows.slice(start, stop - start))
    if held:
        yield latent, pa.concat_tables(held)


def _decimals(rows: pa.Table) -> pa.Table:
    """Return *rows* with lists of float32 as :func:`shortest` gives them; whole row groups, since a cast of few values costs as much."""
    for place, field in enumerate(rows.schema):
        if field.type == pa.list_(pa.float32()):
            lists = rows[field.name].cast(pa.list_(pa.string())).cast(pa.list_(pa.float64()))
            rows = rows.set_column(place, field.name, lists)
    return rows


def _row_groups(file: pq.ParquetFile, sae: str) -> list[int]:
    """Return the row groups that may hold rows of dictionary *sae*, by their statistics."""
    place = file.schema_arrow.names.index("sae")
    found = []
    for number in range(file.num_row_groups):
        column = file.metadata.row_group(number).column(place)
        known = column.statistics if column.is_stats_set and column.statistics.has_min_max else None
        if known is None or known.min <= sae <= known.max:
            found.append(number)
    return found
