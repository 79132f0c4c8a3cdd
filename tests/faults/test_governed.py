"""Somebody is killed at every moment of a governed study's life: no approval is lost, none counts twice, no number
leaves that is not listed, every log is the one that was signed; the results are those of a twin nobody disturbed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dure.client.alliance import Alliance
from dure.demo import alliance as demo
from dure.demo import offices
from dure.errors import HubUnreachable
from dure.federation.membership import enrol
from dure.guard.accounts import Accounts
from dure.guard.audit import AuditLog
from dure.guard.log_check import check_log
from dure.hub import desk, releases, studies
from dure.hub.runs import run_study
from dure.hub.witnessing import keys_of
from dure.site import inbox, reviews
from dure.site.egress import FILE, Egress
from dure.site.settings import Site, create_site
from dure.site.settings import keys_of as keys_of_site
from dure.study.document import Bilingual
from dure.study.method import installed_methods
from dure.study.result import pack_result
from dure.study.spec import Study

pytest.importorskip("nvflare", reason="services between hospitals need the extra 'flare'")

_path = Path(__file__).parents[1] / "services" / "stage.py"
_spec = importlib.util.spec_from_file_location("dure_governed_stage", _path)
assert _spec is not None
assert _spec.loader is not None
services = importlib.util.module_from_spec(_spec)
sys.modules["dure_governed_stage"] = services
_spec.loader.exec_module(services)

DECIDING = Path(__file__).with_name("deciding.py")
STEPS = ("attrition", "table_one", "model", "model_cholesterol", "validation")
ASKS, DECLINES = "Hungary", "VA Long Beach"
"""Whose IRB asks for changes in the first version; whose DRB declines the second."""
PASSWORD = "nine white herons over Suncheon"
CONTEXT = {"contents": "Counts and coefficients of the first question.", "use": "A paper; its readers are doctors."}
TAKES = 0.15
"""Seconds that a command takes once it is loaded, about."""


# ── the twin ──


@dataclass(frozen=True)
class End:
    """What a disturbed and an undisturbed study must have in common."""

    ledger: dict[str, Any]
    released: dict[tuple[str, str], bytes | None]
    left: set[tuple[Any, ...]]
    egress: dict[str, set[tuple[Any, ...]]]


def end_of(store: Any, sites: dict[str, Site], study: Study, fetched: dict[str, Any]) -> End:
    """Ledger, released results, what the researcher is told left, and what each hospital lists as left."""
    (run,) = store.runs(study.hash)
    return End(
        {step.name: store.ledger(run).folds(step.name) for step in study.steps},
        {(name, fold["fold"]): fold["result"] for name, step in fetched["steps"].items() for fold in step["folds"]},
        {(item["hospital"], item["step"], item["round"], item["array"], item["bytes"]) for item in fetched["left"]},
        {name: listed(site, study) for name, site in sites.items()},
    )


def listed(site: Site, study: Study) -> set[tuple[Any, ...]]:
    """Every array of the hospital's own list of what left, with its numbers' digest; none is there twice."""
    if not (site.folder / FILE).exists():
        return set()
    egress = Egress(site.folder / FILE)
    found = [(one.step, one.fold, one.round, one.array, one.masked, one.sha256) for one in egress.read(study.hash)]
    egress.close()
    assert len(found) == len(set(found))
    return set(found)


def version(number: int, title: str, **changes: Any) -> Study:
    study: Study = services.small_study(STEPS, title=Bilingual(en=f"{title} {number}", ko=f"{title} {number}"))
    return study.model_copy(update=changes)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    sites, _ = demo.open_hospitals(tmp_path_factory.mktemp("databases"), lambda words: None)
    return {name: site.database for name, site in sites.items()}


@pytest.fixture(scope="module")
def twin(databases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> End:
    """The same study inside one process, where nobody is killed; three hospitals permit it."""
    folder, sites = tmp_path_factory.mktemp("twin"), {}
    for place, (name, database) in enumerate(databases.items()):
        sites[name] = create_site(folder / f"h{place}", name)
        sites[name].database.write_bytes(database.read_bytes())
    methods = installed_methods()
    alliance = demo.join(folder, sites, methods, version(0, "Twin"))
    for name in sites:
        if name == DECLINES:
            studies.receive_permit(alliance.store, alliance.study.hash, name, None)
        else:
            demo.permit(alliance, name)
    _, outcomes = run_study(alliance.store, alliance.study.hash, alliance.engine, methods)
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    demo.release(alliance)
    end = end_of(alliance.store, sites, alliance.study, desk.released(alliance.store, alliance.study.hash, methods))
    alliance.store.close()
    assert all(end.released.values())
    assert [len(found) > 10 for found in end.egress.values()] == [name != DECLINES for name in sites]
    return end


# ── people ──


class Deciding:
    """Where commands are typed (deciding.py), and may be killed."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "commands.log"
        command = [sys.executable, str(DECIDING), str(self.log)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def type(self, *command: Any, session: str = "", kill: float | None = None, dies: Any = None) -> int:
        """The exit code; -9 where it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"command": [str(word) for word in command], "session": session, "kill": kill, "dies": dies}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return int(json.loads(self._process.stdout.readline())["code"])

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def deciding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deciding]:
    found = Deciding(tmp_path_factory.mktemp("deciding"))
    yield found
    found.close()


def accounts(folder: Path, *people: tuple[str, str, str]) -> dict[str, str]:
    """Accounts (name, role, organisation) in a folder; name → a session's token."""
    found, tokens = Accounts(folder), {}
    for name, role, organisation in people:
        found.add(name, role, PASSWORD, organisation)  # type: ignore[arg-type]
        tokens[name] = found.sign_in(name, PASSWORD, organisation if organisation == "Company" else "")
    return tokens


# ── who is killed ──


@dataclass
class Killer:
    """Kills at random moments of what happens meanwhile. `left`: part of a life → kills still to come in it."""

    town: Any
    chance: random.Random
    left: Counter[str]
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(part of the life, whom) → how often."""

    @contextlib.contextmanager
    def during(self, part: str, within: float = 1.0) -> Iterator[None]:
        """One kill and new start within the seconds given, if the part still has one; over when everybody is up."""
        if self.left[part] <= 0:
            yield
            return
        self.left[part] -= 1
        site = self.chance.choice(list(self.town.sites))
        whom = self.chance.choice(("hub", "site", "both"))
        victims = {"hub": ["hub"], "site": [site], "both": ["hub", site]}[whom]
        moments = self.chance.uniform(0.0, within), self.chance.uniform(0.0, 0.3)
        strike = threading.Thread(target=self._strike, args=(victims, *moments))
        strike.start()
        try:
            yield
        finally:
            strike.join()
        self.hits[part, whom] += 1

    def _strike(self, victims: list[str], when: float, dead: float) -> None:
        time.sleep(when)
        for name in victims:
            self.town.kill(name)
        time.sleep(dead)
        for name in victims:
            self.town.again(name)


class Life:
    """A governed study from its first version to its results, in a town whose processes and commands are killed."""

    def __init__(self, folder: Path, databases: dict[str, Path], deciding: Deciding, number: int, kills: Any) -> None:
        self.chance = random.Random(number)
        self.town = services.Town(folder)
        for name in offices.HOSPITALS:
            self.town.join(name, databases[name])
        self.killer = Killer(self.town, self.chance, Counter(kills))
        self.deciding, self.number, self.cut = deciding, number, 0
        self.done: dict[str, dict[str, tuple[str, str]]] = {}
        """Study → hospital's board → (verdict, person), once the command has ended with 0."""
        self.folder = folder / "company"
        enrol(self.town.authority.invite("Company", "company"), self.folder, services.START)
        people = (("Office", "office", ""), ("Board", "drb", ""), ("Scientist", "company", "Company"))
        self.hub_sessions = accounts(self.town.hub.folder, *people)
        self.sessions = {
            name: accounts(site.folder, ("Steward", "steward", ""), ("Ethicist", "irb", ""), ("Reviewer", "drb", ""))
            for name, site in self.town.sites.items()
        }

    def live(self) -> tuple[Study, Study, dict[str, Any]]:
        """Both versions, and what the company fetched in the end."""
        first = version(self.number, "First")
        second = version(self.number, "Second", replaces=first.hash)
        with Alliance(self.folder) as company:
            persist(lambda: company.sign_in("Scientist", PASSWORD))
            with self.killer.during("review"):
                persist(lambda: company.submit(first))
            self.delivered(first)
            self.decide(first, ASKS, "irb", "ask", "--say", "How long are rows kept?")
            for board in ("irb", "drb"):
                self.approve(first, "Cleveland", board)
            self.answered(first, "Cleveland", ASKS)
            with self.killer.during("review"):
                persist(lambda: company.submit(second))
            self.delivered(second)
            for name in self.chance.sample(offices.HOSPITALS, len(offices.HOSPITALS)):
                self.approve(second, name, "irb")
                if name == DECLINES:
                    self.decide(second, name, "drb", "decline", "--say", "Not within our remit.")
                else:
                    self.approve(second, name, "drb")
            with self.killer.during("hand-in", 0.5):
                self.answered(second, *self.town.sites)
            while self.town.state(second) in ("permitted", "running", "waiting"):
                with self.killer.during("run", 2.0):
                    time.sleep(0.05)
            self.town.finished(second, 180)
            with self.killer.during("release"):
                persist(lambda: company.ask_release(second.hash, CONTEXT))
            digest = releases.waiting(self.town.store, second.hash, installed_methods()).digest
            for name in ("Office", "Board"):
                with self.killer.during("release", 0.3):
                    self.release(second, digest, name)
            with self.killer.during("release"):
                fetched = persist(lambda: company.fetch(second.hash))
        for step in fetched["steps"].values():
            for fold in step["folds"]:
                fold["result"] = pack_result(fold["result"]) if fold["result"] else None
        return first, second, fetched

    def delivered(self, study: Study) -> None:
        with self.killer.during("review", 0.5):
            for site in self.town.sites.values():
                services.until(lambda: inbox.holds(site, study.hash), what=f"delivery to {site.hospital}")  # noqa: B023

    def answered(self, study: Study, *names: str) -> None:
        services.until(lambda: set(names) <= set(self.town.store.answers(study.hash)), what="the hospitals' answers")

    def approve(self, study: Study, name: str, board: str) -> None:
        self.decide(study, name, board, "approve", "--per-hospital", "--difference")

    def decide(self, study: Study, name: str, board: str, verdict: str, *more: str) -> None:
        """A board member's command; killed first now and then, and typed again until it has ended with 0."""
        site, person = self.town.sites[name], {"irb": "Ethicist", "drb": "Reviewer"}[board]
        session = self.sessions[name][person]
        command = ("review", verdict, site.folder, study.hash, "--board", board, *more)
        with self.killer.during("review", 0.5):
            for _ in range(3):
                if self.chance.random() < 0.3 and any(self.killer.left.values()):
                    kill = self.chance.uniform(0.0, TAKES)
                    self.cut += self.deciding.type(*command, session=session, kill=kill) == -9
            assert self.deciding.type(*command, session=session) == 0, self.deciding.log.read_text()
        self.done.setdefault(study.hash, {})[f"{name} {board}"] = (verdict, person)

    def release(self, study: Study, digest: str, person: str) -> None:
        command = ("release", "approve", self.town.hub.folder, study.hash, digest)
        session = self.hub_sessions[person]
        if any(self.killer.left.values()):
            kill = self.chance.uniform(0.0, 4 * TAKES)
            self.cut += self.deciding.type(*command, session=session, kill=kill) == -9
        code = self.deciding.type(*command, session=session)
        # Where the killed command was the second approval, the study is released already, and it says so.
        assert code == 0 or self.town.state(study) == "released", self.deciding.log.read_text()


def persist(call: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Do it again while the hub is away, as a person would."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except HubUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


# ── what has to hold ──


def check_decisions(life: Life, first: Study, second: Study) -> None:
    """Every approval that a command confirmed is there, once; no permit without both gates."""
    town, store = life.town, life.town.store
    for study in (first, second):
        for place, (verdict, person) in life.done[study.hash].items():
            name, _, board = place.rpartition(" ")
            decision = reviews.gates(town.sites[name], study.hash)[board]  # type: ignore[index]
            assert decision is not None
            assert (decision.verdict, decision.by) == (verdict, person)
    assert store.study(first.hash)[1] == "replaced"
    assert {name: kind for name, (kind, _, _) in store.answers(first.hash).items()} == {
        "Cleveland": "permitted",
        ASKS: "changes_asked",
    }
    assert {name: kind for name, (kind, _, _) in store.answers(second.hash).items()} == {
        name: "declined" if name == DECLINES else "permitted" for name in town.sites
    }
    permits = store.permits(second.hash)
    for name, site in town.sites.items():
        assert inbox.own_permit(site, first.hash) is None
        assert inbox.replaced_by(site, first.hash) == second.hash
        assert permits[name] == inbox.own_permit(site, second.hash)
        assert (permits[name] is None) == (name == DECLINES)
        assert inbox.unsent(site) == []
        assert all(problem is None for _, _, problem in inbox.decisions(site))
        check_gates(site)
    decided = store.release_decisions(second.hash)
    assert [(one["name"], one["approves"]) for one in decided] == [("Office", True), ("Board", True)]
    assert store.released(second.hash).times == 1
    events = Counter((event["event"], event.get("hospital")) for event in store.events(second.hash))
    for name in town.sites:
        assert events["delivered", name] == 1
    assert events["submitted", None] == 1
    assert events["declined", DECLINES] == 1
    assert events["released", None] == 1


def check_gates(site: Site) -> None:
    """In the log, before each permit: both boards' approval. And what was sent is of a permit that is in the log."""
    approved: set[tuple[str, str]] = set()
    permits: set[str] = set()
    for entry in AuditLog(site.folder / "audit.jsonl").entries():
        study = entry.get("study", "")
        if entry["event"] == "board decided: approve":
            approved.add((study, entry["board"]))
        elif entry["event"] == "permitted":
            assert {(study, "irb"), (study, "drb")} <= approved
            permits.add(entry["permit"])
        elif entry["event"] == "left":
            assert entry["permit"] in permits


def check_logs(life: Life) -> None:
    """With all services stopped: each log whole, signed, countersigned, and as the others have seen it."""
    town = life.town
    hub, folders = town.hub.folder, {name: site.folder for name, site in town.sites.items()}
    store = town.hub.open_store()
    found = check_log(hub, keys_of(town.hub, store), folders.values())
    store.close()
    assert set(found.countersigned) == set(folders) == set(found.seen)
    for name, folder in folders.items():
        found = check_log(folder, keys_of_site(folder), [hub, *(one for one in folders.values() if one != folder)])
        assert found.heads >= 1
        assert list(found.countersigned) == ["Test"], name


def check_files(life: Life) -> None:
    """Whatever is JSON can be read, and nothing lies half-written beside it."""
    for path in life.town.folder.rglob("*"):
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        assert path.suffix != ".new", path


def lived(folder: Path, databases: dict[str, Path], deciding: Deciding, twin: End, number: int, kills: Any) -> Life:
    """One life, checked from its first submission to its logs."""
    life = Life(folder, databases, deciding, number, kills)
    try:
        first, second, fetched = life.live()
        end = end_of(life.town.store, life.town.sites, second, fetched)
        check_decisions(life, first, second)
    finally:
        life.town.close()
    assert end.ledger == twin.ledger
    assert end.released == twin.released
    assert end.left == twin.left
    assert end.egress == twin.egress
    check_logs(life)
    check_files(life)
    return life


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert "DURE_SESSION" not in os.environ


@pytest.mark.usefixtures("own_state")
def test_four_kills_in_a_governed_study(
    databases: dict[str, Path], deciding: Deciding, twin: End, tmp_path: Path
) -> None:
    kills = {"review": 1, "hand-in": 1, "run": 1, "release": 1}
    life = lived(tmp_path, databases, deciding, twin, 1, kills)
    print(f"killed: {dict(life.killer.hits)}; commands cut: {life.cut}")
    assert life.killer.hits.total() >= 3
    assert life.cut >= 1


@pytest.mark.slow
@pytest.mark.usefixtures("own_state")
def test_fifty_kills_in_governed_studies(
    databases: dict[str, Path], deciding: Deciding, twin: End, tmp_path: Path
) -> None:
    """Spread over whole lives; what a life has no time for is left to the next."""
    hits, cut, number, began = Counter[tuple[str, str]](), 0, 10, time.monotonic()
    while hits.total() < 50:
        kills = {"review": 8, "hand-in": 1, "run": 8, "release": 3}
        number += 1
        assert number < 17, hits
        life = lived(tmp_path / str(number), databases, deciding, twin, number, kills)
        hits, cut = hits + life.killer.hits, cut + life.cut
    print(f"killed in {number - 10} lives, {time.monotonic() - began:.0f} s: {dict(hits)}; commands cut: {cut}")
    assert {part for part, _ in hits} == {"review", "hand-in", "run", "release"}
    assert {whom for _, whom in hits} == {"hub", "site", "both"}


# ── killed at an exact write ──


@dataclass
class Room:
    """One hospital without a hub; commands are typed by its people and killed at a write."""

    site: Site
    sessions: dict[str, str]
    deciding: Deciding

    def review(self, person: str, verdict: str, study: Study, *more: str, dies: Any = None) -> int:
        board = {"Ethicist": ("--board", "irb"), "Reviewer": ("--board", "drb"), "Steward": ()}[person]
        command = ("review", verdict, self.site.folder, study.hash, *board, *more)
        return self.deciding.type(*command, session=self.sessions[person], dies=dies)

    def wakes(self) -> list[str]:
        """What the hospital's service carries out when it looks; nothing is left when it looks again."""
        site, found = Site(self.site.folder), reviews.unsettled(self.site)
        for hash_ in found:
            reviews.settle(site, hash_, installed_methods())
        assert reviews.unsettled(site) == []
        return found

    def answer(self, study: Study) -> str:
        found = inbox.answer_of(Site(self.site.folder), study.hash)
        return found.kind if found else ""

    def logged(self, study: Study) -> list[dict[str, Any]]:
        entries = AuditLog(self.site.folder / "audit.jsonl").entries()
        return [entry for entry in entries if entry.get("study") == study.hash]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A hospital's folder with its people, and their sessions."""
    site = create_site(tmp_path_factory.mktemp("furnished") / "site", "Hungary")
    people = (("Steward", "steward", ""), ("Ethicist", "irb", ""), ("Reviewer", "drb", ""))
    return site.folder, accounts(site.folder, *people)


@pytest.fixture
def room(furnished: tuple[Path, dict[str, str]], tmp_path: Path, deciding: Deciding) -> Room:
    folder, sessions = furnished
    shutil.copytree(folder, tmp_path / "site")
    return Room(Site(tmp_path / "site"), sessions, deciding)


WRITES = [
    pytest.param((number, when), marks=[pytest.mark.slow] if when == "after" else [])
    for number in range(1, 8)
    for when in ("before", "after")
]


@pytest.mark.parametrize("dies", WRITES, ids=lambda dies: f"{dies[1]}-write-{dies[0]}")
def test_a_board_killed_at_a_write_has_decided_or_has_not(room: Room, dies: tuple[int, str]) -> None:
    """What it has decided is in the log, and the service carries it out; typed again, it is decided in any case."""
    study = version(1, "Study")
    inbox.receive(room.site, study)
    assert room.review("Ethicist", "ask", study, "--say", "How long are rows kept?") == 0
    assert room.review("Ethicist", "approve", study, "--difference") == 0
    assert room.answer(study) == "changes_asked"
    code = room.review("Reviewer", "approve", study, "--difference", dies=dies)
    decided = not reviews.open_gates(room.site, study.hash)
    room.wakes()
    assert room.answer(study) == ("permitted" if decided else "changes_asked")
    events = [entry["event"] for entry in room.logged(study)]
    assert not decided or events.count("board decided: approve") == 2
    assert code == -9 or decided
    again = room.review("Reviewer", "approve", study, "--difference")
    assert (again, room.answer(study), room.wakes()) == (0, "permitted", [])
    check_gates(room.site)
    assert not list(room.site.folder.rglob("*.new"))


def test_the_writes_of_a_decision_are_all_in_the_test_before(room: Room) -> None:
    """Three lines, two files, and the earlier answer that is taken away; the seventh write is of no decision."""
    study = version(1, "Study")
    inbox.receive(room.site, study)
    assert room.review("Ethicist", "approve", study) == 0
    assert room.review("Reviewer", "approve", study, dies=(6, "before")) == -9
    assert room.review("Reviewer", "approve", study, dies=(7, "before")) == 0


@pytest.mark.parametrize("dies", WRITES[:10], ids=lambda dies: f"{dies[1]}-write-{dies[0]}")
def test_leaving_that_is_killed_at_a_write_is_never_undone(room: Room, dies: tuple[int, str]) -> None:
    """Once the answer is on disk nothing is answered, and earlier approvals of boards do not bring the permit back."""
    study = version(1, "Study")
    inbox.receive(room.site, study)
    for person in ("Ethicist", "Reviewer"):
        assert room.review(person, "approve", study) == 0
    assert inbox.own_permit(room.site, study.hash) is not None
    room.review("Steward", "withdraw", study, "--say", "A patient group objected.", dies=dies)
    left = room.answer(study)
    assert left in ("permitted", "withdrawn")
    assert (inbox.own_permit(room.site, study.hash) is None) == (left == "withdrawn")
    room.wakes()
    assert room.answer(study) == left
    if left == "permitted":
        assert room.review("Steward", "withdraw", study, "--say", "A patient group objected.") == 0
    room.wakes()
    assert room.answer(study) == "withdrawn"
    assert "withdrawn" in [entry["event"] for entry in room.logged(study)]


@pytest.mark.parametrize("dies", WRITES[:12], ids=lambda dies: f"{dies[1]}-write-{dies[0]}")
def test_a_new_version_whose_arrival_is_killed_ends_the_old_approvals(
    room: Room, tmp_path: Path, dies: tuple[int, str]
) -> None:
    """The hub brings it again until the hospital holds it; then the old version is permitted no more."""
    first = version(1, "First")
    second = version(1, "Second", replaces=first.hash)
    document = tmp_path / "second.json"
    document.write_text(second.model_dump_json(), encoding="utf-8")
    inbox.receive(room.site, first)
    for person in ("Ethicist", "Reviewer"):
        assert room.review(person, "approve", first) == 0
    room.deciding.type("receive", room.site.folder, document, dies=dies)
    if not inbox.holds(room.site, second.hash):
        assert room.deciding.type("receive", room.site.folder, document) == 0
    assert inbox.own_permit(room.site, first.hash) is None
    assert inbox.replaced_by(room.site, first.hash) == second.hash
    assert "received" in [entry["event"] for entry in room.logged(second)]
    assert next(entry for entry in room.logged(first) if entry["event"] == "replaced")["approval_void"]
    assert room.wakes() == []
    assert room.review("Reviewer", "approve", first) == 1


def test_two_boards_that_decide_in_the_same_moment_both_count(room: Room) -> None:
    study = version(1, "Study")
    inbox.receive(room.site, study)
    methods, people = installed_methods(), Accounts(room.site.folder)
    together, failed = threading.Barrier(2), []

    def decide(board: Any, person: str) -> None:
        actor = people.who(room.sessions[person]).actor
        together.wait()
        try:
            reviews.decide(Site(room.site.folder), study.hash, actor, board, "approve", methods)
        except Exception as error:  # it would be lost in the thread
            failed.append(error)

    for _ in range(10):
        threads = [threading.Thread(target=decide, args=one) for one in (("irb", "Ethicist"), ("drb", "Reviewer"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert reviews.open_gates(room.site, study.hash) == []
        assert room.answer(study) == "permitted"
        for name in ("review.json", "permit.json"):
            next(room.site.folder.glob(f"inbox/*/{name}")).unlink()
