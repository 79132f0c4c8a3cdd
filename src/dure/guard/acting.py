"""Who acts in a hub's or a hospital's folder: the person signed in there, or whoever holds a folder without accounts.

Sessions of a machine's user lie in `$XDG_STATE_HOME/dure/sessions` (else `~/.local/state/dure/sessions`), a file for
each folder; `DURE_SESSION` takes their place where it is set.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from dure.errors import NotPermitted
from dure.guard.accounts import Accounts
from dure.guard.audit import AuditLog
from dure.guard.certificates import read_private, write_private
from dure.guard.permissions import Actor, check, owner

VARIABLE = "DURE_SESSION"
READS = ("see_study", "fetch", "see_release", "see_members", "audit_hub", "see_review", "see_egress", "audit_site")
"""Actions that change nothing; the others are noted with the person's name."""


def acting(folder: Path) -> Actor:
    """Who acts now in a folder. Raises NotSignedIn where it has accounts and nobody is signed in."""
    accounts = Accounts(folder)
    if not accounts.exist():
        return owner(accounts.organisation)
    return accounts.who(session(folder), command=f"dure sign-in {folder} NAME").actor


def may(folder: Path, action: str, proposer: str | None = None) -> Actor:
    """Who acts now, if the table allows them `action`; raises NotSignedIn or NotPermitted.

    Where there are accounts, a refusal and whatever changes something are in the folder's audit log.
    """
    actor = acting(folder)
    try:
        check(actor, action, proposer)
    except NotPermitted:
        _note(folder, "not permitted", actor, action)
        raise
    if actor.role != "owner" and action not in READS:
        _note(folder, "acted", actor, action)
    return actor


def session(folder: Path) -> str:
    """The token of this user's session in a folder; empty where there is none. Raises KeyExposed."""
    given = os.environ.get(VARIABLE, "")
    path = _path(folder)
    if given or not path.exists():
        return given.strip()
    return read_private(path).decode()


def keep_session(folder: Path, token: str) -> None:
    path = _path(folder)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, token.encode())


def forget_session(folder: Path) -> None:
    _path(folder).unlink(missing_ok=True)


def _path(folder: Path) -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    place = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    return place / "dure" / "sessions" / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]


def _note(folder: Path, event: str, actor: Actor, action: str) -> None:
    who: dict[str, Any] = {"person": actor.name, "role": actor.role, "organisation": actor.organisation}
    AuditLog(folder / "audit.jsonl").append(event, **who, action=action)
