"""Hashes of files from outside the pipeline. A file is read again only if its size or modification time has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from os import stat_result
from pathlib import Path

from builders.errors import UserError
from builders.lake.shards import file_sha256, write_atomic

SETTLED_NS = 2_000_000_000  # a younger file could change again within the same timestamp, so its hash is not kept


class Hashes:
    """Hashes of files by path. The JSON file *kept* stores each hash with the size and modification time that its file had."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self._known: dict[str, list[int | str]] = json.loads(kept.read_bytes()) if kept.exists() else {}
        self._used: dict[str, list[int | str]] = {}

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file; raise UserError if it cannot be read, or changes while it is read."""
        try:
            before = path.stat()
            known = self._known.get(str(path))
            digest = str(known[2]) if known and known[:2] == _seen(before) else file_sha256(path)
            after = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); correct the path or its permissions") from error
        if _seen(before) != _seen(after):
            raise UserError(f"{path}: changed while it was read; run this again when nothing writes to it")
        if time.time_ns() - after.st_mtime_ns > SETTLED_NS:
            self._used[str(path)] = [*_seen(after), digest]
        return digest

    def lines(self, paths: Iterable[Path]) -> Iterator[str]:
        """Yield one line "hash path" for each file, in order of path."""
        yield from (f"{self.of(path)} {path}" for path in sorted(paths))

    def keep(self) -> None:
        """Store the hashes that were asked for since this object was made, and forget all others."""
        if self._used != self._known:
            write_atomic(self.kept, json.dumps(self._used, indent=0, sort_keys=True).encode())


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write small text files by name. Leave unchanged ones untouched, and delete every other *.txt file below *folder*."""
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            write_atomic(path, text.encode())
    for path in folder.rglob("*.txt"):
        if path.relative_to(folder).as_posix() not in texts:
            path.unlink()


def below(place: Path) -> list[Path]:
    """Return *place* if it is a file, else all files below it except hidden files, Python's caches and Markdown."""
    if not place.is_dir():
        return [place]
    files = (path for path in place.rglob("*") if path.is_file() and path.suffix not in {".pyc", ".md"})
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(place).parts)]


def _seen(stat: stat_result) -> list[int | str]:
    return [stat.st_size, stat.st_mtime_ns]
