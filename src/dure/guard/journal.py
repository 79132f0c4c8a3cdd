"""The structured log of a service: one JSON object a line, of names, counts of rounds and times; never of patients."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from typing import IO

Plain = str | int | float | bool | None


class Journal:
    """Writes to standard error, which systemd and container engines keep. `service` names the process."""

    def __init__(self, service: str, file: IO[str] | None = None) -> None:
        self._service, self._file, self._lock = service, file, threading.Lock()

    def say(self, event: str, level: str = "info", **details: Plain) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"time": now, "level": level, "service": self._service, "event": event, **details}
        with self._lock:
            print(json.dumps(entry, ensure_ascii=False), file=self._file or sys.stderr, flush=True)
