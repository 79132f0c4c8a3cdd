"""Arrays of 40 MB and more between processes: in parts, over a line that is cut in the middle, bit-equal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dure.demo import alliance as demo
from dure.hub.runs import run_study
from dure.site.settings import create_site
from dure.study.method import installed_methods
from dure.study.packing import unpack
from dure.study.result import unpack_result
from dure.study.spec import Step

PARAMETERS = {
    "outcome": "disease",
    "inputs": ["age", "sex", "chest_pain", "pressure", "heart_rate", "exercise_angina", "st_depression"],
    "hidden": [2500, 2000],
    "rounds": 2,
    "learning_rate": 0.01,
}


@pytest.mark.slow
def test_a_network_of_40_megabytes_over_a_line_that_is_cut(
    towns: Callable[..., Any], databases: dict[str, Path], services: Any, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'learning'")
    step = Step(name="net", method="training", parameters=PARAMETERS, release=False)
    study = services.small_study(("attrition",)).model_copy(update={"steps": (step,)})
    expected = inside(study, databases, tmp_path)
    assert sum(array.nbytes for array in arrays(expected)) > 40e6

    town = towns(patience=20)
    for name, database in databases.items():
        proxy = town.proxy() if name == "Hungary" else None
        town.join(name, database, proxy=proxy)
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        services.until(lambda: len(town.events(study, "round")) >= 2, 120, "the rounds before training")
        threading.Timer(1.0, town.proxies[0].cut, (4.0, False)).start()
        town.finished(study, 400)
    (run,) = town.store.runs(study.hash)
    entry = town.store.ledger(run).read("net", None)
    found = unpack_result(unpack(entry)["result"]).portable
    assert [array.tobytes() for array in arrays(found)] == [array.tobytes() for array in arrays(expected)]


@pytest.mark.slow
def test_a_part_that_takes_longer_than_the_hubs_patience(
    towns: Callable[..., Any], databases: dict[str, Path], services: Any, tmp_path: Path
) -> None:
    """A line of 100 kB a second, where a part of 2 MiB takes twice the time after which silence counts as away."""
    pytest.importorskip("torch", reason="training needs the extra 'learning'")
    parameters = {**PARAMETERS, "hidden": [800, 700], "rounds": 1}
    step = Step(name="net", method="training", parameters=parameters, release=False)
    study = services.small_study(("attrition",)).model_copy(update={"steps": (step,)})
    expected = inside(study, databases, tmp_path)
    town = towns(patience=10)
    for name, database in databases.items():
        town.join(name, database, proxy=town.proxy(rate=100_000) if name == "Hungary" else None)
    with town.researcher() as alliance:
        alliance.submit(study)
        town.permit(study)
        town.finished(study, 400)
    assert not town.events(study, "waiting"), "a slow line is no silence"
    (run,) = town.store.runs(study.hash)
    entry = town.store.ledger(run).read("net", None)
    found = unpack_result(unpack(entry)["result"]).portable
    assert [array.tobytes() for array in arrays(found)] == [array.tobytes() for array in arrays(expected)]


def inside(study: Any, databases: dict[str, Path], folder: Path) -> dict[str, Any]:
    """The same study inside one process."""
    sites = {}
    for place, (name, database) in enumerate(databases.items()):
        sites[name] = create_site(folder / f"h{place}", name)
        sites[name].database.write_bytes(database.read_bytes())
    alliance = demo.join(folder / "inside", sites, installed_methods(), study)
    for name in sites:
        demo.permit(alliance, name)
    _, outcomes = run_study(alliance.store, study.hash, alliance.engine, installed_methods())
    alliance.store.close()
    working = outcomes["net"].folds[None].working
    assert working is not None, outcomes["net"].folds[None].error
    return dict(working.portable)


def arrays(value: Any) -> list[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [array for item in inner for array in arrays(item)]
