"""The release queue: context first, two people, exactly what they read, and what a withdrawal takes out of it."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dure.cli import release
from dure.cli.screen import show_error, show_table
from dure.errors import DecisionRefused, LedgerBroken, LifecycleError, NotPermitted
from dure.guard.permissions import Actor, owner
from dure.hub import desk, releases, studies
from dure.hub.runs import run_study
from dure.language import Words
from dure.site import inbox

OFFICE = Actor("office", "office", "Alliance")
BOARD = Actor("board", "drb", "Hungary")
ASKER = Actor("Researcher", "researcher", "Researcher")
CONTEXT = {
    "contents": "Numbers of people at each step of selection, in all hospitals together.",
    "use": "A first table for a paper; readers are the authors and reviewers.",
}


@pytest.fixture
def ran(stage: Any, tmp_path: Path) -> Any:
    """A study that waits for release; its proposer is the researcher."""
    sites = stage.sites(tmp_path)
    alliance = stage.join(tmp_path, sites, stage.study("attrition", "table_one"))
    alliance.store._database.write("UPDATE study SET submitter = 'Researcher'")
    run_study(alliance.store, alliance.study.hash, alliance.engine, stage.methods)
    return alliance


def waits(alliance: Any) -> releases.Waiting:
    return releases.waiting(alliance.store, alliance.study.hash, alliance.methods)


def decide(alliance: Any, actor: Actor, approves: bool = True, said: str = "", digest: str = "") -> str:
    chosen = digest or waits(alliance).digest
    return releases.decide(alliance.store, alliance.study.hash, actor, chosen, approves, alliance.methods, said)


def test_two_people_release_what_the_proposer_asked_for(ran: Any) -> None:
    with pytest.raises(DecisionRefused, match="not asked for release"):
        decide(ran, OFFICE)
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    assert [item.study for item in releases.queue(ran.store, ran.methods, OFFICE)] == [ran.study.hash]
    assert decide(ran, OFFICE) == "release_review"
    assert decide(ran, OFFICE) == "release_review"  # the same person twice is one person
    assert decide(ran, BOARD) == "released"
    fetched = desk.released(ran.store, ran.study.hash, ran.methods)
    assert {one["name"] for one in fetched["release"]["approved_by"]} == {"office", "board"}
    assert fetched["release"]["context"] == CONTEXT
    with pytest.raises(LifecycleError):
        waits(ran)


@pytest.mark.parametrize("part", list(releases.CONTEXT))
def test_a_request_says_what_it_shows_and_what_for(ran: Any, part: str) -> None:
    with pytest.raises(DecisionRefused, match=part):
        releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT | {part: "please"})


STEERING = ["\x1b[8m", "\u202e", "\x9b2J", "\x07"]
"""Hides what follows, turns it around, clears the screen, rings."""


@pytest.mark.parametrize("part", list(releases.CONTEXT))
def test_a_request_holds_nothing_that_steers_a_readers_terminal(ran: Any, part: str) -> None:
    for letters in STEERING:
        with pytest.raises(DecisionRefused, match=f"`{part}`"):
            releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT | {part: CONTEXT[part] + letters})
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT | {part: CONTEXT[part] + "\n둘째 줄"})


def test_what_others_say_is_shown_without_what_steers_a_terminal(ran: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Reasons of errors come from hospitals, names from accounts."""
    bad = "".join(STEERING)
    item = dataclasses.replace(
        waits(ran),
        left_out={"model": Words(f"one{bad}two", f"one{bad}two")},
        decisions=({"name": f"one{bad}two", "organisation": "x", "role": "owner", "approves": True},),
    )
    release._print(item)
    show_error(DecisionRefused(problem=Words(f"one{bad}two", f"one{bad}two")))
    show_table("title", pl.DataFrame({"reason": [f"one{bad}two"]}), {})
    said = "".join(capsys.readouterr())
    assert said.count("one[8m2Jtwo") == 4
    assert not any(letter in said for letter in "\x1b\u202e\x9b\x07")


def test_nobody_decides_on_their_own_study_and_a_refusal_has_reasons(ran: Any) -> None:
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    for actor in (Actor("friend", "drb", "Researcher"), Actor("Researcher", "office", "Alliance")):
        with pytest.raises(DecisionRefused, match="own"):
            decide(ran, actor)
    for actor in (
        ASKER,
        Actor("c", "company", "Company"),
        Actor("s", "steward", "Hungary"),
        Actor("a", "auditor", "A"),
    ):
        with pytest.raises(NotPermitted):
            decide(ran, actor)
    with pytest.raises(NotPermitted):
        releases.ask(ran.store, ran.study.hash, Actor("x", "researcher", "Somebody"), CONTEXT)
    with pytest.raises(DecisionRefused, match="no reason"):
        decide(ran, OFFICE, approves=False)
    assert decide(ran, OFFICE, approves=False, said="Rows of one hospital can be told apart.") == "declined"
    with pytest.raises(LifecycleError):
        desk.released(ran.store, ran.study.hash, ran.methods)


