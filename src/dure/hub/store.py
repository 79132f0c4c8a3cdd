"""The hub's store: one SQLite file of hospitals, studies, permits and the ledger of rounds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dure.errors import LedgerBroken
from dure.language import Words

SCHEMA = """
CREATE TABLE IF NOT EXISTS hospital (name TEXT PRIMARY KEY, key TEXT NOT NULL, joined TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS study (hash TEXT PRIMARY KEY, document TEXT NOT NULL, state TEXT NOT NULL,
                                  since TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS permit (study TEXT NOT NULL, hospital TEXT NOT NULL, envelope TEXT, received TEXT NOT NULL,
                                   PRIMARY KEY (study, hospital));
CREATE TABLE IF NOT EXISTS run (name TEXT PRIMARY KEY, study TEXT NOT NULL, started TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (run TEXT NOT NULL, step TEXT NOT NULL, fold TEXT NOT NULL, entry BLOB NOT NULL,
                                   PRIMARY KEY (run, step, fold));
"""


class Store:
    """One file; every write is one transaction, on disk before it returns. Raises LedgerBroken on another file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._connection = sqlite3.connect(path, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if isinstance(error, sqlite3.OperationalError):  # locked, read-only: the file itself may be sound
                raise
            problem = Words("It is not a hub's file", "허브의 파일이 아닙니다")
            raise LedgerBroken(path=path, problem=problem) from None

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside happen together or not at all."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # ── hospitals ──

    def add_hospital(self, name: str, key: dict[str, Any]) -> None:
        """A hospital and its public key; joining again with another key is an error of SQLite's, not a change."""
        self._connection.execute("INSERT INTO hospital VALUES (?, ?, ?)", (name, json.dumps(key), _now()))

    def hospitals(self) -> dict[str, dict[str, Any]]:
        rows = self._connection.execute("SELECT name, key FROM hospital ORDER BY rowid")
        return {name: json.loads(key) for name, key in rows}

    # ── studies and permits ──

    def put_study(self, hash_: str, document: str, state: str) -> None:
        self._connection.execute("INSERT OR IGNORE INTO study VALUES (?, ?, ?, ?)", (hash_, document, state, _now()))

    def study(self, hash_: str) -> tuple[str, str] | None:
        """The study's canonical JSON and its state."""
        row = self._connection.execute("SELECT document, state FROM study WHERE hash = ?", (hash_,)).fetchone()
        return (str(row[0]), str(row[1])) if row else None

    def studies(self) -> list[tuple[str, str, str]]:
        """(hash, document, state) of every study, oldest first."""
        return list(self._connection.execute("SELECT hash, document, state FROM study ORDER BY rowid"))

    def set_state(self, hash_: str, state: str) -> None:
        self._connection.execute("UPDATE study SET state = ?, since = ? WHERE hash = ?", (state, _now(), hash_))

    def put_permit(self, study: str, hospital: str, envelope: dict[str, Any] | None) -> None:
        """A hospital's signed permit; None where it declined. A later one replaces the earlier."""
        text = json.dumps(envelope) if envelope else None
        self._connection.execute("INSERT OR REPLACE INTO permit VALUES (?, ?, ?, ?)", (study, hospital, text, _now()))

    def permits(self, study: str) -> dict[str, dict[str, Any] | None]:
        rows = self._connection.execute("SELECT hospital, envelope FROM permit WHERE study = ?", (study,))
        return {hospital: json.loads(envelope) if envelope else None for hospital, envelope in rows}

    # ── runs ──

    def put_run(self, name: str, study: str) -> None:
        self._connection.execute("INSERT OR IGNORE INTO run VALUES (?, ?, ?)", (name, study, _now()))

    def runs(self, study: str) -> list[str]:
        rows = self._connection.execute("SELECT name FROM run WHERE study = ? ORDER BY rowid", (study,))
        return [str(name) for (name,) in rows]

    def ledger(self, run: str) -> StoredLedger:
        return StoredLedger(self._connection, run)


class StoredLedger:
    """The rounds of one run (`dure.federation.rounds.Ledger`)."""

    def __init__(self, connection: sqlite3.Connection, run: str) -> None:
        self._connection, self._run = connection, run

    def read(self, step: str, fold: str | None) -> bytes | None:
        where = (self._run, step, fold or "")
        query = "SELECT entry FROM ledger WHERE run = ? AND step = ? AND fold = ?"
        row = self._connection.execute(query, where).fetchone()
        return bytes(row[0]) if row else None

    def folds(self, step: str) -> list[bytes]:
        """Every entry of a step: one, or one by hospital."""
        query = "SELECT entry FROM ledger WHERE run = ? AND step = ? ORDER BY fold"
        return [bytes(entry) for (entry,) in self._connection.execute(query, (self._run, step))]

    def write(self, step: str, fold: str | None, entry: bytes) -> None:
        values = (self._run, step, fold or "", entry)
        self._connection.execute("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?)", values)


def _now() -> str:
    return datetime.now(UTC).isoformat()
