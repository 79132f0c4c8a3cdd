"""Between hospitals sums are masked; plain ones are used only where every permit lets parts be seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.client.frames import columns_of
from dure.client.simulate import _desk
from dure.federation import answer as answering
from dure.federation.kept import BuiltOn
from dure.federation.messages import Answer, Ask
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import Plan, plan_of
from dure.federation.secure_sum.exchange import read_question
from dure.federation.secure_sum.opening import SecureSum
from dure.guard.audit import AuditLog
from dure.guard.rules import DEFAULT
from dure.hub.runs import run_study, summing_of
from dure.site import inbox
from dure.site.runner import Runner
from dure.study.method import installed_methods
from dure.study.packing import unpack
from dure.study.result import Result, pack_result
from dure.study.spec import Step

M = installed_methods()
LOGISTIC = {"formula": "y ~ x", "family": "binomial"}
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


@pytest.mark.parametrize("bound", [False, True], ids=["twin", "ours"])
def test_a_sum_builds_on_the_same_earlier_answers_at_every_hospital(
    stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: bool
) -> None:
    """The hub asks one hospital alone to make a model inside, which needs no permission, and then all of them to sum
    over what it predicts: those who have no model add nothing. The twin forgets what answers build on."""
    own = Step(
        name="own",
        method="regression",
        scope="each",
        release=False,
        parameters={"formula": "disease ~ age", "family": "binomial"},
    )
    parameters = {"formula": "disease ~ own.prediction", "family": "binomial"}
    later = Step(name="later", method="regression", uses=("own",), parameters=parameters)
    study = stage.study("attrition").model_copy(update={"steps": (own, later)})
    sites = stage.sites(tmp_path)
    alliance = stage.join(tmp_path, sites, study, dict.fromkeys(sites, ()))
    if not bound:
        monkeypatch.setattr(BuiltOn, "digest", b"")

    class Lying:
        def ask(self, messages: Any, timeout: float) -> Any:
            questions = {name: read_question(message) for name, message in messages.items()}
            silent = {name for name, asked in questions.items() if isinstance(asked, Ask) and name != "Hungary"}
            nothing = pack_result(Result(method="regression"))
            said = {name: Answer(name, "result", result=nothing).to_bytes() for name in silent}
            return said | dict(alliance.engine.ask({n: m for n, m in messages.items() if n not in said}, timeout))

    summing, opened = summing_of(alliance.store, study.hash), []
    collect = summing.collect

    def kept(*given: Any) -> Any:
        opened.append(collect(*given))
        return opened[-1]

    monkeypatch.setattr(summing, "collect", kept)
    run_study(alliance.store, study.hash, Lying(), stage.methods, summing=summing)
    first = next(found for found in opened if not found.results)
    if bound:
        assert first.total is None
        assert "earlier rounds" in next(iter(first.errors.values())).text("en")
        return
    rows = alliance.runners["Hungary"].rows(study, plan_of(study, stage.methods))
    known = ~np.isnan(rows.numbers("age")) & ~np.isnan(rows.numbers("disease"))
    assert int(first.total["n"]) == known.sum()


def test_what_a_hospital_kept_of_the_round_before_is_part_of_what_was_asked() -> None:
    """One that was asked a round more than the others would answer from more than they do."""
    frames = {name: pl.DataFrame({"y": [0.0, 1.0] * 20, "x": [float(n) for n in range(40)]}) for name in "abc"}
    plan = Plan("study", (Step(name="m", method="regression", parameters={"formula": "y ~ x"}),), columns_of(frames), M)
    more, less = (_desk(name, frames[name], plan, DEFAULT, frozenset()) for name in "ab")
    first = Ask(
        "run", "study", "m", 0, ("a", "b", "c"), plan.method(plan.steps[0]).start(plan.question(plan.steps[0], ()))
    )
    later = replace(first, round=1)
    assert answering.part(later, more).built_on == answering.part(later, less).built_on
    answering.answer(first, more)
    assert answering.part(later, more).built_on != answering.part(later, less).built_on
    answering.answer(first, less)
    assert answering.part(later, more).built_on == answering.part(later, less).built_on
    other = replace(first, study="another study with a run of the same name")
    assert answering.part(replace(other, round=1), more).built_on != answering.part(later, more).built_on


@pytest.mark.parametrize("bound", [False, True], ids=["twin", "ours"])
def test_nothing_is_built_on_a_round_that_the_hospital_was_stopped_in(
    monkeypatch: pytest.MonkeyPatch, bound: bool
) -> None:
    """A hub can end a hospital's process, and would choose in this way who keeps something for later sums."""
    frame = pl.DataFrame({"y": [0.0, 1.0] * 20, "x": [float(n) for n in range(40)]})
    m = Step(name="m", method="regression", release=False, parameters=LOGISTIC)
    later = Step(name="later", method="regression", uses=("m",), parameters={"formula": "y ~ m.prediction"})
    plan = Plan("study", (m, later), columns_of({"a": frame}), M)
    desk, method = _desk("a", frame, plan, DEFAULT, frozenset()), plan.method(m)
    first = Ask("run", "study", "m", 0, ("a", "b", "c"), method.start(plan.question(m, ())))
    model = pack_result(Result(method="regression", portable={"beta": np.array([-1.0, 0.1])}))
    start = plan.method(later).start(plan.question(later, ()))
    asked = Ask("run", "study", "later", 0, ("a", "b", "c"), start, {"m": model})
    if not bound:
        monkeypatch.setattr(answering, "_all_there", lambda *_: None)

    def told(ask: Ask) -> Answer:
        return Answer.from_bytes(answering.answer(ask, desk))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stop:
        stop.setattr(type(method), "summarise", stopped)
        with pytest.raises(KeyboardInterrupt):
            told(first)
    for ask in (replace(first, round=1), asked):
        answer = told(ask)
        assert answer.kind == ("error" if bound else "summary")
        assert not bound or answer.error["code"] == ("step-skipped" if ask is asked else "numbers-withheld")
    assert told(first).kind == "summary"
    assert told(replace(first, round=1)).kind == told(asked).kind == "summary"


