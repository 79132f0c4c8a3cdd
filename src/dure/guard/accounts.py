"""The people of a hub or of a hospital: accounts, sign-in and sessions, in one file that only its owner reads.

A folder without accounts belongs to whoever holds it (`dure.guard.permissions.owner`); the first account ends that.
Every sign-in, and every change of an account, is in the folder's audit log; passwords and tokens are nowhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import sqlite3
import stat
import time
import unicodedata
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dure.errors import (
    AccountConflict,
    FileMissing,
    KeyExposed,
    LedgerBroken,
    NotSignedIn,
    SignInRefused,
    TooManyAttempts,
)
from dure.guard import passwords
from dure.guard.audit import AuditLog
from dure.guard.permissions import AT, ROLES, Actor, Place, Role
from dure.language import Words
from dure.study.document import read_document

FILE = "people.db"
WINDOW = 15 * 60.0
"""Seconds in which failed attempts count."""
FOR_ONE, FOR_ALL = 5, 20
"""Failed attempts in the window, for one name and for all names, after which signing in is closed."""
IDLE, LONGEST = 30 * 60.0, 12 * 3600.0
"""Seconds a session lasts without use, and altogether."""
TOUCH = 15.0
"""Seconds after which use of a session is noted again; a write for each call would be slower."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS person (name TEXT PRIMARY KEY, role TEXT NOT NULL, organisation TEXT NOT NULL,
                                   password TEXT NOT NULL, created TEXT NOT NULL, disabled TEXT);
