"""A hospital's review of a study: two gates, the ethics board's and the data review board's, own or shared.

The permit is signed as soon as both have approved, and allows only what both allowed; each approval counts for its
days from the moment it was given, and then the gate is open again. A decision is on disk before
anything follows from it: what a killed process left undone, the hospital's service or the next command does.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dure.errors import BoardsDecide, DecisionRefused, LifecycleError
from dure.guard import permissions
from dure.guard.permissions import Actor
from dure.language import Words
from dure.site import inbox
from dure.site.settings import OWN, Board, Site
from dure.study.board import Decision, Verdict, read_decision
from dure.study.method import Methods
from dure.study.permit import Grant
from dure.study.signed import Unsigned, key_of

BOARDS: dict[Board, Words] = {
    "irb": Words("ethics board (IRB)", "기관생명윤리위원회(IRB)"),
    "drb": Words("data review board (DRB)", "데이터심의위원회(DRB)"),
}
UPON, AFTER, LATEST = "upon", "after", "latest"
"""In `review.json` beside the decisions: what the hospital said when the last of them was taken, the digest of the
withdrawal after which they were taken, and the latest date of each board's decisions, which no older approval takes
the place of."""
SKEW = timedelta(minutes=10)
"""Hospitals' and boards' clocks differ."""


def gates(site: Site, hash_: str) -> dict[Board, Decision | None]:
    """What each board has decided of this version, if it has and its approval's days are not over."""
    now = datetime.now(UTC)
    return {board: None if one is None or _over(one, now) else one for board, one in _kept(site, hash_).items()}


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
        decision = read_decision(dict(envelope), key_of(bytes.fromhex(site.file.board_keys[name])))
    except (Unsigned, ValidationError):
        raise _refused("Its signature is not the board's", "위원회의 서명이 아닙니다") from None
    if site.hospital not in decision.hospitals:
        raise _refused("It is not for this hospital", "이 병원을 위한 결정이 아닙니다")
    if decision.at > datetime.now(UTC) + SKEW:
        raise _refused("It is dated in the future", "미래의 날짜로 된 결정입니다")
    if _over(decision, datetime.now(UTC)):
        _drop(site, decision, "its days are over")
        day = _end(decision).date().isoformat()
        raise _refused(f"The days for which it approved ended on {day}", f"승인 기간이 {day}에 끝났습니다")
    return _take(site, decision, methods)


def unsettled(site: Site) -> list[str]:
    """Studies whose boards have decided, and of which a process was killed before the hospital's answer followed."""
    found = (f"sha256:{path.parent.name}" for path in sorted((site.folder / "inbox").glob("*/review.json")))
    return [hash_ for hash_ in found if _due(site, hash_)]


def settle(site: Site, hash_: str, methods: Methods) -> inbox.HospitalAnswer | None:
    """What follows from the boards' decisions, where it has not followed yet; the hospital's answer now."""
    with _alone(site, hash_):
        if _due(site, hash_):
            _follow(site, hash_, methods)
    return inbox.answer_of(site, hash_)


def withdraw(
    site: Site, hash_: str, actor: Actor, said: str = "", difference: bool = False, keep_results: bool = False
) -> None:
    """Leave a study at any time (`dure.site.inbox.withdraw`). Raises NotPermitted, LifecycleError."""
    permissions.check(actor, "withdraw")
    if inbox.own_permit(site, hash_) is None and not _due(site, hash_):
        given = inbox.answer_of(site, hash_)
        state = given.kind if given else "in_review"
        raise LifecycleError(action="withdraw", state=state, role="hospital", open="approve, ask, decline")
    site.audit.append("withdrawing", study=hash_, by=actor.name, role=actor.role)
    with _alone(site, hash_):
        inbox.withdraw(site, hash_, said, difference, keep_results)


def decline(site: Site, hash_: str, actor: Actor, said: str = "") -> None:
    """A steward's no: withdrawal where the study was permitted; before that, only of a folder without accounts.

    Raises NotPermitted, or BoardsDecide.
    """
    permissions.check(actor, "withdraw")
    if inbox.own_permit(site, hash_) is None and actor.role != "owner":
        raise BoardsDecide(name=actor.name)
    with _alone(site, hash_):
        inbox.decline(site, hash_, said)


