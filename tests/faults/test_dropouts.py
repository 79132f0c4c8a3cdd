"""A hospital that drops out in the middle of a masked sum: the run waits and ends as if nothing had happened, or
goes on without it where the study says so, with the sum that was under way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dure.federation.engine import Failure
from dure.federation.secure_sum.exchange import STAGES, Exchange, read_question
from dure.hub import studies
from dure.hub.runs import run_study
from dure.study.packing import unpack
from dure.study.result import pack_result
from dure.study.spec import Quorum

STEPS = ("attrition", "table_one", "model")
LOST = "Switzerland"


class Cut:
    """An engine that loses one hospital's line at one stage of one sum: before it is asked, or before it is heard."""

    def __init__(self, engine: Any, at: tuple[str, int, str], heard: bool, ever: bool = False) -> None:
        self.engine, self.at, self.heard, self.ever = engine, at, heard, ever
        self.cut, self.stages = False, []

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        asked = {name: read_question(message) for name, message in messages.items()}
        first = next(iter(asked.values()))
        assert isinstance(first, Exchange)
        self.stages.append((first.step, first.round, first.stage))
        now = self.stages[-1] == self.at
        self.cut = self.cut or (now and self.ever)
        gone = {LOST} & set(messages) if now or self.cut else set()
        reached = messages if gone and not self.heard else {n: m for n, m in messages.items() if n not in gone}
        replies = dict(self.engine.ask(reached, timeout))
        return replies | dict.fromkeys(gone, Failure("the line is cut"))


def go(alliance: Any, engine: Any) -> dict[str, Any]:
    _, outcomes = run_study(alliance.store, alliance.study.hash, engine, alliance.methods, name="run")
    return dict(outcomes)


def results(alliance: Any, stage: Any) -> dict[Any, Any]:
    entries = {place: unpack(entry) for place, entry in stage.entries(alliance.store).items() if place[0]}
    return {place: (entry["result"], entry["hospitals"], entry["round"]) for place, entry in entries.items()}


@pytest.fixture(scope="module")
def undisturbed(stage: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    alliance = stage.alliance(folder, *STEPS)
    assert {outcome.status for outcome in go(alliance, alliance.engine).values()} == {"finished"}
    return results(alliance, stage)


@pytest.mark.parametrize("heard", [True, False], ids=["not-asked", "not-heard"])
@pytest.mark.parametrize("at", STAGES)
def test_a_dropout_at_any_stage_changes_no_number(
    stage: Any, undisturbed: dict[Any, Any], tmp_path: Path, at: str, heard: bool
) -> None:
    """Keys and shares are agreed once, in the first sum; later stages are cut in the model's. The line is back when the
    run resumes."""
    alliance = stage.alliance(tmp_path, *STEPS)
    engine = Cut(alliance.engine, ("attrition" if at in ("keys", "shares") else "model", 0, at), heard)
    outcomes = go(alliance, engine)
    statuses = {outcome.status for outcome in outcomes.values()}
    if at in ("set", "reveal"):
        assert statuses == {"finished"}  # the other three open the sum, its numbers in it
    else:
        assert "waiting" in statuses
        waits = [outcome.folds[None].error for outcome in outcomes.values() if outcome.status == "waiting"]
        assert all(LOST in error.text("en") for error in waits)
    again = alliance if statuses == {"finished"} else stage.reopen(alliance, tmp_path)
    if again is not alliance:
        assert {outcome.status for outcome in go(again, again.engine).values()} == {"finished"}
    assert results(again, stage) == undisturbed


@pytest.mark.parametrize("heard", [True, False], ids=["not-asked", "not-heard"])
def test_the_sum_under_way_is_opened_without_it_where_the_study_goes_on(
    stage: Any, tmp_path: Path, heard: bool
) -> None:
    """It is gone for good when the first numbers of the model are asked for; the study waits an hour for nobody."""
    quorum = Quorum(at_least=3, answer_within="1 hours")
    study = stage.study(*STEPS).model_copy(update={"quorum": quorum})
    alliance = stage.join(tmp_path / "four", stage.sites(tmp_path / "four"), study)
    engine = Cut(alliance.engine, ("model", 0, "vector"), heard, ever=True)
    outcomes = go(alliance, engine)
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    assert LOST not in outcomes["model"].hospitals
    assert [stage for *at, stage in engine.stages if at == ["model", 0]] == ["vector", "set", "reveal"]
    assert {item.hospital for item in outcomes["model"].left} == set(alliance.sites) - {LOST}

    three = stage.join(tmp_path / "three", stage.sites(tmp_path / "three"), study, dict.fromkeys(alliance.sites, ()))
    for name in alliance.sites:
        if name == LOST:
            studies.receive_permit(three.store, study.hash, name, None)
        else:
            stage.sign_again(three, name, ("per_hospital", "difference"))
    expected = go(three, three.engine)
    found, wanted = (pack_result(one["model"].folds[None].released) for one in (outcomes, expected))
    assert found == wanted


def test_without_the_permission_for_differences_the_run_waits_instead(stage: Any, tmp_path: Path) -> None:
    """The first two steps were summed with it; a sum without it would show it."""
    study = stage.study(*STEPS).model_copy(update={"quorum": Quorum(at_least=3, answer_within="1 hours")})
    sites = stage.sites(tmp_path)
    grants = {name: ("per_hospital",) if name == LOST else ("per_hospital", "difference") for name in sites}
    alliance = stage.join(tmp_path, sites, study, grants)
    engine = Cut(alliance.engine, ("model", 0, "vector"), True, ever=True)
    outcomes = go(alliance, engine)
    error = outcomes["model"].folds[None].error
    assert (outcomes["model"].status, error.code(), error.hospitals) == ("waiting", "run-waits", [LOST])
    assert [stage for step, _, stage in engine.stages if step == "model"] == ["vector"]
