"""`dure demo --engine flare`: the same numbers from five services, of which only the hub listens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nvflare", reason="services between hospitals need the extra 'flare'")

COMMAND = [sys.executable, "-m", "dure.cli", "demo"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("local")
    subprocess.run([*COMMAND, "--folder", str(folder / "demo")], check=True, capture_output=True, timeout=180)
    found: dict[str, Any] = json.loads((folder / "demo" / "result.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow  # tests/services compares a run between processes with one inside a process every time
@pytest.mark.parametrize("scheme", ["tcp", "grpc"])
def test_the_numbers_are_those_of_one_process(local: dict[str, Any], tmp_path: Path, scheme: str) -> None:
    folder = tmp_path / "demo"
    command = [*COMMAND, "--folder", str(folder), "--engine", "flare", "--scheme", scheme]
    with (tmp_path / "said").open("wb") as said:
        demo = subprocess.Popen(command, stdout=said, stderr=said)
    heard: dict[str, set[tuple[str, int]]] = {}
    pids: dict[str, int] = {}
    deadline = time.monotonic() + 180
    while demo.poll() is None:
        assert time.monotonic() < deadline
        text = re.sub(r"\s+", " ", (tmp_path / "said").read_text(encoding="utf-8", errors="replace"))
        named = re.search(r"Services \(process ids\) on \w+://127\.0\.0\.1:\d+: (.*?) ✓", text)
        if named and not pids:
            pids = {name: int(pid) for name, pid in re.findall(r"(\w+) (\d+)", named.group(1))}
        for name, pid in pids.items():
            heard.setdefault(name, set()).update(listening(pid))
        time.sleep(0.2)
    assert demo.returncode == 0, (tmp_path / "said").read_text(encoding="utf-8")
    assert set(heard) == {"hub", "cleveland", "hungary", "switzerland", "va_long_beach"}
    assert len(heard.pop("hub")) == 1
    assert set().union(*heard.values()) == set(), "a hospital listens to nobody"
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids.values()), "services end with the demonstration"
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert differences({**found, "seconds": {}}, {**local, "seconds": {}}) == []


def test_services_end_with_a_demonstration_that_is_killed(tmp_path: Path) -> None:
    command = [*COMMAND, "--folder", str(tmp_path / "demo"), "--engine", "flare"]
    with (tmp_path / "said").open("wb") as said:
        demo = subprocess.Popen(command, stdout=said, stderr=said)
    deadline, services = time.monotonic() + 120, list[int]()
    while len(services) < 5:
        assert demo.poll() is None
        assert time.monotonic() < deadline
        services = [pid for pid in family(demo.pid)[1:] if "serve" in command_of(pid)]
        time.sleep(0.1)
    demo.kill()
    demo.wait()
    while any("serve" in command_of(pid) for pid in services):
        assert time.monotonic() < deadline, "a service outlived the demonstration"
        time.sleep(0.2)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two results are not equal to 1e-12."""
    if isinstance(one, dict) and isinstance(other, dict):
        apart = [f"{place}/{name}" for name in set(one) ^ set(other)]
        return apart + [
            d for name in set(one) & set(other) for d in differences(one[name], other[name], f"{place}/{name}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for number, pair in enumerate(zip(one, other)) for d in differences(*pair, f"{place}/{number}")]
    if isinstance(one, float) and isinstance(other, float):
        return [] if one == other or abs(one - other) <= 1e-12 * max(abs(one), abs(other)) else [place]
    return [] if one == other else [place]


def listening(pid: int) -> set[tuple[str, int]]:
    """Sockets on which the process or its children listen, as `ss -ltnp` would show them."""
    inodes = {
        str(link.readlink())[8:-1]
        for one in family(pid)
        for link in Path(f"/proc/{one}/fd").glob("*")
        if is_socket(link)
    }
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {(fields[1][:-5], int(fields[1][-4:], 16)) for fields in lines if fields[3] == "0A" and fields[9] in inodes}


def is_socket(link: Path) -> bool:
    try:
        return str(link.readlink()).startswith("socket:[")
    except OSError:
        return False


def family(pid: int) -> list[int]:
    found = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += family(int(stat.parent.name))
    return found
