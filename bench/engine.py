"""How fast the engine between hospitals is: dure's over real sockets, against the bare cells of FLARE it stands on.

    .venv/bin/python bench/engine.py [--quick] [--parts rounds,job,first,many] [--json PATH]

Hub and sites are processes of their own that meet over mTLS on 127.0.0.1, and all competitors are there at once and
take turns within every repeat, each repeat beginning with another one. About twelve minutes, `--quick` three; prints
Markdown. Ports are free ones; everything is started and ended here, and written into a temporary folder.
"""

from __future__ import annotations

import sys

sys.path.append(sys.path.pop(0))  # this folder last: its statistics.py would pass for the standard library's

import argparse
import contextlib
import json
import os
import platform
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import engine_job
import engine_services
from engine_wires import Alliance, Engine, alliance

from dure.federation.local_engine import LocalEngine

LIMIT = 45 * 60
"""Seconds after which the whole benchmark gives up."""
SMALL, LARGE = 1_000, 40_000_000
SITES, SOME, MANY = 4, 30, 200
PARTS = ("rounds", "job", "first", "many")
ENOUGH = 10.0
"""GiB that have to be free for thirty hospitals' services."""


@dataclass(frozen=True)
class Effort:
    """How often: repeats, rounds in each, and rounds of the many."""

    repeats: int
    small: int
    large: int
    many: int


FULL, QUICK = Effort(5, 200, 3, 50), Effort(2, 50, 1, 10)


@dataclass(frozen=True)
class Competitor:
    engine: Engine
    scheme: str
    streamed: bool

    @property
    def name(self) -> str:
        way = {"dure": "dure"}.get(self.engine, "FLARE cells, streamed" if self.streamed else "FLARE cells, one frame")
        return f"{way}, {'TCP' if self.scheme == 'tcp' else 'gRPC'}"


COMPETITORS = [
    Competitor(engine, scheme, streamed)
    for scheme in ("tcp", "grpc")
    for engine, streamed in (("bare", False), ("bare", True), ("dure", False))
]


def rounds(folder: Path, effort: Effort, with_job: bool) -> dict[str, Any]:
    """Competitor → seconds and processor seconds of a round, a list of repeats by size; and the job's."""
    found: dict[str, Any] = {}
    jobs: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        pairs = {(one.engine, one.scheme) for one in COMPETITORS}
        alliances = {
            (engine, scheme): stack.enter_context(alliance(folder / engine / scheme, engine, scheme, SITES))
            for engine, scheme in sorted(pairs)
        }
        for one in COMPETITORS:
            at = alliances[one.engine, one.scheme]
            found[one.name] = {"small": [], "large": [], "small_cpu": [], "large_cpu": [], "idle": at.memory()}
        for one in COMPETITORS:  # connections, threads and buffers are there before the clock
            alliances[one.engine, one.scheme].rounds(SMALL, 20, one.streamed)
            alliances[one.engine, one.scheme].rounds(LARGE, 1, one.streamed)
        for repeat in range(effort.repeats):
            turn = repeat % len(COMPETITORS)
            for size, kind, times in ((SMALL, "small", effort.small), (LARGE, "large", effort.large)):
                for one in COMPETITORS[turn:] + COMPETITORS[:turn]:
                    measured = alliances[one.engine, one.scheme].rounds(size, times, one.streamed)
                    found[one.name][kind].append(median(measured.seconds))
                    found[one.name][f"{kind}_cpu"].append(measured.cpu / times)
            if with_job:
                jobs.append(engine_job.run(folder / f"job{repeat}", 10, SMALL))
        for one in COMPETITORS:
            found[one.name]["after"] = alliances[one.engine, one.scheme].memory()
    return {"rounds": found, "jobs": jobs}


def first(folder: Path, effort: Effort) -> dict[str, Any]:
    with engine_services.town(folder, engine_services.demonstration(folder)) as at:
        return {"idle": engine_services.idle(at), "first": engine_services.first_rounds(at, effort.repeats)}


