"""The permissions table, cell by cell, against a matrix written out by hand: a change of the table is a change here."""

from __future__ import annotations

from typing import get_args

import pytest

from dure.errors import NotPermitted
from dure.guard.acting import READS
from dure.guard.permissions import (
    ACTIONS,
    AT,
    KEEPS,
    MEMBERS,
    OF_THE_ALLIANCE,
    ROLES,
    Actor,
    MemberRole,
    Place,
    Role,
    can,
    check,
    owner,
)

COLUMNS = ("researcher", "company", "steward", "irb", "drb", "office", "auditor")
MATRIX = """
action            researcher company steward irb  drb  office auditor
submit            any        any     -       -    -    -      -
revise            own        own     -       -    -    -      -
cancel            own        own     -       -    -    any    -
see_study         any        own     any     any  any  any    any
fetch             any        own     any     any  any  any    any
ask_release       own        own     -       -    -    -      -
see_release       -          -       -       any  any  any    -
decide_release    -          -       -       any  any  any    -
archive           -          -       -       -    -    any    -
ask_open          any        -       -       -    -    -      -
decide_shared     -          -       -       -    any  -      -
see_members       -          -       -       -    -    any    any
admit             -          -       -       -    -    any    -
keep_people       -          -       -       -    -    any    -
audit_hub         -          -       -       -    -    any    any
see_review        -          -       any     any  any  -      any
decide_irb        -          -       -       any  -    -      -
decide_drb        -          -       -       -    any  -      -
withdraw          -          -       any     any  any  -      -
pause             -          -       any     -    -    -      -
see_egress        -          -       any     any  any  -      any
audit_site        -          -       any     -    -    -      any
keep_data         -          -       any     -    -    -      -
unlock            -          -       -       -    any  -      -
keep_people_site  -          -       any     -    -    -      -
"""
LINES = [line.split() for line in MATRIX.strip().splitlines()]
CELLS = [(action, role, cell) for action, *cells in LINES[1:] for role, cell in zip(COLUMNS, cells, strict=True)]


def test_the_matrix_has_every_role_and_every_action() -> None:
    assert tuple(LINES[0][1:]) == COLUMNS
    assert set(COLUMNS) == set(get_args(Role)) == set(ROLES)
    assert [action for action, *_ in LINES[1:]] == list(ACTIONS)


@pytest.mark.parametrize(("action", "role", "cell"), CELLS, ids=lambda value: str(value))
def test_a_cell(action: str, role: Role, cell: str) -> None:
    """Of a study of the person's own organisation, of one of another, and where no study is concerned."""
    actor = Actor("Somebody", role, "Here")
    allowed = {"own": cell in ("own", "any"), "foreign": cell == "any", "none": cell == "any"}
    for whose, proposer in (("own", "Here"), ("foreign", "Elsewhere"), ("none", None)):
        assert can(actor, action, proposer) == allowed[whose]
        if allowed[whose]:
            check(actor, action, proposer)
            continue
        with pytest.raises(NotPermitted) as found:
            check(actor, action, proposer)
        for language in ("en", "ko"):
            said = found.value.text(language)  # type: ignore[arg-type]
            assert ACTIONS[action].says.say(language) in said  # type: ignore[arg-type]
            assert all(ROLES[name].say(language) in said for name in ACTIONS[action].who)  # type: ignore[arg-type]


@pytest.mark.parametrize("role", COLUMNS)
def test_what_is_not_in_the_table_nobody_may(role: Role) -> None:
    assert not can(Actor("Somebody", role, "Here"), "invented", "Here")
    with pytest.raises(NotPermitted, match="invented"):
        check(Actor("Somebody", role, "Here"), "invented", "Here")
    assert not can(owner("Here"), "invented")


def test_a_role_nobody_has_may_nothing() -> None:
    stranger = Actor("Somebody", "root", "Here")  # type: ignore[arg-type]
    assert not any(can(stranger, action, "Here") for action in ACTIONS)


def test_who_holds_a_folder_without_accounts_may_everything_of_the_table() -> None:
    assert all(can(owner("Here"), action, "Elsewhere") for action in ACTIONS)


def test_a_company_proposes_and_reads_its_own_results_and_nothing_else() -> None:
    company = Actor("Yoon", "company", "Pharm")
    assert {action for action in ACTIONS if can(company, action, "Pharm")} == {
        "submit",
        "revise",
        "cancel",
        "see_study",
        "fetch",
        "ask_release",
    }
    assert {action for action in ACTIONS if can(company, action, "Another")} == {"submit"}


def test_no_place_has_an_action_that_no_account_of_it_can_have() -> None:
    for action in ACTIONS.values():
        assert set(action.who) & set(AT[action.place]), action.name


def test_the_first_account_of_a_place_may_keep_the_others() -> None:
    for place in get_args(Place):
        assert ACTIONS[KEEPS[place]].place == place
        assert list(ACTIONS[KEEPS[place]].who) == [AT[place][0]]


def test_a_members_key_and_its_people_have_roles_of_the_hub_and_none_is_the_office() -> None:
    assert set(MEMBERS) == set(get_args(MemberRole))
    for kind in MEMBERS.values():
        assert kind.key_acts_as in kind.people
        assert set(kind.people) <= set(AT["hub"]) - {"office"}
    assert set(OF_THE_ALLIANCE) <= set(AT["hub"]) - {"company"}


def test_reading_is_told_from_acting_for_actions_of_the_table_only() -> None:
    assert set(READS) <= set(ACTIONS)
