"""The hospital's own store of rounds: what it replied and what it kept, so that a repeated round is the same."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dure.federation.kept import Remembered

SCHEMA = """
CREATE TABLE IF NOT EXISTS asked (run TEXT, step TEXT, fold TEXT, round INTEGER, digest TEXT, reply BLOB, kept BLOB,
                                  asked BLOB, PRIMARY KEY (run, step, fold, round))
"""
FIELDS = "digest, reply, kept, asked"


class StoredMemory:
    """One SQLite file (`dure.federation.kept.Memory`); the last two rounds of each loop are kept."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(SCHEMA)

    def read(self, run: str, step: str, fold: str | None, round: int) -> Remembered | None:
        query = f"SELECT {FIELDS} FROM asked WHERE run = ? AND step = ? AND fold = ? AND round = ?"
        return self._one(query, (run, step, fold or "", round))

    def last(self, run: str, step: str, fold: str | None) -> Remembered | None:
        query = f"SELECT {FIELDS} FROM asked WHERE run = ? AND step = ? AND fold = ? ORDER BY round DESC LIMIT 1"
        return self._one(query, (run, step, fold or ""))

    def write(self, run: str, step: str, fold: str | None, round: int, entry: Remembered) -> None:
        where = (run, step, fold or "")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.execute(
                "INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*where, round, entry.digest, entry.reply, entry.kept, entry.asked),
            )
            self._connection.execute(
                "DELETE FROM asked WHERE run = ? AND step = ? AND fold = ? AND (round < ? OR round > ?)",
                (*where, round - 1, round),
            )
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    def _one(self, query: str, values: tuple[str | int, ...]) -> Remembered | None:
        row = self._connection.execute(query, values).fetchone()
        return Remembered(str(row[0]), *map(bytes, row[1:])) if row else None
