"""The release queue: what wants to leave the run, with its context, until two people have approved exactly that.

A decision binds the digest of what would be released and of its context; if one changes, because a hospital withdrew or
the proposer says something else of it, it counts no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dure.errors import DecisionRefused, LifecycleError
from dure.federation.ledger import Fold, Outcome
from dure.guard import permissions
from dure.guard.permissions import Actor
from dure.hub import studies
from dure.hub.runs import results
from dure.hub.store import Store
from dure.language import Words, visible
from dure.study import lifecycle
from dure.study.method import Methods, calculating, source_hash
from dure.study.packing import pack
from dure.study.result import Result, pack_result

APPROVALS = 2
"""People who have to approve a release."""
CONTEXT: dict[str, Words] = {
    "contents": Words("what the tables and figures show", "표와 그림이 보이는 것"),
    "use": Words("what the results are for and who will read them", "결과의 용도와 읽을 사람"),
}
"""What has to be said with a request; a third of refused requests elsewhere lacked context."""
SHORTEST = 20
"""Characters that each part of the context has at least."""


@dataclass(frozen=True)
class Waiting:
    """What waits for release: the shown results by step and fold, what is left out and why, and who decided."""

    study: str
    title: Words
    proposer: str
    digest: str
    shown: Mapping[tuple[str, str], Result]
    left_out: Mapping[str, Words]
    request: dict[str, Any] | None
    decisions: tuple[dict[str, Any], ...]

    @property
    def approvals(self) -> int:
        return sum(bool(decided["approves"]) for decided in self.decisions)

    def told(self) -> dict[str, Any]:
        """The same as plain data, for a member's line."""
        return {
            "study": self.study,
            "title": {"en": self.title.en, "ko": self.title.ko},
            "proposer": self.proposer,
            "digest": self.digest,
            "request": self.request,
            "decisions": list(self.decisions),
            "left_out": {step: {"en": why.en, "ko": why.ko} for step, why in self.left_out.items()},
            "shown": [[step, fold, pack_result(result)] for (step, fold), result in self.shown.items()],
        }


def outcomes(store: Store, hash_: str, methods: Methods) -> tuple[Mapping[str, Outcome], dict[str, Words]]:
    """What may be shown of a run, and step → why it is left out: a hospital withdrew before release and did not leave
    its part in the results. What was released stays as it was then."""
    found, study, released = results(store, hash_, methods), studies.read(store, hash_)[0], store.released(hash_)
    kept = {name for name, rest in studies.withdrawals(store, hash_).items() if rest.releases}
    left = {name: when for name, (kind, _, when) in store.answers(hash_).items() if kind != "permitted"}
    left |= {member.name: member.revoked for member in store.members() if member.revoked}
    gone = {name for name, when in left.items() if name not in kept and (released is None or when < released.when)}
    shown: dict[str, Outcome] = {}
    left_out: dict[str, Words] = {}
    for name, outcome in found.items():
        folds = dict(outcome.folds)
        built_on = next((left_out[one] for one in study.lineage(name) if one in left_out), None)
        for fold, told in folds.items():
            people = {fold} if study.step(name).scope == "each" else set(outcome.hospitals) - {fold}
            withdrawn = ", ".join(sorted(gone & {str(one) for one in people if one}))
            why = Words(f"withdrawn: {withdrawn}", f"철회: {withdrawn}") if withdrawn else built_on
            if why is not None and (told.released or told.working) is not None:  # later steps build on hidden ones too
                folds[fold] = Fold("refused", told.rounds, error=DecisionRefused(problem=why))
                left_out[name] = why
        shown[name] = replace(outcome, folds=folds)
    return shown, left_out


def waiting(store: Store, hash_: str, methods: Methods) -> Waiting:
    """The study's place in the queue. Raises UnknownStudy, LifecycleError where it is not in release review."""
    study, state = studies.read(store, hash_)
    if state != "release_review":
        raise LifecycleError(action="release", state=state, role="board", open="–")
    found, left_out = outcomes(store, hash_, methods)
    request = store.release_request(hash_)
    digest = digest_of(_content(found, request))
    without = {
        name: fold.error.words()
        for name, outcome in found.items()
        for fold in outcome.folds.values()
        if fold.error is not None
    }
    return Waiting(
        hash_,
        study.title.words(),
        store.submission(hash_)[1],
        digest,
        shown_results(found),
        without | left_out,
        request,
        tuple(decided for decided in store.release_decisions(hash_) if decided["digest"] == digest),
    )


def shown_results(found: Mapping[str, Outcome]) -> dict[tuple[str, str], Result]:
    """(step, fold) → what readers see of it."""
    return {
        (name, fold or ""): told.released
        for name, outcome in found.items()
        for fold, told in outcome.folds.items()
        if told.released is not None
    }


def queue(store: Store, methods: Methods, actor: Actor) -> list[Waiting]:
    """Everything that waits for release. Raises NotPermitted."""
    permissions.check(actor, "see_release")
    found = []
    for hash_, _, state in store.studies():
        if state == "release_review":
            try:
                found.append(waiting(store, hash_, methods))
            except Exception:  # one that cannot be read does not hide the others; `show` says what is wrong with it
                continue
    return found


