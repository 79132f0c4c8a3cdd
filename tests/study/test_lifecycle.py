"""A study's life: every state is reached, and an action that is not open says which ones are."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from dure.errors import LifecycleError
from dure.study.lifecycle import STATES, TRANSITIONS, Action, Role, State, can, check, diagram


def test_every_state_is_reached_and_every_action_is_used() -> None:
    reached, grew = {"draft"}, True
    while grew:
        further = {t.after for t in TRANSITIONS if t.before in reached} | reached
        grew, reached = further != reached, further
    assert reached == set(get_args(State)) == set(STATES)
    assert {t.action for t in TRANSITIONS} == set(get_args(Action))
    assert {t.role for t in TRANSITIONS} <= set(get_args(Role))


def test_a_state_without_a_turn_is_an_end_and_every_other_has_a_way_on() -> None:
    for state, (name, turn) in STATES.items():
        onward = {t.after for t in TRANSITIONS if t.before == state}
        assert bool(onward) == (turn is not None), state
        assert name.en != name.ko


def test_one_action_of_one_role_leads_to_one_state() -> None:
    assert len({(t.before, t.action, t.role) for t in TRANSITIONS}) == len(TRANSITIONS)


@pytest.mark.parametrize(("state", "action", "role"), list(product(get_args(State), get_args(Action), get_args(Role))))
def test_what_is_open_happens_and_what_is_not_names_what_is(state: State, action: Action, role: Role) -> None:
    after = [t.after for t in TRANSITIONS if (t.before, t.action, t.role) == (state, action, role)]
    assert can(state, action, role) == bool(after)
    if after:
        assert check(state, action, role) == after[0]
        return
    with pytest.raises(LifecycleError) as caught:
        check(state, action, role)
    for transition in TRANSITIONS:
        named = f"{transition.action} ({transition.role})" in caught.value.text("en")
        if transition.before == state:
            assert named
    assert str(state) in caught.value.text("ko")


def test_results_are_released_by_the_board_alone_and_only_when_finished() -> None:
    assert [(t.before, t.role) for t in TRANSITIONS if t.after == "released"] == [("release_review", "board")]


def test_a_study_runs_only_after_every_hospital_permitted_it() -> None:
    assert {t.before for t in TRANSITIONS if t.after == "permitted"} == {"in_review", "changes_asked"}
    assert {t.before for t in TRANSITIONS if t.after == "running"} <= {"permitted", "waiting", "running"}


def test_the_diagram_draws_every_transition() -> None:
    for transition in TRANSITIONS:
        line = f"{transition.before} --> {transition.after}: {transition.action} ({transition.role})"
        assert line in diagram()
