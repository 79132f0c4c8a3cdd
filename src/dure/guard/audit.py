"""An append-only record of what was asked and what left; each entry carries the hash of the one before it.

One JSON object a line. Changing, removing or reordering a line breaks the chain (`verify`); cutting off the
end is caught by comparing the last hash with one that was noted elsewhere (`AuditLog.head`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dure.errors import LedgerBroken
from dure.language import Words

START = "0" * 64


class AuditLog:
    """One file; opened, appended and synced for every entry, so that a crash loses nothing written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = START
        self.count = 0
        for entry in self.entries():
            self.head, self.count = entry["hash"], self.count + 1

    def append(self, event: str, **details: Any) -> None:
        """Add one entry. `details` is plain data and never holds a patient's value."""
        entry = {"number": self.count, "time": datetime.now(UTC).isoformat(), "event": event, **details}
        entry["before"] = self.head
        entry["hash"] = _hash(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.head, self.count = entry["hash"], self.count + 1

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every entry, checked; raises LedgerBroken. A last line cut by a crash is not an entry yet."""
        if not self.path.exists():
            return
        before = START
        lines = self.path.read_bytes().split(b"\n")  # bytes: a crash may cut a letter in two
        if lines[-1]:  # no newline at its end: the process died while writing it
            self._drop_unfinished(lines.pop())
        for number, line in enumerate(line for line in lines if line):
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

    def verify(self) -> int:
        """The number of entries; raises LedgerBroken where the chain is broken."""
        return sum(1 for _ in self.entries())

    def _drop_unfinished(self, line: bytes) -> None:
        size = self.path.stat().st_size - len(line)
        with self.path.open("r+b") as file:
            file.truncate(size)


def _hash(entry: dict[str, Any]) -> str:
    body = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
