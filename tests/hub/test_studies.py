"""A study's life at the hub, and the file that it lives in."""

from __future__ import annotations

import base64
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dure.errors import (
    DecisionRefused,
    DureError,
    InvalidDocument,
    LifecycleError,
    PermitError,
    UnknownHospital,
    UnknownMethod,
)
from dure.guard.keys import create_signer
from dure.guard.permissions import Actor
from dure.hub import desk, studies
from dure.hub.runs import run_study
from dure.hub.store import Store
from dure.site import inbox
from dure.study.board import Decision, sign_decision
from dure.study.permit import key_document, sign, verify
from dure.study.spec import canonical_json


def state(alliance: Any) -> str:
    return studies.read(alliance.store, alliance.study.hash)[1]


def answer(alliance: Any, hospital: str, envelope: dict[str, Any] | None) -> None:
    studies.receive_permit(alliance.store, alliance.study.hash, hospital, envelope)


def signed(stage: Any, alliance: Any, hospital: str) -> dict[str, Any]:
    return inbox.permit(alliance.sites[hospital], alliance.study.hash, stage.methods)


@pytest.fixture
def submitted(stage: Any, tmp_path: Path) -> Any:
    return stage.join(tmp_path, stage.sites(tmp_path), stage.study("attrition"), grants={})


def test_submitting_the_same_study_again_changes_nothing(stage: Any, submitted: Any) -> None:
    answer(submitted, "Cleveland", signed(stage, submitted, "Cleveland"))
    before = submitted.store.studies(), submitted.store.permits(submitted.study.hash)
    assert studies.submit(submitted.store, submitted.study, stage.methods) == submitted.study.hash
    assert (submitted.store.studies(), submitted.store.permits(submitted.study.hash)) == before


def test_a_study_that_cannot_be_asked_is_not_taken_in(stage: Any, submitted: Any) -> None:
    broken = submitted.study.model_copy(
        update={"steps": (submitted.study.steps[0].model_copy(update={"method": "feasability"}),)}
    )
    with pytest.raises(UnknownMethod, match="feasibility"):
        studies.submit(submitted.store, broken, stage.methods)
    assert [hash_ for hash_, _, _ in submitted.store.studies()] == [submitted.study.hash]


def test_a_study_that_would_not_read_back_is_not_taken_in(stage: Any, submitted: Any) -> None:
    """It could never be read again, nor withdrawn."""
    step = submitted.study.steps[0]
    parameters = {"time": "age", "event": "disease", "per": 10**30}  # as code that checks less might build it
    huge = step.model_copy(update={"method": "incidence", "parameters": parameters})
    huge = submitted.study.model_copy(update={"steps": (huge,)})
    with pytest.raises(InvalidDocument, match="cannot be read again"):
        studies.submit(submitted.store, huge, stage.methods)
    assert [hash_ for hash_, _, _ in submitted.store.studies()] == [submitted.study.hash]


def test_one_study_that_cannot_be_read_hides_no_other(submitted: Any) -> None:
    submitted.store.put_study("sha256:" + "0" * 64, '{"dure": 0}', "submitted")
    found = desk.statuses(submitted.store, Actor("office", "office", "Alliance"), {}, {})
    assert [one["study"] for one in found] == [submitted.study.hash]


def test_the_study_is_kept_as_it_was_hashed(submitted: Any) -> None:
    document, _ = submitted.store.study(submitted.study.hash)
    assert document == canonical_json(submitted.study)
    assert studies.read(submitted.store, submitted.study.hash)[0].hash == submitted.study.hash


def test_the_study_is_permitted_when_the_last_hospital_has_signed(stage: Any, submitted: Any) -> None:
    seen = []
    for hospital in submitted.sites:
        answer(submitted, hospital, signed(stage, submitted, hospital))
        seen.append(state(submitted))
    assert seen == ["in_review", "in_review", "in_review", "permitted"]


