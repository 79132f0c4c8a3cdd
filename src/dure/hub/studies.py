"""A study's life at the hub: submitted, permitted or declined by hospitals, run, released."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from dure.errors import (
    DecisionRefused,
    InvalidDocument,
    LifecycleError,
    PermitError,
    UnknownHospital,
    UnknownStep,
    UnknownStudy,
)
from dure.federation.plan import plan_of
from dure.hub.store import Store
from dure.language import Words
from dure.study import lifecycle
from dure.study.board import read_decision
from dure.study.method import Methods
from dure.study.permit import Permit, read_key, read_permit, verify
from dure.study.signed import Unsigned
from dure.study.spec import Study, canonical_json, seconds

ANSWERABLE = ("submitted", "in_review", "changes_asked", "permitted", "running", "waiting")
"""States in which a hospital's answer counts; afterwards it would change what is shown."""
SKEW = timedelta(minutes=10)
"""Hospitals' clocks differ from the hub's."""
KINDS = ("permitted", "changes_asked", "declined", "withdrawn")
"""What a hospital can answer."""


def submit(store: Store, study: Study, methods: Methods, submitter: str = "") -> str:
    """Take a study in; its hash. Every step is read and declared first, so that errors come before review.

    Submitting the same study again changes nothing. Raises DureError.
    """
    plan_of(study, methods).check(tuple(store.hospitals()))
    document = canonical_json(study)
    _check_readable(document, study.hash)
    after = lifecycle.check("draft", "submit", "researcher")
    with store.transaction():
        if store.study(study.hash) is None:
            if study.replaces:
                _replace(store, study.replaces, submitter)
            store.put_study(study.hash, document, after, submitter)
            store.put_event(study.hash, "submitted", {"by": submitter})
    return study.hash


def _check_readable(document: str, hash_: str) -> None:
    """Raise InvalidDocument unless what would be stored reads back as this study: it could not even be withdrawn."""
    try:
        if Study.model_validate(json.loads(document)).hash == hash_:
            return
    except (ValueError, UnknownStep):
        pass
    problem = Words("As it would be stored, it cannot be read again", "저장될 모습 그대로는 다시 읽을 수 없습니다")
    hint = Words(
        "Look for numbers beyond 64 bits, and write them smaller, in other units.",
        "64비트를 넘는 수가 있는지 살피고, 단위를 바꾸어 더 작게 쓰십시오.",
    )
    raise InvalidDocument(path="study", line=1, field="document", problem=problem, hint=hint)


def _replace(store: Store, before: str, submitter: str) -> None:
    """The earlier version ends, with every approval of it. Raises UnknownStudy, LifecycleError, NotPermitted."""
    state = read(store, before)[1]
    if store.submission(before)[1] != submitter:
        problem = Words(
            "Only who proposed a study replaces it by a new version", "연구를 제안한 사람만 새 판으로 바꿀 수 있습니다"
        )
        raise DecisionRefused(problem=problem)
    store.set_state(before, lifecycle.check(state, "revise", "researcher"))


def read(store: Store, hash_: str) -> tuple[Study, lifecycle.State]:
    found = store.study(hash_)
    if found is None:
        raise UnknownStudy(hash_, [name for name, _, _ in store.studies()])
    return Study.model_validate(json.loads(found[0])), found[1]  # type: ignore[return-value]


def receive_permit(store: Store, hash_: str, hospital: str, envelope: dict[str, Any] | None) -> None:
    """Keep a hospital's permit (None: it declines). When all have answered the study moves on.

    Raises as `receive_answer`.
    """
    receive_answer(store, hash_, hospital, "declined" if envelope is None else "permitted", envelope)


def delivered(store: Store, hash_: str, hospital: str) -> None:
    """A hospital holds the study: its review has begun."""
    with store.transaction():
        if hospital not in store.delivered(hash_):
            store.put_delivered(hash_, hospital)
            store.put_event(hash_, "delivered", {"hospital": hospital})
        if read(store, hash_)[1] == "submitted":
            store.set_state(hash_, lifecycle.check("submitted", "deliver", "hub"))


