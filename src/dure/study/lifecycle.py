"""A study's life as one table: who may do what, when, and whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dure.errors import LifecycleError
from dure.language import Words

State = Literal[
    "draft", "submitted", "permitted", "running", "waiting", "finished", "released", "declined", "withdrawn"
]
Role = Literal["researcher", "hospital", "hub", "board"]
Action = Literal[
    "submit", "permit_all", "decline", "start", "wait", "resume", "finish", "release", "revise", "withdraw"
]


@dataclass(frozen=True, slots=True)
class Transition:
    before: State
    action: Action
    role: Role
    after: State


TRANSITIONS: tuple[Transition, ...] = (
    Transition("draft", "submit", "researcher", "submitted"),
    Transition("submitted", "permit_all", "hub", "permitted"),
    Transition("submitted", "decline", "hub", "declined"),
    Transition("permitted", "start", "hub", "running"),
    Transition("running", "wait", "hub", "waiting"),
    Transition("waiting", "resume", "hub", "running"),
    Transition("running", "resume", "hub", "running"),
    Transition("running", "finish", "hub", "finished"),
    Transition("finished", "release", "board", "released"),
    Transition("declined", "revise", "researcher", "draft"),
    Transition("submitted", "withdraw", "researcher", "withdrawn"),
    Transition("permitted", "withdraw", "researcher", "withdrawn"),
    Transition("running", "withdraw", "researcher", "withdrawn"),
    Transition("waiting", "withdraw", "researcher", "withdrawn"),
)

STATES: dict[State, tuple[Words, Role | None]] = {
    "draft": (Words("Draft", "초안"), "researcher"),
    "submitted": (Words("In review", "기관 검토"), "hospital"),
    "permitted": (Words("Permitted", "허가됨"), "hub"),
    "running": (Words("Running", "실행 중"), "hub"),
    "waiting": (Words("Waiting", "대기"), "hospital"),
    "finished": (Words("Release check", "공개 심사"), "board"),
    "released": (Words("Results", "결과"), None),
    "declined": (Words("Declined", "반려"), "researcher"),
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