@pytest.mark.parametrize("bound", [False, True], ids=["twin", "ours"])
def test_the_hub_does_not_choose_at_which_hospitals_a_step_inside_has_a_result(
    monkeypatch: pytest.MonkeyPatch, bound: bool
) -> None:
    """A model inside each hospital builds on one that the hub names: with a step of few people it makes none, and a
    later sum has those hospitals alone whose people it fits."""
    frame = pl.DataFrame({"y": [0.0, 1.0] * 20, "x": [float(n) for n in range(40)]})
    m = Step(name="m", method="regression", release=False, parameters=LOGISTIC)
    inside = {"formula": "y ~ m.prediction", "family": "binomial"}
    own = Step(name="own", method="regression", scope="each", release=False, uses=("m",), parameters=inside)
    later = Step(name="later", method="regression", uses=("own",), parameters={"formula": "y ~ own.prediction"})
    plan = Plan("study", (m, own, later), columns_of({"a": frame}), M)
    if not bound:
        monkeypatch.setattr(answering, "_all_there", lambda *_: None)

    def models(step_at: float) -> bytes:
        beta = np.array([-1000.0 * step_at, 1000.0])
        return pack_result(Result(method="regression", portable={"beta": beta}))

    def people(of_own: bytes, of_later: bytes) -> int | str:
        desk = _desk("a", frame, plan, DEFAULT, frozenset())
        method = plan.method(m)
        answering.answer(Ask("run", "study", "m", 0, ("a", "b", "c"), method.start(plan.question(m, ()))), desk)
        alone = Ask("run", "study", "own", 0, ("a",), {}, {"m": of_own}, alone=True)
        assert Answer.from_bytes(answering.answer(alone, desk)).kind == "result"
        start = plan.method(later).start(plan.question(later, ()))
        asked = Ask("run", "study", "later", 0, ("a", "b", "c"), start, {"m": of_later, "own": None})
        answer = Answer.from_bytes(answering.answer(asked, desk))
        return int(answer.arrays["n"]) if answer.kind == "summary" else str(answer.error["code"])

    fits, none = models(19.5), models(36.5)
    assert people(fits, fits) == 40
    assert people(none, none) == ("step-skipped" if bound else 0)
    assert people(fits, none) == ("step-skipped" if bound else 40)


