"""The cache: answers kept on disk in one SQLite file, so that no request is paid for twice. One process writes at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from pathlib import Path

from builders.engines.requests import Answer, from_json, to_json

SCHEMA = "CREATE TABLE IF NOT EXISTS answers (address TEXT PRIMARY KEY, engine TEXT NOT NULL, model TEXT NOT NULL, answer TEXT NOT NULL)"
PART = 500  # addresses looked up at a time


class Cache:
    """Answers by address. An answer is on disk once :meth:`put` returns, even if the process crashes afterwards."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(SCHEMA)

    def find(self, addresses: Iterable[str]) -> dict[str, Answer]:
        """Return, by address, the answers that are kept."""
        wanted, found = list(addresses), {}
        for start in range(0, len(wanted), PART):
            part = wanted[start : start + PART]
            marks = ",".join("?" * len(part))
            for key, text in self._db.execute(f"SELECT address, answer FROM answers WHERE address IN ({marks})", part):  # noqa: S608  # marks only
                found[key] = from_json(text)
        return found

    def put(self, address: str, engine: str, model: str, answer: Answer) -> None:
        """Keep an answer."""
        self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (address, engine, model, to_json(answer)))

    def sizes(self) -> list[tuple[str, str, int, int]]:
        """Return (engine, model, number of answers, their bytes) for each engine and model."""
        found = self._db.execute("SELECT engine, model, COUNT(*), SUM(LENGTH(answer)) FROM answers GROUP BY 1, 2 ORDER BY 1, 2")
        return list(found.fetchall())

    def prune(self, used: Collection[str]) -> int:
        """Drop every answer whose address is not among *used*; return how many were dropped."""
        self._db.execute("CREATE TEMP TABLE used (address TEXT PRIMARY KEY)")
        self._db.executemany("INSERT OR IGNORE INTO used VALUES (?)", ((address,) for address in used))
        dropped = self._db.execute("DELETE FROM answers WHERE address NOT IN (SELECT address FROM used)").rowcount
        self._db.execute("DROP TABLE used")
        self._db.execute("VACUUM")
        return dropped

    def close(self) -> None:
        """Close the file."""
        self._db.close()
