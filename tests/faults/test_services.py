"""Faults between real processes: killed hubs and hospitals, slow and cut lines. A run ends bit-equal, or waits and
says for whom; nothing is lost from the ledger or in it twice."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dure.demo import alliance as demo
from dure.demo import offices
from dure.hub.runs import run_study
from dure.site import inbox
from dure.site.settings import create_site
from dure.study.document import Bilingual
from dure.study.method import installed_methods
from dure.study.packing import unpack
from dure.study.spec import Study

pytest.importorskip("nvflare", reason="services between hospitals need the extra 'flare'")

_path = Path(__file__).parents[1] / "services" / "stage.py"
_spec = importlib.util.spec_from_file_location("dure_faults_stage", _path)
assert _spec is not None
assert _spec.loader is not None
services = importlib.util.module_from_spec(_spec)
sys.modules["dure_faults_stage"] = services
_spec.loader.exec_module(services)

STEPS = ("attrition", "table_one", "model", "model_cholesterol", "validation", "model_without")
LONG = (*STEPS, "network", "validation_network") if "network" in installed_methods() else STEPS
BUSY = 3.0
"""Seconds in which such a study is at work."""


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    sites, _ = demo.open_hospitals(tmp_path_factory.mktemp("databases"), lambda words: None)
    return {name: site.database for name, site in sites.items()}


@pytest.fixture(scope="module")
def expected(databases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Step → the ledger's entries of an undisturbed run inside one process."""
    folder, sites = tmp_path_factory.mktemp("undisturbed"), {}
    for place, (name, database) in enumerate(databases.items()):
        sites[name] = create_site(folder / f"h{place}", name)
        sites[name].database.write_bytes(database.read_bytes())
    alliance = demo.join(folder, sites, installed_methods(), services.small_study(LONG))
    for name in sites:
        demo.permit(alliance, name)
    run, _ = run_study(alliance.store, alliance.study.hash, alliance.engine, installed_methods())
    found = entries(alliance.store, run.name, alliance.study)
    alliance.store.close()
    return found


