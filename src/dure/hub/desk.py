"""What the hub answers its members: each topic is one function of who asks and what they sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dure.errors import DureError, LedgerBroken, LifecycleError, NotAMember, UnknownStudy
from dure.federation.ledger import Outcome
from dure.federation.messages import error_data
from dure.guard.permissions import Actor, can, check
from dure.hub import releases, studies
from dure.hub.store import Store
from dure.language import Words
from dure.study import lifecycle
from dure.study.method import Methods
from dure.study.packing import unpack
from dure.study.spec import Study, canonical_json


def status_of(store: Store, hash_: str, connected: Mapping[str, bool], paused: Mapping[str, bool]) -> dict[str, Any]:
    """A study for people: its state, each hospital's answer and line, the steps, and what it waits for."""
    study, state = studies.read(store, hash_)
    answers, members = store.answers(hash_), store.hospitals()
    steps: dict[str, str] = {}
    for run in store.runs(hash_):
        for step in study.steps:
            entries = [unpack(entry) for entry in store.ledger(run).folds(step.name)]
            if entries:
                rounds = max(int(entry["round"]) for entry in entries)
                said = ", ".join(sorted({str(entry["status"]) for entry in entries}))
                steps[step.name] = f"{said} ({rounds})" if said == "running" else said
    events = store.events(hash_)
    waits = next((event for event in reversed(events) if event["event"] in ("waiting", "going on", "finished")), None)
    return {
        "study": hash_,
        "title": study.title.model_dump(),
        "state": state,
        "submitter": store.submission(hash_)[1],
        "hospitals": {
            name: {
                "answer": answers[name][0] if name in answers else "waiting",
                "said": answers[name][1] if name in answers else "",
                "line": "paused" if paused.get(name) else "connected" if connected.get(name) else "away",
            }
            for name in {**dict.fromkeys(answers), **dict.fromkeys(members)}
        },
        "steps": {step.name: steps.get(step.name, "–") for step in study.steps},
        "waits": waits["problems"] if waits and waits["event"] == "waiting" and state in ("running", "waiting") else [],
    }


def visible(store: Store, actor: Actor) -> list[str]:
    """The studies that `actor` may see, oldest first."""
    return [hash_ for hash_, _, _ in store.studies() if can(actor, "see_study", store.submission(hash_)[1])]


def statuses(
    store: Store, actor: Actor, connected: Mapping[str, bool], paused: Mapping[str, bool]
) -> list[dict[str, Any]]:
    """`status_of` every study that `actor` may see."""
    found = []
    for hash_ in visible(store, actor):
        try:
            found.append(status_of(store, hash_, connected, paused))
        except Exception:  # one that cannot be read does not hide the others; its own status says what is wrong
            continue
    return found


def find_for(store: Store, given: str, actor: Actor, action: str) -> str:
    """The study `given` names, if `actor` may do `action` with it.

    Raises UnknownStudy alike for one that is not there and for one that this person may not see; NotPermitted.
    """
    hash_ = find(store, given, visible(store, actor))
    check(actor, action, store.submission(hash_)[1])
    return hash_


def find(store: Store, given: str, known: list[str] | None = None) -> str:
    """The full hash of a study named by its hash or the first characters of it; raises UnknownStudy."""
    known = known if known is not None else [hash_ for hash_, _, _ in store.studies()]
    start = given.removeprefix("sha256:")
    fitting = [hash_ for hash_ in known if hash_.removeprefix("sha256:").startswith(start)] if len(start) >= 4 else []
    if len(fitting) == 1:
        return fitting[0]
    if given not in known:
        raise UnknownStudy(given, known)
    return given


def submit(store: Store, methods: Methods, actor: Actor, body: bytes) -> tuple[str, bool]:
    """The study's hash, and whether it is new here. What is asked, a proposal, a new version or an open question, is
    read from the document. Raises NotPermitted, LifecycleError, or what is wrong with the study."""
    study = Study.model_validate(json.loads(body))
    check(actor, "ask_open" if study.open is not None else "submit")
    if study.replaces is not None:
        find_for(store, study.replaces, actor, "revise")
    found = store.study(study.hash)
    if found is not None and found[1] in ("withdrawn", "declined", "replaced"):
        raise LifecycleError(action="submit", state=found[1], role="researcher", open=_open_to(found[1]))
    return studies.submit(store, study, methods, actor.organisation), found is None


def withdraw(store: Store, hash_: str, actor: Actor) -> None:
    """Who submitted a study withdraws it, or the alliance's office."""
    check(actor, "cancel", store.submission(hash_)[1])
    studies.advance(store, hash_, "withdraw", "researcher")


def decided(
    store: Store, methods: Methods, topic: str, hash_: str, actor: Actor, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """What people decide, or read to decide: a study's document, going on without hospitals that ask for changes, the
    release queue, and a shared board's signed decision. Raises DureError."""
    if topic == "document":
        return {"document": canonical_json(studies.read(store, hash_)[0]), "proposer": store.submission(hash_)[1]}
    if topic == "proceed":
        return {"state": studies.proceed(store, hash_)}
    if topic == "release_ask":
        releases.ask(store, hash_, actor, asked["context"])
        return {"state": "release_review"}
    if topic == "release_decide":
        said, approves = str(asked.get("said", "")), bool(asked["approves"])
        return {"state": releases.decide(store, hash_, actor, str(asked["digest"]), approves, methods, said)}
    studies.receive_board_decision(store, hash_, actor.organisation, asked["envelope"])
    return {"state": studies.read(store, hash_)[1]}


def released(store: Store, hash_: str, methods: Methods) -> dict[str, Any]:
    """The released results by step and fold, as packed Results; raises LifecycleError until the board releases them."""
    state = studies.read(store, hash_)[1]
    record = store.released(hash_)
    if state not in ("released", "archived") or record is None:
        raise LifecycleError(action="fetch", state=state, role="researcher", open=_open_to(state))
    kept = unpack(record.content)
    if releases.digest_of(kept) != record.digest:
        problem = Words("What it holds is not what was approved", "들어 있는 내용이 승인된 내용과 다릅니다")
        raise LedgerBroken(path=store.path.name, problem=problem)
    approved = [one for one in store.release_decisions(hash_) if one["approves"] and one["digest"] == record.digest]
    return {
        "study": hash_,
        "document": canonical_json(studies.read(store, hash_)[0]),
        **kept,
        "release": {
            "digest": record.digest,
            "released": record.when,
            "context": kept["context"],
            "approved_by": [{name: one[name] for name in ("name", "organisation", "role")} for one in approved],
            "withdrawn": {name: when for name, (kind, _, when) in store.answers(hash_).items() if kind == "withdrawn"},
        },
    }


def problems(outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Why steps wait, without repetition: an error each, which names its hospitals."""
    found: list[dict[str, Any]] = []
    for outcome in outcomes.values():
        for fold in outcome.folds.values():
            if fold.status == "waiting" and fold.error is not None:
                said = error_data(fold.error) | {"en": fold.error.text("en"), "ko": fold.error.text("ko")}
                if said not in found:
                    found.append(said)
    return found


def not_a_member(identity: str) -> DureError:
    return NotAMember(
        name=identity, problem=Words("It was revoked, or never joined", "취소되었거나 가입한 적이 없습니다")
    )


def _open_to(state: str) -> str:
    return ", ".join(f"{t.action} ({t.role})" for t in lifecycle.TRANSITIONS if t.before == state) or "–"
