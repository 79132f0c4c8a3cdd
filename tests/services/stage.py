"""Real processes for the tests: a hub, hospitals' services, and a proxy that delays, loses and cuts; on loopback."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from dure.client import alliance as client
from dure.client.alliance import Alliance
from dure.demo import offices
from dure.federation.membership import enrol
from dure.guard.permissions import owner
from dure.hub import releases
from dure.hub.authority import Authority, Hub, create_hub
from dure.hub.store import Store
from dure.site import inbox
from dure.site.settings import Site, create_site
from dure.study.method import installed_methods
from dure.study.spec import Study, read_study

START = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(done: Callable[[], Any], seconds: float = START, what: str = "it") -> Any:
    """Poll until `done()` is true; its value."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} seconds"
        time.sleep(0.02)
    return found


class Process:
    """A service in a process of its own, which ends with the test's; its log stays for the message of a failed test."""

    def __init__(self, log: Path, *command: str, environment: dict[str, str] | None = None) -> None:
        self.log, self.command, self.environment = log, command, environment or {}
        self.started: subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        with self.log.open("ab") as log:
            self.started = subprocess.Popen(
                [sys.executable, *self.command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "DURE_WITH_PARENT": str(os.getpid()), **self.environment},
            )
        return self

    @property
    def pid(self) -> int:
        assert self.started is not None
        return self.started.pid

    def kill(self) -> None:
        if self.started and self.started.poll() is None:
            os.kill(self.started.pid, signal.SIGKILL)
            self.started.wait(10)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.started is not None
        if self.started.poll() is None:
            self.started.send_signal(signal.SIGTERM)
        try:
            return self.started.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")


