"""Four hospitals and a hub on one machine: exports, standardisation, joining, review and permits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dure.demo import offices
from dure.errors import InvalidDocument
from dure.federation.local_engine import LocalEngine
from dure.guard.permissions import owner
from dure.hub import releases, studies
from dure.hub.store import Store
from dure.language import Words
from dure.site import inbox
from dure.site.runner import Runner
from dure.site.settings import Site, create_site
from dure.standardise.load import LoadReport
from dure.study.method import Methods
from dure.study.permit import Grant
from dure.study.spec import Study, read_study

Say = Callable[[Words], None]
NETWORK = "network"
WRITTEN = ("exports", "hospitals", "seven", "hub", "researcher", "services", "people.tsv", "report.html", "result.json")
"""What the demonstration writes into its folder, and all that it replaces there."""


@dataclass
class Alliance:
    """The hub's store, the hospitals' sites and runners, and the study they were asked to permit."""

    store: Store
    sites: dict[str, Site]
    runners: dict[str, Runner]
    study: Study
    methods: Methods

    @property
    def engine(self) -> LocalEngine:
        return LocalEngine({name: runner.answer for name, runner in self.runners.items()})


def demo_study(methods: Methods) -> Study:
    """The demonstration's study; without the steps that build on the network where its package is absent."""
    study = read_study(offices.STUDY)
    if NETWORK in methods:
        return study
    absent = {step.name for step in study.steps if step.method == NETWORK}
    kept = tuple(step for step in study.steps if step.name not in absent and not absent & set(step.uses))
    return study.model_copy(update={"steps": kept})


def open_hospitals(folder: Path, say: Say) -> tuple[dict[str, Site], dict[str, LoadReport]]:
    """Each IT office exports, each hospital standardises into its own database and makes its own key."""
    _clear(folder)
    exports = offices.write_exports(folder / "exports")
    sites: dict[str, Site] = {}
    reports: dict[str, LoadReport] = {}
    for hospital in offices.HOSPITALS:
        office = offices.office_of(hospital)
        site = create_site(folder / "hospitals" / office.slug, hospital)
        reports[hospital] = report = offices.build_database(hospital, exports[hospital], site.database)
        site.audit.append("standardised", file=office.file, rows=report.rows_read)
        sites[hospital] = site
        people = report.rows_read
        say(
            Words(f"{hospital}: {office.file} → OMOP, {people} people", f"{hospital}: {office.file} → OMOP, {people}명")
        )
    return sites, reports


def _clear(folder: Path) -> None:
    """Remove an earlier demonstration; raises InvalidDocument where the folder holds anything else."""
    found = sorted(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
    strange = next((path for path in found if path.name not in WRITTEN or path == folder), None)
    if strange is not None:
        problem = Words(
            f"It holds '{strange.name}', which the demonstration did not write and will not delete",
            f"시연이 쓰지 않은 '{strange.name}'이(가) 있어 지우지 않습니다",
        )
        hint = Words("Choose an empty folder: dure demo --folder NAME", "빈 폴더를 고르십시오: dure demo --folder 이름")
        raise InvalidDocument(path=folder, line=1, field="folder", problem=problem, hint=hint)
    for path in found:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def join(folder: Path, sites: dict[str, Site], methods: Methods, study: Study) -> Alliance:
    """The hub opens its store, hospitals hand over their public keys, the study is submitted and delivered."""
    store = Store(folder / "hub" / "hub.db")
    for name, site in sites.items():
        store.add_hospital(name, site.public_key())
    studies.submit(store, study, methods)
    for site in sites.values():
        inbox.receive(site, study)
    return Alliance(store, sites, {name: Runner(site, methods) for name, site in sites.items()}, study, methods)


def permit(
    alliance: Alliance,
    hospital: str,
    grants: tuple[Grant, ...] = ("per_hospital", "difference"),
    at_hub: bool = True,
) -> None:
    """One hospital reviews and signs; the hub checks the signature, here or when the hospital's service hands it in."""
    envelope = inbox.permit(alliance.sites[hospital], alliance.study.hash, alliance.methods, grants)
    if at_hub:
        studies.receive_permit(alliance.store, alliance.study.hash, hospital, envelope)


def release(alliance: Alliance) -> None:
    """The hub of the demonstration has no accounts: whoever holds its folder decides alone, and the record says so."""
    waits = releases.waiting(alliance.store, alliance.study.hash, alliance.methods)
    office = owner("office")
    releases.decide(alliance.store, alliance.study.hash, office, waits.digest, True, alliance.methods)
