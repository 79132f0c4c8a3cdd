"""How long masked sums take, at a hospital and at the hub; and what they add to a study.

    .venv/bin/python bench/secure_sum.py [--only sums study services] [--quick] [--cpu] [--repeats 3] [--json PATH]

Sums: hospitals and hub in one process, nothing between them, records on disk; the second sum of a session is measured
(three exchanges), as every sum but a run's first. `site ms` is the mean over hospitals of all they do for one sum
beside their own method (keys, shares, masks, signatures, disk); `hub ms` is the rest. `MB` leave each hospital.

Study: a logistic regression whose hospitals compute for more than a second each, through `run_frames`, plain and
masked in turn; the ratio of medians, wanted: at most 1.10. Hospitals compute one after another here, so masks take
the share that they take of the work, not of the waiting.

Services: the demonstration's attrition, table one and model between real processes, mTLS over TCP on 127.0.0.1, each
hospital's people `--times` over in its OMOP database; masked, and in the clear where every permit says so. Every run
has new services and folders, since a hospital repeats what it has answered once. Seconds are from the first step to the
last outcome; round trips and waiting are in them.

With `--cpu` sums and study are processor time instead of the wall's, for a machine that has other work.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: its statistics.py would pass for the standard library's

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import engine_services
import numpy as np
import polars as pl
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from dure.client.alliance import Alliance
from dure.client.simulate import run_frames
from dure.demo.alliance import demo_study
from dure.federation.membership import enrol
from dure.federation.messages import Answer, Ask
from dure.federation.plain_sum import PlainSum
from dure.federation.secure_sum.exchange import Exchange, Part, read_question
from dure.federation.secure_sum.member import Member, PinsInMemory
from dure.federation.secure_sum.opening import SecureSum
from dure.federation.secure_sum.record import Record
from dure.guard.rules import DEFAULT
from dure.site import inbox
from dure.site.settings import create_site
from dure.study.method import installed_methods
from dure.study.permit import Grant
from dure.study.spec import Step
from dure.study.summary import ArraySpec

SIZES = [(8, 10**power, "moment") for power in range(3, 7)] + [(30, 10**power, "moment") for power in range(3, 6)]
SIZES += [(8, 10_000_000, "weights"), (30, 1_000_000, "weights")]
QUICK = [(8, 1_000, "moment"), (8, 100_000, "moment"), (30, 1_000, "moment")]
console = Console(width=120)
CLOCK = [time.perf_counter]


class Clock:
    """An engine that counts what hospitals take beside their own method, which is a stored answer here."""

    def __init__(self, hospitals: int, part: dict[str, Any], declaration: Any, folder: Path) -> None:
        self.keys = {f"h{place:02}": Ed25519PrivateKey.generate() for place in range(hospitals)}
        self.records = {name: Record(folder / f"{name}.db") for name in self.keys}
        self.pins = {name: PinsInMemory() for name in self.keys}
        self.reply = Answer("", "summary", arrays=part).to_bytes()
        self.declaration, self.seconds, self.bytes = declaration, 0.0, 0

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> dict[str, bytes]:
        return {name: self.one(name, message) for name, message in messages.items()}

    def one(self, name: str, message: bytes) -> bytes:
        began = CLOCK[0]()
        key = self.keys[name]
        public = key.public_key().public_bytes_raw()
        member = Member(name, public, key.sign, self.pins[name], self.records[name], 3, frozenset())
        asked = read_question(message)
        assert isinstance(asked, Exchange)
        part = Part(self.declaration, b"", True, lambda: self.reply)
        reply = member.answer(asked, lambda ask: part)
        self.seconds += CLOCK[0]() - began
        self.bytes = max(self.bytes, len(reply))
        return reply

    def sum(self, summing: Any, round_: int) -> float:
        ask = Ask("run", "study", "step", round_, tuple(self.keys)).to_bytes()
        self.seconds, self.bytes, began = 0.0, 0, CLOCK[0]()
        opened = summing.collect(self, dict.fromkeys(self.keys, ask), self.declaration, "step", round_, None)
        assert opened.total is not None
        return CLOCK[0]() - began


def sums(hospitals: int, numbers: int, kind: Any, repeats: int) -> dict[str, Any]:
    declaration = (ArraySpec("x", (numbers,), kind),)
    part = {"x": np.random.default_rng(0).normal(size=numbers)}
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock(hospitals, part, declaration, Path(folder))
        roster = {name: key.public_key().public_bytes_raw() for name, key in clock.keys.items()}
        summing = SecureSum(roster)
        clock.sum(summing, 0)
        took = [(clock.sum(summing, round_), clock.seconds) for round_ in range(1, 1 + repeats)]
    return {
        "hospitals": hospitals,
        "numbers": numbers,
        "limbs": {"moment": 4, "weights": 2}[kind],
        "site_ms": median(inside for _, inside in took) / hospitals * 1e3,
        "hub_ms": median(whole - inside for whole, inside in took) * 1e3,
        "megabytes": clock.bytes / 1e6,
    }


def study(rows: int, repeats: int) -> dict[str, Any]:
    """Plain and masked in turn; seconds of the whole study, and of the hospitals' own work in it."""
    random = np.random.default_rng(1)
    frames = {}
    for hospital in ("a", "b", "c", "d"):
        x = random.normal(size=(rows, 20))
        y = random.uniform(size=rows) < 1 / (1 + np.exp(-x[:, :3].sum(axis=1)))
        frames[hospital] = pl.DataFrame({"y": y.astype(float), **{f"x{i}": x[:, i] for i in range(20)}})
    formula = "y ~ " + " + ".join(f"x{i}" for i in range(20))
    step = Step(name="model", method="regression", parameters={"formula": formula, "family": "binomial"})
    seconds: dict[str, list[float]] = {"plain": [], "secure": []}
    results = {}
    for turn in range(repeats + 1):
        for how in ("plain", "secure"):
            summing: Any = PlainSum() if how == "plain" else "secure"
            began = CLOCK[0]()
            outcomes, _ = run_frames(frames, (step,), DEFAULT, summing=summing)
            if turn:  # the first pair starts threads and imports
                seconds[how].append(CLOCK[0]() - began)
            results[how] = outcomes["model"].folds[None]
    assert all(found.status == "finished" for found in results.values())
    plain, secure = median(seconds["plain"]), median(seconds["secure"])
    return {
        "rows": rows,
        "hospitals": len(frames),
        "rounds": results["plain"].rounds,
        "plain_s": plain,
        "secure_s": secure,
        "plain_s_per_hospital": plain / len(frames),
        "ratio": secure / plain,
        "all": seconds,
    }


