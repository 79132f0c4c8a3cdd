"""A hub and marked hospitals as processes, one study from proposal to release, and every place that is searched."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dure.client.alliance import write
from dure.guard.permissions import owner
from dure.hub import releases
from dure.site import inbox
from dure.site.egress import FILE, Egress
from dure.study.method import Methods, installed_methods
from dure.study.spec import Study

from . import hospitals, leaking
from .hospitals import HOSPITALS, Patients
from .searching import OVERLAP, Marks, distinctive

HERE = Path(__file__).parent
SEED = 20_261_127
CHUNK = 64 << 20
ALONE = ("table", "facts")
"""Kinds of numbers in a result that one hospital released by itself."""
PAGE = os.sysconf("SC_PAGE_SIZE")
METADATA = "Metadata-Version: 2.1\nName: leaking\nVersion: 1\n"


def _services() -> ModuleType:
    name = "dure_services_stage"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE.parents[1] / "services" / "stage.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


services = _services()


def methods() -> Methods:
    """What is installed, here and in the processes."""
    return {**installed_methods(), leaking.method.name: leaking.method}


class Town(services.Town):  # type: ignore[misc,name-defined]
    """Processes with the leaking package installed; the hub watched, and with `open_` no gate and no masks anywhere."""

    def __init__(self, folder: Path, open_: bool) -> None:
        self.open = open_
        self.frames, self.tap, packages = folder / "frames", folder / "tap", folder / "packages"
        about = packages / "leaking-1.dist-info"
        about.mkdir(parents=True)
        self.tap.mkdir()
        shutil.copy(HERE / "leaking.py", packages)
        (about / "METADATA").write_text(METADATA)
        (about / "entry_points.txt").write_text("[dure.methods]\nleaking = leaking:method\n")
        path = os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH"))))
        self.environment = {"PYTHONPATH": path, **({"DURE_CANARY_OPEN": "yes"} if open_ else {})}
        super().__init__(folder)

    def _hub_process(self) -> None:
        environment = {**self.environment, "DURE_CANARY_FRAMES": str(self.frames)}
        command = (str(HERE / "watched.py"), "hub", "serve", str(self.hub.folder), "--patience", str(self.patience))
        log = self.folder / "hub.log"
        self.processes["hub"] = services.Process(log, *command, environment=environment).start()

    def serve(self, name: str) -> None:
        site = self.sites[name]
        product = ("-m", "dure.cli", "site", "serve", str(site.folder))
        command = (str(HERE / "watched.py"), "site", "serve", str(site.folder)) if self.open else product
        log = self.folder / f"{site.folder.name}.log"
        self.processes[name] = services.Process(log, *command, environment=self.environment).start()

    def open_hospitals(self) -> dict[str, Patients]:
        made = {}
        for name in HOSPITALS:
            made[name] = hospitals.patients(name, SEED)
            database = self.folder / f"{name}.duckdb"
            hospitals.write(made[name], database)
            self.join(name, database, self.proxy(tap=self.tap))
            database.unlink()
        return made

    def play(self, study: Study, seconds: float) -> None:
        """From submission to files with released results, in the researcher's folder."""
        grants = ("per_hospital", "difference", *(("visible_updates",) if self.open else ()))
        with self.researcher() as alliance:
            alliance.submit(study)
            for site in self.sites.values():
                services.until(lambda: inbox.holds(site, study.hash), what="delivery")  # noqa: B023
                inbox.permit(site, study.hash, methods(), grants)
            self.finished(study, seconds)
            waits = releases.waiting(self.store, study.hash, methods())
            releases.decide(self.store, study.hash, owner("office"), waits.digest, True, methods())
            write(alliance.fetch(study.hash), self.folder / "results")
            said = {"status": alliance.status(study.hash), "events": self.events(study)}
        (self.folder / "said.json").write_text(json.dumps(said, ensure_ascii=False, default=str), encoding="utf-8")

    def places(self) -> dict[str, Iterator[bytes]]:
        """Where marks are searched for, outside the hub's memory. A hospital's own database, list of what left, stores
        of rounds and history are the hospital's."""
        logs = [*self.folder.glob("*.log"), *self.folder.glob("site*/audit.jsonl")]
        told = [
            *(self.folder / "results").rglob("*"),
            *(self.folder / "researcher").rglob("*"),
            self.folder / "said.json",
        ]
        return {
            "hub's store": _files(*self.hub.folder.rglob("*")),
            "logs": _files(*logs),
            "results and messages": _files(*told),
            "frames inside TLS": _files(self.frames),
            "traffic on loopback": _files(*self.tap.iterdir()),
        }


def _files(*paths: Path) -> Iterator[bytes]:
    """The bytes of files in overlapping pieces; of a database also each value by itself, since pages cut long ones."""
    for path in sorted(path for path in paths if path.is_file()):
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                yield piece
                if len(piece) == CHUNK:
                    file.seek(-OVERLAP, os.SEEK_CUR)
        if path.suffix == ".db":
            yield from _values(path)


