"""Between hospitals sums are masked; plain ones are used only where every permit lets parts be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dure.federation.plain_sum import PlainSum
from dure.federation.secure_sum.opening import SecureSum
from dure.hub.runs import run_study, summing_of
from dure.study.packing import unpack

SEEN = ("per_hospital", "difference", "visible_updates")
UNSEEN = SEEN[:2]


def played(stage: Any, folder: Path, seen: int) -> tuple[Any, Any, Any]:
    sites = stage.sites(folder)
    grants = {name: SEEN if place < seen else UNSEEN for place, name in enumerate(sites)}
    alliance = stage.join(folder, sites, stage.study("attrition", "model"), grants)
    wire = type(stage).__init__.__globals__["Wire"](alliance.engine)
    _, outcomes = run_study(alliance.store, alliance.study.hash, wire, stage.methods, name="run")
    return alliance, wire, outcomes


@pytest.mark.parametrize("seen", [0, 3, 4])
def test_one_permit_without_visible_updates_is_enough_to_mask_every_part(stage: Any, tmp_path: Path, seen: int) -> None:
    alliance, wire, outcomes = played(stage, tmp_path, seen)
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    plain = seen == len(alliance.sites)
    assert isinstance(summing_of(alliance.store, alliance.study.hash), PlainSum if plain else SecureSum)
    replies = [unpack(reply) for found in wire.replied.values() for reply in found]
    assert {reply.get("kind", "masked") for reply in replies} == ({"summary"} if plain else {"masked"})
    rules = {item.rules for item in outcomes["model"].left}
    assert rules == {("as_declared", "minimum_cohort", "minimum_hospitals")}


def test_masked_and_plain_sums_give_the_same_released_tables(stage: Any, tmp_path: Path) -> None:
    tables = []
    for seen in (0, 4):
        _, _, outcomes = played(stage, tmp_path / str(seen), seen)
        tables.append(outcomes["attrition"].folds[None].released.tables)
    assert all(tables[0][name].frame.equals(tables[1][name].frame) for name in tables[1])


def test_a_study_that_waits_for_an_hour_gives_each_exchange_an_hour(stage: Any, tmp_path: Path) -> None:
    from dure.study.spec import Quorum

    study = stage.study("attrition").model_copy(update={"quorum": Quorum(answer_within="1 hours")})
    alliance = stage.join(tmp_path, stage.sites(tmp_path), study)
    summing = summing_of(alliance.store, alliance.study.hash)
    assert isinstance(summing, SecureSum)
    assert summing.timeout == 3600
    assert set(summing.permits) == set(summing.roster) == set(alliance.sites)