def test_one_hospital_may_decline_and_the_other_three_go_on(stage: Any, submitted: Any) -> None:
    answer(submitted, "Hungary", None)
    for hospital in submitted.sites:
        if hospital != "Hungary":
            answer(submitted, hospital, signed(stage, submitted, hospital))
    assert state(submitted) == "permitted"
    run, _ = run_study(submitted.store, submitted.study.hash, submitted.engine, stage.methods)
    assert run.hospitals == ("Cleveland", "Switzerland", "VA Long Beach")


def test_the_study_is_declined_when_too_few_are_left(stage: Any, submitted: Any) -> None:
    for hospital in submitted.sites:
        declines = hospital in ("Hungary", "Cleveland")
        answer(submitted, hospital, None if declines else signed(stage, submitted, hospital))
    assert state(submitted) == "declined"
    with pytest.raises(LifecycleError, match="declined"):
        run_study(submitted.store, submitted.study.hash, submitted.engine, stage.methods)


def test_nothing_runs_before_everybody_has_answered(stage: Any, submitted: Any) -> None:
    answer(submitted, "Cleveland", signed(stage, submitted, "Cleveland"))
    with pytest.raises(LifecycleError, match="in_review"):
        run_study(submitted.store, submitted.study.hash, submitted.engine, stage.methods)


def test_a_finished_study_does_not_run_again(stage: Any, tmp_path: Path) -> None:
    alliance = stage.alliance(tmp_path, "attrition")
    run_study(alliance.store, alliance.study.hash, alliance.engine, stage.methods)
    assert state(alliance) == "release_review"
    with pytest.raises(LifecycleError, match="release_review"):
        run_study(alliance.store, alliance.study.hash, alliance.engine, stage.methods)


def test_an_answer_that_comes_again_is_taken_once(stage: Any, submitted: Any) -> None:
    """A hospital that was killed before it heard that its answer was taken sends it again, whatever has become of the
    study since."""
    names, store, hash_ = list(submitted.sites), submitted.store, submitted.study.hash
    for name in names[:-1]:
        answer(submitted, name, None)
    envelope = signed(stage, submitted, names[-1])
    answer(submitted, names[-1], envelope)
    assert state(submitted) == "declined"
    before = store.answers(hash_), store.permits(hash_), store.events(hash_), store.log.verify()
    assert sum(event["event"] == "declined" for event in before[2]) == len(names) - 1
    answer(submitted, names[0], None)
    answer(submitted, names[-1], envelope)
    assert (store.answers(hash_), store.permits(hash_), store.events(hash_), store.log.verify()) == before
    with pytest.raises(LifecycleError):  # another answer is another matter
        answer(submitted, names[0], signed(stage, submitted, names[0]))


def test_a_hospital_that_is_no_member_cannot_permit(stage: Any, submitted: Any) -> None:
    with pytest.raises(UnknownHospital, match="Cleveland"):
        answer(submitted, "Clevland", signed(stage, submitted, "Cleveland"))
    assert submitted.store.permits(submitted.study.hash) == {}


def test_a_permit_signed_with_another_key_is_forged(stage: Any, submitted: Any, tmp_path: Path) -> None:
    true = signed(stage, submitted, "Cleveland")
    permit = verify(true, submitted.sites["Cleveland"].signer().public_key, "Cleveland")
    forged = sign(permit, create_signer(tmp_path / "thief.pem"))
    with pytest.raises(PermitError, match="signature"):
        answer(submitted, "Cleveland", forged)
    assert submitted.store.permits(submitted.study.hash) == {}


def test_a_permit_whose_grants_were_changed_on_the_way_is_forged(stage: Any, submitted: Any) -> None:
    envelope = signed(stage, submitted, "Cleveland")
    payload = base64.b64decode(envelope["payload"]).replace(b'"difference":false', b'"difference":true')
    assert payload != base64.b64decode(envelope["payload"])
    with pytest.raises(PermitError, match="signature"):
        answer(submitted, "Cleveland", envelope | {"payload": base64.b64encode(payload).decode()})


def test_a_permit_of_one_hospital_does_not_serve_another(stage: Any, submitted: Any) -> None:
    with pytest.raises(PermitError):
        answer(submitted, "Hungary", signed(stage, submitted, "Cleveland"))


