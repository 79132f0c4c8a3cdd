"""An append-only record of what was asked and what left; its lines are a chain, and the leaves of a Merkle tree.

One JSON object a line. Each entry carries the hash of the one before it: changing, removing or reordering a line
breaks the chain (`verify`). Whoever writes the whole file anew can make a chain that fits; that is found because
others hold signed roots of the tree (`tree_head`, `dure.guard.tree_heads`).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from dure.errors import LedgerBroken
from dure.guard.merkle import Tree
from dure.language import Words
from dure.study.summary import ArraySpec, Declaration

try:
    import fcntl
except ImportError:  # not on Windows: there one process at a time has to write
    fcntl = None  # type: ignore[assignment]

START = "0" * 64
FILE = "audit.jsonl"
"""The name of a folder's log."""


class AuditLog:
    """One file, which several processes may share; entries are synced, so that a crash loses nothing written.

    What other processes have added is read from where this one stopped, never the whole file again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known = (0, START)
        self._begin()
        self.refresh()

    def _begin(self) -> None:
        self.head, self.count, self._size, self._file = START, 0, 0, -1
        self._tree = Tree()

    def append(self, event: str, /, sync: bool = True, **details: Any) -> None:
        """Add one entry. `details` is plain data and never holds a patient's value. Raises LedgerBroken; TypeError or
        ValueError where they are not plain, with nothing written.

        Without `sync` it outlives this process at once, and a loss of power only with the next entry that is synced.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked("a+b") as file:
            self._catch_up(file)
            said = {"number": self.count, "time": datetime.now(UTC).isoformat(), "event": event, **details}
            # As it will be read: a line that does not read back to itself would make the log unreadable for good.
            entry: dict[str, Any] = json.loads(_line(said))
            entry["before"] = self.head
            entry["hash"] = _hash(entry)
            line = _line(entry)
            file.write(line + b"\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())
            self._follow(entry, line)
            self._known, self._size = (self.count, self.head), file.seek(0, os.SEEK_END)

    def sync(self) -> None:
        """Put every line on disk that is not there yet."""
        if self.path.exists():
            with self._locked("rb") as file:
                os.fsync(file.fileno())

    def refresh(self) -> None:
        """Take in what other processes have written; raises LedgerBroken."""
        if self.path.exists():
            with self._locked(self._reading) as file:
                self._catch_up(file)
        elif self._known[0]:
            self._replaced()

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every entry, checked; raises LedgerBroken. A last line cut by a crash is not an entry yet."""
        if not self.path.exists():
            return
        with self._locked(self._reading) as file:
            lines = self._lines(file, 0)
        for entry, _ in self._sound(lines, START, 0):
            yield entry

    def verify(self) -> int:
        """The number of entries; raises LedgerBroken where the chain is broken."""
        return sum(1 for _ in self.entries())

    def tree_head(self, size: int | None = None) -> tuple[int, bytes]:
        """How many lines the log has, and the root of the tree over them; `size`: as it was after so many lines.

        Raises LedgerBroken, or ValueError where it never had so many.
        """
        if size is None:
            self.refresh()
            size = self.count
        return size, self._tree.root(size)

    def consistency(self, first: int, size: int) -> list[bytes]:
        """The proof that the first `size` lines begin with the first `first` (`dure.guard.merkle.consistent`)."""
        return self._tree.consistency(first, size)

    def inclusion(self, number: int, size: int) -> list[bytes]:
        """The proof that line `number` is among the first `size` (`dure.guard.merkle.included`)."""
        return self._tree.inclusion(number, size)

    def _follow(self, entry: dict[str, Any], line: bytes) -> None:
        self.head, self.count = entry["hash"], self.count + 1
        self._tree.append(line)

    @property
    def _reading(self) -> str:
        """Whoever may write also takes away what a crash left behind; an auditor's copy may be read-only."""
        return "r+b" if os.access(self.path, os.W_OK) else "rb"

    @contextmanager
    def _locked(self, mode: str) -> Iterator[IO[bytes]]:
        with self._lock, self.path.open(mode) as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)  # given up when the file closes
            yield file

    def _catch_up(self, file: IO[bytes]) -> None:
        """Follow what is new in the file. One that is another or shorter is read from its start, and has to hold what
        was known: a log that was replaced under a running process is not taken for its own."""
        about = os.fstat(file.fileno())
        if about.st_size == self._size and about.st_ino == self._file:
            return
        if about.st_size < self._size or about.st_ino != self._file:
            self._begin()
        try:
            for entry, line in self._sound(self._lines(file, self._size), self.head, self.count):
                self._follow(entry, line)
                if self.count == self._known[0] and self.head != self._known[1]:
                    self._replaced()
        except LedgerBroken:
            self._begin()  # what is broken is read whole, and refused, each time
            raise
        if self.count < self._known[0]:
            self._replaced()
        self._known, self._size, self._file = (self.count, self.head), file.seek(0, os.SEEK_END), about.st_ino

    def _replaced(self) -> None:
        self._begin()
        problem = Words(
            "It lacks lines that this process has written or read",
            "이 프로세스가 쓰거나 읽은 줄이 파일에 없습니다",
        )
        raise LedgerBroken(path=self.path, problem=problem)

    def _lines(self, file: IO[bytes], start: int) -> list[bytes]:
        """Whole lines from byte `start`; what follows the last newline was being written when a process died, and is
        cut off."""
        file.seek(start)
        data = file.read()  # bytes: a crash may cut a letter in two
        whole = data.rfind(b"\n") + 1
        if whole < len(data) and file.writable():
            file.truncate(start + whole)
        return data[:whole].split(b"\n")[:-1]

    def _sound(self, lines: list[bytes], before: str, number: int) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Entries with their lines. A line is compared byte by byte with what would be written: there is one way only
        to write an entry, so that a changed blank is a change too."""
        for line in lines:
            try:
                entry: dict[str, Any] = json.loads(line)
                follows = entry["before"] == before and entry["number"] == number
                sound = follows and entry["hash"] == _hash(entry) and line == _line(entry)
            except (ValueError, KeyError, TypeError):
                sound = False
            if not sound:
                problem = Words(
                    f"Line {number + 1} does not follow from the line before it",
                    f"{number + 1}번째 줄이 앞줄과 이어지지 않습니다",
                )
                raise LedgerBroken(path=self.path, problem=problem)
            before, number = entry["hash"], number + 1
            yield entry, line


def digest(data: Any) -> str:
    """SHA-256 of bytes, or of plain data as canonical JSON: how a log names what it does not hold."""
    if not isinstance(data, bytes):
        data = json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return "sha256:" + hashlib.sha256(data).hexdigest()


def declaration_digest(declaration: Declaration) -> str:
    """A round's declaration by one digest, the same at the hub and at every hospital."""
    names = ArraySpec.__dataclass_fields__
    return digest([{name: getattr(spec, name) for name in names} for spec in declaration])


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, sort_keys=True).encode()


def _hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(_line({name: value for name, value in entry.items() if name != "hash"})).hexdigest()
