"""The worked study from invented hospitals to files: python examples/new_users/run.py [FOLDER]

Builds the hospitals' databases, lets every hospital permit the study, runs it over all of them in this process as an
alliance would, and writes tables, `result.json` and `result.html`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import hospitals

from dure.client.alliance import write
from dure.demo import alliance as stage
from dure.federation.ledger import Outcome
from dure.hub import desk
from dure.hub.runs import run_study
from dure.site.settings import create_site
from dure.study.method import installed_methods
from dure.study.result import unpack_result
from dure.study.spec import read_study

HERE = Path(__file__).parent


def run(folder: Path) -> Mapping[str, Outcome]:
    """What became of each step; files are in `folder / "results"`."""
    shutil.rmtree(folder, ignore_errors=True)
    databases = hospitals.build(folder / "databases")
    sites = {}
    for name, database in databases.items():
        sites[name] = create_site(folder / "sites" / name, name)
        shutil.copy(database, sites[name].database)
    methods, study = installed_methods(), read_study(HERE / "study.yaml")
    alliance = stage.join(folder, sites, methods, study)
    for name in sites:
        stage.permit(alliance, name, ("per_hospital",))
    _, outcomes = run_study(alliance.store, study.hash, alliance.engine, methods)
    waiting = [
        fold.error for outcome in outcomes.values() for fold in outcome.folds.values() if fold.status == "waiting"
    ]
    if waiting and waiting[0] is not None:
        raise waiting[0]
    stage.release(alliance)
    fetched = desk.released(alliance.store, study.hash, methods)
    for step in fetched["steps"].values():
        for fold in step["folds"]:
            fold["result"] = unpack_result(fold["result"]) if fold["result"] else None
    write(fetched, folder / "results")
    return outcomes


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "new_users")
    for name, outcome in run(out).items():
        print(f"{name}: {outcome.status}")
    print(out / "results" / "result.html")
