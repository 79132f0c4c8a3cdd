"""A hospital's review of a study: two gates, the ethics board's and the data review board's, own or shared.

The permit is signed as soon as both have approved, and allows only what both allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dure.errors import DecisionRefused, LifecycleError
from dure.guard import permissions
from dure.guard.permissions import Actor
from dure.language import Words
from dure.site import inbox
from dure.site.settings import OWN, Board, Site
from dure.study.board import Decision, Verdict, read_decision
from dure.study.method import Methods
from dure.study.permit import Grant
from dure.study.signed import Unsigned, public_key

BOARDS: dict[Board, Words] = {
    "irb": Words("ethics board (IRB)", "기관생명윤리위원회(IRB)"),
    "drb": Words("data review board (DRB)", "데이터심의위원회(DRB)"),
}


def gates(site: Site, hash_: str) -> dict[Board, Decision | None]:
    """What each board has decided of this version, if it has."""
    path = _path(site, hash_)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {board: Decision.model_validate(found[board]) if found.get(board) else None for board in BOARDS}


def open_gates(site: Site, hash_: str) -> list[Board]:
    """Boards whose decision is still wanted."""
    return [board for board, decided in gates(site, hash_).items() if decided is None]


def decide(
    site: Site,
    hash_: str,
    actor: Actor,
    board: Board,
    verdict: Verdict,
    methods: Methods,
    *,
    grants: Iterable[Grant] = (),
    days: int = 365,
    releases: int = 1,
    said: str = "",
) -> inbox.HospitalAnswer | None:
    """One board's decision, and the hospital's answer where it follows from it.

    Raises NotPermitted, LifecycleError where a newer version took this one's place, or DecisionRefused where the gate
    belongs to a shared board or a decision lacks its reasons.
    """
    permissions.check(actor, f"decide_{board}")
    shared = site.file.boards[board]
    if shared != OWN:
        raise _refused(
            f"This hospital's {BOARDS[board].en} is the shared board '{shared}'",
            f"이 병원의 {BOARDS[board].ko}는 공동 위원회 '{shared}'입니다",
        )
    decision = Decision(
        study=hash_,
        board=board,
        verdict=verdict,
        name=OWN,
        by=actor.name,
        at=datetime.now(UTC),
        grants=tuple(sorted(grants)),
        days=days,
        releases=releases,
        said=said,
    )
    return _take(site, decision, methods)


def decide_shared(site: Site, envelope: Mapping[str, Any], methods: Methods) -> inbox.HospitalAnswer | None:
    """A shared board's signed decision, as the hub brought it. Raises DecisionRefused, LifecycleError."""
    try:
        said = read_decision(dict(envelope), None)
        name = site.file.boards[said.board]
        if name == OWN or name != said.name:
            raise _refused(
                f"This hospital did not name the board '{said.name}'",
                f"이 병원은 '{said.name}' 위원회를 지정하지 않았습니다",
            )
        decision = read_decision(dict(envelope), public_key(site.file.board_keys[name]))
    except (Unsigned, ValidationError):
        raise _refused("Its signature is not the board's", "위원회의 서명이 아닙니다") from None
    if site.hospital not in decision.hospitals:
        raise _refused("It is not for this hospital", "이 병원을 위한 결정이 아닙니다")
    present = gates(site, decision.study)[decision.board]
    if present is not None and present.at >= decision.at:
        return inbox.answer_of(site, decision.study)
    return _take(site, decision, methods)


def withdraw(
    site: Site, hash_: str, actor: Actor, said: str = "", difference: bool = False, keep_results: bool = False
) -> None:
    """Leave a study at any time (`dure.site.inbox.withdraw`). Raises NotPermitted, LifecycleError."""
    permissions.check(actor, "withdraw")
    if inbox.own_permit(site, hash_) is None:
        given = inbox.answer_of(site, hash_)
        state = given.kind if given else "in_review"
        raise LifecycleError(action="withdraw", state=state, role="hospital", open="approve, ask, decline")
    site.audit.append("withdrawing", study=hash_, by=actor.name, role=actor.role)
    inbox.withdraw(site, hash_, said, difference, keep_results)


def _take(site: Site, decision: Decision, methods: Methods) -> inbox.HospitalAnswer | None:
    hash_ = decision.study
    inbox.study_of(site, hash_)
    if inbox.replaced_by(site, hash_):
        raise LifecycleError(action=decision.verdict, state="replaced", role="hospital", open="–")
    if decision.verdict != "approve" and not decision.said.strip():
        raise _refused("It gives no reason", "이유가 없습니다")
    found = gates(site, hash_) | {decision.board: decision}
    stored = {board: one.model_dump(mode="json") if one else None for board, one in found.items()}
    path = _path(site, hash_)
    beside = path.with_name("review.json.new")
    beside.write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    beside.replace(path)
    details: dict[str, Any] = {"board": decision.board, "by": decision.by, "grants": list(decision.grants)}
    site.audit.append(f"board decided: {decision.verdict}", study=hash_, **details)
    return _settle(site, hash_, list(found.values()), methods)


def _settle(site: Site, hash_: str, found: list[Decision | None], methods: Methods) -> inbox.HospitalAnswer | None:
    decided = [one for one in found if one is not None]
    reasons = "\n".join(one.said for one in decided if one.verdict != "approve")
    if any(one.verdict == "decline" for one in decided):
        inbox.decline(site, hash_, reasons)  # where a permit was signed, a board takes its approval back
    elif any(one.verdict == "ask" for one in decided):
        inbox.ask_changes(site, hash_, reasons)
    elif len(decided) == len(BOARDS):
        allowed = frozenset.intersection(*(frozenset(one.grants) for one in decided))
        inbox.permit(
            site,
            hash_,
            methods,
            allowed,
            timedelta(days=min(one.days for one in decided)),
            min(one.releases for one in decided),
            {one.board: f"{one.name} {one.at.date().isoformat()}" for one in decided},
        )
    return inbox.answer_of(site, hash_)


def _refused(en: str, ko: str) -> DecisionRefused:
    return DecisionRefused(problem=Words(en, ko))


def _path(site: Site, hash_: str) -> Path:
    return site.folder / "inbox" / hash_.removeprefix("sha256:") / "review.json"