PARTS = ("attrition", "table_one", "model")
OWN_KEYS = ("person", "visit_occurrence", "condition_occurrence", "measurement", "observation", "observation_period")


def enlarge(database: Path, times: int) -> int:
    """Everybody `times` over, under new numbers; how many people there are then."""
    with duckdb.connect(database) as connection:
        for table in OWN_KEYS:
            known = {row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()}
            moved = ", ".join(f"{key}_id + k * 1000000 AS {key}_id" for key in OWN_KEYS if f"{key}_id" in known)
            again = f"SELECT * REPLACE ({moved}) FROM {table}, range(1, {times}) AS shift(k)"
            connection.execute(f"INSERT INTO {table} SELECT * EXCLUDE (k) FROM ({again})")
        return int(connection.execute("SELECT count(*) FROM person").fetchone()[0])  # type: ignore[index]


def one_run(folder: Path, databases: Mapping[str, Path], masked: bool) -> dict[str, float]:
    """Seconds of one study between services, and the processor seconds of hospitals and hub in it."""
    grants: tuple[Grant, ...] = ("per_hospital",) if masked else ("per_hospital", "visible_updates")
    methods = installed_methods()
    whole = demo_study(methods)
    asked = whole.model_copy(update={"steps": tuple(step for step in whole.steps if step.name in PARTS)})
    sites = {name: create_site(folder / f"site{place}", name) for place, name in enumerate(databases)}
    for name, site in sites.items():
        shutil.copy(databases[name], site.database)
    with engine_services.town(folder, sites) as at:
        enrol(at.authority.invite("Researcher", "researcher"), folder / "researcher", engine_services.START)
        with Alliance(folder / "researcher") as researcher:
            researcher.submit(asked)
            engine_services.until(lambda: all(inbox.holds(site, asked.hash) for site in sites.values()), "delivery")
            before = engine_services.processor(at)
            for site in sites.values():
                inbox.permit(site, asked.hash, methods, grants)
            events, used = [], before
            for event in researcher.follow(asked.hash):
                events.append(event)
                used = max(used, engine_services.processor(at))  # a worker takes its seconds with it when it ends
        kinds = [event["event"] for event in events]
        assert kinds.count("outcome") == len(PARTS), kinds
        times = {kind: [datetime.fromisoformat(e["time"]) for e in events if e["event"] == kind] for kind in set(kinds)}
        return {"seconds": (times["outcome"][-1] - times["step"][0]).total_seconds(), "processor": used - before}