def test_a_permit_for_another_study_does_not_serve(stage: Any, submitted: Any) -> None:
    other = stage.study("model")
    inbox.receive(submitted.sites["Cleveland"], other)
    envelope = inbox.permit(submitted.sites["Cleveland"], other.hash, stage.methods)
    with pytest.raises(PermitError, match="another version"):
        answer(submitted, "Cleveland", envelope)


def test_a_study_that_is_not_there_is_said_to_be_unknown(submitted: Any) -> None:
    with pytest.raises(DureError):
        studies.read(submitted.store, "sha256:0")


# ── the store ──


def test_a_failed_transaction_leaves_the_file_as_it_was(submitted: Any) -> None:
    store, hash_ = submitted.store, submitted.study.hash

    def half() -> None:
        with store.transaction():
            store.put_permit(hash_, "Cleveland", {"payload": ""})
            store.set_state(hash_, "permitted")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert store.permits(hash_) == {}
    assert state(submitted) == "submitted"
    with store.transaction():  # and the next one works
        store.put_permit(hash_, "Cleveland", None)
    assert store.permits(hash_) == {"Cleveland": None}


def test_the_store_is_the_same_when_it_is_opened_again(submitted: Any) -> None:
    store = submitted.store
    store.put_run("run", submitted.study.hash)
    store.ledger("run").write("attrition", None, b"one")
    store.ledger("run").write("attrition", None, b"two")
    store.ledger("run").write("attrition", "Hungary", b"three")
    again = Store(store.path)
    try:
        assert again.hospitals() == store.hospitals()
        assert again.studies() == store.studies()
        assert again.ledger("run").read("attrition", None) == b"two"
        assert again.ledger("run").read("attrition", "Hungary") == b"three"
        assert again.ledger("run").read("attrition", "Cleveland") is None
        assert again.ledger("another").read("attrition", None) is None
    finally:
        again.close()


def test_a_hospital_cannot_join_again_with_another_key(submitted: Any, tmp_path: Path) -> None:
    thief = key_document(create_signer(tmp_path / "thief.pem").public_key)
    with pytest.raises(sqlite3.IntegrityError):
        submitted.store.add_hospital("Cleveland", thief)
    assert submitted.store.hospitals()["Cleveland"] == submitted.sites["Cleveland"].public_key()


# ── changes, versions, withdrawal ──


def said(alliance: Any, hospital: str, kind: str, words: str = "", **withdrawal: bool) -> None:
    """A hospital's answer, given there and handed in."""
    site, hash_ = alliance.sites[hospital], alliance.study.hash
    if kind == "changes_asked":
        inbox.ask_changes(site, hash_, words)
    elif kind == "withdrawn":
        inbox.withdraw(site, hash_, words, **withdrawal)
    else:
        inbox.decline(site, hash_, words)
    given = inbox.answer_of(site, hash_)
    assert given is not None
    studies.receive_answer(alliance.store, hash_, hospital, given.kind, given.envelope, given.said)


def test_a_hospital_that_asks_for_changes_gives_the_turn_to_the_proposer(stage: Any, submitted: Any) -> None:
    said(submitted, "Hungary", "changes_asked", "How long are data kept?")
    assert state(submitted) == "in_review"  # the others have not answered yet
    for hospital in ("Cleveland", "Switzerland", "VA Long Beach"):
        answer(submitted, hospital, signed(stage, submitted, hospital))
    assert state(submitted) == "changes_asked"
    assert submitted.store.answers(submitted.study.hash)["Hungary"][:2] == ("changes_asked", "How long are data kept?")
    answer(submitted, "Hungary", signed(stage, submitted, "Hungary"))  # it talked with the proposer
    assert state(submitted) == "permitted"


