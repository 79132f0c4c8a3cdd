"""How long masked sums take, at a hospital and at the hub; and what they add to a study.

    .venv/bin/python bench/secure_sum.py [--quick] [--cpu] [--repeats 3] [--json docs/measured_sums.json]

Sums: hospitals and hub in one process, nothing between them, records on disk; the second sum of a session is measured
(three exchanges), as every sum but a run's first. `site ms` is the mean over hospitals of all they do for one sum
beside their own method (keys, shares, masks, signatures, disk); `hub ms` is the rest. `MB` leave each hospital.

Study: a logistic regression whose hospitals compute for more than a second each, through `run_frames`, plain and
masked in turn; the ratio of medians, wanted: at most 1.10. Hospitals compute one after another here, so masks take
the share that they take of the work, not of the waiting.

With `--cpu` everything is processor time instead of the wall's, for a machine that has other work.
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # this folder: `statistics.py` would pass for the standard library's

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from dure.client.simulate import run_frames
from dure.federation.messages import Answer, Ask
from dure.federation.plain_sum import PlainSum
from dure.federation.secure_sum.exchange import Exchange, read_question
from dure.federation.secure_sum.member import Member, PinsInMemory
from dure.federation.secure_sum.opening import SecureSum
from dure.federation.secure_sum.record import Record
from dure.guard.rules import DEFAULT
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
        reply = member.answer(asked, lambda ask: (self.reply, self.declaration))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=400_000, help="of each hospital in the study")
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
    for hospitals, numbers, kind in QUICK if given.quick else SIZES:
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
    console.print(table)
    if not given.quick:
        written["study"] = found = study(given.rows, given.repeats)
        met = "✓" if found["ratio"] <= 1.10 else "✗"
        each = found["plain_s_per_hospital"]
        console.print(
            f"study of {found['rounds']} rounds, {each:.2f} s at each of {found['hospitals']} hospitals: plain "
            f"{found['plain_s']:.2f} s, masked {found['secure_s']:.2f} s, ratio {found['ratio']:.3f} (≤ 1.10 {met})"
        )
    if given.json:
        given.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