def test_an_approval_is_of_exactly_what_was_read(ran: Any) -> None:
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    read = waits(ran).digest
    decide(ran, OFFICE)
    site = ran.sites["Hungary"]
    inbox.withdraw(site, ran.study.hash)
    given = inbox.answer_of(site, ran.study.hash)
    assert given is not None
    studies.receive_answer(ran.store, ran.study.hash, "Hungary", given.kind, given.envelope, given.said)
    item = waits(ran)
    assert item.digest != read
    assert set(item.left_out) == {"attrition", "table_one"}  # Hungary's people are part of both
    assert item.approvals == 0
    with pytest.raises(DecisionRefused, match="not what was decided"):
        decide(ran, BOARD, digest=read)


def test_an_approval_names_the_whole_digest(ran: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Two contexts whose digests share eight digits are found in seconds: one is read, the other approved."""
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    item = waits(ran)
    release._print(item)
    assert item.digest in capsys.readouterr().out  # not broken into lines
    for part in (item.digest[:15], item.digest[:-1], item.digest.removeprefix("sha256:")[:63]):
        with pytest.raises(DecisionRefused, match="whole digest"):
            decide(ran, OFFICE, digest=part)
    assert waits(ran).approvals == 0
    decide(ran, OFFICE, digest=item.digest.removeprefix("sha256:"))
    assert waits(ran).approvals == 1


def test_an_approval_is_of_the_context_that_was_read(ran: Any) -> None:
    """Else the proposer could say something else of the tables between two approvals, under both names."""
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    read = waits(ran).digest
    decide(ran, OFFICE)
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT | {"use": "for advertising it to the patients of Hungary"})
    assert waits(ran).approvals == 0
    with pytest.raises(DecisionRefused, match="not what was decided"):
        decide(ran, BOARD, digest=read)
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)  # what was approved is said again
    assert waits(ran).approvals == 1
    assert decide(ran, BOARD, digest=read) == "released"
    ran.store.put_release_request(ran.study.hash, {"use": "other words"}, "x", "x")
    assert desk.released(ran.store, ran.study.hash, ran.methods)["release"]["context"] == CONTEXT


def test_one_study_that_cannot_be_read_hides_no_other(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    stored, read = ran.store.studies(), releases.waiting
    monkeypatch.setattr(ran.store, "studies", lambda: [("sha256:" + "0" * 64, "{}", "release_review"), *stored])

    def waiting(store: Any, hash_: str, methods: Any) -> Any:
        if hash_.startswith("sha256:0"):
            raise TypeError("a list where a dict should be")
        return read(store, hash_, methods)

    monkeypatch.setattr(releases, "waiting", waiting)
    assert [item.study for item in releases.queue(ran.store, ran.methods, OFFICE)] == [ran.study.hash]


def test_a_hospital_that_leaves_may_leave_its_part_in_the_results(ran: Any) -> None:
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    read = waits(ran).digest
    site = ran.sites["Hungary"]
    inbox.withdraw(site, ran.study.hash, keep_results=True)
    given = inbox.answer_of(site, ran.study.hash)
    assert given is not None
    studies.receive_answer(ran.store, ran.study.hash, "Hungary", given.kind, given.envelope, given.said)
    assert waits(ran).digest == read


def test_a_hidden_step_with_a_hospital_that_left_takes_with_it_what_builds_on_it(stage: Any, tmp_path: Path) -> None:
    """Hungary leaves between a model that is shown to nobody and its validation, which the others answer alone."""
    sites, study = stage.sites(tmp_path), stage.study("model", "validation")
    hidden = study.step("model").model_copy(update={"release": False})
    quorum = study.quorum.model_copy(update={"answer_within": "1 second"})
    study = study.model_copy(update={"steps": (hidden, study.step("validation")), "quorum": quorum})
    alliance = stage.join(tmp_path, sites, study, dict.fromkeys(sites, (*stage_grants(), "visible_updates")))

    def leave(event: str, details: Any) -> None:
        if event == "step" and details["step"] == "validation":
            inbox.withdraw(sites["Hungary"], study.hash, difference=True)
            given = inbox.answer_of(sites["Hungary"], study.hash)
            assert given is not None
            studies.receive_answer(alliance.store, study.hash, "Hungary", given.kind, given.envelope, given.said)

    _, outcomes = run_study(alliance.store, study.hash, alliance.engine, stage.methods, progress=leave)
    assert [outcome.status for outcome in outcomes.values()] == ["finished", "finished"]
    assert "Hungary" not in outcomes["validation"].hospitals
    assert set(waits(alliance).left_out) == {"model", "validation"}
    assert waits(alliance).shown == {}


def test_a_withdrawal_after_release_is_told_and_changes_nothing(ran: Any) -> None:
    decide(ran, owner("hub"))
    before = desk.released(ran.store, ran.study.hash, ran.methods)
    site = ran.sites["Switzerland"]
    inbox.withdraw(site, ran.study.hash)
    given = inbox.answer_of(site, ran.study.hash)
    assert given is not None
    studies.receive_answer(ran.store, ran.study.hash, "Switzerland", given.kind, given.envelope, given.said)
    after = desk.released(ran.store, ran.study.hash, ran.methods)
    assert after["steps"] == before["steps"]
    assert set(after["release"]["withdrawn"]) == {"Switzerland"}


def test_permits_say_how_often_results_are_released(ran: Any, stage: Any) -> None:
    site = ran.sites["Cleveland"]
    envelope = inbox.permit(site, ran.study.hash, stage.methods, stage_grants(), releases=0)
    ran.store.put_permit(ran.study.hash, "Cleveland", envelope)
    with pytest.raises(DecisionRefused, match="no further release"):
        decide(ran, owner("hub"))


def stage_grants() -> tuple[Any, ...]:
    return ("per_hospital", "difference")


def test_what_is_fetched_is_what_was_approved(ran: Any) -> None:
    decide(ran, owner("hub"))
    ran.store._database.write("UPDATE released SET digest = ?", ("sha256:" + "0" * 64,))
    with pytest.raises(LedgerBroken):
        desk.released(ran.store, ran.study.hash, ran.methods)


def test_what_was_released_stays_readable_whoever_leaves_afterwards(stage: Any, tmp_path: Path) -> None:
    """Also steps that ran inside each hospital, and those without each hospital in turn."""
    sites = stage.sites(tmp_path)
    study = stage.study("attrition")
    each = study.steps[0].model_copy(update={"name": "own", "scope": "each", "parameters": {}})
    turn = study.steps[0].model_copy(update={"name": "turn", "scope": "all_but_one", "parameters": {}})
    alliance = stage.join(tmp_path, sites, study.model_copy(update={"steps": (*study.steps, each, turn)}))
    run_study(alliance.store, alliance.study.hash, alliance.engine, stage.methods)
    decide(alliance, owner("hub"))
    before = desk.released(alliance.store, alliance.study.hash, alliance.methods)
    assert {fold["fold"] for fold in before["steps"]["own"]["folds"]} == set(sites)
    site = sites["Cleveland"]
    inbox.withdraw(site, alliance.study.hash)
    given = inbox.answer_of(site, alliance.study.hash)
    assert given is not None
    studies.receive_answer(alliance.store, alliance.study.hash, "Cleveland", given.kind, given.envelope, given.said)
    alliance.store.revoke("Hungary")
    after = desk.released(alliance.store, alliance.study.hash, alliance.methods)
    assert after["steps"] == before["steps"]


def test_a_revoked_hospitals_people_are_in_no_later_release(ran: Any) -> None:
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    assert waits(ran).left_out == {}
    ran.store.revoke("Hungary")
    assert set(waits(ran).left_out) == {"attrition", "table_one"}


def test_a_hospital_whose_clock_is_ahead_is_heard_all_the_same(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = ran.sites["Hungary"]
    inbox.withdraw(site, ran.study.hash)
    given = inbox.answer_of(site, ran.study.hash)
    assert given is not None

    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(hours=2)

    monkeypatch.setattr(studies, "datetime", Behind)
    studies.receive_answer(ran.store, ran.study.hash, "Hungary", given.kind, given.envelope, given.said)
    assert set(waits(ran).left_out) == {"attrition", "table_one"}


def test_what_the_office_fetches_by_command_is_in_the_hubs_log(
    ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases.ask(ran.store, ran.study.hash, ASKER, CONTEXT)
    decide(ran, OFFICE)
    decide(ran, BOARD)
    monkeypatch.setattr("dure.cli.release._store", lambda folder: nullcontext(ran.store))
    monkeypatch.setattr("dure.guard.acting.acting", lambda folder: OFFICE)
    monkeypatch.setattr("dure.study.method.installed_methods", lambda: ran.methods)
    release.fetch(tmp_path, ran.study.hash, tmp_path / "out")
    fetched = [entry for entry in ran.store.log.entries() if entry["event"] == "fetched"]
    assert [(one["study"], one["by"], one["organisation"]) for one in fetched] == [
        (ran.study.hash, "office", "Alliance")
    ]


@pytest.mark.parametrize(("language", "called"), [("en", "owner of the folder"), ("ko", "폴더 소유자")])
def test_what_is_shown_names_every_decider_in_the_readers_language(
    ran: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], language: str, called: str
) -> None:
    """Also whoever holds a folder without accounts, who is in no table of roles."""
    monkeypatch.setenv("DURE_LANGUAGE", language)
    decided = {"name": "Alliance", "organisation": "Alliance", "role": "owner", "approves": False}
    release._print(dataclasses.replace(waits(ran), decisions=(decided,)))
    assert called in capsys.readouterr().out
