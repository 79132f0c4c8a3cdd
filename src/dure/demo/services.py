"""The demonstration between real processes: a hub and a service for each hospital, joined as anybody would join."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dure.client import alliance as client
from dure.demo.alliance import Alliance
from dure.errors import HubUnreachable
from dure.federation.ledger import Outcome
from dure.federation.membership import enrol
from dure.hub.authority import Authority, create_hub
from dure.hub.runs import results
from dure.language import Words
from dure.site import inbox
from dure.site.runner import Runner
from dure.site.settings import Site
from dure.study.method import Methods
from dure.study.spec import Study

RESEARCHER = "Researcher"
START = 60.0
"""Seconds a process has to come up."""


class Services:
    """Processes of this demonstration; all of them end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "DURE_WITH_PARENT": str(os.getpid())}
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )
        log.close()

    def stop(self) -> None:
        """Sites first, so that they can say goodbye."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def joined(
    folder: Path, sites: dict[str, Site], methods: Methods, study: Study, scheme: str, say: Callable[[Words], None]
) -> Iterator[tuple[Alliance, client.Alliance, Services]]:
    """A hub on one port, every hospital enrolled and serving, the study submitted and in every inbox."""
    hub = create_hub(folder / "hub", "Demonstration", "127.0.0.1", _free_port(), scheme, listen="127.0.0.1")
    store = hub.open_store()
    authority = Authority(hub, store)
    logs = folder / "services"
    logs.mkdir()
    services = Services(logs)
    try:
        services.start("hub", "dure.hub.entry", "serve", str(hub.folder))
        for name, site in sites.items():
            enrol(authority.invite(name), site.folder, START)
            services.start(site.folder.name, "dure.cli", "site", "serve", str(site.folder))
        enrol(authority.invite(RESEARCHER, "researcher"), folder / "researcher", START)
        running = {name: process.pid for name, process in services.processes.items()}
        pids = ", ".join(f"{name} {pid}" for name, pid in running.items())
        say(
            Words(
                f"Services (process ids) on {hub.scheme}://127.0.0.1:{hub.port}: {pids}",
                f"{hub.scheme}://127.0.0.1:{hub.port}의 서비스(프로세스 번호): {pids}",
            )
        )
        with client.Alliance(folder / "researcher") as researcher:
            researcher.submit(study)
            _until(lambda: all(inbox.holds(site, study.hash) for site in sites.values()), services)
            runners = {name: Runner(site, methods) for name, site in sites.items()}
            yield Alliance(store, sites, runners, study, methods), researcher, services
    finally:
        services.stop()
        store.close()


def followed(
    alliance: Alliance, researcher: client.Alliance, progress: Callable[[str, Mapping[str, Any]], None]
) -> Mapping[str, Outcome]:
    """Watch the run to its end; the outcomes as the hub's ledger has them."""
    for event in researcher.follow(alliance.study.hash):
        if event["event"] in ("step", "round", "outcome"):
            progress(event["event"], event)
    return results(alliance.store, alliance.study.hash, alliance.methods)


def _until(done: Callable[[], bool], services: Services) -> None:
    deadline = time.monotonic() + START
    while not done():
        dead = [name for name, process in services.processes.items() if process.poll() is not None]
        if dead or time.monotonic() > deadline:
            said = f"{dead[0]} has ended; see services/{dead[0]}.log" if dead else "a hospital has not come up"
            raise HubUnreachable(address="127.0.0.1", problem=Words(said, said))
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
