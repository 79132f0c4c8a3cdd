"""The database under the hub's store: one SQLite file, or PostgreSQL by URL, behind the few statements both know."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from dure.errors import FileMissing, LedgerBroken, MissingPackage
from dure.language import Words


class Database(Protocol):
    """Statements with `?` for values; threads may share one. Every write is on disk before it returns."""

    def script(self, statements: str) -> None: ...

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """The number of rows that changed."""
        ...

    def transaction(self) -> Any:
        """A context in which all writes happen together or not at all; one inside another is part of it."""
        ...

    def close(self) -> None: ...


def open_database(place: Path | str) -> Database:
    """A path is an SQLite file, a `postgresql://` URL a PostgreSQL database.

    Raises LedgerBroken where the file is something else, FileMissing where the server does not answer.
    """
    if isinstance(place, str) and place.startswith(("postgresql://", "postgres://")):
        return Postgres(place)
    return Sqlite(Path(place))


class Sqlite:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if isinstance(error, sqlite3.OperationalError):  # locked, read-only: the file itself may be sound
                raise
            problem = Words("It is not a hub's file", "허브의 파일이 아닙니다")
            raise LedgerBroken(path=path, problem=problem) from None

    def script(self, statements: str) -> None:
        with self._lock:
            self._connection.executescript(statements)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return list(self._connection.execute(statement, values))

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        with self._lock:
            return self._connection.execute(statement, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._connection.close()


ALONE = int.from_bytes(b"dure")
"""A lock of PostgreSQL's that a transaction holds: what it has read, no other process changes before it is written, as
SQLite has it."""


class Postgres:
    """Through pg8000 (BSD licence, pure Python). One connection; it is opened again where the server closed it."""

    def __init__(self, url: str) -> None:
        try:
            import pg8000.dbapi
        except ImportError:
            raise MissingPackage(
                purpose="PostgreSQL", package="pg8000", command='pip install "dure[postgres]"'
            ) from None
        self._driver: Any = pg8000.dbapi
        self._url, self._lock, self._inside = urlsplit(url), threading.RLock(), False
        self._connection: Any = None
        self._open()

    def _open(self) -> None:
        url = self._url
        try:
            self._connection = self._driver.connect(
                user=unquote(url.username or "postgres"),
                password=unquote(url.password) if url.password else None,
                host=url.hostname or "127.0.0.1",
                port=url.port or 5432,
                database=url.path.lstrip("/") or "dure",
                timeout=30,
            )
        except (self._driver.Error, OSError):
            raise FileMissing(path=f"postgresql://{url.hostname}:{url.port or 5432}{url.path}") from None
        self._connection.autocommit = True

    def script(self, statements: str) -> None:
        for statement in statements.replace("BLOB", "BYTEA").split(";"):
            if statement.strip():
                self._run(statement, ())

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._run(statement, values).fetchall()]

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        with self.transaction():
            return int(self._run(statement, values).rowcount)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            if self._inside:
                yield
                return
            self._run("BEGIN", ())
            self._inside = True
            try:
                self._run("SELECT pg_advisory_xact_lock(?)", (ALONE,))
                yield
            except BaseException:
                self._run("ROLLBACK", ())
                raise
            else:
                self._run("COMMIT", ())
            finally:
                self._inside = False

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _run(self, statement: str, values: Sequence[Any]) -> Any:
        with self._lock:
            try:
                return self._execute(statement, values)
            except (self._driver.InterfaceError, OSError):
                if self._inside:  # what was done in this transaction is gone with the connection
                    raise
                self._open()
                return self._execute(statement, values)

    def _execute(self, statement: str, values: Sequence[Any]) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(statement.replace("?", "%s"), tuple(values))
        return cursor