def ask(store: Store, hash_: str, actor: Actor, context: Mapping[str, str]) -> None:
    """The proposer asks for release and says what a reader has to know.

    Raises NotPermitted, LifecycleError, or DecisionRefused where a part of the context is missing, too short or not
    all visible.
    """
    permissions.check(actor, "ask_release", store.submission(hash_)[1])
    context = {part: said.replace("\r\n", "\n") for part, said in context.items()}
    with store.transaction():
        state = studies.read(store, hash_)[1]
        if state != "release_review":
            raise LifecycleError(action="release", state=state, role="researcher", open="–")
        for part, words in CONTEXT.items():
            if len(context.get(part, "").strip()) < SHORTEST:
                raise DecisionRefused(
                    problem=Words(
                        f"It has to say {words.en} (`{part}`, at least {SHORTEST} characters)",
                        f"{words.ko}을(를) 적어야 합니다(`{part}`, {SHORTEST}자 이상)",
                    )
                )
            if visible(context[part]) != context[part]:
                raise _refused(
                    f"Control characters in `{part}` could hide or turn around what stands beside them",
                    f"`{part}`에 들어 있는 제어 문자는 옆의 글을 숨기거나 뒤집을 수 있습니다",
                )
        kept = {part: context[part].strip() for part in CONTEXT}
        store.put_release_request(hash_, kept, actor.name, actor.organisation)
        store.put_event(hash_, "release asked", {"by": actor.name})


def decide(
    store: Store, hash_: str, actor: Actor, digest: str, approves: bool, methods: Methods, said: str = ""
) -> lifecycle.State:
    """One person's decision on exactly what `digest` names; the study's state afterwards.

    Two people approve; one refusal sends the study back to its proposer. Whoever holds a hub without accounts decides
    alone, and the record says so. Raises NotPermitted, LifecycleError, DecisionRefused.
    """
    permissions.check(actor, "decide_release", store.submission(hash_)[1])
    with store.transaction():  # what is decided on cannot change in between
        item = waiting(store, hash_, methods)
        _check_decision(store, item, actor, digest, approves, said)
        store.put_release_decision(hash_, item.digest, actor.name, actor.organisation, actor.role, approves, said)
        store.put_event(hash_, "release approved" if approves else "release refused", {"by": actor.name})
        decided = [one for one in store.release_decisions(hash_) if one["digest"] == item.digest]
        action: lifecycle.Action = "refuse_release"
        if approves:
            if actor.role != "owner" and sum(bool(one["approves"]) for one in decided) < APPROVALS:
                return "release_review"
            action = "release"
            store.put_released(hash_, item.digest, pack(content(store, hash_, methods)))
        state = studies.advance(store, hash_, action, "board")
        store.put_event(hash_, "released" if action == "release" else "declined", {"digest": item.digest})
    return state


def _check_decision(store: Store, item: Waiting, actor: Actor, digest: str, approves: bool, said: str) -> None:
    """Raise DecisionRefused where the decision cannot be taken."""
    named, whole = (one.removeprefix("sha256:") for one in (digest, item.digest))
    if not named or not whole.startswith(named):
        raise _refused("What waits is not what was decided on", "기다리는 내용이 결정한 내용과 다릅니다")
    if named != whole:  # two contexts whose digests begin alike are found in no time
        raise _refused("Only the whole digest names the content", "해시 전체를 적어야 내용을 가리킵니다")
    alone = actor.role == "owner"
    if not alone and item.proposer in (actor.organisation, actor.name):
        raise _refused("Nobody decides on a study of their own", "자기 연구를 스스로 결정할 수 없습니다")
    if not alone and item.request is None:
        raise _refused("The proposer has not asked for release yet", "제안자가 아직 공개를 요청하지 않았습니다")
    if not approves and not said.strip():
        raise _refused("It gives no reason", "이유가 없습니다")
    most = min((permit.releases for permit in studies.permits(store, item.study, over=True).values()), default=0)
    before = store.released(item.study)
    if approves and (before.times if before else 0) >= most:
        raise _refused(
            "The hospitals' permits allow no further release", "병원들의 허가서가 더 이상의 공개를 허락하지 않습니다"
        )


def content(store: Store, hash_: str, methods: Methods) -> dict[str, Any]:
    """What is kept at release and given to whoever fetches: it does not change with what happens afterwards."""
    found, study = outcomes(store, hash_, methods)[0], studies.read(store, hash_)[0]
    told = _content(found, store.release_request(hash_))
    for name, step in told["steps"].items():
        step["source"] = source_hash(methods[study.step(name).method])
    return {
        **told,
        "versions": calculating(),
        "left": [
            {
                "hospital": item.hospital,
                "step": item.step,
                "round": item.round,
                "array": item.array,
                "shape": list(item.shape),
                "bytes": item.bytes,
                "rules": list(item.rules),
            }
            for outcome in found.values()
            for item in outcome.left
        ],
    }


def _content(found: Mapping[str, Outcome], request: Mapping[str, Any] | None) -> dict[str, Any]:
    """What two people approve: results, why there is none, and the context they were given."""
    context = dict(request["context"]) if request else {}
    return {"context": context, "steps": {name: _told(outcome) for name, outcome in found.items()}}


def digest_of(kept: Mapping[str, Any]) -> str:
    """`sha256:` of what two people approve (`_content`) in what was kept."""
    steps = [
        [name, [[fold["fold"], fold["result"], fold["error"] and fold["error"]["en"]] for fold in step["folds"]]]
        for name, step in kept["steps"].items()
    ]
    return "sha256:" + hashlib.sha256(pack([sorted(kept["context"].items()), steps])).hexdigest()


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "hospitals": list(outcome.hospitals),
        "folds": [
            {
                "fold": fold or "",
                "status": found.status,
                "rounds": found.rounds,
                "result": pack_result(found.released) if found.released else None,
                "error": {"en": found.error.text("en"), "ko": found.error.text("ko")} if found.error else None,
            }
            for fold, found in outcome.folds.items()
        ],
    }


def _refused(en: str, ko: str) -> DecisionRefused:
    return DecisionRefused(problem=Words(en, ko))
