"""A release opened by what it says of itself: `release.json` lists its tables with their columns and keys, and every file with its hash."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.errors import UserError, one_of
from builders.lake.shards import file_sha256, write_atomic
from builders.lake.table import Column, Reference, Table

CONTENTS = "release.json"
Pairs = Iterable[tuple[str, str]]  # of columns and values
FORMAT = 1  # of release.json: raise it when older code could no longer read it


@dataclass(frozen=True)
class File:
    """A file of a release: its size, the SHA-256 of its bytes, and how many rows it has where it is a parquet file."""

    bytes: int
    sha256: str
    rows: int = 0

    @staticmethod
    def of(path: Path) -> File:
        """Return what is to be said of the file *path*."""
        rows = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else 0
        return File(path.stat().st_size, file_sha256(path), rows)


@dataclass(frozen=True)
class Release:
    """The release in the folder *root*: its tables by config, and its files by path within it, release.json itself left out."""

    root: Path
    name: str
    version: str
    tables: Mapping[str, Table]
    files: Mapping[str, File]

    def paths(self, config: str) -> list[Path]:
        """Return the parquet files of a config in order; raise UserError where the release does not have it."""
        if config not in self.tables:
            raise UserError(f"{self.root}: has no config {config}; it has {one_of(self.tables)}")
        return [self.path(name) for name in self.parquet(config)]

    def parquet(self, config: str) -> list[str]:
        """Return the names of a config's parquet files in order, none where the release does not have it."""
        return [name for name in sorted(self.files) if name.startswith(f"{config}/") and name.endswith(".parquet")]

    def has(self, config: str, *columns: str) -> bool:
        """Return whether the release has a config, with all of these columns."""
        return config in self.tables and set(columns) <= {column.name for column in self.tables[config].columns}

    def rows(self, config: str) -> int:
        """Return how many rows a config has."""
        return sum(self.files[name].rows for name in self.parquet(config))

    def path(self, name: str) -> Path:
        """Return where the file *name* of the release lies on this machine."""
        return self.root / name

    def read(self, config: str, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
        """Return the rows of a config: all, or only some *columns* and the rows that pass *filters* (as pyarrow takes them)."""
        names = None if columns is None else list(columns)
        return pa.concat_tables(pq.read_table(path, columns=names, filters=filters) for path in self.paths(config))

    def batches(self, config: str, columns: Sequence[str] | None = None, among: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a config, or of the files *among* its own, in batches, so that memory does not grow with them."""
        size, names = self.tables[config].row_group, None if columns is None else list(columns)
        for name in self.parquet(config) if among is None else among:
            with pq.ParquetFile(self.path(name), pre_buffer=False) as file:  # a buffer would hold the whole file
                yield from file.iter_batches(batch_size=size, columns=names)


def write_contents(root: Path, name: str, version: str, tables: Iterable[Table], known: Mapping[str, File] | None = None) -> None:
    """Write release.json of the finished folder *root*, whose configs are *tables*; files that are *known* already are not read again."""
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file() and path.name != CONTENTS}
    listed = {place: asdict((known or {}).get(place) or File.of(path)) for place, path in files.items()}
    found = {"format": FORMAT, "name": name, "version": version, "tables": [asdict(table) for table in tables], "files": listed}
    write_atomic(root / CONTENTS, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())


def open_release(root: Path) -> Release:
    """Return the release in the folder *root*; raise UserError where there is none, or where newer code made it."""
    path = root / CONTENTS
    if not path.is_file():
        raise UserError(f"{root}: holds no {CONTENTS}, so it is no release; build one with `dvc repro`")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); build the release again with `dvc repro`, or fetch it again") from error
    if found["format"] != FORMAT:
        raise UserError(f"{path}: has format {found['format']}, and this version reads {FORMAT}; update interplake")
    tables = {spec["name"]: _table(spec) for spec in found["tables"]}
    files = {name: File(**entry) for name, entry in found["files"].items()}
    return Release(root, found["name"], found["version"], tables, files)


def _table(spec: Mapping[str, Any]) -> Table:
    columns = tuple(Column(**column) for column in spec["columns"])
    references = tuple(_reference(**reference) for reference in spec["references"])
    return Table(spec["name"], spec["row"], tuple(spec["key"]), columns, spec["row_group"], references)


def _reference(columns: list[str], to: str, theirs: list[str], unless: Pairs, where: Pairs, through: str) -> Reference:
    return Reference(tuple(columns), to, tuple(theirs), _pairs(unless), _pairs(where), through)


def _pairs(listed: Pairs) -> tuple[tuple[str, str], ...]:
    return tuple((column, value) for column, value in listed)