CREATE TABLE IF NOT EXISTS session (digest TEXT PRIMARY KEY, person TEXT NOT NULL, began REAL NOT NULL,
                                    used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS attempt (number INTEGER PRIMARY KEY, door TEXT NOT NULL, name TEXT NOT NULL,
                                    time REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account; `disabled` is when it was closed."""

    name: str
    role: Role
    organisation: str
    created: str
    disabled: str | None = None

    @property
    def actor(self) -> Actor:
        return Actor(self.name, self.role, self.organisation)


class _SiteName(BaseModel):
    """Of a hospital's settings (`dure.site.settings`) only the name: the rest is the site's."""

    hospital: str


def place_of(folder: Path) -> tuple[Place, str]:
    """Whether a folder is a hub's or a hospital's, and the organisation it belongs to. Raises FileMissing."""
    if (folder / "hub.json").is_file():
        return "hub", str(json.loads((folder / "hub.json").read_text(encoding="utf-8"))["alliance"])
    if (folder / "site.yaml").is_file():
        return "site", read_document(folder / "site.yaml", _SiteName).hospital
    raise FileMissing(path=folder / "site.yaml")


class Accounts:
    """The accounts of one folder; processes may share it. Reading makes no file.

    Raises KeyExposed where other users of the machine may read it, LedgerBroken where it is not such a file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FILE
        self.place, self.organisation = place_of(folder)

    # ── who there is ──

    def exist(self) -> bool:
        """Whether anybody has an account here, open or closed."""
        return bool(self.people())

    def people(self) -> list[Person]:
        if not self.path.exists():
            return []
        with self._open() as database:
            columns = "name, role, organisation, created, disabled"
            return [Person(*row) for row in database.execute(f"SELECT {columns} FROM person ORDER BY created, name")]

    def of(self, organisation: str) -> bool:
        """Whether an organisation has people here: then its key alone no longer acts."""
        return any(person.organisation == organisation for person in self.people())

    def add(self, name: str, role: Role, password: str, organisation: str = "", by: str = "") -> Person:
        """A new account; without `organisation`, of this place's own. Raises AccountConflict or WeakPassword."""
        name = _spelt(name)
        if not 0 < len(name) <= 100 or not name.isprintable():
            raise _conflict(
                name[:20] or "–",
                Words("It is not a name", "이름이 아닙니다"),
                Words("Give 1 to 100 characters.", "1~100자로 쓰십시오."),
            )
        roles = AT[self.place]
        if role not in roles:
            raise _conflict(
                name,
                Words(f"Nobody has the role '{role}' here", f"여기에는 '{role}' 역할이 없습니다"),
                Words(f"Roles here: {', '.join(roles)}.", f"여기의 역할: {', '.join(roles)}."),
            )
        passwords.check_password(password, name)
        encoded = passwords.hashed(password)
        person = Person(name, role, organisation or self.organisation, datetime.now(UTC).isoformat())
        with self._open() as database, _transaction(database):
            if not database.execute("SELECT 1 FROM person").fetchone():
                first = roles[0]
                if role != first or person.organisation != self.organisation:
                    raise _conflict(
                        name,
                        Words(
                            f"The first account keeps the others: {ROLES[first].en}, of {self.organisation}",
                            f"첫 계정은 다른 계정을 관리합니다: {self.organisation}의 {ROLES[first].ko}",
                        ),
                        Words(f"Add it with --role {first}.", f"--role {first}(으)로 만드십시오."),
                    )
            try:
                database.execute(
                    "INSERT INTO person VALUES (?, ?, ?, ?, ?, NULL)",
                    (name, role, person.organisation, encoded, person.created),
                )
            except sqlite3.IntegrityError:
                problem = Words("There is an account of this name", "같은 이름의 계정이 있습니다")
                raise _conflict(name, problem, Words("Choose another name.", "다른 이름을 고르십시오.")) from None
        self._note("account added", person=name, role=role, organisation=person.organisation, by=by or name)
        return person

    def disable(self, name: str, by: str) -> None:
        """Close an account and end its sessions. Raises AccountConflict for the last one that keeps the others."""
        name = _spelt(name)
        with self._open() as database, _transaction(database):
            keeper, found = AT[self.place][0], self._known(database, name)
            query = "SELECT COUNT(*) FROM person WHERE role = ? AND disabled IS NULL AND name <> ?"
            if found == keeper and not database.execute(query, (keeper, name)).fetchone()[0]:
                raise _conflict(
                    name,
                    Words("Nobody would be left to keep the accounts", "계정을 관리할 사람이 남지 않습니다"),
                    Words(f"Add another one with --role {keeper} first.", f"먼저 --role {keeper} 계정을 더하십시오."),
                )
            now = datetime.now(UTC).isoformat()
            database.execute("UPDATE person SET disabled = ? WHERE name = ? AND disabled IS NULL", (now, name))
            database.execute("DELETE FROM session WHERE person = ?", (name,))
        self._note("account disabled", person=name, by=by)

    def enable(self, name: str, by: str) -> None:
        """Open a closed account again, with the password it had."""
        name = _spelt(name)
        with self._open() as database, _transaction(database):
            self._known(database, name)
            database.execute("UPDATE person SET disabled = NULL WHERE name = ?", (name,))
        self._note("account enabled", person=name, by=by)

    def set_password(self, name: str, password: str, by: str) -> None:
        """A new password; every session of the account ends."""
        name = _spelt(name)
        with self._open() as database:
            self._known(database, name)
        passwords.check_password(password, name)
        encoded = passwords.hashed(password)
        with self._open() as database, _transaction(database):
            database.execute("UPDATE person SET password = ? WHERE name = ?", (encoded, name))
            database.execute("DELETE FROM session WHERE person = ?", (name,))
        self._note("password changed", person=name, by=by)

    # ── signing in and out ──

    def sign_in(self, name: str, password: str, door: str = "") -> str:
        """A session's token. `door`: the member over whose line it is asked; then only its own people can sign in.

        Raises SignInRefused, the same for a wrong name and a wrong password, after the same time; TooManyAttempts.
        """
        person = self.prove(name, password, door)
        token, now = secrets.token_urlsafe(32), time.time()
        with self._open() as database, _transaction(database):
            database.execute("DELETE FROM session WHERE began < ? OR used < ?", (now - LONGEST, now - IDLE))
            database.execute("INSERT INTO session VALUES (?, ?, ?, ?)", (_digest(token), person.name, now, now))
        details = {"role": person.role, "organisation": person.organisation, "line": door or None}
        self._note("signed in", person=person.name, **details)
        return token

    def prove(self, name: str, password: str, door: str = "") -> Person:
        """Whose password it is. Every attempt counts as failed until it has succeeded, so that many at once are no
        way around the limit; members' lines are counted apart, so that none can close the door to the office."""
        name = _spelt(name)
        if not self.path.exists():
            raise SignInRefused()
        with self._open() as database, _transaction(database):
            number = self._attempt(database, name, door)
            row = database.execute(
                "SELECT password, name, role, organisation, created, disabled FROM person WHERE name = ?", (name,)
            ).fetchone()
        right = passwords.fits(password, row[0] if row else passwords.nobody())
        person = Person(*row[1:]) if row else None
        if person is None or not right or person.disabled or (door and person.organisation != door):
            # A name that is nobody's may be a password typed into the wrong field: it is not written down.
            self._note("sign-in failed", person=person.name if person else None, line=door or None)
            raise SignInRefused()
        with self._open() as database:
            database.execute(
                "DELETE FROM attempt WHERE number = ? OR (door = ? AND name = ?)", (number, door, _digest(name))
            )
        return person

    def who(self, token: str, door: str = "", command: str = "dure sign-in") -> Person:
        """Whose session it is; raises NotSignedIn, which names `command`."""
        now = time.time()
        found: tuple[object, ...] | None = None
        if token and self.path.exists():
            with self._open() as database:
                query = (
                    "SELECT s.used, p.name, p.role, p.organisation, p.created FROM session s JOIN person p "
                    "ON p.name = s.person WHERE s.digest = ? AND s.began > ? AND s.used > ? AND p.disabled IS NULL"
                )
                found = database.execute(query, (_digest(token), now - LONGEST, now - IDLE)).fetchone()
                if found and now - float(str(found[0])) > TOUCH:
                    database.execute("UPDATE session SET used = ? WHERE digest = ?", (now, _digest(token)))
        if not found or (door and found[3] != door):
            raise NotSignedIn(command=command)
        return Person(*found[1:])  # type: ignore[arg-type]

    def sign_out(self, token: str) -> None:
        """End a session; one that is over already is no error."""
        if not self.path.exists():
            return
        with self._open() as database:
            row = database.execute("SELECT person FROM session WHERE digest = ?", (_digest(token),)).fetchone()
            database.execute("DELETE FROM session WHERE digest = ?", (_digest(token),))
        if row:
            self._note("signed out", person=row[0])

    # ── the file ──

    def _attempt(self, database: sqlite3.Connection, name: str, door: str) -> int | None:
        """Note an attempt, or raise TooManyAttempts; one that is refused does not make the wait longer."""
        now = time.time()
        gone = "DELETE FROM attempt WHERE time < ? OR time > ?"  # later than now: the clock was set back since
        database.execute(gone, (now - WINDOW, now + TOUCH))
        for most, query, values in (
            (FOR_ONE, "door = ? AND name = ?", (door, _digest(name))),
            (FOR_ALL, "door = ?", (door,)),
        ):
            rows = database.execute(f"SELECT time FROM attempt WHERE {query} ORDER BY time DESC", values).fetchall()
            if len(rows) >= most:
                wait = rows[most - 1][0] + WINDOW - now
                raise TooManyAttempts(minutes=max(1, math.ceil(wait / 60)))
        note = "INSERT INTO attempt (door, name, time) VALUES (?, ?, ?)"
        return database.execute(note, (door, _digest(name), now)).lastrowid

    def _known(self, database: sqlite3.Connection, name: str) -> Role:
        row = database.execute("SELECT role FROM person WHERE name = ?", (name,)).fetchone()
        if row is None:
            problem = Words("There is no account of this name", "이 이름의 계정이 없습니다")
            raise _conflict(name, problem, Words("See: dure people list", "확인하십시오: dure people list"))
        role: Role = row[0]
        return role

    def _note(self, event: str, **details: Any) -> None:
        AuditLog(self.folder / "audit.jsonl").append(event, **details)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR))
        except OSError:
            raise FileMissing(path=self.path) from None
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyExposed(path=self.path, mode=f"{mode:04o}")
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as database:
            try:
                database.execute("PRAGMA synchronous = FULL")
                database.executescript(SCHEMA)
                yield database
            except sqlite3.OperationalError:  # locked, read-only: the file itself may be sound
                raise
            except sqlite3.DatabaseError:
                raise LedgerBroken(
                    path=self.path, problem=Words("It is not a file of accounts", "계정 파일이 아닙니다")
                ) from None


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; others wait meanwhile."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _spelt(name: str) -> str:
    """A name in one spelling: systems differ in whether Hangul is composed."""
    return unicodedata.normalize("NFC", name.strip())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _conflict(name: str, problem: Words, hint: Words) -> AccountConflict:
    return AccountConflict(name=name, problem=problem, hint=hint)