@pytest.mark.parametrize(("people", "says"), [(0, 0), (5, "minimum_cohort"), (40, "step-skipped")])
def test_a_hospital_with_nobody_or_a_few_ends_no_step_of_the_others(people: int, says: Any) -> None:
    """A step inside it that builds on another fails, as it should; there is nobody to be chosen in it."""
    frame = pl.DataFrame({"y": [0.0, 1.0] * 20, "x": [1.0] * 40})[:people]
    first = Step(name="first", method="regression", scope="each", release=False, parameters=LOGISTIC)
    inside = {"formula": "y ~ first.prediction", "family": "binomial"}
    second = Step(name="second", method="regression", scope="each", release=False, uses=("first",), parameters=inside)
    after = Step(name="after", method="regression", uses=("second",), parameters={"formula": "y ~ second.prediction"})
    plan = Plan("study", (first, second, after), columns_of({"a": frame}), M)
    desk = _desk("a", frame, plan, DEFAULT, frozenset())
    for step, told in ((first, {}), (second, {"first": None})):
        alone = Ask("run", "study", step.name, 0, ("a",), {}, told, alone=True)
        assert Answer.from_bytes(answering.answer(alone, desk)).kind == "result"
    start = plan.method(after).start(plan.question(after, ()))
    asked = Ask("run", "study", "after", 0, ("a", "b", "c"), start, {"first": None, "second": None})
    answer = Answer.from_bytes(answering.answer(asked, desk))
    found = answer.arrays["n"] if answer.kind == "summary" else answer.error["fields"].get("rule", answer.error["code"])
    assert found == says


@pytest.mark.parametrize(("method", "counted"), [("regression", "n"), ("meta_analysis", "people")])
def test_an_answer_is_not_repeated_once_it_would_build_on_more(method: str, counted: str) -> None:
    """Asked before it had a model of its own a hospital adds nothing; neither its store nor what its process remembers
    may say so again when it has one."""
    random = np.random.default_rng(1)
    x = random.normal(size=400)
    y = (random.random(400) < 1 / (1 + np.exp(-x))).astype(float)
    frame = pl.DataFrame({"y": y, "x": (x > 0).astype(float)})
    own = Step(name="own", method="regression", scope="each", release=False, parameters=LOGISTIC)
    asked: dict[str, Any] = {"formula": "y ~ own.prediction"}
    if method == "meta_analysis":
        asked = {"estimates": "own", "term": "x", "show": "totals", "tau2": "DL"}
    step = Step(name="later", method=method, uses=("own",), parameters=asked)
    names = ("a", "b", "c", "d")
    plan = Plan("study", (own, step), columns_of(dict.fromkeys(names, frame)), M)
    desk = _desk("a", frame, plan, DEFAULT, frozenset())
    state = plan.method(step).start(plan.question(step, names))
    later = Ask("run", "study", "later", 0, names, state, {"own": None})
    people = []
    for before in (None, Ask("run", "study", "own", 0, ("a",), alone=True)):
        if before is not None:
            assert Answer.from_bytes(answering.answer(before, desk)).kind == "result"
        said = Answer.from_bytes(answering.answer(later, desk))
        assert said.kind == "summary", said.error
        people.append(int(said.arrays[counted]))
    assert people == [0, 400]


def test_neither_the_log_nor_the_next_round_tells_whether_a_hospital_could_answer(tmp_path: Path) -> None:
    """The hub sees how many lines a log has, and what a round builds on. It chooses a scale at which the numbers of one
    hospital are beyond what a sum holds."""
    random = np.random.default_rng(2)
    x = random.normal(size=200)
    frame = pl.DataFrame({"y": (random.random(200) < 0.4).astype(float), "x": x})
    step = Step(name="m", method="regression", parameters=LOGISTIC)
    plan = Plan("study", (step,), columns_of({"a": frame}), M)
    lines, built_on = [], []
    for number, scale in enumerate((1.0, 2.0**120)):
        log = AuditLog(tmp_path / f"{number}.jsonl")
        desk = replace(_desk("a", frame, plan, DEFAULT, frozenset()), masked=True, audit=log)
        state = {"phase": "newton", "round": 1, "beta": [800.0, 0.0], "centre": [0.0, -scale]}
        asked = Ask("run", "study", "m", 1, ("a", "b", "c"), state)
        said = Answer.from_bytes(answering.part(asked, desk).answer())
        assert said.error.get("code") == ("sum-out-of-range" if scale > 1 else None)
        lines.append(log.count)
        later = answering.part(replace(asked, round=2), desk)
        built_on.append(later.built_on)
        assert later.chosen
    assert lines == [1, 1]
    same = answering.part(replace(asked, round=2, state={**state, "round": 2}), desk)
    assert same.built_on == built_on[1]
    assert built_on[1] != answering.part(asked, _desk("a", frame, plan, DEFAULT, frozenset())).built_on


