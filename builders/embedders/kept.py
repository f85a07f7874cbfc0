"""Vectors kept on disk in one SQLite file, so that a text is embedded once even if several dictionaries and scorers share it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from builders.embedders.embedder import Model, Vectors, normed
from builders.progress import track

SCHEMA = "CREATE TABLE IF NOT EXISTS vectors (address BLOB PRIMARY KEY, vector BLOB NOT NULL)"
LOOKED_UP = 500  # addresses looked up at a time
# Texts embedded at a time. A crash loses at most so many; in a larger number, more texts have the same length.
EMBEDDED = 2048


class Kept(Model):
    """An embedder whose vectors are kept at *path*, in float16; only texts whose vectors are not there are embedded.

    Fresh vectors are rounded to float16 too, so that every run sees the same vectors. Rounding moves a cosine by less than 0.0001 and
    hides nearly all differences between machines.
    """

    def __init__(self, embedder: Model, path: Path) -> None:
        self.embedder, self.path = embedder, path
        self.name, self.identity, self.width, self.instruction = embedder.name, embedder.identity, embedder.width, embedder.instruction
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(SCHEMA)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of *texts*; missing ones are embedded part by part, and each part is stored before the next."""
        addresses = [self.address(text) for text in texts]
        found = self._find(addresses)
        if len(found) < len(set(addresses)):
            self.prepare(texts)
            found = self._find(addresses)
        joined = b"".join(found[address] for address in addresses)
        return normed(np.frombuffer(joined, dtype=np.float16).reshape(-1, self.width))

    def prepare(self, texts: Sequence[str]) -> None:
        """Embed those of *texts* that are not kept yet, the shortest first, so that texts of similar length are embedded together."""
        wanted = {self.address(text): text for text in texts}
        there = self._find(list(wanted))
        missing = sorted((len(text), address, text) for address, text in wanted.items() if address not in there)
        starts = range(0, len(missing), EMBEDDED)
        for start in track(starts, f"embedding by {self.name}") if missing else ():
            part = missing[start : start + EMBEDDED]
            vectors = self.embedder.embed([text for _, _, text in part]).astype(np.float16)
            rows = [(address, vector.tobytes()) for (_, address, _), vector in zip(part, vectors, strict=True)]
            with self._open() as db:
                db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def address(self, text: str) -> bytes:
        """Return the SHA-256 of everything that the text's vector depends on."""
        asked = json.dumps({**self.identity, "text": text}, sort_keys=True)
        return hashlib.sha256(asked.encode()).digest()

    def _find(self, addresses: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._open() as db:
            for start in range(0, len(addresses), LOOKED_UP):
                part = addresses[start : start + LOOKED_UP]
                marks = ",".join("?" * len(part))
                found.update(db.execute(f"SELECT address, vector FROM vectors WHERE address IN ({marks})", part))  # noqa: S608  # marks only
        return found

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the SQLite file for one transaction."""
        with closing(sqlite3.connect(self.path, timeout=60)) as db, db:
            yield db