def receive_answer(
    store: Store, hash_: str, hospital: str, kind: str, envelope: dict[str, Any] | None = None, said: str = ""
) -> None:
    """Keep what a hospital said: `permitted` with its signed permit, `changes_asked`, `declined`, or `withdrawn` with
    the permit of what may still be done with sums it was part of. When all have answered the study moves on. The same
    answer again, from a hospital whose first call was cut, changes nothing.

    Raises UnknownStudy, UnknownHospital, LifecycleError once results are released, or PermitError where the signature,
    the study or the dates are not right.
    """
    if kind not in KINDS or (kind == "permitted" and envelope is None):
        problem = Words("Its answer is neither a permit nor one of the other answers", "허가도 다른 답도 아닙니다")
        raise PermitError(hospital=hospital, problem=problem)
    with store.transaction():  # what else happens to the study meanwhile comes before this answer, or after it
        _take_answer(store, hash_, hospital, kind, envelope, said)
    settle(store, hash_)


def _take_answer(
    store: Store, hash_: str, hospital: str, kind: str, envelope: dict[str, Any] | None, said: str
) -> None:
    state = read(store, hash_)[1]
    if store.answers(hash_).get(hospital, ())[:2] == (kind, said) and store.permits(hash_)[hospital] == envelope:
        return
    late = ANSWERABLE + (("release_review", "released", "archived") if kind == "withdrawn" else ())
    if state not in late:  # afterwards it would change what is shown; leaving is always possible
        raise LifecycleError(action="permit", state=state, role="hospital", open="–")
    known = store.hospitals()
    if hospital not in known:
        raise UnknownHospital(hospital, known)
    if envelope is not None:
        permit = verify(envelope, read_key(known[hospital]), hospital)
        if kind == "permitted":
            _current(permit, hash_)
        elif permit.study != hash_:
            problem = Words("It is for another version of the study", "연구의 다른 판에 대한 것입니다")
            raise PermitError(hospital=hospital, problem=problem)
    store.put_answer(hash_, hospital, kind, said, envelope)
    store.put_event(hash_, kind, {"hospital": hospital, "said": [said] if said else []})
    if state == "submitted":
        state = lifecycle.check(state, "deliver", "hub")
        store.set_state(hash_, state)
    if state == "changes_asked":
        store.set_state(hash_, lifecycle.check(state, "review_again", "hub"))


def settle(store: Store, hash_: str) -> lifecycle.State:
    """Close the review once every hospital has replied or the quorum's time for it is over; the state afterwards."""
    with store.transaction():
        study, state = read(store, hash_)
        if state == "submitted" and store.delivered(hash_):
            state = lifecycle.check(state, "deliver", "hub")
            store.set_state(hash_, state)
        known, answered, quorum = store.hospitals(), store.permits(hash_), study.quorum
        within, submitted = quorum.reply_within, store.submission(hash_)[0]
        over = within is not None and (datetime.now(UTC) - submitted).total_seconds() >= seconds(within)
        if state == "submitted" and over:  # no hospital could be reached
            state = lifecycle.check(state, "deliver", "hub")
        if state != "in_review" or not known or (not over and not set(known) <= set(answered)):
            return state
        said = {name: kind for name, (kind, _, _) in store.answers(hash_).items()}
        permitted = [name for name in known if answered.get(name) is not None and said.get(name) == "permitted"]
        action: lifecycle.Action = "permit_all" if quorum.met(permitted, len(known)) else "decline"
        if "changes_asked" in said.values():
            action = "ask_changes"
        after = lifecycle.check(state, action, "hub")
        store.set_state(hash_, after)
        return after


def permits(store: Store, hash_: str, over: bool = False) -> dict[str, Permit]:
    """The verified, current permits, by hospital in the order in which hospitals joined; without those that do not
    hold any more (`lapsed`), where the others are enough for the study's quorum. Raises PermitError where they are not.

    With `over` all that were signed, as after the run: they were checked when they came, and may have expired since.
    """
    if over:
        return {name: read_permit(envelope) for name, envelope in _signed(store, hash_).items()}
    holding, lost = _examined(store, hash_)
    if lost and not read(store, hash_)[0].quorum.met(list(holding), len(store.hospitals())):
        raise next(iter(lost.values()))
    return holding


