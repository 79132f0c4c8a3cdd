"""Who may do what: one table of role × action × whose, at the hub and inside a hospital; the rest is denied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dure.errors import NotPermitted
from dure.language import Words

Role = Literal["researcher", "company", "steward", "irb", "drb", "office", "auditor"]
Whose = Literal["own", "any"]
"""`own`: studies that the person, or somebody of the same organisation, proposed. `any`: all of this place."""
Place = Literal["hub", "site"]

ROLES: dict[Role, Words] = {
    "researcher": Words("researcher", "연구자"),
    "company": Words("company scientist", "기업 연구자"),
    "steward": Words("data steward", "데이터 관리자"),
    "irb": Words("ethics board member (IRB)", "기관생명윤리위원회(IRB) 위원"),
    "drb": Words("data review board member (DRB)", "데이터심의위원회(DRB) 위원"),
    "office": Words("alliance office", "연합 사무국"),
    "auditor": Words("auditor", "감사자"),
}


AT: dict[Place, tuple[Role, ...]] = {
    "hub": ("office", "researcher", "company", "irb", "drb", "auditor", "steward"),
    "site": ("steward", "irb", "drb", "auditor", "researcher"),
}
"""Roles that an account can have at a place; the first is that of the first account, which keeps the others."""

MemberRole = Literal["hospital", "researcher", "company", "drb", "auditor"]


@dataclass(frozen=True, slots=True)
class MemberKind:
    """What a member is called, the role of its key while it has no accounts at the hub, and the roles its people may
    have there."""

    says: Words
    key_acts_as: Role
    people: tuple[Role, ...]


MEMBERS: dict[MemberRole, MemberKind] = {
    "hospital": MemberKind(Words("hospital", "병원"), "steward", ("steward", "researcher", "irb", "drb", "auditor")),
    "researcher": MemberKind(Words("researcher", "연구자"), "researcher", ("researcher",)),
    "company": MemberKind(Words("company", "기업"), "company", ("company",)),
    "drb": MemberKind(Words("shared data review board", "공용 데이터심의위원회"), "drb", ("drb",)),
    "auditor": MemberKind(Words("auditor", "감사자"), "auditor", ("auditor",)),
}
OF_THE_ALLIANCE: tuple[Role, ...] = ("office", "irb", "drb", "auditor", "researcher")
"""Roles of accounts at the hub that belong to the alliance itself, not to a member."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something a person does at one place; `who` says which roles may, and of whose studies."""

    name: str
    place: Place
    says: Words
    who: Mapping[Role, Whose]


ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        # ── at the hub ──
        Action("submit", "hub", Words("propose a study", "연구 제안"), {"researcher": "any", "company": "any"}),
        Action(
            "revise",
            "hub",
            Words("replace a study by a new version", "연구를 새 판으로 바꾸기"),
            {"researcher": "own", "company": "own"},
        ),
        Action(
            "cancel",
            "hub",
            Words("withdraw a study", "연구 취소"),
            {"researcher": "own", "company": "own", "office": "any"},
        ),
        Action(
            "see_study",
            "hub",
            Words("see where a study stands", "연구 진행 상태 보기"),
            {
                "researcher": "any",
                "company": "own",
                "steward": "any",
                "irb": "any",
                "drb": "any",
                "office": "any",
                "auditor": "any",
            },
        ),
        Action(
            "fetch",
            "hub",
            Words("read released results", "공개된 결과 읽기"),
            {
                "researcher": "any",
                "company": "own",
                "steward": "any",
                "irb": "any",
                "drb": "any",
                "office": "any",
                "auditor": "any",
            },
        ),
        Action(
            "ask_release",
            "hub",
            Words("ask for release, with the context it needs", "맥락을 적어 공개 요청"),
            {"researcher": "own", "company": "own"},
        ),
        Action(
            "see_release",
            "hub",
            Words("read what waits for release", "공개를 기다리는 내용 읽기"),
            {"irb": "any", "drb": "any", "office": "any"},
        ),
        Action(
            "decide_release",
            "hub",
            Words("approve or refuse a release", "공개 승인 또는 거절"),
            {"irb": "any", "drb": "any", "office": "any"},
        ),
        Action("archive", "hub", Words("archive a released study", "공개된 연구 보관"), {"office": "any"}),
        Action(
            "ask_open",
            "hub",
            Words("ask an open feasibility question", "공개 타당성 질문"),
            {"researcher": "any"},
        ),
        Action(
            "decide_shared",
            "hub",
            Words("decide for hospitals that share this board", "이 위원회를 함께 쓰는 병원들을 위해 결정"),
            {"drb": "any"},
        ),
        Action("see_members", "hub", Words("see who belongs", "회원 보기"), {"office": "any", "auditor": "any"}),
        Action("admit", "hub", Words("invite and revoke members", "회원 초대와 취소"), {"office": "any"}),
        Action("keep_people", "hub", Words("keep the hub's accounts", "허브 계정 관리"), {"office": "any"}),
        Action(
            "audit_hub",
            "hub",
            Words("read and verify the hub's log", "허브 기록 읽기와 검증"),
            {"office": "any", "auditor": "any"},
        ),
        # ── inside a hospital ──
        Action(
            "see_review",
            "site",
            Words("read what waits for review", "심의를 기다리는 연구 읽기"),
            {"steward": "any", "irb": "any", "drb": "any", "auditor": "any"},
        ),
        Action("decide_irb", "site", Words("decide for the ethics board", "IRB의 결정"), {"irb": "any"}),
        Action("decide_drb", "site", Words("decide for the data review board", "DRB의 결정"), {"drb": "any"}),
        Action(
            "withdraw",
            "site",
            Words("withdraw the hospital from a study", "연구에서 병원 철회"),
            {"steward": "any", "irb": "any", "drb": "any"},
        ),
        Action(
            "pause",
            "site",
            Words("stop answering for a while, and answer again", "응답 일시 중지와 재개"),
            {"steward": "any"},
        ),
        Action(
            "see_egress",
            "site",
            Words("read every number that left", "나간 모든 수치 읽기"),
            {"steward": "any", "irb": "any", "drb": "any", "auditor": "any"},
        ),
        Action(
            "audit_site",
            "site",
            Words("read and verify the hospital's log", "병원 기록 읽기와 검증"),
            {"steward": "any", "auditor": "any"},
        ),
        Action(
            "keep_data",
            "site",
            Words("standardise, check quality, renew certificates", "표준화, 품질 검사, 인증서 갱신"),
            {"steward": "any"},
        ),
        Action("unlock", "site", Words("lift a lockout", "잠금 해제"), {"drb": "any"}),
        Action("keep_people_site", "site", Words("keep the hospital's accounts", "병원 계정 관리"), {"steward": "any"}),
    )
}

