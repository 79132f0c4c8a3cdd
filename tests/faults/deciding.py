"""A process in which people's commands are typed, each in a fork of its own that may be killed.

A line of standard input is {"command": [...], "session": "...", "kill": seconds or null, "dies": [write, when] or
null}; the reply is the exit code (-9: killed) and the seconds it took. `dies` kills the command exactly before or
after its `write`-th file or line of a log. What commands need is loaded once, so that a kill meets their work.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import polars  # noqa: F401

from dure.cli.commands import run
from dure.guard import acting  # noqa: F401
from dure.guard.audit import AuditLog
from dure.hub import authority, desk, releases  # noqa: F401
from dure.site import inbox, reviews  # noqa: F401
from dure.site.settings import Site
from dure.study.method import installed_methods
from dure.study.spec import Study


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(number: int, when: str) -> None:
    """Every file that is put in its place, or taken away, and every line of a log is a write."""
    calls = [0]

    def wrapped(owner: Any, name: str) -> None:
        write = getattr(owner, name)

        def instead(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            mine = calls[0]
            if mine == number and when == "before":
                die()
            found = write(*arguments, **named)
            if mine == number:
                die()
            return found

        setattr(owner, name, instead)

    wrapped(Path, "replace")
    wrapped(Path, "unlink")
    wrapped(AuditLog, "append")


def obey(asked: dict[str, Any], log: str) -> None:
    os.environ["DURE_SESSION"] = asked["session"]
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if asked.get("dies"):
        arm(*asked["dies"])
    code = 1
    try:
        if asked["command"][0] == "receive":  # what the service does with a study that the hub brings
            _, folder, document = asked["command"]
            inbox.receive(Site(Path(folder)), Study.model_validate_json(Path(document).read_text(encoding="utf-8")))
            code = 0
        else:
            code = run(asked["command"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main(log: str) -> None:
    installed_methods()
    print("ready", flush=True)
    for line in sys.stdin:
        asked, began = json.loads(line), time.monotonic()
        child = os.fork()
        if child == 0:
            obey(asked, log)
        ended, status = 0, 0
        while not ended:
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended and asked.get("kill") is not None and time.monotonic() - began >= asked["kill"]:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                break
            time.sleep(0.001)
        took = time.monotonic() - began
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "seconds": took}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
