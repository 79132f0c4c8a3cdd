"""Studies between real processes: from a researcher's submission to released tables, as people would do it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dure.client.alliance import write
from dure.errors import LifecycleError, NotPermitted
from dure.site import inbox


@pytest.mark.parametrize("scheme", ["tcp", pytest.param("grpc", marks=pytest.mark.slow)])
def test_a_study_goes_from_submission_to_released_tables(
    four: Callable[..., Any], services: Any, tmp_path: Path, scheme: str
) -> None:
    town, study = four(scheme=scheme), services.small_study()
    with town.researcher() as alliance:
        assert alliance.submit(study) == study.hash
        assert alliance.submit(study) == study.hash  # twice is once
        town.permit(study)
        events = [event["event"] for event in alliance.follow(study.hash[7:19])]
        assert events.index("submitted") < events.index("permitted") < events.index("round") < events.index("finished")
        found = alliance.status(study.hash[:12])
        assert found["state"] == "release_review"
        assert set(found["steps"].values()) == {"finished"}
        assert all(
            told == {"answer": "permitted", "said": "", "line": "connected"} for told in found["hospitals"].values()
        )
        with pytest.raises(LifecycleError):
            alliance.fetch(study.hash)
        services.release(town.store, study)
        paths = write(alliance.fetch(study.hash), tmp_path / "results")
    names = {path.name for path in paths}
    assert {"model.coefficients.csv", "result.json"} <= names
    left = json.loads((tmp_path / "results" / "result.json").read_text(encoding="utf-8"))["left"]
    assert {item["hospital"] for item in left} == set(town.sites)
    logs_are_lines_of_names_and_sizes(town)


def logs_are_lines_of_names_and_sizes(town: Any) -> None:
    known = "time level service event version hub listen member study hospital by step method scope status round "
    known += "hospitals run bytes seconds problem why error stage topic person"
    for process in town.processes.values():
        lines = [json.loads(line) for line in process.said().splitlines()]
        assert lines
        for line in lines:
            assert set(line) <= set(known.split()), line
    answered = [line for line in town.processes["Hungary"].said().splitlines() if '"answered"' in line]
    assert len(answered) >= 3


def test_it_is_bit_equal_to_the_same_study_inside_one_process(
    four: Callable[..., Any], services: Any, databases: dict[str, Path], tmp_path: Path
) -> None:
    from dure.demo import alliance as demo
    from dure.hub.runs import run_study
    from dure.site.settings import create_site
    from dure.study.method import installed_methods

    study, sites = services.small_study(("attrition", "table_one", "model", "validation")), {}
    for place, (name, database) in enumerate(databases.items()):
        sites[name] = create_site(tmp_path / f"h{place}", name)
        sites[name].database.write_bytes(database.read_bytes())
    inside = demo.join(tmp_path / "inside", sites, installed_methods(), study)
    for name in sites:
        demo.permit(inside, name)
    run, _ = run_study(inside.store, study.hash, inside.engine, installed_methods())
    town = four()
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        town.finished(study)
    expected = {step.name: inside.store.ledger(run.name).read(step.name, None) for step in study.steps}
    assert town.ledger(study) == expected
    inside.store.close()


def test_the_hubs_store_can_be_postgresql(four: Callable[..., Any], services: Any, postgres: str) -> None:
    town, study = four(store=postgres), services.small_study(("attrition", "table_one"))
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        town.finished(study)
        town.kill("hub")
        town.again("hub")
        assert alliance.status(study.hash)["state"] == "release_review"
    assert not (town.hub.folder / "hub.db").exists()


def test_a_hospital_pauses_and_resumes_while_the_run_waits(four: Callable[..., Any], services: Any) -> None:
    town, study = four(), services.small_study(("attrition", "table_one"))
    paused = town.sites["Hungary"]
    inbox.pause(paused, True)
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        waits = services.until(lambda: alliance.status(study.hash)["waits"], what="a named wait")
        assert waits[0]["code"] == "site-paused"
        assert "Hungary" in waits[0]["en"]
        assert "Hungary" in waits[0]["ko"]
        assert alliance.status(study.hash)["state"] == "waiting"
        assert alliance.status(study.hash)["hospitals"]["Hungary"]["line"] == "paused"
        inbox.pause(paused, False)
        town.finished(study)


def test_a_hospital_says_no_and_the_quorum_decides(four: Callable[..., Any], services: Any) -> None:
    from dure.study.spec import Quorum

    steps = ("attrition", "table_one")
    enough = services.small_study(steps)
    everybody = services.small_study(steps, quorum=Quorum(all_of=("Switzerland",)))
    town = four()
    with town.researcher() as alliance:
        for study in (enough, everybody):
            alliance.submit(study)
            site = town.sites["Switzerland"]
            services.until(lambda: inbox.holds(site, study.hash))  # noqa: B023
            inbox.decline(site, study.hash)
            town.permit(study, "Cleveland", "Hungary", "VA Long Beach")
        town.finished(enough)
        services.until(lambda: town.state(everybody) == "declined")
        told = alliance.status(enough.hash)["hospitals"]
        assert told["Switzerland"]["answer"] == "declined"
        assert {event["hospitals"] for event in town.events(enough, "round")} == {3}


def test_a_hospital_withdraws_in_the_middle_and_no_sum_without_it_is_opened(
    four: Callable[..., Any], services: Any
) -> None:
    """Sums with it were opened: one without it would show its part, and it has not allowed that."""
    steps = ("model", "model_cholesterol", "model_without")
    town, study = four(), services.small_study(steps)
    leaving = town.sites["Hungary"]
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        services.until(lambda: len(town.events(study, "round")) > 3, what="the fourth round")
        inbox.withdraw(leaving, study.hash, "A patient group objected.")
        town.finished(study)
        services.until(lambda: alliance.status(study.hash)["hospitals"]["Hungary"]["answer"] == "withdrawn")
        told = alliance.status(study.hash)
        if set(told["steps"].values()) == {"finished"}:
            pytest.skip("the run was over before the hospital could withdraw")
        assert told["hospitals"]["Hungary"]["said"] == "A patient group objected."
        assert told["waits"] == []


def test_two_studies_at_once_and_one_is_cancelled(four: Callable[..., Any], services: Any) -> None:
    steps = ("model_without", "network") if "network" in _methods() else ("model_without",)
    town = four()
    first, second = services.small_study(("model", *steps)), services.small_study(("attrition", "model"))
    with town.researcher() as alliance:
        alliance.submit(first)
        alliance.submit(second)
        town.permit(first)
        town.permit(second)
        services.until(lambda: town.events(first, "round"), what="the first study's first round")
        alliance.cancel(first.hash)
        town.finished(second)
        assert alliance.status(first.hash)["state"] == "withdrawn"
        rounds = len(town.events(first, "round"))
        time.sleep(1.0)
        assert len(town.events(first, "round")) <= rounds + 1
        alliance.cancel(second.hash)  # computed, not released yet
        with pytest.raises(LifecycleError):
            alliance.cancel(second.hash)


def test_only_who_submitted_a_study_cancels_it(four: Callable[..., Any], services: Any) -> None:
    from dure.client.alliance import Alliance
    from dure.federation.membership import enrol

    town, study = four(), services.small_study(("attrition",))
    other = town.folder / "other"
    enrol(town.authority.invite("Another", "researcher"), other)
    with town.researcher() as alliance, Alliance(other) as another:
        alliance.submit(study)
        with pytest.raises(NotPermitted, match="withdraw a study"):
            another.cancel(study.hash)
        assert another.status(study.hash)["submitter"] == "Researcher"


def test_a_slow_hospital_is_named_and_one_that_is_away_is_left_out_by_the_studys_rule(
    four: Callable[..., Any], services: Any
) -> None:
    from dure.study.spec import Quorum

    study = services.small_study(("attrition", "table_one"), quorum=Quorum(at_least=3, answer_within="6 seconds"))
    strict = services.small_study(("attrition",), quorum=Quorum(at_least=4, answer_within="6 seconds"))
    town = four(patience=3)
    with town.researcher() as alliance:
        for one in (study, strict):
            alliance.submit(one)
            for name in town.sites:
                services.until(lambda: inbox.holds(town.sites[name], one.hash))  # noqa: B023
        town.kill("VA Long Beach")
        for one in (study, strict):
            town.permit(one, "Cleveland", "Hungary", "Switzerland")
            inbox.permit(town.sites["VA Long Beach"], one.hash, _methods(), ("per_hospital", "difference"))
        town.again("VA Long Beach")  # it comes up, hands in its permits, and is gone
        services.until(lambda: len(town.store.permits(study.hash)) == len(town.store.permits(strict.hash)) == 4)
        town.kill("VA Long Beach")
        services.until(
            lambda: town.state(study) == "release_review" or town.events(study, "left out"), what="leaving out"
        )
        town.finished(study)
        if left := town.events(study, "left out"):  # unless it answered everything before it was gone
            assert left[0]["hospital"] == "VA Long Beach"
        services.until(lambda: town.state(strict) in ("waiting", "release_review"))
        if town.state(strict) == "waiting":
            waits = alliance.status(strict.hash)["waits"]
            assert "VA Long Beach" in json.dumps(waits, ensure_ascii=False)
            town.again("VA Long Beach")
            town.finished(strict)


def test_a_run_beyond_the_hospitals_memory_is_stopped_and_the_service_lives(
    towns: Callable[..., Any], databases: dict[str, Path], services: Any
) -> None:
    town = towns()
    for name, database in databases.items():
        settings = {"resources": {"memory": "60 MiB"}} if name == "Hungary" else {}
        town.join(name, database, **settings)
    study = services.small_study(("table_one",))
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        waits = services.until(lambda: alliance.status(study.hash)["waits"], what="a named wait")
        assert waits[0]["code"] == "limit-reached"
        assert "Hungary" in waits[0]["en"]
        assert "60 MiB" in waits[0]["en"]
        assert alliance.status(study.hash)["hospitals"]["Hungary"]["line"] == "connected"
    assert town.processes["Hungary"].started.poll() is None


def test_nobody_but_the_hub_listens_and_health_is_on_loopback(
    towns: Callable[..., Any], databases: dict[str, Path], services: Any
) -> None:
    town = towns()
    town.join("Cleveland", databases["Cleveland"])
    services.until(lambda: "connected" in town.processes["Cleveland"].said())
    assert listening(town.processes["hub"].pid) == {("127.0.0.1", town.hub.port)}
    assert listening(town.processes["Cleveland"].pid) == set()
    town.processes["Cleveland"].stop()
    port, site = services.free_port(), town.sites["Cleveland"]
    command = ("-m", "dure.cli", "site", "serve", str(site.folder), "--health", str(port))
    town.processes["Cleveland"] = services.Process(town.folder / "health.log", *command).start()

    def healthy() -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as page:
                return json.loads(page.read())
        except OSError:
            return None

    facts = services.until(healthy, what="health")
    assert facts["connected"]
    assert listening(town.processes["Cleveland"].pid) == {("127.0.0.1", port)}
    assert town.processes["Cleveland"].stop() == 0
    assert '"event": "stopped"' in town.processes["Cleveland"].said()


def test_two_commands_in_one_researchers_folder_do_not_fight(
    towns: Callable[..., Any], services: Any, databases: dict[str, Path]
) -> None:
    from dure.client.alliance import Alliance
    from dure.errors import AlreadyRunning

    town = towns()
    with town.researcher() as alliance:
        with pytest.raises(AlreadyRunning, match="researcher"), Alliance(town.folder / "researcher"):
            pass
        assert alliance.studies() == []


def test_a_folder_or_port_in_use_is_said_plainly(towns: Callable[..., Any], services: Any, tmp_path: Path) -> None:
    from dure.errors import AlreadyRunning
    from dure.hub.authority import create_hub
    from dure.hub.service import HubService

    town = towns()
    services.until(lambda: "started" in town.processes["hub"].said())
    with pytest.raises(AlreadyRunning, match=str(town.hub.folder)):
        HubService(town.hub.folder).run()
    other = create_hub(tmp_path / "other", "Other", "127.0.0.1", town.hub.port, listen="127.0.0.1")
    with pytest.raises(AlreadyRunning, match=str(town.hub.port)):
        HubService(other.folder).run()


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket that the process or its children listen on, from /proc."""
    inodes = set()
    pids = [pid, *children(pid)]
    for one in pids:
        for link in Path(f"/proc/{one}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                if table.endswith("tcp"):
                    address = ".".join(str(byte) for byte in bytes.fromhex(address)[::-1])
                found.add((address, int(port, 16)))
    return found


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(status.parent.name), *children(int(status.parent.name))]
    return found


def _methods() -> Any:
    from dure.study.method import installed_methods

    return installed_methods()