def services(times: int, repeats: int) -> dict[str, Any]:
    """Plain and masked in turn, between processes."""
    runs: dict[str, list[dict[str, float]]] = {"plain": [], "masked": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        databases = {
            hospital: site.database for hospital, site in engine_services.demonstration(folder / "demo").items()
        }
        people = {hospital: enlarge(database, times) for hospital, database in databases.items()}
        for turn in range(repeats):
            for how in ("plain", "masked") if turn % 2 else ("masked", "plain"):
                place = folder / f"{how}{turn}"
                runs[how].append(one_run(place, databases, how == "masked"))
                shutil.rmtree(place)
    middle = {how: {part: median(run[part] for run in found) for part in found[0]} for how, found in runs.items()}
    ratio = {part: middle["masked"][part] / middle["plain"][part] for part in ("seconds", "processor")}
    return {"people": people, "median": middle, "ratio": ratio, "all": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["sums", "study", "services"]
    parser.add_argument("--only", nargs="*", default=parts, choices=parts)
    parser.add_argument("--quick", action="store_true", help="three small sums")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_800_000, help="of each hospital in the study")
    parser.add_argument("--times", type=int, default=1000, help="as many people in each database of the services")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.cpu:
        CLOCK[0] = time.process_time
    machine: dict[str, Any] = {
        "clock": "processor" if given.cpu else "wall",
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    machine |= {name: version(name) for name in ("dure", "numpy", "cryptography", "pycryptodome")}
    written: dict[str, Any] = {"machine": machine, "sums": []}
    table = Table("hospitals", "numbers", "L", "site ms", "hub ms", "MB", title="one masked sum", title_justify="left")
    chosen = QUICK if given.quick else SIZES
    for hospitals, numbers, kind in chosen if "sums" in given.only else []:
        found = sums(hospitals, numbers, kind, given.repeats)
        written["sums"].append(found)
        shown = (found["site_ms"], found["hub_ms"])
        table.add_row(
            str(hospitals),
            f"{numbers:,}",
            str(found["limbs"]),
            *(f"{value:,.1f}" for value in shown),
            f"{found['megabytes']:.2f}",
        )
    if "sums" in given.only:
        console.print(table)
    if "study" in given.only and not given.quick:
        written["study"] = found = study(given.rows, given.repeats)
        met = "✓" if found["ratio"] <= 1.10 else "✗"
        each = found["plain_s_per_hospital"]
        console.print(
            f"study of {found['rounds']} rounds, {each:.2f} s at each of {found['hospitals']} hospitals: plain "
            f"{found['plain_s']:.2f} s, masked {found['secure_s']:.2f} s, ratio {found['ratio']:.3f} (≤ 1.10 {met})"
        )
    if "services" in given.only and not given.quick:
        written["services"] = found = services(given.times, given.repeats)
        ratio, (plain, masked) = found["ratio"], (found["median"][how] for how in ("plain", "masked"))
        met = "✓" if ratio["seconds"] <= 1.10 else "✗"
        console.print(
            f"between processes, {sum(found['people'].values()):,} people at {len(found['people'])} hospitals: plain "
            f"{plain['seconds']:.2f} s, masked {masked['seconds']:.2f} s, ratio {ratio['seconds']:.3f} (≤ 1.10 {met}); "
            f"processor {plain['processor']:.2f} s and {masked['processor']:.2f} s, ratio {ratio['processor']:.3f}"
        )
    if given.json:
        given.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
