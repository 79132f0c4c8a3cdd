"""Between real processes: who has seen whose log, and what happens when one is written anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dure.errors import LogForked
from dure.guard.audit import AuditLog
from dure.guard.log_check import Checked, check_log
from dure.guard.tree_heads import HEADS, WITNESSED, read_seen
from dure.hub.witnessing import keys_of as hub_keys
from dure.site.settings import keys_of as site_keys

DERIVED = ("number", "time", "before", "hash")
STEPS = ("attrition", "table_one")


def checked_hub(town: Any, *against: Path) -> Checked:
    return check_log(town.hub.folder, hub_keys(town.hub, town.store), against)


def checked_site(site: Any, *against: Path) -> Checked:
    return check_log(site.folder, site_keys(site.folder), against)


def rewritten(path: Path, changes: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """The whole log again with a chain that fits, as somebody with the folder could write it."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    beside = path.with_name("beside.jsonl")
    log = AuditLog(beside)
    for entry in entries:
        kept = changes({name: value for name, value in entry.items() if name not in DERIVED})
        if kept is not None:
            log.append(kept.pop("event"), **kept)
    beside.replace(path)


def both_have_seen_all(town: Any) -> bool:
    """Every log's last line is countersigned by the other side."""
    own = AuditLog(town.hub.folder / "audit.jsonl").count
    hub = checked_hub(town)
    seen = all(hub.countersigned[name].size == own for name in town.sites if name in hub.countersigned)
    if not seen or set(hub.countersigned) != set(town.sites):
        return False
    for site in town.sites.values():
        found = checked_site(site)
        if "Test" not in found.countersigned or found.countersigned["Test"].size != found.lines:
            return False
    return True


def test_after_a_run_everybody_has_seen_everybodys_log_and_a_rewritten_one_is_caught(
    four: Callable[..., Any], services: Any
) -> None:
    town, study = four(), services.small_study(STEPS)
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        town.finished(study)
    services.until(lambda: both_have_seen_all(town), 60, "the countersigning of all heads")
    folders = [site.folder for site in town.sites.values()]
    hub = checked_hub(town, *folders)
    assert set(hub.countersigned) == set(hub.seen) == set(town.sites)
    for site in town.sites.values():
        found = checked_site(site, town.hub.folder)
        assert found.seen["Test"].root == hub.countersigned[site.hospital].root
        assert found.lines == hub.seen[site.hospital].size

    log = town.hub.folder / "audit.jsonl"
    logged = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {"admitted", "invited", "submitted", "answered", "state", "asked", "opened", "ended", "run"} <= {
        entry["event"] for entry in logged
    }

    town.processes["hub"].stop()
    kept = {name: (town.hub.folder / name).read_bytes() for name in ("audit.jsonl", HEADS, WITNESSED)}
    # Who was asked is changed, in a chain that fits; the heads that would tell are thrown away.
    rewritten(log, lambda entry: None if entry.get("event") == "opened" else entry)
    (town.hub.folder / HEADS).unlink()
    assert AuditLog(log).verify() > 10
    assert checked_hub(town).lines < hub.lines
    with pytest.raises(LogForked, match="site0"):
        checked_hub(town, *folders)

    town.again("hub")
    for site in town.sites.values():
        services.until(lambda: forks(site.folder), 60, "the hospital's line about the fork")  # noqa: B023
        with pytest.raises(LogForked, match="'Test' is not the one that was seen"):
            checked_site(site)
        assert '"event": "log-forked"' in (town.folder / f"{site.folder.name}.log").read_text(encoding="utf-8")
    assert AuditLog(town.sites["Hungary"].folder / "audit.jsonl").verify() > 5

    town.processes["hub"].stop()
    for name, data in kept.items():
        (town.hub.folder / name).write_bytes(data)
    assert checked_hub(town).lines == hub.lines


def forks(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == "fork"]


def test_a_hospital_that_rewrites_its_own_log_is_caught_by_the_hub(towns: Callable[..., Any], services: Any) -> None:
    town = towns()
    site = town.join("North")
    site.audit.append("enrolled", alliance="Test")
    services.until(lambda: "North" in checked_hub(town).seen, 60, "the hospital's first head")
    town.processes["North"].stop()
    shutil.copytree(site.folder, town.folder / "before")
    rewritten(site.folder / "audit.jsonl", lambda entry: {**entry, "alliance": "another"})
    (site.folder / HEADS).unlink()
    town.serve("North")
    services.until(lambda: forks(town.hub.folder), 60, "the hub's line about the fork")
    with pytest.raises(LogForked, match="'North' is not the one that was seen"):
        checked_hub(town)
    with pytest.raises(LogForked):
        checked_site(site, town.hub.folder)
    assert [seen.who for seen in read_seen(town.hub.folder) if seen.against] == ["North"]
