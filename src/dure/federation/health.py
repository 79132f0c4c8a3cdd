"""What long-lived services share: they stop in order when told to, and show on loopback whether they are well."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from dure.errors import AlreadyRunning

FILES = 8192
"""Open files of a service, as `deploy/dure-hub.service` allows."""
Report = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Whether the service is well, and plain facts about it."""


class Service(Protocol):
    def run(self) -> None:
        """Until `stop`."""
        ...

    def stop(self) -> None: ...


def until_stopped(service: Service) -> None:
    """Run a service until SIGTERM or Ctrl-C, then let it end in order. What it writes, only its user may read.

    With its parent's process id in DURE_WITH_PARENT it also ends when that process does, however that ends.
    """
    os.umask(0o077)
    _allow_files()
    if parent := os.environ.get("DURE_WITH_PARENT"):
        threading.Thread(target=_stop_with_parent, args=(service, int(parent)), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    service.run()


def _allow_files() -> None:
    """Let this process open as many files as it may ask for, up to FILES: many systems begin with 1,024, which callers
    without a certificate could use up for the seconds that a handshake may take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _stop_with_parent(service: Service, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    service.stop()


@contextmanager
def only_one(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the folder for one process; raises AlreadyRunning after `wait` seconds. It ends with the process, however
    that ends."""
    deadline = time.monotonic() + wait
    with (folder / "service.lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise AlreadyRunning(what=str(folder)) from None
                time.sleep(0.05)
        yield


def check_free(host: str, port: int) -> None:
    """Raises AlreadyRunning where the port cannot be opened: the wire itself would only try again and again."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise AlreadyRunning(what=f"{host}:{port}") from None


class Health:
    """`GET /health` at 127.0.0.1:`port` (0: any free one), which no other machine reaches: 200, or 503 if not well."""

    def __init__(self, port: int, report: Report) -> None:
        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path.rstrip("/") in ("", "/health")
                well, facts = report() if known else (False, {"problem": "only /health is here"})
                body = json.dumps(facts, ensure_ascii=False).encode()
                self.send_response(404 if not known else 200 if well else 503)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing: whoever asks every second would fill the log."""

        if port:
            check_free("127.0.0.1", port)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Page)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