def lapsed(store: Store, hash_: str) -> dict[str, PermitError]:
    """Hospitals whose permit has expired, or was signed with another key than they have now → which of them it is."""
    return _examined(store, hash_)[1]


def _examined(store: Store, hash_: str) -> tuple[dict[str, Permit], dict[str, PermitError]]:
    keys = store.hospitals()
    holding: dict[str, Permit] = {}
    lost: dict[str, PermitError] = {}
    for hospital, envelope in _signed(store, hash_).items():
        try:
            permit = verify(envelope, read_key(keys[hospital]), hospital)
            _current(permit, hash_)
            holding[hospital] = permit
        except PermitError as error:
            lost[hospital] = error
    return holding, lost


def _signed(store: Store, hash_: str) -> dict[str, dict[str, Any]]:
    """The envelopes of hospitals that permitted the study and have not left it since."""
    found = store.permits(hash_)
    left = {name for name, (kind, _, _) in store.answers(hash_).items() if kind != "permitted"}
    return {name: envelope for name in store.hospitals() if name not in left and (envelope := found.get(name))}


def receive_board_decision(store: Store, hash_: str, board: str, envelope: dict[str, Any]) -> None:
    """Keep a shared board's signed decision for the hospitals that it names. Raises DecisionRefused, LifecycleError."""
    with store.transaction():
        state = read(store, hash_)[1]
        if state not in ANSWERABLE:
            raise LifecycleError(action="decide", state=state, role="board", open="–")
        member = next((one for one in store.members() if one.name == board and not one.revoked), None)
        try:
            decision = read_decision(envelope, read_key(member.key) if member else None)
        except (Unsigned, ValidationError):
            decision = None
        if member is None or decision is None or (decision.study, decision.name) != (hash_, board):
            problem = Words(
                "It is not this board's own decision of this study", "이 위원회가 이 연구에 내린 결정이 아닙니다"
            )
            raise DecisionRefused(problem=problem)
        store.put_board_decision(hash_, board, envelope)
        store.put_event(hash_, "board decided", {"by": board, "hospitals": list(decision.hospitals)})


def withdrawals(store: Store, hash_: str) -> dict[str, Permit]:
    """Hospitals that permitted the study and left it → what they still allow with sums they were part of. What they
    signed was verified when it came."""
    found = store.permits(hash_)
    return {
        hospital: read_permit(envelope)
        for hospital, (kind, _, _) in store.answers(hash_).items()
        if kind == "withdrawn" and (envelope := found.get(hospital)) is not None
    }


def proceed(store: Store, hash_: str) -> lifecycle.State:
    """The proposer goes on without the hospitals that ask for changes, if enough others have permitted the study.

    Raises LifecycleError, or DecisionRefused where too few have.
    """
    with store.transaction():
        study, state = read(store, hash_)
        after = lifecycle.check(state, "permit_all", "researcher")
        if not study.quorum.met(list(permits(store, hash_)), len(store.hospitals())):
            problem = Words(
                "Too few hospitals have permitted it for the study's own quorum",
                "연구의 정족수에 비해 허가한 병원이 너무 적습니다",
            )
            raise DecisionRefused(problem=problem)
        store.set_state(hash_, after)
    return after


def advance(store: Store, hash_: str, action: lifecycle.Action, role: lifecycle.Role) -> lifecycle.State:
    """Move a study along its life-cycle; raises LifecycleError."""
    with store.transaction():
        after = lifecycle.check(read(store, hash_)[1], action, role)
        store.set_state(hash_, after)
    return after


def _current(permit: Permit, hash_: str) -> None:
    if permit.study != hash_:
        problem = Words("It is for another version of the study", "연구의 다른 판에 대한 허가서입니다")
        raise PermitError(hospital=permit.hospital, problem=problem)
    if not permit.issued - SKEW <= datetime.now(UTC) < permit.expires:
        problem = Words("It has expired or is not yet valid", "유효 기간이 아닙니다")
        raise PermitError(hospital=permit.hospital, problem=problem)