def many(folder: Path, effort: Effort, services: bool) -> dict[str, Any]:
    """Thirty sites, two hundred sites in four processes and in one, and the engine without a wire."""
    found: dict[str, Any] = {}
    for title, sites, wires in (
        (f"{SOME} processes", SOME, 1),
        ("4 processes of 50", MANY, 50),
        ("1 process", MANY, MANY),
    ):
        made = Alliance(folder / title.replace(" ", "-"), "dure", "tcp", sites, wires)
        try:
            met = made.meet()
            made.rounds(SMALL, 3)
            measured = made.rounds(SMALL, effort.many)
            found[title] = {
                "sites": sites,
                "met": met,
                "round": median(measured.seconds),
                "slowest": max(measured.seconds),
                "cpu": measured.cpu / effort.many,
                "hub": (used := made.memory())["hub"],
                "sites_memory": used["sites"],
            }
        except RuntimeError as error:
            found[title] = {"sites": sites, "error": str(error).splitlines()[0]}
        finally:
            made.close()
    local = LocalEngine({f"site-{place}": lambda message: message for place in range(MANY)})
    messages = dict.fromkeys(local.hospitals, os.urandom(SMALL))
    seconds = []
    for _ in range(effort.many):
        began = time.perf_counter()
        local.ask(messages, 1.0)
        seconds.append(time.perf_counter() - began)
    found["local"] = {"sites": MANY, "round": median(seconds)}
    if services and free() >= ENOUGH:
        hospitals = engine_services.empty(folder / "hospitals", SOME)
        with engine_services.town(folder, hospitals) as at:
            before = engine_services.processor(at)
            time.sleep(10.0)
            used = (engine_services.processor(at) - before) / 10.0
            found["services"] = {**engine_services.idle(at), "cpu": used}
    return found