def _take(site: Site, decision: Decision, methods: Methods) -> inbox.HospitalAnswer | None:
    hash_ = decision.study
    inbox.study_of(site, hash_)
    if inbox.replaced_by(site, hash_):
        raise LifecycleError(action=decision.verdict, state="replaced", role="hospital", open="–")
    if decision.verdict != "approve" and not decision.said.strip():
        raise _refused("It gives no reason", "이유가 없습니다")
    details: dict[str, Any] = {"board": decision.board, "by": decision.by, "grants": list(decision.grants)}
    with _alone(site, hash_):
        if _kept(site, hash_)[decision.board] == decision:  # the hub brought it again
            if _due(site, hash_):
                _follow(site, hash_, methods)
            return inbox.answer_of(site, hash_)
        (found, after), latest = _standing(site, hash_), _latest(site, hash_)
        last, left = latest.get(decision.board), inbox.left_at(site, hash_)
        # A clock put right since lets no approval stand against a no; an old no that is shown again only takes us out.
        slack = timedelta(0) if decision.verdict == "approve" else SKEW
        if decision.name != OWN and last is not None and decision.at <= last - slack:
            _drop(site, decision, "older than its last")
            return inbox.answer_of(site, hash_)
        slack = slack if found[decision.board] else timedelta(0)
        if decision.name != OWN and left is not None and decision.at <= left - slack:
            _drop(site, decision, "before this hospital left")
            raise _refused(
                "It is dated before this hospital left the study; the board has to decide again",
                "이 병원이 연구에서 빠지기 전의 날짜입니다. 위원회가 다시 결정해야 합니다",
            )
        site.audit.append(f"board decided: {decision.verdict}", study=hash_, **details)
        found |= {decision.board: decision}
        stored: dict[str, Any] = {board: one.model_dump(mode="json") if one else None for board, one in found.items()}
        latest[decision.board] = max(decision.at, last or decision.at)
        dates = {board: at.isoformat() for board, at in latest.items()}
        upon = inbox.answer_mark(site, hash_)
        inbox.write_whole(_path(site, hash_), stored | {UPON: upon, AFTER: after, LATEST: dates})
        _follow(site, hash_, methods)
    return inbox.answer_of(site, hash_)


def _drop(site: Site, decision: Decision, why: str) -> None:
    about: dict[str, Any] = {"board": decision.board, "by": decision.by, "at": decision.at.isoformat(), "why": why}
    site.audit.append(f"board's decision dropped: {decision.verdict}", study=decision.study, **about)


def _standing(site: Site, hash_: str) -> tuple[dict[Board, Decision | None], str | None]:
    """Decisions that still count, and the withdrawal they came after: once a hospital has left, both boards decide
    anew before it comes back, whatever a clock says."""
    given = inbox.answer_of(site, hash_)
    left = given.digest if given is not None and given.kind == "withdrawn" else None
    after = _written(site, hash_).get(AFTER)
    if left is not None and after != left:
        return dict.fromkeys(BOARDS), left
    return gates(site, hash_), after


def _latest(site: Site, hash_: str) -> dict[Board, datetime]:
    """The date of each board's last decision that came here, whether it still counts or not."""
    dates = {board: decided.at for board, decided in _kept(site, hash_).items() if decided is not None}
    return dates | {board: datetime.fromisoformat(at) for board, at in _written(site, hash_).get(LATEST, {}).items()}


def _kept(site: Site, hash_: str) -> dict[Board, Decision | None]:
    found = _written(site, hash_)
    return {board: Decision.model_validate(found[board]) if found.get(board) else None for board in BOARDS}


def _end(decision: Decision) -> datetime:
    """When an approval's days are over: they run from the decision, not from when the permit is signed."""
    return decision.at + timedelta(days=decision.days)


def _over(decision: Decision, now: datetime) -> bool:
    return decision.verdict == "approve" and _end(decision) <= now


def _written(site: Site, hash_: str) -> dict[str, Any]:
    path = _path(site, hash_)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _due(site: Site, hash_: str) -> bool:
    """Whether something follows from what boards decided, and the hospital has said nothing since. No clock is asked:
    one that was set back would hide a decision, or carry it out again and again."""
    written = _written(site, hash_)
    upon = written.get(UPON, "" if "taken" in written else None)  # as earlier versions wrote it
    decided = [one for one in gates(site, hash_).values() if one is not None]
    if upon is None or inbox.replaced_by(site, hash_):
        return False
    if not any(_standing(site, hash_)[0].values()):  # it has left since they decided
        return False
    follows = len(decided) == len(BOARDS) or any(one.verdict != "approve" for one in decided)
    return follows and upon == inbox.answer_mark(site, hash_)


def _follow(site: Site, hash_: str, methods: Methods) -> None:
    decided = [one for one in gates(site, hash_).values() if one is not None]
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
            min(_end(one) for one in decided),
            min(one.releases for one in decided),
            {one.board: f"{one.name} {one.at.date().isoformat()}" for one in decided},
        )


@contextmanager
def _alone(site: Site, hash_: str) -> Iterator[None]:
    """One process at a time: two boards that decide in the same moment must not write over each other."""
    folder = os.open(_path(site, hash_).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # given up when it closes, also by a process that is killed
        yield
    finally:
        os.close(folder)


def _refused(en: str, ko: str) -> DecisionRefused:
    return DecisionRefused(problem=Words(en, ko))


def _path(site: Site, hash_: str) -> Path:
    return site.folder / "inbox" / hash_.removeprefix("sha256:") / "review.json"