@pytest.fixture
def towns(tmp_path: Path, databases: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(proxied: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Any:
        folder = tmp_path / f"town{len(made)}"
        folder.mkdir()
        town = services.Town(folder, **settings)
        made.append(town)
        for name in offices.HOSPITALS:
            trouble = (proxied or {}).get(name)
            town.join(name, databases[name], proxy=town.proxy(**trouble) if trouble is not None else None)
        return town

    yield make
    for town in made:
        town.close()


def entries(store: Any, run: str, study: Study) -> dict[str, Any]:
    """Every loop of every step as the ledger holds it, and that nothing is in it twice."""
    found = {}
    for step in study.steps:
        found[step.name] = folds = store.ledger(run).folds(step.name)
        for fold in folds:
            left = [tuple(map(str, item)) for item in unpack(fold)["left"]]
            assert len(left) == len(set(left)), f"{step.name}: an array is in the ledger twice"
    return found


def numbered(number: int, steps: tuple[str, ...] = LONG) -> Study:
    """The same study under another title, and so another hash."""
    return services.small_study(steps, title=Bilingual(en=f"Study {number}", ko=f"연구 {number}"))


def ended_equal(town: Any, study: Study, expected: dict[str, Any], seconds: float = 120.0) -> None:
    town.finished(study, seconds)
    (run,) = town.store.runs(study.hash)
    found = entries(town.store, run, study)
    assert found == {step.name: expected[step.name] for step in study.steps}


# ── killed ──


def killed_and_resumed(town: Any, expected: dict[str, Any], numbers: range, seed: int) -> dict[str, int]:
    """For each number a study in which somebody is killed at a random moment and started again."""
    chance, tally = random.Random(seed), {"hub": 0, "site": 0, "both": 0}
    with town.researcher() as alliance:
        for number in numbers:
            study = numbered(number)
            whom = ("hub", "site", "both")[number % 3]
            site = chance.choice(offices.HOSPITALS)
            alliance.submit(study)
            town.permit(study)
            time.sleep(chance.uniform(0.0, BUSY))
            tally[whom] += town.state(study) != "release_review"
            victims = {"hub": ["hub"], "site": [site], "both": ["hub", site]}[whom]
            for name in victims:
                town.kill(name)
            time.sleep(chance.uniform(0.0, 0.5))
            for name in victims:
                town.again(name)
            ended_equal(town, study, expected)
            # What waits for release counts against how many numbers of one cohort may be released, by later studies.
            alliance.cancel(study.hash)
            forget(town)
    return tally


def forget(town: Any) -> None:
    """As if no hospital had been asked before: it would repeat what it answered, and lock out who asks on and on."""
    for site in town.sites.values():
        with contextlib.closing(sqlite3.connect(site.folder / "history.db", timeout=30)) as history:
            tables = history.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                history.execute(f"DELETE FROM {table}")
            history.commit()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["tcp", "grpc"])
def test_fifty_random_moments(towns: Callable[..., Any], expected: dict[str, Any], scheme: str) -> None:
    """25 by each scheme; hub, a hospital and both in turn."""
    tally = killed_and_resumed(towns(scheme=scheme), expected, range(25), seed=len(scheme))
    print(f"killed while at work, {scheme}: {tally}")
    assert all(tally.values()), tally


def test_a_killed_hospitals_workers_end_with_it(towns: Callable[..., Any]) -> None:
    town, study = towns(), numbered(1)
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        services.until(lambda: town.events(study, "round"), what="the first round")
        family = descendants(town.processes["Hungary"].pid)
        assert family, "its workers are processes of their own"
        town.kill("Hungary")
        services.until(lambda: not any(alive(pid) for pid in family), 15, "the end of its workers")


# ── lines ──


@pytest.mark.slow
def test_a_slow_and_lossy_line(towns: Callable[..., Any], expected: dict[str, Any]) -> None:
    """200 ms each way and 1 % of packets late by a retransmission, for two of four hospitals."""
    trouble = {"delay": 0.2, "loss": 0.01}
    town = towns({"Cleveland": trouble, "Switzerland": trouble})
    study = numbered(1, ("attrition", "table_one", "model", "validation"))
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        ended_equal(town, study, expected)


@pytest.mark.parametrize(
    ("seconds", "quiet"),
    [
        pytest.param(5, False, marks=pytest.mark.slow),
        pytest.param(5, True, marks=pytest.mark.slow),
        pytest.param(30, False, marks=pytest.mark.slow),
        pytest.param(30, True, marks=pytest.mark.slow),
    ],
)
def test_a_line_that_is_cut(towns: Callable[..., Any], expected: dict[str, Any], seconds: float, quiet: bool) -> None:
    """In the middle of a run; `quiet`: packets vanish, else connections are reset."""
    town, study = towns({"Hungary": {"delay": 0.02}}, patience=10), numbered(1)
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        services.until(lambda: len(town.events(study, "round")) > 5, what="the sixth round")
        town.proxies[0].cut(seconds, quiet)
        if seconds > town.patience + 10:
            assert any(event["hospital"] == "Hungary" for event in town.events(study, "silent")) or town.events(
                study, "waiting"
            ), "the hospital is named while it is away"
        ended_equal(town, study, expected)


@pytest.mark.slow
def test_a_hospital_thirty_times_slower(towns: Callable[..., Any], expected: dict[str, Any]) -> None:
    """It has a processor for 10 ms in every 300. It is named as slow, never as lost, and the numbers are the same."""
    town, study = towns(), numbered(1, ("attrition", "table_one"))
    with town.researcher() as alliance:
        alliance.submit(study)
        services.until(lambda: all(inbox.holds(site, study.hash) for site in town.sites.values()))
        with slowed(town.processes["Switzerland"].pid):
            town.permit(study)
            ended_equal(town, study, expected, 240)
        assert not town.events(study, "left out")


@pytest.mark.slow
def test_a_long_idle_then_a_run(towns: Callable[..., Any], expected: dict[str, Any]) -> None:
    """Fifteen minutes without a study, then one, as promptly as ever."""
    town, study = towns({"Hungary": {}}), numbered(1)
    services.until(lambda: all("connected" in town.processes[name].said() for name in town.sites))
    time.sleep(15 * 60)
    assert not any("not connected" in town.processes[name].said() for name in town.sites)
    with town.researcher() as alliance:
        began = time.monotonic()
        alliance.submit(study)
        town.permit(study)
        ended_equal(town, study, expected, 60)
        print(f"after 15 idle minutes: {time.monotonic() - began:.1f} s")


# ── processes ──


def descendants(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(stat.parent.name), *descendants(int(stat.parent.name))]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def slowed(pid: int, on: float = 0.01, off: float = 0.29) -> Iterator[None]:
    """Stop a service and all its processes for most of every 300 ms."""
    over = threading.Event()

    def tell(number: int) -> None:
        for one in [pid, *descendants(pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    def alternate() -> None:
        while not over.is_set():
            tell(signal.SIGSTOP)
            over.wait(off)
            tell(signal.SIGCONT)
            over.wait(on)

    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell(signal.SIGCONT)