class Town:
    """A hub and hospitals that have enrolled, each a folder and a process."""

    def __init__(self, folder: Path, scheme: str = "tcp", patience: float = 30.0, store: str = "hub.db") -> None:
        self.folder, self.patience = folder, patience
        self.hub: Hub = create_hub(folder / "hub", "Test", "127.0.0.1", free_port(), scheme, store, "127.0.0.1")
        self.store = self.hub.open_store()
        self.authority = Authority(self.hub, self.store)
        self.processes: dict[str, Process] = {}
        self.sites: dict[str, Site] = {}
        self.proxies: list[Proxy] = []
        self._hub_process()

    def _hub_process(self) -> None:
        command = ("-m", "dure.hub.entry", "serve", str(self.hub.folder), "--patience", str(self.patience))
        self.processes["hub"] = Process(self.folder / "hub.log", *command).start()

    def join(self, name: str, database: Path | None = None, proxy: Proxy | None = None, **settings: Any) -> Site:
        """Enrol a hospital with a copy of a database and start its service."""
        folder = self.folder / f"site{len(self.sites)}"
        site = create_site(folder, name)
        if database:
            shutil.copy(database, site.database)
        if settings:
            written = yaml.safe_load((folder / "site.yaml").read_text(encoding="utf-8")) | settings
            (folder / "site.yaml").write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8")
            site = Site(folder)
        address = f"127.0.0.1:{proxy.port}" if proxy else None
        enrol(self.authority.invite(name), folder, START, address)
        self.sites[name] = site
        self.serve(name)
        return site

    def serve(self, name: str) -> None:
        site = self.sites[name]
        log = self.folder / f"{site.folder.name}.log"
        self.processes[name] = Process(log, "-m", "dure.cli", "site", "serve", str(site.folder)).start()

    def proxy(self, **trouble: Any) -> Proxy:
        proxy = Proxy(self.hub.port, **trouble)
        self.proxies.append(proxy)
        return proxy

    def kill(self, name: str) -> None:
        self.processes[name].kill()

    def again(self, name: str) -> None:
        """Start a killed process again."""
        self._hub_process() if name == "hub" else self.serve(name)

    @contextlib.contextmanager
    def researcher(self) -> Iterator[Alliance]:
        folder = self.folder / "researcher"
        if not (folder / "member.json").exists():
            enrol(self.authority.invite("Researcher", "researcher"), folder, START)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "PATIENCE", START)  # a loaded machine is no error
            with Alliance(folder) as alliance:
                yield alliance

    def permit(self, study: Study, *names: str, grants: tuple[Any, ...] = ("per_hospital", "difference")) -> None:
        """The stewards named (or all) sign, once the study has come in."""
        for name in names or tuple(self.sites):
            site = self.sites[name]
            until(lambda: inbox.holds(site, study.hash), what=f"delivery to {name}")  # noqa: B023
            inbox.permit(site, study.hash, installed_methods(), grants)

    def state(self, study: Study) -> str:
        found = self.store.study(study.hash)
        return found[1] if found else "unknown"

    def events(self, study: Study, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in self.store.events(study.hash) if not kinds or event["event"] in kinds]

    def finished(self, study: Study, seconds: float = 120.0) -> None:
        until(lambda: self.state(study) == "release_review", seconds, f"the end of {study.hash[:15]}")

    def ledger(self, study: Study) -> dict[str, bytes | None]:
        """Step → entry of the study's run, as it lies in the store."""
        (run,) = self.store.runs(study.hash)
        return {step.name: self.store.ledger(run).read(step.name, None) for step in study.steps}

    def close(self) -> None:
        for name, process in self.processes.items():
            if name != "hub" and process.started:
                process.started.send_signal(signal.SIGTERM) if process.started.poll() is None else None
        for process in reversed(self.processes.values()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.stop()
        for proxy in self.proxies:
            proxy.close()
        self.store.close()


class Proxy:
    """Loopback in between: `delay` seconds each way, a share `loss` of chunks held back as a lost packet would be,
    `cut()` for a while. Byte streams stay whole, as TCP keeps them; a cut ends connections without a word. With `tap`,
    a folder, what passes is written down, one file for each direction of a connection."""

    def __init__(
        self,
        to: int,
        delay: float = 0.0,
        loss: float = 0.0,
        seed: int = 1,
        rate: float = 0.0,
        tap: Path | None = None,
    ) -> None:
        self.to, self.delay, self.loss, self.rate, self.tap = to, delay, loss, rate, tap
        self._streams = count()
        self.random = random.Random(seed)
        self._cut = threading.Event()
        self._stop = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float, quiet: bool = True) -> None:
        """Nothing passes for so long; with `quiet` connections look alive, else they are reset."""
        self._cut.set()
        if not quiet:
            for one in list(self._open):
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    one.close()
        self._stop.wait(seconds)
        self._cut.clear()

    def close(self) -> None:
        self._stop.set()
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.to), timeout=5)
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        queue: list[tuple[float, bytes]] = []
        ended = False
        heard = (self.tap / f"{self.port}-{next(self._streams)}").open("wb", 0) if self.tap else None
        try:
            while not self._stop.is_set() and not (ended and not queue):
                now = time.monotonic()
                wait = 0.05 if not queue else max(0.0, min(0.05, queue[0][0] - now))
                readable = [] if ended or len(queue) > 256 else select.select([one], [], [], wait)[0]
                if not readable and wait:
                    self._stop.wait(0 if not (ended or len(queue) > 256) else wait)
                if readable:
                    data = one.recv(16384)
                    if heard:
                        heard.write(data)
                    ended = not data
                    late = self.delay + (0.2 if self.random.random() < self.loss else 0.0)
                    due = max(time.monotonic() + late, queue[-1][0] if queue else 0.0)
                    if self.rate:
                        due += len(data) / self.rate
                    if data:
                        queue.append((due, data))
                while queue and queue[0][0] <= time.monotonic() and not self._cut.is_set():
                    other.sendall(queue.pop(0)[1])
        except (OSError, ValueError):
            pass
        finally:
            if heard:
                heard.close()
            for end in (one, other):
                self._open.discard(end)
                with contextlib.suppress(OSError):
                    end.close()


def release(store: Store, study: Study) -> None:
    """Whoever holds the hub's folder decides, while it has no accounts."""
    methods = installed_methods()
    waits = releases.waiting(store, study.hash, methods)
    releases.decide(store, study.hash, owner("office"), waits.digest, True, methods)


def small_study(steps: tuple[str, ...] = ("attrition", "table_one", "model"), **changes: Any) -> Study:
    """The demonstration's study with the steps named."""
    study = read_study(offices.STUDY)
    return study.model_copy(update={"steps": tuple(study.step(name) for name in steps), **changes})
