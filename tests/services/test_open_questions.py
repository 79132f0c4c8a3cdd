"""An open question between real processes: three hospitals answer by themselves, the fourth asks its boards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opendp", reason="open questions need the extra 'budget'")

from dure.demo import offices
from dure.site import inbox
from dure.site.history import HistoryStore
from dure.study.spec import Open


def test_hospitals_that_offer_it_answer_without_their_boards(
    towns: Callable[..., Any], databases: dict[str, Path], services: Any
) -> None:
    town, (*offering, asking) = towns(), offices.HOSPITALS
    for name in offering:
        town.join(name, databases[name], open_feasibility={"epsilon_per_study": 1.0, "epsilon_per_month": 2.0})
    town.join(asking, databases[asking])
    small = services.small_study()
    step = small.steps[0].model_copy(update={"method": "feasibility", "parameters": {}, "scope": "all", "uses": ()})
    study = small.model_copy(update={"steps": (step,), "open": Open(epsilon=0.5)})
    with town.researcher() as alliance:
        alliance.submit(study)
        for name in offering:
            services.until(lambda name=name: inbox.own_permit(town.sites[name], study.hash), what=f"permit of {name}")
        assert inbox.own_permit(town.sites[asking], study.hash) is None
        town.permit(study, asking, grants=())
        town.finished(study)
        assert alliance.status(study.hash)["steps"] == {step.name: "finished"}
    for name in offices.HOSPITALS:
        store = HistoryStore(town.sites[name].folder / "history.db")
        ((spent,),) = store.rows("SELECT coalesce(sum(epsilon), 0) FROM charge")
        store.close()
        assert spent == (pytest.approx(0.5) if name in offering else 0)
