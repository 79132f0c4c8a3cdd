"""A study's life as one table: who may do what, when, and whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dure.errors import LifecycleError
from dure.language import Words

State = Literal[
    "draft",
    "submitted",
    "in_review",
    "changes_asked",
    "permitted",
    "running",
    "waiting",
    "release_review",
    "released",
    "archived",
    "declined",
    "replaced",
    "withdrawn",
]
Role = Literal["researcher", "hospital", "hub", "board", "office"]
Action = Literal[
    "submit",
    "deliver",
    "ask_changes",
    "review_again",
    "permit_all",
    "decline",
    "start",
    "wait",
    "resume",
    "finish",
    "release",
    "refuse_release",
    "archive",
    "revise",
    "withdraw",
]


@dataclass(frozen=True, slots=True)
class Transition:
    before: State
    action: Action
    role: Role
    after: State


OPEN: tuple[State, ...] = (
    "submitted",
    "in_review",
    "changes_asked",
    "permitted",
    "running",
    "waiting",
    "release_review",
)
"""States in which a study can still be replaced by a new version or withdrawn; results are not released yet."""

TRANSITIONS: tuple[Transition, ...] = (
    Transition("draft", "submit", "researcher", "submitted"),
    Transition("submitted", "deliver", "hub", "in_review"),
    Transition("in_review", "ask_changes", "hub", "changes_asked"),
    Transition("changes_asked", "review_again", "hub", "in_review"),
    Transition("in_review", "permit_all", "hub", "permitted"),
    Transition("changes_asked", "permit_all", "researcher", "permitted"),
    Transition("in_review", "decline", "hub", "declined"),
    Transition("permitted", "start", "hub", "running"),
    Transition("running", "wait", "hub", "waiting"),
    Transition("waiting", "resume", "hub", "running"),
    Transition("running", "resume", "hub", "running"),
    Transition("running", "finish", "hub", "release_review"),
    Transition("release_review", "release", "board", "released"),
    Transition("release_review", "refuse_release", "board", "declined"),
    Transition("released", "archive", "office", "archived"),
    *(Transition(state, "revise", "researcher", "replaced") for state in (*OPEN, "declined")),
    *(Transition(state, "withdraw", "researcher", "withdrawn") for state in OPEN),
)

STATES: dict[State, tuple[Words, Role | None]] = {
    "draft": (Words("Draft", "초안"), "researcher"),
    "submitted": (Words("Submitted", "제출됨"), "hub"),
    "in_review": (Words("In review", "기관 검토"), "hospital"),
    "changes_asked": (Words("Changes asked", "보완 요청"), "researcher"),
    "permitted": (Words("Permitted", "허가됨"), "hub"),
    "running": (Words("Running", "실행 중"), "hub"),
    "waiting": (Words("Waiting", "대기"), "hospital"),
    "release_review": (Words("Release review", "공개 심사"), "board"),
    "released": (Words("Results", "결과"), "office"),
    "archived": (Words("Archived", "보관됨"), None),
    "declined": (Words("Declined", "반려"), "researcher"),
    "replaced": (Words("Replaced by a new version", "새 판으로 바뀜"), None),
    "withdrawn": (Words("Withdrawn", "철회"), None),
}
"""State → its name, and whose turn it is."""


def can(state: State, action: Action, role: Role) -> bool:
    return any((t.before, t.action, t.role) == (state, action, role) for t in TRANSITIONS)


def check(state: State, action: Action, role: Role) -> State:
    """The state after `action`; raises LifecycleError naming what is open instead."""
    for transition in TRANSITIONS:
        if (transition.before, transition.action, transition.role) == (state, action, role):
            return transition.after
    possible = sorted(f"{t.action} ({t.role})" for t in TRANSITIONS if t.before == state)
    raise LifecycleError(action=action, state=state, role=role, open=", ".join(possible) or "–")


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> draft"]
    lines += [f"    {t.before} --> {t.after}: {t.action} ({t.role})" for t in TRANSITIONS]
    lines += [f"    {state} --> [*]" for state, (_, turn) in STATES.items() if turn is None]
    return "\n".join(lines)
