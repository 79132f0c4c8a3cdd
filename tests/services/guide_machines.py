"""Machines for the installation guide: each with a user, a private view of the disk and a network of its own.

A machine is a process that holds a network namespace and a mount namespace; it ends, and both with it, when its
standard input closes, so that nothing is left behind even by a test that is killed. The hub's machine has one cable to
each member's, and a member has no route but that to the hub's address. Where this computer allows none of it, every
machine is this computer, on loopback, and `Town.lacks` says why.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HUB_ADDRESS = "10.77.0.1"
LIMIT = 120.0
"""Seconds that one block of the guide may take."""


def until(done: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until `done()` is true; its value."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} seconds"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Ran:
    """What a block printed, and its exit code."""

    code: int
    text: str


@dataclass
class Service:
    """A block that goes on running: its shell, and the process id of the service itself."""

    shell: subprocess.Popen[bytes]
    pid: int

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM to the service; its exit code. Killed, as a last resort, by its own id."""
        if self.shell.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        try:
            return self.shell.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            return self.shell.wait(seconds)


@dataclass
class Machine:
    """Where one party of the alliance types: `type_in` keeps variables, folder and PATH from block to block."""

    name: str
    place: Path
    settings: dict[str, str]
    holder: subprocess.Popen[bytes] | None = None
    user: str | None = None
    address: str = "127.0.0.1"
    service: Service | None = None
    service_block: str = ""
    written: dict[str, str] = field(default_factory=dict)

    def type_in(self, block: str, administrator: bool = False, seconds: float = LIMIT, outside: bool = False) -> Ran:
        """Run a block as it is written, stopping at the first command that fails; `outside` with this computer's own
        network, where packages are downloaded."""
        state = self.place / ("administrator.state" if administrator else "shell.state")
        saved = "export -p; umask -p; declare -p STUDY DEMO 2>/dev/null || true; printf 'cd %q\\n' \"$PWD\""
        after = f"{{ {saved}; }} > {state}"
        script = f"[ -e {state} ] && . {state}\nset -eo pipefail\n{block}\n{after}\n"
        try:
            ran = subprocess.run(
                [*self.inside(administrator, outside), "bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.place,
                env=self.environment(),
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"").decode(errors="replace")
            raise AssertionError(f"{self.name}: longer than {seconds:g} s\n{block}\n{said}") from None
        return Ran(ran.returncode, ran.stdout)

    def start(self, block: str) -> None:
        """Run a block in a second terminal."""
        self.service_block = block
        mark = self.place / "service.pid"
        mark.unlink(missing_ok=True)
        script = f". {self.place / 'shell.state'}\n{block.rstrip()} &\necho $! > {mark}\nwait $!\n"
        shell = subprocess.Popen(
            [*self.inside(), "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self.place,
            env=self.environment(),
        )
        pid = until(lambda: mark.exists() and mark.read_text().strip(), 20, f"start of {self.name}")
        self.service = Service(shell, int(pid))

    def stop(self) -> int:
        assert self.service is not None
        code = self.service.stop()
        self.service = None
        return code

    def inside(self, administrator: bool = False, outside: bool = False) -> list[str]:
        """The command in front of a command that takes it onto this machine, as its user or its administrator."""
        found: list[str] = []
        if self.holder is not None:
            spaces = ["--mount"] if outside else ["--mount", "--net"]
            found = ["nsenter", "--target", str(self.holder.pid), *spaces, f"--wd={self.place}", "--"]
            if self.user and not administrator:
                identity = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
                found += ["setpriv", *identity, "--no-new-privs", "--bounding-set=-all", "--"]
        return found

    def environment(self) -> dict[str, str]:
        python = Path(os.path.realpath(sys.executable)).parent
        path = f"{python}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        kept = {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
        return {**kept, "PATH": path, "HOME": str(self.place), "LANG": "C.UTF-8", "COLUMNS": "120"}


class Town:
    """All machines of one run of the guide, and the folder they live in. Leaving it ends everything it started."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dure-guide-"))
        self.folder.chmod(0o755)  # each machine's folder inside is closed instead
        self.machines: list[Machine] = []
        self.lacks = _lacks()
        """Why machines are not apart here; empty where they are."""
        if not self.lacks:
            shutil.copytree("/etc", self.folder / "etc", symlinks=True, ignore_dangling_symlinks=True)

    def __enter__(self) -> Town:
        return self

    def __exit__(self, *raised: object) -> None:
        for machine in reversed(self.machines):
            if machine.service is not None:
                machine.service.stop()
        for machine in self.machines:
            if machine.holder is not None:
                machine.holder.communicate(timeout=20)  # closes its input, with which it ends
        shutil.rmtree(self.folder, ignore_errors=True)

    def build(self, name: str, settings: Mapping[str, str], user: str | None = None) -> Machine:
        """A machine; the first one is the hub's, the others get a cable to it."""
        place = self.folder / name
        place.mkdir(mode=0o755)
        machine = Machine(name, place, dict(settings))
        if not self.lacks:
            machine.user = user
            machine.holder = _hold(self.folder / "etc")
            if self.machines:
                machine.address = f"10.77.0.{10 + len(self.machines)}"
                _cable(self.machines[0], machine, len(self.machines))
            else:
                machine.address = HUB_ADDRESS
        self.machines.append(machine)
        return machine

    def owned(self, machine: Machine) -> None:
        """Once its user exists: the machine's folder belongs to it and to nobody else."""
        if machine.holder is not None and machine.user:
            owner = f"{machine.user}:{machine.user}"
            script = f"chown -R {owner} {machine.place} && chmod 700 {machine.place}"
            assert machine.type_in(script, administrator=True).code == 0


def _lacks() -> str:
    """What this computer does not allow, as a sentence; empty where namespaces and users can be made."""
    if os.environ.get("DURE_GUIDE_PLAIN"):
        return "DURE_GUIDE_PLAIN is set"
    if sys.platform != "linux" or os.geteuid() != 0:
        return "making users and networks needs root on Linux"
    tools = [name for name in ("unshare", "nsenter", "setpriv", "ip", "useradd", "mount") if not shutil.which(name)]
    if tools:
        return f"not installed: {', '.join(tools)}"
    tried = subprocess.run(
        [
            "unshare",
            "--net",
            "--mount",
            "ip",
            "link",
            "add",
            "name",
            "probe0",
            "type",
            "veth",
            "peer",
            "name",
            "probe1",
        ],
        capture_output=True,
        text=True,
    )
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


def _hold(etc: Path) -> subprocess.Popen[bytes]:
    """A process with a network of its own, an /etc of the town's (for useradd), and a Python that others may run."""
    lines = ["set -e", f"mount --bind {shlex.quote(str(etc))} /etc", *_opened(), "ip link set lo up", "echo ready"]
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "bash", "-c", "\n".join([*lines, "exec cat"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    return holder


def _opened() -> list[str]:
    """Commands that make the interpreter, its environment and the checkout reachable for other users, in this view
    of the disk only: a folder in the way that is closed to others is replaced by one that holds nothing else."""
    needed = {Path(os.path.realpath(sys.executable)).parents[1], Path(sysconfig.get_path("data")), ROOT}
    lines: list[str] = []
    closed: dict[Path, list[Path]] = {}
    for folder in sorted(needed):
        shut = next((above for above in reversed(folder.parents) if not above.stat().st_mode & 0o001), None)
        if shut is not None and not any(folder.is_relative_to(other) for other in closed.get(shut, [])):
            closed.setdefault(shut, []).append(folder)
    for shut, folders in closed.items():
        lines.append("stash=$(mktemp -d -p /run)")
        for number, folder in enumerate(folders):
            lines += [f"mkdir $stash/{number}", f"mount --bind {shlex.quote(str(folder))} $stash/{number}"]
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(shut))}")
        for number, folder in enumerate(folders):
            quoted = shlex.quote(str(folder))
            lines += [f"mkdir -p {quoted}", f"mount --move $stash/{number} {quoted}", f"rmdir $stash/{number}"]
        lines.append("rmdir $stash")
    return lines


def _cable(hub: Machine, member: Machine, number: int) -> None:
    assert hub.holder is not None
    assert member.holder is not None
    ends = (hub.holder.pid, f"member{number}"), (member.holder.pid, "hub")
    (at_hub, hub_end), (at_member, member_end) = ends
    _ip("link", "add", "name", hub_end, "netns", at_hub, "type", "veth", "peer", "name", member_end, "netns", at_member)
    for pid, end, own, other in (
        (at_hub, hub_end, hub.address, member.address),
        (at_member, member_end, member.address, hub.address),
    ):
        within = ("nsenter", "--target", str(pid), "--net", "--")
        _ip("link", "set", end, "addrgenmode", "none", within=within)  # no IPv6 address: IPv4 to the hub, else nothing
        _ip("address", "add", f"{own}/32", "peer", f"{other}/32", "dev", end, within=within)
        _ip("link", "set", end, "up", within=within)


def _ip(*words: object, within: tuple[str, ...] = ()) -> None:
    subprocess.run([*within, "ip", *map(str, words)], check=True, capture_output=True)
