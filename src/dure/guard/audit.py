"""An append-only record of what was asked and what left; each entry carries the hash of the one before it.

One JSON object a line. Changing, removing or reordering a line breaks the chain (`verify`); cutting off the
end is caught by comparing the last hash with one that was noted elsewhere (`AuditLog.head`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from dure.errors import LedgerBroken
from dure.language import Words

try:
    import fcntl
except ImportError:  # not on Windows: there one process at a time has to write
    fcntl = None  # type: ignore[assignment]

START = "0" * 64


class AuditLog:
    """One file, which several processes of a hospital may share; every entry is synced, so that a crash loses
    nothing written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head, self.count, self._size = START, 0, 0
        for entry in self.entries():
            self._follow(entry)

    def append(self, event: str, **details: Any) -> None:
        """Add one entry. `details` is plain data and never holds a patient's value."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked("a+b") as file:
            if file.seek(0, os.SEEK_END) != self._size:  # another process has written since
                self.head, self.count = START, 0
                for earlier in self._sound(self._lines(file)):
                    self._follow(earlier)
            entry = {"number": self.count, "time": datetime.now(UTC).isoformat(), "event": event, **details}
            entry["before"] = self.head
            entry["hash"] = _hash(entry)
            file.write(json.dumps(entry, ensure_ascii=False, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._size = file.seek(0, os.SEEK_END)
        self._follow(entry)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every entry, checked; raises LedgerBroken. A last line cut by a crash is not an entry yet."""
        if not self.path.exists():
            return
        with self._locked("r+b") as file:
            lines = self._lines(file)
            self._size = file.seek(0, os.SEEK_END)
        yield from self._sound(lines)

    def verify(self) -> int:
        """The number of entries; raises LedgerBroken where the chain is broken."""
        return sum(1 for _ in self.entries())

    def _follow(self, entry: dict[str, Any]) -> None:
        self.head, self.count = entry["hash"], self.count + 1

    @contextmanager
    def _locked(self, mode: str) -> Iterator[IO[bytes]]:
        with self.path.open(mode) as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)  # given up when the file closes
            yield file

    def _lines(self, file: IO[bytes]) -> list[bytes]:
        """Whole lines; what follows the last newline was being written when a process died, and is cut off."""
        file.seek(0)
        data = file.read()  # bytes: a crash may cut a letter in two
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
        return [line for line in data[:whole].split(b"\n") if line]

    def _sound(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        before = START
        for number, line in enumerate(lines):
            try:
                entry: dict[str, Any] = json.loads(line)
                sound = entry["before"] == before and entry["hash"] == _hash(entry) and entry["number"] == number
            except (ValueError, KeyError, TypeError):
                sound = False
            if not sound:
                problem = Words(
                    f"Line {number + 1} does not follow from the line before it",
                    f"{number + 1}번째 줄이 앞줄과 이어지지 않습니다",
                )
                raise LedgerBroken(path=self.path, problem=problem)
            before = entry["hash"]
            yield entry


def _hash(entry: dict[str, Any]) -> str:
    body = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
