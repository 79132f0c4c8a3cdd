"""dure's own services as hospitals run them: seconds until a study's first round, and memory while nothing is asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_wires import HOST, free_port, memory, processor_seconds

from dure.client.alliance import Alliance
from dure.demo.alliance import demo_study, open_hospitals
from dure.demo.services import Services
from dure.federation.membership import enrol
from dure.hub.authority import Authority, create_hub
from dure.hub.store import Store
from dure.site import inbox
from dure.site.settings import Site, create_site
from dure.study.method import installed_methods
from dure.study.spec import Study

START = 120.0
LOOK = 0.002
STAGES = ("submitted", "delivered", "signed", "permitted", "begun", "round")
"""What is waited for, one after the other: at all hospitals where it is something that they do."""


@dataclass
class Town:
    """A hub and hospitals that serve."""

    store: Store
    authority: Authority
    sites: dict[str, Site]
    services: Services
    folder: Path

    def process(self, name: str) -> int:
        return self.services.processes[name].pid


@contextlib.contextmanager
def town(folder: Path, sites: dict[str, Site], scheme: str = "tcp") -> Iterator[Town]:
    """Every hospital enrolled and serving, and the hub; until the end of the `with` statement."""
    hub = create_hub(folder / "hub", "Benchmark", HOST, free_port(), scheme, listen=HOST)
    store = Store(hub.place)
    (folder / "services").mkdir()
    made = Town(store, Authority(hub, store), sites, Services(folder / "services"), folder)
    try:
        made.services.start("hub", "dure.hub.entry", "serve", str(hub.folder))
        for name, site in sites.items():
            enrol(made.authority.invite(name), site.folder, START)
            made.services.start(name, "dure.cli", "site", "serve", str(site.folder))
        until(lambda: all((site.folder / "service.json").exists() for site in sites.values()), "services")
        quiet(made)
        yield made
    except RuntimeError as error:
        logs = {path.name: path.read_text()[-800:] for path in sorted((folder / "services").glob("*.log"))}
        raise RuntimeError(f"{error}\n" + "\n".join(f"{name}:\n{said}" for name, said in logs.items())) from None
    finally:
        made.services.stop()
        store.close()


def demonstration(folder: Path) -> dict[str, Site]:
    """The demonstration's four hospitals with their databases."""
    return open_hospitals(folder, lambda words: None)[0]


def empty(folder: Path, count: int) -> dict[str, Site]:
    """Hospitals without a database: enough to be idle."""
    names = [f"Hospital {place}" for place in range(1, count + 1)]
    return {name: create_site(folder / name.replace(" ", "-").lower(), name) for name in names}


def first_rounds(at: Town, repeats: int) -> dict[str, list[float]]:
    """Seconds from `submit` to each stage, of a new study each time; permits are signed as soon as it is delivered."""
    methods = installed_methods()
    study = demo_study(methods)
    enrol(at.authority.invite("Researcher", "researcher"), at.folder / "researcher", START)
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with Alliance(at.folder / "researcher") as researcher:
        for repeat in range(repeats):
            title = study.title.model_copy(update={"en": f"{study.title.en} ({repeat})"})
            asked = study.model_copy(update={"title": title})
            for stage, seconds in _first_round(at, researcher, asked, methods).items():
                found[stage].append(seconds)
            researcher.cancel(asked.hash)
            quiet(at)
    return found


def _first_round(at: Town, researcher: Alliance, study: Study, methods: Any) -> dict[str, float]:
    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def reached(stage: str) -> None:
        seconds[stage] = time.perf_counter() - began

    researcher.submit(study)
    reached("submitted")
    waiting = dict(at.sites)
    deadline = time.monotonic() + START
    while waiting:
        come = [name for name, site in waiting.items() if inbox.holds(site, study.hash)]
        if come and len(come) == len(waiting):
            reached("delivered")
        for name in come:
            inbox.permit(waiting.pop(name), study.hash, methods, ("per_hospital", "difference"))
        _in_time(deadline, "delivery")
        time.sleep(0 if come else LOOK)
    reached("signed")
    events: dict[str, int] = {}
    last = 0
    while "round" not in events:
        for event in at.store.events(study.hash, last):
            last = event["number"]
            events[event["event"]] = events.get(event["event"], 0) + 1
        if "permitted" not in seconds and events.get("permitted") == len(at.sites):
            reached("permitted")
        if "begun" not in seconds and "step" in events:
            reached("begun")
        _in_time(deadline, "the first round")
        time.sleep(LOOK)
    reached("round")
    return seconds


def idle(at: Town) -> dict[str, Any]:
    """MiB of the hub, and of each hospital: its service, and its service with the processes that it keeps ready."""
    hospitals = []
    for name in at.sites:
        own, *children = [memory(pid) for pid in tree(at.process(name))]
        every = {kind: own[kind] + sum(child[kind] for child in children) for kind in own}
        hospitals.append({"service": own, "all": every, "processes": 1 + len(children)})
    return {"hub": memory(at.process("hub")), "hospitals": hospitals}


def tree(pid: int) -> list[int]:
    """The process and all that it started."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(below for child in children for below in tree(child))]


def quiet(at: Town, within: float = 60.0) -> None:
    """Until the services use hardly any processor: started, or done with what was cancelled. As long as `within`."""
    deadline, before = time.monotonic() + within, processor(at)
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = processor(at)
        if now - before < 0.02 * max(4, len(at.sites)):
            return
        before = now


def processor(at: Town) -> float:
    """Processor seconds that the services have used."""
    seconds = 0.0
    for process in at.services.processes.values():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one of them has just ended
            seconds += sum(processor_seconds(pid) for pid in tree(process.pid))
    return seconds


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START
    while not done():
        _in_time(deadline, what)
        time.sleep(0.05)


def _in_time(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(f"{what}: not within {START:.0f} s")