def test_a_step_that_stays_inside_is_not_asked_as_a_sum_nor_the_other_way_round(stage: Any, tmp_path: Path) -> None:
    own = stage.study("model").steps[0].model_copy(update={"name": "own", "scope": "each", "release": False})
    every = stage.study("attrition").steps[0]
    study = stage.study("attrition").model_copy(update={"steps": (own, every)})
    alliance = stage.join(tmp_path, stage.sites(tmp_path), study)
    runner = alliance.runners["Hungary"]
    asks = [
        (Ask("run", study.hash, "own", 0, ("Hungary",), alone=True), None),
        (Ask("run", study.hash, "own", 0, ("Hungary",)), "permit-error"),
        (Ask("run", study.hash, "own", 0, (), alone=True), "permit-error"),
        (Ask("run", study.hash, "own", 0, ("Hungary",), own={"other": b"x"}, alone=True), "permit-error"),
        (Ask("run", study.hash, "own", 0, ("Hungary",), results={"other": b"x"}, alone=True), "permit-error"),
        (Ask("run", study.hash, "own", 0, ("Hungary", "Cleveland"), alone=True), "permit-error"),
        (Ask("run", study.hash, every.name, 0, ("Hungary",), alone=True), "permit-error"),
        (Ask("run", study.hash, every.name, 0, ("Hungary",), fold="Cleveland"), "permit-error"),
    ]
    for asked, code in asks:
        said = Answer.from_bytes(runner.answer(asked.to_bytes()))
        assert said.error.get("code") == code, asked


def test_an_earlier_step_that_tells_hospitals_apart_needs_their_permits_for_later_ones_too(
    stage: Any, tmp_path: Path
) -> None:
    """The step itself was refused. Its result is the hub's word in the next: a coefficient of `site` that makes one
    hospital's people differ from all others."""
    apart = (
        stage.study("model")
        .steps[0]
        .model_copy(
            update={"name": "apart", "parameters": {"formula": "disease ~ age + C(site)", "family": "binomial"}}
        )
    )
    later = Step(name="later", method="table_one", uses=("apart",), parameters={"variables": ["apart.prediction"]})
    study = stage.study("attrition").model_copy(update={"steps": (apart, later)})
    sites = stage.sites(tmp_path)
    for granted in ((), ("per_hospital",)):
        site = sites["Hungary"]
        inbox.receive(site, study)
        inbox.permit(site, study.hash, stage.methods, ("visible_updates", *granted))
        names = tuple(sites)
        plan = plan_of(study, stage.methods)
        state = plan.method(later).start(plan.question(later, names))
        asked = Ask("run", study.hash, "later", 0, names, state, {"apart": None})
        said = Answer.from_bytes(Runner(site, stage.methods).answer(asked.to_bytes()))
        assert said.error.get("fields", {}).get("rule") == (None if granted else "per_hospital_permit")


def test_a_study_that_waits_for_an_hour_gives_each_exchange_an_hour(stage: Any, tmp_path: Path) -> None:
    from dure.study.spec import Quorum

    study = stage.study("attrition").model_copy(update={"quorum": Quorum(answer_within="1 hours")})
    alliance = stage.join(tmp_path, stage.sites(tmp_path), study)
    summing = summing_of(alliance.store, alliance.study.hash)
    assert isinstance(summing, SecureSum)
    assert summing.timeout == 3600
    assert set(summing.permits) == set(summing.roster) == set(alliance.sites)