def free() -> float:
    """GiB of memory that can be had."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return float(lines["MemAvailable"].split()[0]) / 2**20


def report(found: Mapping[str, Any]) -> str:
    lines = []
    if "rounds" in found:
        lines += _rounds(found["rounds"])
    if found.get("jobs"):
        middle = {name: median(job[name] for job in found["jobs"]) for name in found["jobs"][0]}
        lines += [
            f"A FLARE job in FLARE's simulator, {engine_job.CLIENTS} clients, {SMALL} bytes, clients asking every "
            f"{engine_job.REQUEST_INTERVAL} s: {middle['round']:.2f} s per round, {middle['until_first']:.1f} s until "
            f"the first round begins, {middle['all']:.1f} s for ten rounds.",
            "",
        ]
    if "first" in found:
        lines += _first(found["first"])
        lines += _idle(found["idle"], "hospitals of the demonstration")
    if "many" in found:
        lines += _many(found["many"])
    return "\n".join(lines)


def _rounds(measured: Mapping[str, Any]) -> list[str]:
    lines = [
        "| 4 sites | 1 kB round, ms | ÷ one frame | ÷ streamed | CPU, ms "
        "| 40 MB round, s | ÷ one frame | ÷ streamed | CPU, s | hub then, MiB | site then, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in COMPETITORS:
        cells = [one.name]
        for kind, unit in (("small", 1e3), ("large", 1.0)):
            own = measured[one.name]
            cells.append(f"{median(own[kind]) * unit:.2f}")
            for streamed in (False, True):
                other = measured[Competitor("bare", one.scheme, streamed).name]
                cells.append(f"{median(mine / its for mine, its in zip(own[kind], other[kind])):.2f}")
            cells.append(f"{median(own[f'{kind}_cpu']) * unit:.1f}")
        after = measured[one.name]["after"]
        cells += [f"{after['hub']['rss']:.0f}", f"{median(site['rss'] for site in after['sites']):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _first(stages: Mapping[str, list[float]]) -> list[str]:
    heads = {
        "submitted": "the hub has taken it",
        "delivered": "in all four inboxes",
        "signed": "all permits signed",
        "permitted": "all permits at the hub",
        "begun": "run begun",
        "round": "first round over",
    }
    lines = ["| seconds from `submit` until | median | slowest |", "|---|---|---|"]
    lines += [f"| {heads[name]} | {median(times):.2f} | {max(times):.2f} |" for name, times in stages.items()]
    return [*lines, ""]


def _idle(idle: Mapping[str, Any], what: str) -> list[str]:
    every = idle["hospitals"]
    lines = [f"| idle, {len(every)} {what}, MiB | RSS | PSS | its own alone |", "|---|---|---|---|"]
    lines.append(f"| hub | {_memory(idle['hub'])} |")
    for kind, title in (
        ("service", "a hospital's service"),
        ("all", f"with what it keeps ready ({every[0]['processes']} processes)"),
    ):
        middle = {name: median(one[kind][name] for one in every) for name in ("rss", "pss", "own")}
        lines.append(f"| {title} | {_memory(middle)} |")
    return [*lines, ""]


def _memory(found: Mapping[str, float]) -> str:
    return " | ".join(f"{found[name]:.0f}" for name in ("rss", "pss", "own"))


def _many(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "| 1 kB | round, ms | slowest, ms | rounds per second | CPU, ms | met after, s | hub, MiB | sites, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, one in found.items():
        if title == "services":
            continue
        head = f"{one['sites']} sites, {'in the hub, no wire' if title == 'local' else title}"
        if "error" in one:
            lines.append(f"| {head} | failed: {one['error']} | | | | | | |")
            continue
        cells = [head, f"{one['round'] * 1e3:.2f}"]
        if title == "local":
            cells += ["", f"{1 / one['round']:.0f}", "", "", "", ""]
        else:
            cells += [f"{one['slowest'] * 1e3:.0f}", f"{1 / one['round']:.1f}", f"{one['cpu'] * 1e3:.0f}"]
            cells += [
                f"{one['met']:.0f}",
                f"{one['hub']['rss']:.0f}",
                f"{sum(site['pss'] for site in one['sites_memory']):.0f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    if "services" in found:
        lines += _idle(found["services"], "hospitals without a database")
        lines += [f"All of them and the hub use {found['services']['cpu'] * 100:.0f} % of one core while idle.", ""]
    return lines


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ", ".join(f"{name} {version(name)}" for name in ("dure", "nvflare", "grpcio", "cryptography"))
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()}, "
        f"Python {platform.python_version()}, {names}; load before: {load:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and rounds, no thirty services")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    effort, parts = QUICK if given.quick else FULL, set(given.parts.split(","))
    if not parts <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _end)  # so that what was started is ended
    signal.alarm(LIMIT)
    found: dict[str, Any] = {"machine": machine(), "repeats": effort.repeats}
    failed = False
    with tempfile.TemporaryDirectory(prefix="dure-bench-") as name:
        folder = Path(name)
        run: dict[str, Callable[[], dict[str, Any]]] = {
            "rounds": lambda: rounds(folder / "rounds", effort, "job" in parts),
            "first": lambda: first(folder / "first", effort),
            "many": lambda: {"many": many(folder / "many", effort, services=not given.quick)},
        }
        for part, measure in run.items():
            if part in parts or (part == "rounds" and "job" in parts):
                try:
                    found |= measure()
                except RuntimeError as error:  # the others are still worth having
                    print(f"{part} failed: {error}", file=sys.stderr)
                    failed = True
    print(f"{found['machine']}. Medians of {effort.repeats} repeats.\n")
    print(report(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    sys.exit(failed)


def _end(number: int, frame: Any) -> None:
    sys.exit(f"ended by {signal.Signals(number).name}")


if __name__ == "__main__":
    main()