def _values(path: Path) -> Iterator[bytes]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        for row in connection.execute(f'SELECT * FROM "{table}"'):
            yield b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in row)
    connection.close()


def memory_of(pid: int) -> Iterator[bytes]:
    """What a process holds in memory, page by page as far as pages exist; files that it only reads are left out.

    Raises PermissionError where this computer does not allow it.
    """
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory, Path(f"/proc/{pid}/pagemap").open("rb", 0) as pages:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)", line)
            assert found is not None
            first, last, rights, name = int(found[1], 16), int(found[2], 16), found[3], found[5]
            if (
                rights[0] != "r"
                or name in ("[vvar]", "[vsyscall]", "[vvar_vclock]")
                or (found[4] != "0" and "w" not in rights)
            ):
                continue
            for start, end in _present(pages, first, last):
                for at in range(start, end, CHUNK):
                    size = min(CHUNK + OVERLAP, end - at)
                    try:
                        yield os.pread(memory.fileno(), size, at)
                    except OSError:  # gone since: the process lives
                        continue


def _present(pages: Any, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Runs of pages of a mapping that are in memory or swapped out."""
    data = os.pread(pages.fileno(), (last - first) // PAGE * 8, first // PAGE * 8)
    there = np.frombuffer(data, "<u8") >> np.uint64(62) != 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]])))
    for start, end in edges.reshape(-1, 2).tolist():
        yield first + start * PAGE, first + end * PAGE


def of_patients(made: Mapping[str, Patients]) -> Marks:
    """Every patient of every hospital."""
    values = np.concatenate([people.values.ravel() for people in made.values()])
    columns = len(hospitals.MEASURED)
    whose = tuple(
        f"patient {place // columns} of {name}" for name, people in made.items() for place in range(people.values.size)
    )
    rows = [people.values[:, pair] for people in made.values() for pair in ([0, 1], [0, 2], [1, 2])]
    down = [
        np.column_stack([people.values[:-1, column], people.values[1:, column]])
        for people in made.values()
        for column in range(columns)
    ]
    first = tuple(float(value) for people in made.values() for value in people.values[0])
    texts = tuple(people.text for people in made.values())
    numbers = np.concatenate([people.numbers for people in made.values()])
    return Marks(values, whose, numbers, np.vstack(rows + down), texts, first)


@dataclass(frozen=True)
class Parts:
    """Hospitals' parts of sums. `marks`: those that are searched for, by which nothing else can be meant.

    Left out, and counted in `left_out`: parts that are `alone` (no other hospital has anything there, so that the
    total is the part), `plain` (too few significant bits), equal to some `total`, or `shown` by the hospital's permit,
    in that array or another.
    """

    marks: Marks
    left_out: dict[str, int]
    ran: frozenset[str]
    """Methods of which every hospital sent something."""


def of_parts(town: Town, study: Study) -> Parts:
    """Every number of every round that every hospital put into a sum, from the hospitals' own lists."""
    cells: dict[tuple[Any, ...], dict[str, np.ndarray]] = defaultdict(dict)
    shown: dict[str, list[np.ndarray]] = defaultdict(list)
    sent: dict[str, set[str]] = defaultdict(set)
    for name, site in town.sites.items():
        egress = Egress(site.folder / FILE)
        for left in egress.read(study.hash):
            assert left.numbers is not None
            sent[study.step(left.step).method].add(name)
            numbers = np.ravel(left.numbers)
            if "per_hospital_permit" in left.rules or left.array.endswith(".withheld") or left.kind in ALONE:
                shown[name].append(numbers[numbers != 0])
            else:
                cells[left.step, left.fold, left.round, left.array][name] = numbers
        egress.close()
    totals = np.unique(np.concatenate([np.asarray(_total(parts), np.float64) for parts in cells.values()]))
    values, whose, left_out = [], [], {"shown": sum(len(part) for parts in shown.values() for part in parts)}
    for about, parts in cells.items():
        there = sum((part != 0).astype(int) for part in parts.values())
        for name, part in parts.items():
            why = {
                "alone": there == 1,
                "plain": ~distinctive(part) if part.dtype.kind == "f" else np.abs(part) < 2**48,
                "shown": np.isin(part, np.concatenate([*shown[name], np.zeros(0)])),
                "total": np.isin(np.abs(part), np.abs(totals)),
            }
            rest = part != 0
            for reason, out in why.items():
                left_out[reason] = left_out.get(reason, 0) + int((rest & out).sum())
                rest &= ~out
            values.append(part[rest].astype(np.float64))
            whose += [f"part of {name} in {about}"] * int(rest.sum())
    ran = frozenset(method for method, names in sent.items() if len(names) == len(HOSPITALS))
    return Parts(Marks(np.concatenate(values), tuple(whose)), left_out, ran)


def _total(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The float64 nearest to each exact sum, as masked sums open it."""
    if any(part.dtype.kind != "f" for part in parts.values()):
        return np.asarray(sum(parts.values()))
    return np.array([math.fsum(cell) for cell in zip(*parts.values())])
