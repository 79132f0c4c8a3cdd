"""S(all) − S(all but one) is one hospital's own sums: whoever opens both needs that hospital's `difference`."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dure.errors import RunWaits
from dure.federation.engine import Engine, Failure
from dure.federation.local_engine import LocalEngine
from dure.hub import studies
from dure.hub.runs import run_study
from dure.site import inbox
from dure.study.method import installed_methods

BOTH: tuple[Any, ...] = ("per_hospital", "difference")
LEAVE_ONE_OUT = {"name": "count", "method": "feasibility", "parameters": {"by": ["secret"]}, "scope": "all_but_one"}
LATER = {"name": "later", "method": "feasibility", "parameters": {"by": ["sex"]}}
QUORUM = {"at_least": 3, "answer_within": "1 second"}


@pytest.fixture
def alliance(made: types.ModuleType, tmp_path: Path) -> Any:
    return made.Alliance(tmp_path, [120, 120, 120, 120])


def everybody(alliance: Any, *grants: Any) -> dict[str, tuple[Any, ...]]:
    return dict.fromkeys(alliance.hospitals, grants)


def waits_for(outcome: Any) -> list[str]:
    error = next(iter(outcome.folds.values())).error
    assert isinstance(error, RunWaits), error
    assert error.grant == "difference"
    return error.hospitals


def total(outcome: Any, fold: str | None = None) -> int:
    """People in the working total, which the hub's process sees."""
    return int(outcome.folds[fold].working.tables["attrition"].frame["persons"][-1])


def test_leaving_each_hospital_out_opens_their_sums_and_needs_their_permission(
    made: types.ModuleType, alliance: Any
) -> None:
    steps = [{**made.COUNT, "name": "whole"}, LEAVE_ONE_OUT]
    _, outcomes = alliance.ask(made.study(steps=steps), grants=everybody(alliance, *BOTH))  # the twin
    for name, hospital in alliance.hospitals.items():
        assert total(outcomes["whole"]) - total(outcomes["count"], name) == len(hospital.people)
    _, outcomes = alliance.ask(
        made.study(steps=steps, title="without"),
        grants=everybody(alliance, *BOTH) | {"h2": ("per_hospital",)},
    )
    assert waits_for(outcomes["count"]) == ["h2"]


@pytest.mark.parametrize("granted", [True, False], ids=["twin", "ours"])
def test_a_second_study_with_one_hospital_fewer(made: types.ModuleType, alliance: Any, granted: bool) -> None:
    grants = everybody(alliance, *BOTH) if granted else None
    _, first = alliance.ask(made.study(), grants=grants)
    _, second = alliance.ask(made.study(title="once more"), "somebody else", grants, without=["h3"])
    if granted:
        assert total(first["count"]) - total(second["count"]) == 120
        return
    assert waits_for(second["count"]) == ["h3"]
    assert second["count"].folds[None].working is None


def test_a_second_study_with_one_hospital_more(made: types.ModuleType, alliance: Any) -> None:
    alliance.ask(made.study(), without=["h3"])
    _, second = alliance.ask(made.study(title="once more"))
    assert waits_for(second["count"]) == ["h3"]


def test_a_second_study_of_other_people_is_no_difference(made: types.ModuleType, alliance: Any) -> None:
    alliance.ask(made.study())
    women = {"name": made.WORDS, "sex": [made.FEMALE]}
    _, second = alliance.ask(made.study(women), without=["h3"])
    assert second["count"].status == "finished"


class Cut:
    """An engine that loses a hospital when a step is asked."""

    def __init__(self, engine: Engine, away: str, step: bytes) -> None:
        self.engine, self.away, self.step = engine, away, step

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        away = {name for name, message in messages.items() if name == self.away and self.step in message}
        here = {name: message for name, message in messages.items() if name not in away}
        return {**self.engine.ask(here, timeout), **{name: Failure("away") for name in away}}


@pytest.mark.parametrize("granted", [True, False], ids=["twin", "ours"])
def test_a_hospital_that_drops_out_between_two_steps(made: types.ModuleType, alliance: Any, granted: bool) -> None:
    asked = made.study(steps=[made.COUNT, {**LATER, "parameters": {"by": ["secret"]}}], quorum=QUORUM)
    propose(alliance, asked, BOTH if granted else ())
    engine = LocalEngine({name: hospital.runner.answer for name, hospital in alliance.hospitals.items()})
    _, outcomes = run_study(alliance.store, asked.hash, Cut(engine, "h1", b"later"), installed_methods())
    if granted:
        assert total(outcomes["count"]) - total(outcomes["later"]) == 120
        return
    assert waits_for(outcomes["later"]) == ["h1"]


@pytest.mark.parametrize("granted", [True, False])
def test_a_hospital_that_withdraws_between_two_steps(made: types.ModuleType, alliance: Any, granted: bool) -> None:
    """Whatever its permit granted lapses with the permit, so the run waits for it either way."""
    asked = made.study(steps=[made.COUNT, LATER])
    propose(alliance, asked, BOTH if granted else ())
    engine = LocalEngine({name: hospital.runner.answer for name, hospital in alliance.hospitals.items()})
    run_study(alliance.store, asked.hash, Cut(engine, "h1", b"later"), installed_methods())
    inbox.decline(alliance.hospitals["h1"].site, asked.hash)
    studies.receive_permit(alliance.store, asked.hash, "h1", None)
    _, outcomes = alliance.run(asked)
    assert waits_for(outcomes["later"]) == ["h1"]
    assert outcomes["later"].folds[None].working is None


def propose(alliance: Any, asked: Any, grants: tuple[Any, ...]) -> None:
    studies.submit(alliance.store, asked, installed_methods(), "somebody")
    for name, hospital in alliance.hospitals.items():
        hospital.receive(asked, "somebody", grants)
        studies.receive_permit(alliance.store, asked.hash, name, inbox.own_permit(hospital.site, asked.hash))


def test_the_difference_of_two_totals_is_that_hospitals_counts(made: types.ModuleType, alliance: Any) -> None:
    """What the twin's hub reads: not a size only, but every count of the hospital."""
    steps = [{**made.COUNT, "name": "whole"}, LEAVE_ONE_OUT]
    _, outcomes = alliance.ask(made.study(steps=steps), grants=everybody(alliance, *BOTH))
    whole, rest = (
        found.working.tables["by_secret"].frame["n"].to_numpy()
        for found in (outcomes["whole"].folds[None], outcomes["count"].folds["h0"])
    )
    secret = alliance.hospitals["h0"].secret
    assert np.array_equal(whole - rest, [(~secret).sum(), secret.sum()])