KEEPS: dict[Place, str] = {"hub": "keep_people", "site": "keep_people_site"}
"""The action of keeping a place's accounts."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who does something: a signed-in person, or a member known by its key.

    `organisation` is the member they belong to. The role `owner` is that of a folder in which no account exists yet:
    whoever holds the folder then decides alone, and the first account ends it.
    """

    name: str
    role: Role | Literal["owner"]
    organisation: str


def owner(organisation: str) -> Actor:
    """Whoever holds a folder that has no accounts."""
    return Actor(organisation, "owner", organisation)


def can(actor: Actor, action: str, proposer: str | None = None) -> bool:
    """Whether `actor` may; `proposer` is the organisation that proposed the study concerned."""
    if actor.role == "owner":
        return action in ACTIONS
    whose = ACTIONS[action].who.get(actor.role) if action in ACTIONS else None
    return whose == "any" or (whose == "own" and proposer is not None and actor.organisation == proposer)


def role_name(role: str) -> Words:
    """How a role is called, also that of whoever holds a folder without accounts."""
    if role == "owner":
        return Words("owner of the folder", "폴더 소유자")
    return next((words for name, words in ROLES.items() if name == role), Words(role, role))


def check(actor: Actor, action: str, proposer: str | None = None) -> None:
    """Raise NotPermitted unless the table allows it."""
    if not can(actor, action, proposer):
        known = ACTIONS.get(action)
        roles = [ROLES[name] for name in known.who] if known else []
        raise NotPermitted(
            name=actor.name,
            role=role_name(actor.role),
            action=known.says if known else Words(action, action),
            roles=Words(", ".join(r.en for r in roles) or "–", ", ".join(r.ko for r in roles) or "–"),
        )
