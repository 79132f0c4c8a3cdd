"""What a hospital remembers of its sums: secrets while they are needed, what it said, and every set it has signed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dure.study.packing import pack, unpack

SCHEMA = """
CREATE TABLE IF NOT EXISTS session (session BLOB PRIMARY KEY, run TEXT NOT NULL, facts BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signed (study TEXT, hospitals TEXT, PRIMARY KEY (study, hospitals)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (study TEXT PRIMARY KEY, hospitals TEXT NOT NULL) WITHOUT ROWID;
"""


class Record:
    """One SQLite file, on disk before anything is sent; `:memory:` for simulation."""

    def __init__(self, path: Path | str) -> None:
        if isinstance(path, Path):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")  # an old secret leaves no trace in the file
        self._connection.executescript(SCHEMA)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Everything written inside is written, or nothing of it."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def read(self, session: bytes) -> dict[str, Any] | None:
        row = self._connection.execute("SELECT facts FROM session WHERE session = ?", (session,)).fetchone()
        return dict(unpack(row[0])) if row else None

    def write(self, session: bytes, run: str, facts: dict[str, Any]) -> None:
        self._connection.execute("INSERT OR REPLACE INTO session VALUES (?, ?, ?)", (session, run, pack(facts)))

    def forget(self, run: str, but: Collection[bytes] = ()) -> None:
        """The run's sessions, with their secrets, except those named."""
        rows = self._connection.execute("SELECT session FROM session WHERE run = ?", (run,)).fetchall()
        over = [(session,) for (session,) in rows if session not in but]
        self._connection.executemany("DELETE FROM session WHERE session = ?", over)

    def members(self, study: str) -> list[str] | None:
        """The hospitals among whom a study's sums are made, in order; None before its first sum."""
        row = self._connection.execute("SELECT hospitals FROM members WHERE study = ?", (study,)).fetchone()
        return list(json.loads(row[0])) if row else None

    def keep_members(self, study: str, hospitals: Collection[str]) -> None:
        """Those of a study's first sum stay; later ones change nothing."""
        self._connection.execute("INSERT OR IGNORE INTO members VALUES (?, ?)", (study, _names(hospitals)))

    def signed(self, study: str) -> set[frozenset[str]]:
        """Every set of hospitals of which a sum was signed here, for one study."""
        rows = self._connection.execute("SELECT hospitals FROM signed WHERE study = ?", (study,))
        return {frozenset(json.loads(hospitals)) for (hospitals,) in rows}

    def sign(self, study: str, hospitals: Collection[str]) -> None:
        self._connection.execute("INSERT OR IGNORE INTO signed VALUES (?, ?)", (study, _names(hospitals)))

    def close(self) -> None:
        self._connection.close()


def _names(hospitals: Collection[str]) -> str:
    return json.dumps(sorted(hospitals), ensure_ascii=False)
