"""Hub and echo sites as processes of their own over mTLS on 127.0.0.1: FLARE's cells as they are, and dure's engine.

`Alliance` starts them; `python bench/engine_wires.py hub|sites …` is what it starts. A process ends when its standard
input does, so that none outlives the benchmark. Replies are compared with what was sent after the clock has stopped.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its statistics.py would pass for the standard library's

import contextlib
import json
import logging
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

HOST = "127.0.0.1"
START = 120.0
"""Seconds within which all processes have to have met."""
ROUND = 120.0
"""Seconds a round may take."""
DAY = timedelta(days=1)
Engine = Literal["bare", "dure"]


@dataclass(frozen=True)
class Measured:
    """Seconds of each round, and processor seconds of hub and sites together for all of them."""

    seconds: list[float]
    cpu: float


class Alliance:
    """A hub and its sites, `wires` sites in each process. `engine`: FLARE's cells (`bare`) or dure's own."""

    def __init__(self, folder: Path, engine: Engine, scheme: str, sites: int, wires: int = 1) -> None:
        self.names = [f"site-{place}" for place in range(1, sites + 1)]
        self.port = free_port()
        folder.mkdir(parents=True)
        write_identities(folder, engine, self.names)
        common = (engine, scheme, str(self.port), str(folder))
        self.processes = [Process(folder, "hub", *common, *self.names)]
        for place in range(0, sites, wires):
            self.processes.append(Process(folder, "sites", *common, *self.names[place : place + wires]))

    def meet(self) -> float:
        """Wait until all have met; seconds since the call."""
        began = time.perf_counter()
        for process in self.processes:
            process.read(START)
        return time.perf_counter() - began

    def rounds(self, size: int, rounds: int, streamed: bool = False) -> Measured:
        """`size` bytes to every site and back, `rounds` times; raises RuntimeError where a reply is not the same."""
        before = sum(processor_seconds(process.pid) for process in self.processes)
        hub = self.processes[0]
        hub.say(size=size, rounds=rounds, streamed=streamed)
        told = hub.read(ROUND * rounds)
        after = sum(processor_seconds(process.pid) for process in self.processes)
        return Measured(told["seconds"], after - before)

    def memory(self) -> dict[str, Any]:
        """MiB of the hub, and of the sites' processes."""
        hub, *sites = [memory(process.pid) for process in self.processes]
        return {"hub": hub, "sites": sites}

    def close(self) -> None:
        for process in self.processes:
            process.stop()


@contextlib.contextmanager
def alliance(*given: Any, **named: Any) -> Iterator[Alliance]:
    made = Alliance(*given, **named)
    try:
        made.meet()
        yield made
    finally:
        made.close()


