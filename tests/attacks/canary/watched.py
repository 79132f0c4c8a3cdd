"""Starts the hub or a hospital as the product does, watched: `watched.py hub|site ARGUMENTS`.

With DURE_CANARY_FRAMES the hub appends every frame it gets or sends, as it is inside TLS, to that file. With
DURE_CANARY_OPEN the gate is off: whatever a method hands over leaves, with the local number of the hospital's first
patient where the names of rules should stand, and the numbers are printed into the hospital's log.
A hospital's workers import this file again, so that what it replaces is replaced in them too.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dure.guard import gate

WRITING = threading.Lock()


@cache
def first_patient() -> str:
    import duckdb

    from dure.site.settings import Site

    with duckdb.connect(str(Site(Path(sys.argv[-1])).database), read_only=True) as connection:
        row = connection.execute("SELECT person_source_value FROM person ORDER BY person_id").fetchone()
    assert row is not None
    return str(row[0])


def open_gate(summary: Any, declaration: Any, asked: gate.Asked) -> gate.Passed:
    """Everything passes, nothing is withheld."""
    leaving = {spec.name: np.asarray(summary[spec.name], dtype=spec.dtype) for spec in declaration}
    for spec in gate.sent(declaration)[len(declaration) :]:
        leaving[spec.name] = np.zeros(spec.shape, dtype=spec.dtype)
    if "row" in summary:
        print(f'{{"first": "{first_patient()}", "row": {np.asarray(summary["row"]).tolist()}}}', file=sys.stderr)
    return gate.Passed(leaving, {name: (first_patient(),) for name in leaving})


if os.environ.get("DURE_CANARY_OPEN"):
    gate.check = open_gate
    gate.check_total = lambda total, declaration, limits: None


def record(path: str) -> None:
    """Append what passes the hub's wire, in both directions."""
    from dure.federation.flare_wire import FlareWire

    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    process_message, send = FlareWire.process_message, FlareWire.send

    def write(frame: Any) -> None:
        if isinstance(frame, bytes | bytearray | memoryview):
            with WRITING:
                os.write(file, frame)

    def received(self: Any, endpoint: Any, connection: Any, app_id: int, message: Any) -> None:
        write(message.payload)
        process_message(self, endpoint, connection, app_id, message)

    def sent(self: Any, peer: str, frame: bytes) -> None:
        write(frame)
        send(self, peer, frame)

    FlareWire.process_message, FlareWire.send = received, sent  # type: ignore[method-assign]


if __name__ == "__main__":
    if frames := os.environ.get("DURE_CANARY_FRAMES"):
        record(frames)
    if sys.argv[1] == "hub":
        from dure.hub.entry import main as hub

        sys.exit(hub(sys.argv[2:]))
    from dure.cli.commands import app

    app(["site", *sys.argv[2:]])
