"""A study's life at the hub: submitted, permitted or declined by hospitals, run, released."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from dure.errors import LifecycleError, PermitError, UnknownHospital, UnknownStudy
from dure.federation.plan import plan_of
from dure.hub.store import Store
from dure.language import Words
from dure.study import lifecycle
from dure.study.method import Methods
from dure.study.permit import Permit, read_key, read_permit, verify
from dure.study.spec import Study, canonical_json, seconds

ANSWERABLE = ("submitted", "in_review", "changes_asked", "permitted", "running", "waiting")
"""States in which a hospital's answer counts; afterwards it would change what is shown."""


def submit(store: Store, study: Study, methods: Methods, submitter: str = "") -> str:
    """Take a study in; its hash. Every step is read and declared first, so that errors come before review.

    Submitting the same study again changes nothing. Raises DureError.
    """
    plan_of(study, methods).check(tuple(store.hospitals()))
    after = lifecycle.check("draft", "submit", "researcher")
    store.put_study(study.hash, canonical_json(study), after, submitter)
    return study.hash


def read(store: Store, hash_: str) -> tuple[Study, lifecycle.State]:
    found = store.study(hash_)
    if found is None:
        raise UnknownStudy(hash_, [name for name, _, _ in store.studies()])
    return Study.model_validate(json.loads(found[0])), found[1]  # type: ignore[return-value]


def receive_permit(store: Store, hash_: str, hospital: str, envelope: dict[str, Any] | None) -> None:
    """Keep a hospital's permit (None: it declines). When all have answered the study moves on.

    Raises UnknownStudy, UnknownHospital, LifecycleError once the run is over, or PermitError where the signature, the
    study or the dates are not right.
    """
    state = read(store, hash_)[1]
    if state not in ANSWERABLE:  # afterwards it would change what is shown
        raise LifecycleError(action="permit", state=state, role="hospital", open="–")
    known = store.hospitals()
    if hospital not in known:
        raise UnknownHospital(hospital, known)
    if envelope is not None:
        permit = verify(envelope, read_key(known[hospital]), hospital)
        _current(permit, hash_)
    with store.transaction():
        store.put_permit(hash_, hospital, envelope)
    settle(store, hash_)


def settle(store: Store, hash_: str) -> lifecycle.State:
    """Close the review once every hospital has replied or the quorum's time for it is over; the state afterwards."""
    with store.transaction():
        study, state = read(store, hash_)
        if state == "submitted" and store.permits(hash_):
            state = lifecycle.check(state, "deliver", "hub")
            store.set_state(hash_, state)
        if state != "in_review":
            return state
        known, answered, quorum = store.hospitals(), store.permits(hash_), study.quorum
        submitted = store.submission(hash_)[0]
        within = quorum.reply_within
        over = within is not None and (datetime.now(UTC) - submitted).total_seconds() >= seconds(within)
        if not known or (not over and not set(known) <= set(answered)):
            return state
        permitted = [name for name in known if answered.get(name) is not None]
        action: lifecycle.Action = "permit_all" if quorum.met(permitted, len(known)) else "decline"
        after = lifecycle.check(state, action, "hub")
        store.set_state(hash_, after)
        return after


def permits(store: Store, hash_: str, over: bool = False) -> dict[str, Permit]:
    """The verified, current permits, by hospital in the order in which hospitals joined.

    With `over` the run has ended under them: they were checked when they came, and may have expired since.
    """
    keys, found = store.hospitals(), store.permits(hash_)
    verified: dict[str, Permit] = {}
    for hospital, key in keys.items():
        envelope = found.get(hospital)
        if envelope is None:
            continue
        if over:
            verified[hospital] = read_permit(envelope)
            continue
        permit = verify(envelope, read_key(key), hospital)
        _current(permit, hash_)
        verified[hospital] = permit
    return verified


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
    if not permit.issued <= datetime.now(UTC) < permit.expires:
        problem = Words("It has expired or is not yet valid", "유효 기간이 아닙니다")
        raise PermitError(hospital=permit.hospital, problem=problem)
