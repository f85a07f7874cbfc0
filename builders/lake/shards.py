"""Atomic parquet shards with a manifest: a shard is whole or absent, and a rerun skips what is done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.errors import UserError
from builders.lake.table import Table

MANIFEST = "manifest.json"
FORMAT = 1  # raise this number when equal rows may be written as other bytes than before
# Besides our own code, these libraries decide the bits. A finished manifest names their versions; a new version alone makes nothing stale.
LIBRARIES = ("datasets", "numpy", "pyarrow", "scikit-learn", "scipy", "tokenizers", "torch", "transformers")
# Pages are cut by content: a later release re-uses every chunk whose rows are unchanged. The sizes are those of `datasets`.
CHUNKING = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write *data* to *path* so that a reader finds either the old bytes or the new ones, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_parquet(path: Path, table: Table, groups: Iterable[pa.Table]) -> int:
    """Validate *groups* and write each as one row group of *path*, atomically; return the number of rows.

    Equal rows give equal bytes. Only categorical columns get a parquet dictionary: in other columns an inserted row would
    renumber the values after it, and the chunks of two releases would no longer be equal. Raises TableError as
    :meth:`Table.validate` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    rows, last = 0, None
    with pq.ParquetWriter(temporary, table.schema, **_options(table)) as writer:
        for group in groups:
            table.validate(group, after=last)
            writer.write_table(group, row_group_size=max(group.num_rows, 1))
            rows += group.num_rows
            last = group.slice(group.num_rows - 1) if group.num_rows else last
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    return rows


def _options(table: Table) -> dict[str, Any]:
    categorical = [c.leaf for c in table.columns if c.categorical]
    encodings = {c.leaf: e for c in table.columns if (e := _encoding(c.element)) and not c.categorical}
    return {
        "compression": "zstd",
        "use_dictionary": categorical,
        "column_encoding": encodings,
        "write_page_index": True,
        "use_content_defined_chunking": CHUNKING,
    }


def _encoding(element: str) -> str | None:
    value = pa.type_for_alias(element)
    if pa.types.is_integer(value) and value.bit_width >= 32:
        return "DELTA_BINARY_PACKED"
    return "BYTE_STREAM_SPLIT" if pa.types.is_floating(value) else None


class Shards:
    """A stage's output folder: parquet shards, and a manifest that lists the finished shards and what they were made from.

    A folder that a crash left unfinished is resumed if four things are unchanged: its inputs, its params, the hash of the
    *code* that fills it, and the libraries. Any other folder is emptied first, so that nothing stale survives in it.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, str], params: Mapping[str, Any], code: str) -> None:
        self.folder = folder
        # Only an unfinished manifest holds the hash of the code: in a finished folder equal rows must give equal bytes.
        head = {**_head(inputs, params), "code": code, "complete": False, "made_by": versions()}
        self._manifest: dict[str, Any] = {**head, "shards": {}}
        before = _load_manifest(folder)
        if before is not None and {name: before.get(name) for name in head} == head:
            self._manifest["shards"] = before["shards"]
        else:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, table: Table, index: int = 0) -> Path:
        """Return the path of shard *index* of *table*."""
        return self.folder / f"{table.name}-{index:05d}.parquet"

    def done(self, table: Table, index: int = 0) -> bool:
        """Return whether the shard is in the manifest and its bytes are unchanged."""
        return self.holds(self.path(table, index))

    def write(self, table: Table, groups: Iterable[pa.Table], index: int = 0) -> None:
        """Write one shard and enter it in the manifest; do nothing if it is done already."""
        if self.done(table, index):
            return
        path = self.path(table, index)
        rows = write_parquet(path, table, groups)
        self.enter(path, rows, table.name)

    def enter(self, path: Path, rows: int = 0, table: str = "") -> None:
        """Enter a finished file of this folder in the manifest."""
        entry = {"table": table, "rows": rows, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        self._manifest["shards"][path.relative_to(self.folder).as_posix()] = entry
        self._save()

    def holds(self, path: Path) -> bool:
        """Return whether the file *path* of this folder is in the manifest and its bytes are unchanged."""
        entry = self._manifest["shards"].get(path.relative_to(self.folder).as_posix())
        return entry is not None and path.exists() and file_sha256(path) == entry["sha256"]

    def finish(self) -> None:
        """Delete every file that is not in the manifest, and mark the folder complete."""
        shards = self._manifest["shards"]
        shards = {name: shards[name] for name in sorted(shards) if (self.folder / name).exists()}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_file() and path.name != MANIFEST and path.relative_to(self.folder).as_posix() not in shards:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        self._manifest.update(shards=shards, complete=True)
        self._manifest.pop("code", None)
        self._save()

    def _save(self) -> None:
        text = json.dumps(self._manifest, indent=1, sort_keys=True) + "\n"
        write_atomic(self.folder / MANIFEST, text.encode())


@cache
def versions() -> dict[str, str]:
    """Return the version of every library in LIBRARIES, and the kernels in use: the chosen branch of MKL, or the machine's own."""
    return {name: version(name) for name in LIBRARIES} | {"kernels": os.environ.get("MKL_CBWR", "native").lower()}


