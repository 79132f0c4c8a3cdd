"""Four real hospitals for the tests of hub, site and faults: built once a session, copied for every test."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pytest
import yaml

from dure.demo import alliance as demo
from dure.demo import offices
from dure.demo.alliance import Alliance
from dure.federation.engine import Engine, Failure
from dure.hub import studies
from dure.hub.store import Store
from dure.site import inbox
from dure.site.runner import Runner
from dure.site.settings import Site
from dure.study.method import installed_methods
from dure.study.permit import Grant
from dure.study.spec import Study, read_study

BOTH: tuple[Grant, ...] = ("per_hospital", "difference")


class Wire:
    """An engine between hub and hospitals that keeps every message, and can cut hospitals off."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.cut: set[str] = set()
        self.asked: dict[str, list[bytes]] = {}
        self.replied: dict[str, list[bytes]] = {}

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        cut = set(self.cut)
        reachable = {name: message for name, message in messages.items() if name not in cut}
        replies = dict(self.engine.ask(reachable, timeout))
        for name, message in reachable.items():
            self.asked.setdefault(name, []).append(message)
            reply = replies[name]
            if isinstance(reply, bytes):
                self.replied.setdefault(name, []).append(reply)
        return replies | {name: Failure("the line is cut") for name in messages if name in cut}


class Stage:
    """Hospitals whose databases lie ready under `base`."""

    methods = installed_methods()

    def __init__(self, base: Path) -> None:
        self.base = base

    def sites(self, folder: Path, *names: str) -> dict[str, Site]:
        """Copies of the hospitals' folders, with their keys and databases."""
        chosen = names or offices.HOSPITALS
        for name in chosen:
            slug = offices.office_of(name).slug
            shutil.copytree(self.base / "hospitals" / slug, folder / "hospitals" / slug)
        return {name: Site(folder / "hospitals" / offices.office_of(name).slug) for name in chosen}

    def study(self, *steps: str) -> Study:
        """The demonstration's study with only the steps named."""
        study = read_study(offices.STUDY)
        return study.model_copy(update={"steps": tuple(study.step(name) for name in steps)})

    def join(
        self, folder: Path, sites: dict[str, Site], study: Study, grants: Mapping[str, tuple[Grant, ...]] | None = None
    ) -> Alliance:
        """Joined, submitted, delivered; with `grants` also permitted by the hospitals named in it."""
        alliance = demo.join(folder, sites, self.methods, study)
        for name, given in (grants if grants is not None else dict.fromkeys(sites, BOTH)).items():
            demo.permit(alliance, name, given)
        return alliance

    def alliance(self, folder: Path, *steps: str) -> Alliance:
        """All four, permitted with both grants."""
        return self.join(folder, self.sites(folder), self.study(*steps))

    def keep(self, site: Site, people: int) -> None:
        """Leave only so many people in the hospital's database."""
        with duckdb.connect(str(site.database)) as connection:
            tables = connection.execute(
                "SELECT table_name FROM information_schema.columns WHERE column_name = 'person_id'"
            ).fetchall()
            kept = f"(SELECT person_id FROM person ORDER BY person_id LIMIT {people})"
            for (table,) in sorted(tables, key=lambda row: row[0] == "person"):
                connection.execute(f"DELETE FROM {table} WHERE person_id NOT IN {kept}")

    def settings(self, site: Site, **limits: float) -> Site:
        """The site read again with limits of its own in `site.yaml`."""
        path = site.folder / "site.yaml"
        written = yaml.safe_load(path.read_text(encoding="utf-8")) | {"limits": limits}
        path.write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8")
        return Site(site.folder)

    def sign_again(self, alliance: Alliance, hospital: str, grants: tuple[Grant, ...]) -> None:
        """A new permit, at the hospital and at the hub."""
        envelope = inbox.permit(alliance.sites[hospital], alliance.study.hash, self.methods, grants)
        studies.receive_permit(alliance.store, alliance.study.hash, hospital, envelope)

    def reopen(self, alliance: Alliance, folder: Path) -> Alliance:
        """The same folders in new objects, as another process would open them."""
        alliance.store.close()
        sites = {name: Site(site.folder) for name, site in alliance.sites.items()}
        runners = {name: Runner(site, self.methods) for name, site in sites.items()}
        return Alliance(Store(folder / "hub" / "hub.db"), sites, runners, alliance.study, self.methods)

    def entries(self, store: Store) -> dict[tuple[str, str], bytes]:
        """The ledger as it lies on disk, by step and fold."""
        return {(step, fold): bytes(entry) for step, fold, entry in _rows(store.path)}


def _rows(path: Path) -> list[tuple[str, str, bytes]]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.execute("SELECT step, fold, entry FROM ledger ORDER BY step, fold"))
    finally:
        connection.close()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The four hospitals of the demonstration, standardised from their exports."""
    base = tmp_path_factory.mktemp("four")
    demo.open_hospitals(base, lambda words: None)
    return Stage(base)
