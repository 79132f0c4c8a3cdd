"""A run killed at any moment and resumed ends bit for bit as one that nobody disturbed."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dure.federation.plain_sum import PlainSum
from dure.federation.plan import plan_of
from dure.federation.rounds import Run
from dure.guard.audit import AuditLog
from dure.guard.rules import DEFAULT
from dure.hub import studies
from dure.hub.store import Store
from dure.study.method import installed_methods
from dure.study.result import pack_result

CHILD = Path(__file__).with_name("child.py")
STEPS = ("attrition", "model", "validation", "model_without", "validation_without")
NETWORK = ("network", "validation_network")


@dataclass(frozen=True)
class End:
    """Everything that an undisturbed and a killed run must have in common."""

    ledger: dict[tuple[str, str], bytes]
    kept: dict[str, list[tuple[Any, ...]]]
    released: dict[tuple[str, str | None], bytes | str]
    state: str
    runs: list[str]


@dataclass(frozen=True)
class Undisturbed:
    end: End
    folder: Path
    seconds: float


class Nobody:
    """No hospital can be asked any more: what is read from the ledger is all there is."""

    def ask(self, messages: Any, timeout: float) -> Any:
        raise AssertionError("a finished run asked again")


def end_of(folder: Path) -> End:
    store = Store(folder / "hub" / "hub.db")
    ((hash_, _, _),) = store.studies()
    study, state = studies.read(store, hash_)
    permits = studies.permits(store, hash_)
    grants = {name: permit.grants() for name, permit in permits.items()}
    plan = plan_of(study, installed_methods(), DEFAULT.minimum_people)
    run = Run("run", plan, tuple(permits), grants, DEFAULT, Nobody(), PlainSum(), store.ledger("run"))
    released = {
        (step, fold): pack_result(found.released) if found.released else found.status
        for step, outcome in run.steps().items()
        for fold, found in outcome.folds.items()
    }
    ledger = {
        (step, fold): bytes(entry) for step, fold, entry in rows(store.path, "SELECT step, fold, entry FROM ledger")
    }
    kept = {
        path.name: rows(path / "rounds.db", "SELECT * FROM asked ORDER BY run, step, fold, round")
        for path in sorted((folder / "hospitals").iterdir())
    }
    runs = store.runs(hash_)
    store.close()
    return End(ledger, kept, released, state, runs)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.execute(query))
    finally:
        connection.close()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder: Path) -> None:
    """Resume in a new process, to the end."""
    child = start(folder)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0, said


def check_logs(folder: Path) -> None:
    """Unbroken; and an array that is named twice left with the same bytes."""
    for path in sorted((folder / "hospitals").iterdir()):
        log = AuditLog(path / "audit.jsonl")
        assert log.verify() > 5
        seen: dict[tuple[Any, ...], str] = {}
        for entry in log.entries():
            if entry["event"] == "left":
                place = (entry["step"], entry["fold"], entry["round"])
                assert seen.setdefault(place, entry["sha256"]) == entry["sha256"]
        replies = rows(path / "rounds.db", "SELECT step, fold, round FROM asked")
        assert {(step, fold or None, round_) for step, fold, round_ in replies} <= set(seen)


@pytest.fixture(scope="module")
def permitted(stage: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An alliance whose study all four hospitals have permitted, not yet started."""
    folder = tmp_path_factory.mktemp("permitted")
    methods = installed_methods()
    study = stage.study(*STEPS, *(NETWORK if "network" in methods else ()))
    steps = [
        step.model_copy(update={"parameters": {**step.parameters, "rounds": 3}}) if step.name == "network" else step
        for step in study.steps
    ]
    alliance = stage.join(folder, stage.sites(folder), study.model_copy(update={"steps": tuple(steps)}))
    alliance.store.close()
    return folder


@pytest.fixture(scope="module")
def undisturbed(permitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """How a run ends that nobody kills, and how long it took after its start."""
    folder = tmp_path_factory.mktemp("undisturbed") / "alliance"
    shutil.copytree(permitted, folder)
    child = start(folder)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    began = time.perf_counter()
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0, said
    seconds = time.perf_counter() - began
    end = end_of(folder)
    assert end.state == "release_review"
    assert len(end.ledger) >= 4 + len(STEPS) - 1
    assert all(isinstance(end.released[step, None], bytes) for step in STEPS if step != "model_without")
    return Undisturbed(end, folder, seconds)


def check(folder: Path, end: End) -> None:
    finish(folder)
    found = end_of(folder)
    assert found.ledger == end.ledger
    assert found.kept == end.kept
    assert found == end
    check_logs(folder)


slow_at_writes = [pytest.param(seed, marks=[pytest.mark.slow] if seed >= 1 else []) for seed in range(12)]


@pytest.mark.parametrize("seed", slow_at_writes)
def test_a_run_killed_at_an_exact_write_ends_as_if_nothing_had_happened(
    permitted: Path, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    folder = tmp_path / "alliance"
    shutil.copytree(permitted, folder)
    what = ("ledger", "memory", "audit", "ledger", "memory", "state")[seed % 6]
    # Right after the hospital kept its reply is where a reply could leave without a line in the log.
    when = ("within", "after", chance.choice(("before", "after", "within")))[seed % 3]
    number = chance.randint(1, {"ledger": 25, "memory": 100, "audit": 100, "state": 2}[what])
    child = start(folder, what, when, str(number))
    _, said = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, (what, when, number, said)
    check(folder, undisturbed.end)


slow_in_sums = [pytest.param(seed, marks=[pytest.mark.slow] if seed >= 1 else []) for seed in range(15)]


@pytest.mark.parametrize("seed", slow_in_sums)
def test_a_run_killed_inside_a_masked_sum_ends_as_if_nothing_had_happened(
    permitted: Path, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    """At any write of what a hospital has said: its keys, shares, numbers, set, or what it gave to open the sum."""
    chance = random.Random(2000 + seed)
    folder = tmp_path / "alliance"
    shutil.copytree(permitted, folder)
    child = start(folder, "sums", ("before", "within", "after")[seed % 3], str(chance.randint(1, 250)))
    _, said = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, said
    check(folder, undisturbed.end)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(
    permitted: Path, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(1000 + seed)
    folder = tmp_path / "alliance"
    shutil.copytree(permitted, folder)
    for _ in range(2):  # killed, and killed again while it resumes
        child = start(folder)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.6) * undisturbed.seconds)
        child.kill()
        child.communicate(timeout=60)
    check(folder, undisturbed.end)


def test_the_comparison_sees_one_changed_byte(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = tmp_path / "alliance"
    shutil.copytree(undisturbed.folder, folder)
    assert end_of(folder) == undisturbed.end
    connection = sqlite3.connect(folder / "hospitals" / "hungary" / "rounds.db")
    connection.execute(
        "UPDATE asked SET kept = CAST(kept || x'00' AS BLOB) WHERE rowid = (SELECT min(rowid) FROM asked)"
    )
    connection.commit()
    connection.close()
    assert end_of(folder) != undisturbed.end
