"""A hub's process that runs or resumes a study over hospitals in folders, and may kill itself at an exact point.

Arguments: the alliance's folder, then what is hit (ledger, memory, audit, state, sums or nothing), when (before,
within or after that write), and at which write. Nothing in dure knows of it: the writes are wrapped here.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from dure.federation.local_engine import LocalEngine
from dure.federation.secure_sum.record import Record
from dure.guard.audit import AuditLog
from dure.hub.runs import run_study
from dure.hub.store import Store, StoredLedger
from dure.site.memory import StoredMemory
from dure.site.runner import Runner
from dure.site.settings import Site
from dure.study.method import installed_methods

WRITES = {
    "ledger": (StoredLedger, "write"),
    "memory": (StoredMemory, "write"),
    "audit": (AuditLog, "append"),
    "state": (Store, "set_state"),
    "sums": (Record, "write"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(what: str, when: str, number: int) -> None:
    """Wrap the write so that the process dies at its `number`-th call."""
    owner, name = WRITES[what]
    write, calls = getattr(owner, name), [0]

    def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] != number:
            return write(self, *arguments, **named)
        if when == "before":
            die()
        if when == "within":
            within(self, number)
        found = write(self, *arguments, **named)
        die()
        return found

    setattr(owner, name, wrapped)


def within(owner: Any, number: int) -> None:
    """Die while the write runs: inside SQLite's own program, or with half a line in the log."""
    connection = getattr(getattr(owner, "_database", owner), "_connection", None)
    if isinstance(connection, sqlite3.Connection):
        connection.set_progress_handler(die, 3 + number % 5)
    elif isinstance(owner, AuditLog):
        with owner.path.open("ab") as file:
            file.write(b'{"event": "le\xed\x95')
            file.flush()
        die()


def main(folder: Path, what: str = "nothing", when: str = "", number: str = "0") -> None:
    methods = installed_methods()
    sites = [Site(path) for path in sorted((folder / "hospitals").iterdir())]
    store = Store(folder / "hub" / "hub.db")
    engine = LocalEngine({site.hospital: Runner(site, methods).answer for site in sites})
    ((hash_, _, state),) = store.studies()
    if what in WRITES:
        arm(what, when, int(number))
    print("ready", flush=True)
    if state != "release_review":
        run_study(store, hash_, engine, methods, name="run")
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