def is_finished(folder: Path) -> bool:
    """Return whether the stage that fills *folder* has finished."""
    return bool((_load_manifest(folder) or {}).get("complete"))


def is_whole(folder: Path) -> bool:
    """Return whether *folder* is finished and holds exactly the files in its manifest, with unchanged bytes."""
    manifest = _load_manifest(folder) or {}
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST}
    listed = {name: entry["sha256"] for name, entry in manifest.get("shards", {}).items()}
    return bool(manifest.get("complete")) and {name: file_sha256(path) for name, path in there.items()} == listed


def manifest_sha256(folder: Path) -> str:
    """Return the SHA-256 of the manifest of *folder*, which covers every file in it; an empty string without a manifest."""
    path = folder / MANIFEST
    return file_sha256(path) if path.exists() else ""


def is_current(folder: Path, inputs: Mapping[str, str], params: Mapping[str, Any]) -> bool:
    """Return whether *folder* is finished and was made from these *inputs* and *params*; the code is not compared."""
    manifest = _load_manifest(folder) or {}
    return {**_head(inputs, params), "complete": True}.items() <= manifest.items()


def _head(inputs: Mapping[str, str], params: Mapping[str, Any]) -> dict[str, Any]:
    head: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "inputs": dict(inputs), "params": dict(params)}))
    return head


class Shelf:
    """A finished folder of shards to read from. The checksum of every shard is verified before it is read."""

    def __init__(self, folder: Path) -> None:
        manifest = _load_manifest(folder)
        if manifest is None or not manifest["complete"]:
            raise UserError(f"{folder}: not built yet; build it with `dvc repro`")
        self.folder = folder
        self.manifest = manifest
        self._verified: set[Path] = set()

    @property
    def digest(self) -> str:
        """The hash of the manifest. It covers every file in the folder, and the inputs and params that made them."""
        return manifest_sha256(self.folder)

    def entries(self, table: Table) -> dict[Path, dict[str, Any]]:
        """Return the shards of *table* in order, with their manifest entries."""
        shards = self.manifest["shards"]
        return {self.folder / name: shards[name] for name in sorted(shards) if shards[name]["table"] == table.name}

    def paths(self, table: Table) -> list[Path]:
        """Return the shards of *table* in order; raise UserError naming the first one whose bytes have changed."""
        return [self.verified(path) for path in self.entries(table)]

    def verified(self, path: Path) -> Path:
        """Return *path* after comparing its checksum with the manifest; raise UserError if they differ."""
        entry = self.manifest["shards"][path.relative_to(self.folder).as_posix()]
        if path not in self._verified:
            if not path.exists() or file_sha256(path) != entry["sha256"]:
                raise UserError(f"{path}: damaged or missing (its checksum is not the manifest's); rebuild it with `dvc repro`")
            self._verified.add(path)
        return path

    def rows(self, table: Table) -> int:
        """Return how many rows of *table* the folder holds."""
        return sum(entry["rows"] for entry in self.entries(table).values())

    def read(self, table: Table, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
        """Read *table*: all of it, or only some *columns* and the rows that pass *filters* (as pyarrow takes them)."""
        parts = [pq.read_table(path, columns=columns, filters=filters) for path in self.paths(table)]
        if not parts:
            return table.empty() if columns is None else table.empty().select(columns)
        return pa.concat_tables(parts)


def _load_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError:  # damaged: the folder counts as not built, and a rerun makes it again
        return None
    return manifest
