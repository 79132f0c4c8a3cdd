"""Who asks over a member's line, which action of the permissions table each topic is, and signing in and out."""

from __future__ import annotations

from typing import Any

from dure.errors import NotPermitted
from dure.federation.frames import FORM
from dure.guard.accounts import Accounts
from dure.guard.permissions import MEMBERS, ROLES, Actor
from dure.hub.store import Member
from dure.language import Words
from dure.study.packing import pack, unpack

TOPICS = {
    "submit": "submit",
    "revise": "revise",
    "cancel": "cancel",
    "studies": "see_study",
    "status": "see_study",
    "events": "see_study",
    "document": "see_study",
    "proceed": "revise",
    "fetch": "fetch",
    "release_ask": "ask_release",
    "release_queue": "see_release",
    "release_decide": "decide_release",
    "decide_shared": "decide_shared",
    "ask_open": "ask_open",
}
"""What people ask over a member's line → the action of the permissions table. A topic that is not here is refused.

The service checks each before anything else, as if of the asker's own study; which study it is, and whose, is checked
where it is looked up (`dure.hub.desk.find_for`).
"""
SIGN_IN = "dure study sign-in --member FOLDER NAME"
OTHER_ROLE = Words("act for '{member}' in this role", "'{member}'을(를) 대신해 이 역할로 행동하기")


def who_asks(accounts: Accounts, member: Member, token: str) -> Actor:
    """The person whose session came with the call; of a member without accounts, whoever holds its key.

    Raises NotSignedIn where the member has accounts here and no session of one of them was sent, NotPermitted where
    the account has a role that people of such a member cannot have.
    """
    kind = MEMBERS[member.role]  # type: ignore[index]
    if not accounts.of(member.name):
        return Actor(member.name, kind.key_acts_as, member.name)
    actor = accounts.who(token, member.name, SIGN_IN).actor
    if actor.role not in kind.people:
        roles = Words(
            ", ".join(ROLES[role].en for role in kind.people), ", ".join(ROLES[role].ko for role in kind.people)
        )
        action = OTHER_ROLE.fill(member=member.name)
        raise NotPermitted(name=actor.name, role=ROLES[actor.role], action=action, roles=roles)  # type: ignore[index]
    return actor


def account(accounts: Accounts, member: Member, topic: str, token: str, body: bytes) -> bytes | None:
    """The answer to what a person does about their own account; None where the topic is another.

    Only people of this member come in over its line. Raises AccountError, NotPermitted or MessageRefused.
    """
    if topic == "sign_out":
        accounts.sign_out(token)
        return b""
    if topic not in ("sign_in", "password"):
        return None
    asked = _read(body)
    if topic == "sign_in":
        token = accounts.sign_in(asked["name"], asked["password"], member.name)
        try:
            actor = who_asks(accounts, member, token)
        except NotPermitted:
            accounts.sign_out(token)
            raise
        return pack({"session": token, "name": actor.name, "role": actor.role})
    name = who_asks(accounts, member, token).name
    accounts.prove(name, asked["password"], member.name)
    accounts.set_password(name, asked["new"], by=name)
    return b""


def _read(body: bytes) -> dict[str, str]:
    try:
        asked: dict[str, Any] = unpack(body)
        return {"name": "", "new": "", "password": str(asked["password"])} | {k: str(v) for k, v in asked.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FORM from None