def test_the_proposer_may_go_on_without_it_if_enough_permitted(stage: Any, submitted: Any) -> None:
    for hospital in ("Cleveland", "Switzerland"):
        answer(submitted, hospital, signed(stage, submitted, hospital))
        said(submitted, "VA Long Beach", "declined", "No.")
    said(submitted, "Hungary", "changes_asked", "Why?")
    assert state(submitted) == "changes_asked"
    with pytest.raises(DecisionRefused, match="Too few"):
        studies.proceed(submitted.store, submitted.study.hash)
    answer(submitted, "VA Long Beach", signed(stage, submitted, "VA Long Beach"))
    assert state(submitted) == "changes_asked"
    assert studies.proceed(submitted.store, submitted.study.hash) == "permitted"
    assert set(studies.permits(submitted.store, submitted.study.hash)) == {"Cleveland", "Switzerland", "VA Long Beach"}


def test_a_new_version_ends_the_old_one_and_only_its_proposer_makes_one(stage: Any, submitted: Any) -> None:
    answer(submitted, "Cleveland", signed(stage, submitted, "Cleveland"))
    new = stage.study("attrition", "model").model_copy(update={"replaces": submitted.study.hash})
    with pytest.raises(DecisionRefused, match="Only who proposed"):
        studies.submit(submitted.store, new, stage.methods, "Somebody")
    assert state(submitted) == "in_review"
    studies.submit(submitted.store, new, stage.methods)
    assert state(submitted) == "replaced"
    assert studies.permits(submitted.store, new.hash) == {}
    with pytest.raises(LifecycleError, match="replaced"):
        answer(submitted, "Hungary", signed(stage, submitted, "Hungary"))
    third = new.model_copy(update={"replaces": submitted.study.hash, "documents": ()})
    with pytest.raises(LifecycleError):  # that one has been replaced already
        studies.submit(submitted.store, third, stage.methods)


def test_a_hospital_that_left_takes_no_part_any_more(stage: Any, submitted: Any) -> None:
    for hospital in submitted.sites:
        answer(submitted, hospital, signed(stage, submitted, hospital))
    said(submitted, "Hungary", "withdrawn", "The board asked for it.", difference=True)
    assert set(studies.permits(submitted.store, submitted.study.hash)) == {"Cleveland", "Switzerland", "VA Long Beach"}
    rest = studies.withdrawals(submitted.store, submitted.study.hash)
    assert {name: permit.grants() for name, permit in rest.items()} == {"Hungary": {"difference"}}


# ── two things at once ──


@pytest.fixture
def meanwhile(submitted: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[[], None]]:
    """The office withdraws the study, in another thread, as soon as the store's `reads` is called: in between, or
    after all of it. Returns a function that waits for it."""

    def begin(reads: str) -> Callable[[], None]:
        read, office = getattr(submitted.store, reads), Actor("office", "office", "Alliance")
        thread = threading.Thread(target=desk.withdraw, args=(submitted.store, submitted.study.hash, office))

        def slow(*given: Any) -> Any:
            if thread.ident is None:
                thread.start()
                thread.join(0.3)
            return read(*given)

        monkeypatch.setattr(submitted.store, reads, slow)
        return thread.join

    return begin


def test_a_withdrawal_while_an_answer_is_taken_stays(stage: Any, submitted: Any, meanwhile: Any) -> None:
    over = meanwhile("hospitals")
    answer(submitted, "Hungary", signed(stage, submitted, "Hungary"))
    over()
    assert state(submitted) == "withdrawn"
    with pytest.raises(LifecycleError, match="withdrawn"):
        answer(submitted, "Cleveland", signed(stage, submitted, "Cleveland"))


def test_a_board_decides_no_study_that_is_withdrawn_meanwhile(submitted: Any, tmp_path: Path, meanwhile: Any) -> None:
    """The decision is in the record before the withdrawal, or not at all."""
    signer, store, hash_ = create_signer(tmp_path / "board.pem"), submitted.store, submitted.study.hash
    store.add_member("Joint board", "joint", "drb", key_document(signer.public_key), None)
    decision = Decision(study=hash_, board="drb", verdict="approve", name="Joint board", by="x", at=datetime.now(UTC))
    over = meanwhile("members")
    studies.receive_board_decision(store, hash_, "Joint board", sign_decision(decision, signer))
    over()
    said = [entry["event"] for entry in store.log.entries() if entry.get("study") == hash_]
    assert said == ["submitted", "board decided", "state"]