class Process:
    """One process of this file, which is told and answers in lines of JSON."""

    def __init__(self, folder: Path, role: str, *arguments: str) -> None:
        self._log = folder / f"{role}-{arguments[4] if role == 'sites' else 'hub'}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, role, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
            )
        self.pid = self._process.pid

    def say(self, **what: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()

    def read(self, seconds: float) -> dict[str, Any]:
        """The next line; raises RuntimeError with the end of the log where none comes in time."""
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        found: dict[str, Any] = json.loads(line) if line else {"error": "it said nothing in time"}
        if "error" in found:
            raise RuntimeError(f"{self._log.name}: {found['error']}\n{self._log.read_text()[-2000:]}")
        return found

    def stop(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> dict[str, float]:
    """MiB: resident, and proportional, where pages that processes share are counted once among them."""
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    found = {line[0].rstrip(":"): float(line[1]) / 1024 for line in lines}
    return {"rss": found["Rss"], "pss": found["Pss"], "own": found["Private_Clean"] + found["Private_Dirty"]}


def write_identities(folder: Path, engine: Engine, names: list[str]) -> None:
    """An authority, and for everybody a certificate; for dure a signing key too."""
    from dure.guard import certificates
    from dure.guard.keys import create_signer

    authority_key = certificates.create_key()
    authority = certificates.create_authority("Benchmark", authority_key)
    (folder / "authority.pem").write_bytes(authority)
    for name in (hub_name(engine), *names):
        key, hosts = certificates.create_key(), () if name in names else (HOST,)
        issued = certificates.issue(authority, authority_key, certificates.request(key, name), name, DAY, hosts)
        certificates.write_private(folder / name / "tls.pem", key + issued)
        if engine == "dure":
            create_signer(folder / name / "key.pem")


def hub_name(engine: Engine) -> str:
    """FLARE's root cell has to be called `server`."""
    return "server" if engine == "bare" else "hub"


# ── in the processes ──

Ask = Callable[[bytes, bool], Mapping[str, bytes]]
"""A body to every site: the replies by site."""


def hub(ask: Ask, names: list[str]) -> None:
    """Answer the benchmark's lines until there are no more."""
    bodies: dict[int, bytes] = {}
    deadline = time.monotonic() + START
    while set(ask(b"met?", False)) != set(names):
        if time.monotonic() > deadline:
            tell(error="not all sites came")
            return
        time.sleep(0.1)
    tell(met=True)
    for line in sys.stdin:
        asked = json.loads(line)
        body = bodies.setdefault(asked["size"], os.urandom(asked["size"]))
        seconds = []
        for _ in range(asked["rounds"]):
            began = time.perf_counter()
            replies = ask(body, asked["streamed"])
            seconds.append(time.perf_counter() - began)
            if set(replies) != set(names) or any(bytes(reply) != body for reply in replies.values()):
                sizes = {name: len(reply) for name, reply in replies.items()}
                tell(error=f"of {len(names)} replies to {len(body)} bytes, these came: {sizes}")
                return
        tell(seconds=seconds)


def bare(folder: Path, name: str, scheme: str, port: int) -> Any:
    from nvflare.fuel.f3.cellnet.cell import Cell
    from nvflare.fuel.f3.drivers.driver_params import DriverParams

    tls, side = str(folder / name / "tls.pem"), "SERVER" if name == "server" else "CLIENT"
    credentials = {
        DriverParams.CA_CERT.value: str(folder / "authority.pem"),
        DriverParams[f"{side}_CERT"].value: tls,
        DriverParams[f"{side}_KEY"].value: tls,
    }
    cell = Cell(
        name,
        root_url=f"{scheme}://{HOST}:{port}",
        secure=True,
        credentials=credentials,
        create_internal_listener=False,
        auth_identity=name,
        auth_identity_map={"server": "server"},
    )
    cell.start()
    return cell


def bare_hub(folder: Path, scheme: str, port: int, names: list[str]) -> Ask:
    from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
    from nvflare.fuel.f3.message import Message

    cell = bare(folder, "server", scheme, port)

    def ask(body: bytes, streamed: bool) -> Mapping[str, bytes]:
        """`streamed`: cells cut a message into parts where the channel is named; else it is one frame."""
        message = Message(payload=body)
        if streamed:
            found = cell.broadcast_request(
                channel="bench", topic="echo", targets=names, request=message, timeout=ROUND, optional=True
            )
        else:
            found = cell.broadcast_request("bench", "echo", names, message, timeout=ROUND, optional=True)
        ok = {name: reply for name, reply in found.items() if code(reply) == ReturnCode.OK}
        return {name: reply.payload for name, reply in ok.items()}

    def code(reply: Any) -> str:
        return str(reply.get_header(MessageHeaderKey.RETURN_CODE))

    return ask


def bare_site(folder: Path, scheme: str, port: int, name: str) -> None:
    from nvflare.fuel.f3.cellnet.defs import ReturnCode
    from nvflare.fuel.f3.cellnet.utils import make_reply

    cell = bare(folder, name, scheme, port)

    def echo(request: Any) -> Any:
        return make_reply(ReturnCode.OK, "", request.payload)

    cell.register_request_cb(channel="bench", topic="echo", cb=echo)
    cell.core_cell.register_request_cb(channel="bench", topic="echo", cb=echo)


def keys(folder: Path, name: str) -> Any:
    """This end's signing key, and everybody's public ones as the folder has them."""
    from dure.federation.membership import OwnKeys

    publics: dict[str, bytes] = {}

    def known(peer: str) -> bytes:
        if peer not in publics:
            publics[peer] = OwnKeys(folder / peer / "key.pem", lambda peer: None).public
        return publics[peer]

    return OwnKeys(folder / name / "key.pem", known)


def calls(folder: Path, name: str, scheme: str, handle: Any) -> Any:
    from dure.federation.calls import Calls
    from dure.federation.flare_wire import Credentials, FlareWire

    tls = folder / name / "tls.pem"
    wire = FlareWire(name, Credentials(folder / "authority.pem", tls, tls), scheme)  # type: ignore[arg-type]
    return Calls(wire, keys(folder, name), handle)


def dure_hub(folder: Path, scheme: str, port: int, names: list[str]) -> Ask:
    from dure.federation.flare_engine import FlareEngine

    own = calls(folder, "hub", scheme, lambda peer, topic, body: b"")
    own.wire.listen(HOST, port)
    engine = FlareEngine(own, {name: name for name in names})

    def ask(body: bytes, streamed: bool) -> Mapping[str, bytes]:
        found = engine.ask(dict.fromkeys(names, body), ROUND)
        return {name: reply for name, reply in found.items() if isinstance(reply, bytes)}

    return ask


def dure_site(folder: Path, scheme: str, port: int, name: str) -> None:
    from dure.federation.membership import BEAT, HUB

    own = calls(folder, name, scheme, lambda peer, topic, body: body)
    own.wire.connect(HOST, port)

    def keep() -> None:
        own.hello(HUB, START)
        while True:
            own.beat(HUB, BEAT)
            time.sleep(BEAT)

    threading.Thread(target=keep, daemon=True).start()


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    role, engine, scheme, port, folder, *names = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    if role == "hub":
        made = {"bare": bare_hub, "dure": dure_hub}[engine](Path(folder), scheme, int(port), names)
        hub(made, names)
    else:
        for name in names:
            {"bare": bare_site, "dure": dure_site}[engine](Path(folder), scheme, int(port), name)
        tell(started=True)
        sys.stdin.read()
    os._exit(0)  # FLARE's threads would go on


if __name__ == "__main__":
    main()
