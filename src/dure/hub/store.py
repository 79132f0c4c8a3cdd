"""The hub's store: members, invitations, studies, permits, the ledger of rounds, and what happened in each study."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from dure.errors import FileMissing
from dure.guard.audit import FILE, AuditLog, digest
from dure.hub.database import Database, open_database

SCHEMA = """
CREATE TABLE IF NOT EXISTS member (name TEXT PRIMARY KEY, identity TEXT NOT NULL, role TEXT NOT NULL, key TEXT NOT NULL,
                                   certificate TEXT, joined TEXT NOT NULL, revoked TEXT);
CREATE TABLE IF NOT EXISTS invitation (identity TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL,
                                       expires TEXT NOT NULL, used TEXT);
CREATE TABLE IF NOT EXISTS serial (number TEXT PRIMARY KEY, member TEXT NOT NULL, issued TEXT NOT NULL, revoked TEXT);
CREATE TABLE IF NOT EXISTS study (hash TEXT PRIMARY KEY, document TEXT NOT NULL, state TEXT NOT NULL,
                                  since TEXT NOT NULL, submitted TEXT NOT NULL, submitter TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS permit (study TEXT NOT NULL, hospital TEXT NOT NULL, envelope TEXT, received TEXT NOT NULL,
                                   PRIMARY KEY (study, hospital));
CREATE TABLE IF NOT EXISTS answer (study TEXT NOT NULL, hospital TEXT NOT NULL, kind TEXT NOT NULL, said TEXT NOT NULL,
                                   received TEXT NOT NULL, PRIMARY KEY (study, hospital));
CREATE TABLE IF NOT EXISTS board_decision (study TEXT NOT NULL, board TEXT NOT NULL, envelope TEXT NOT NULL,
                                           received TEXT NOT NULL, PRIMARY KEY (study, board));
CREATE TABLE IF NOT EXISTS release_request (study TEXT PRIMARY KEY, context TEXT NOT NULL, name TEXT NOT NULL,
                                            organisation TEXT NOT NULL, asked TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS release_decision (study TEXT NOT NULL, digest TEXT NOT NULL, name TEXT NOT NULL,
                                             organisation TEXT NOT NULL, role TEXT NOT NULL, approves INTEGER NOT NULL,
                                             said TEXT NOT NULL, decided TEXT NOT NULL,
                                             PRIMARY KEY (study, digest, name, organisation));
CREATE TABLE IF NOT EXISTS released (study TEXT PRIMARY KEY, digest TEXT NOT NULL, times INTEGER NOT NULL,
                                     released TEXT NOT NULL, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS delivery (study TEXT NOT NULL, hospital TEXT NOT NULL, delivered TEXT NOT NULL,
                                     PRIMARY KEY (study, hospital));
CREATE TABLE IF NOT EXISTS run (name TEXT PRIMARY KEY, study TEXT NOT NULL, started TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sum_members (study TEXT PRIMARY KEY, hospitals TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (run TEXT NOT NULL, step TEXT NOT NULL, fold TEXT NOT NULL, entry BLOB NOT NULL,
                                   PRIMARY KEY (run, step, fold));
CREATE TABLE IF NOT EXISTS event (study TEXT NOT NULL, number INTEGER NOT NULL, time TEXT NOT NULL, event TEXT NOT NULL,
                                  details TEXT NOT NULL, PRIMARY KEY (study, number));
"""


@dataclass(frozen=True)
class ReleaseRecord:
    """What was released: the digest that was approved, how often, when, and the content as it was then (packed)."""

    digest: str
    times: int
    when: str
    content: bytes


@dataclass(frozen=True)
class Member:
    """`role` as in `dure.guard.permissions.MEMBERS`; `identity` is its name on the wire and in its certificate."""

    name: str
    identity: str
    role: str
    key: dict[str, Any]
    certificate: str | None
    joined: str
    revoked: str | None


class Store:
    """Every write is one transaction, on disk before it returns. Raises LedgerBroken on a file of another kind.

    What changes who belongs here or where a study stands is in the audit log first, whoever calls. The log lies beside
    the store's file, or in `folder` (needed with PostgreSQL).
    """

    def __init__(self, place: Path | str, folder: Path | None = None) -> None:
        self.path = Path(place) if not str(place).startswith("postgres") else Path("postgresql")
        self._folder = folder if folder or str(place).startswith("postgres") else self.path.parent
        self._database: Database = open_database(place)
        self._database.script(SCHEMA)

    def close(self) -> None:
        self._database.close()

    @cached_property
    def log(self) -> AuditLog:
        """The hub's audit log: names, digests, shapes; never a number of a study."""
        if self._folder is None:
            raise FileMissing(path=FILE)
        return AuditLog(self._folder / FILE)

    def transaction(self) -> AbstractContextManager[None]:
        """All writes inside happen together or not at all."""
        found: AbstractContextManager[None] = self._database.transaction()
        return found

    # ── members ──

    def add_hospital(self, name: str, key: dict[str, Any]) -> None:
        """A hospital inside this process, without a certificate; joining twice is the database's error, no change."""
        self.add_member(name, name, "hospital", key, None)

    def add_member(self, name: str, identity: str, role: str, key: dict[str, Any], certificate: str | None) -> None:
        values = (name, identity, role, json.dumps(key), certificate, _now())
        self._database.write("INSERT INTO member VALUES (?, ?, ?, ?, ?, ?, NULL)", values)
        self.log.append("admitted", member=name, role=role, key=key)

    def members(self) -> list[Member]:
        """All, revoked ones too, in the order in which they joined."""
        columns = "name, identity, role, key, certificate, joined, revoked"
        rows = self._database.rows(f"SELECT {columns} FROM member ORDER BY joined, name")
        return [Member(name, identity, role, json.loads(key), *rest) for name, identity, role, key, *rest in rows]

    def hospitals(self) -> dict[str, dict[str, Any]]:
        """Name → public key of the hospitals that are members now."""
        return {
            member.name: member.key for member in self.members() if member.role == "hospital" and not member.revoked
        }

    def replace_member(self, name: str, key: dict[str, Any], certificate: str) -> None:
        """A member that joins again after its revocation, with a new key."""
        self.log.append("admitted", member=name, again=True, key=key)
        statement = "UPDATE member SET key = ?, certificate = ?, revoked = NULL WHERE name = ?"
        self._database.write(statement, (json.dumps(key), certificate, name))

    def set_certificate(self, name: str, certificate: str) -> None:
        self._database.write("UPDATE member SET certificate = ? WHERE name = ?", (certificate, name))

    def revoke(self, name: str) -> None:
        """The member and all its certificates; its permits no longer count."""
        now = _now()
        self.log.append("revoked", member=name)
        with self.transaction():
            self._database.write("UPDATE member SET revoked = ? WHERE name = ?", (now, name))
            self.close_invitations(name)
            self._database.write("UPDATE serial SET revoked = ? WHERE member = ? AND revoked IS NULL", (now, name))

    def add_serial(self, number: str, member: str) -> None:
        self._database.write("INSERT INTO serial VALUES (?, ?, ?, NULL)", (number, member, _now()))

    def serials(self) -> dict[str, bool]:
        """Serial number of every certificate issued → whether it still holds."""
        return {
            number: revoked is None for number, revoked in self._database.rows("SELECT number, revoked FROM serial")
        }

    # ── invitations ──

    def add_invitation(self, identity: str, name: str, role: str, expires: str) -> None:
        self.log.append("invited", member=name, role=role, expires=expires)
        values = (identity, name, role, expires)
        self._database.write("INSERT INTO invitation VALUES (?, ?, ?, ?, NULL)", values)

    def invitation(self, identity: str) -> tuple[str, str, str, str | None] | None:
        """(name, role, expires, used)."""
        query = "SELECT name, role, expires, used FROM invitation WHERE identity = ?"
        return next(((row[0], row[1], row[2], row[3]) for row in self._database.rows(query, (identity,))), None)

    def close_invitations(self, name: str) -> None:
        """Those not used yet no longer can be."""
        query = "UPDATE invitation SET used = ? WHERE name = ? AND used IS NULL"
        self._database.write(query, (_now(), name))

    def use_invitation(self, identity: str) -> bool:
        """Mark it used; False if it was already."""
        query = "UPDATE invitation SET used = ? WHERE identity = ? AND used IS NULL"
        return self._database.write(query, (_now(), identity)) == 1

    # ── studies and permits ──

    def put_study(self, hash_: str, document: str, state: str, submitter: str = "") -> None:
        if self.study(hash_) is None:
            said = json.loads(document)
            about = {"title": said.get("title"), "replaces": said.get("replaces")}
            self.log.append("submitted", study=hash_, by=submitter, state=state, **about)
        query = "INSERT INTO study VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        self._database.write(query, (hash_, document, state, _now(), _now(), submitter))

    def study(self, hash_: str) -> tuple[str, str] | None:
        """The study's canonical JSON and its state."""
        rows = self._database.rows("SELECT document, state FROM study WHERE hash = ?", (hash_,))
        return (str(rows[0][0]), str(rows[0][1])) if rows else None

    def submission(self, hash_: str) -> tuple[datetime, str]:
        """When the study came in, and from whom."""
        ((submitted, submitter),) = self._database.rows(
            "SELECT submitted, submitter FROM study WHERE hash = ?", (hash_,)
        )
        return datetime.fromisoformat(submitted), str(submitter)

    def studies(self) -> list[tuple[str, str, str]]:
        """(hash, document, state) of every study, oldest first."""
        rows = self._database.rows("SELECT hash, document, state FROM study ORDER BY submitted, hash")
        return [(str(hash_), str(document), str(state)) for hash_, document, state in rows]

    def set_state(self, hash_: str, state: str) -> None:
        self.log.append("state", study=hash_, state=state)
        self._database.write("UPDATE study SET state = ?, since = ? WHERE hash = ?", (state, _now(), hash_))

    def put_permit(self, study: str, hospital: str, envelope: dict[str, Any] | None) -> None:
        """A hospital's signed permit; None where it gave none. A later one replaces the earlier."""
        text = json.dumps(envelope) if envelope else None
        query = (
            "INSERT INTO permit VALUES (?, ?, ?, ?) ON CONFLICT (study, hospital) "
            "DO UPDATE SET envelope = excluded.envelope, received = excluded.received"
        )
        self._database.write(query, (study, hospital, text, _now()))

    def permits(self, study: str) -> dict[str, dict[str, Any] | None]:
        rows = self._database.rows("SELECT hospital, envelope FROM permit WHERE study = ?", (study,))
        return {hospital: json.loads(envelope) if envelope else None for hospital, envelope in rows}

    def put_answer(self, study: str, hospital: str, kind: str, said: str, envelope: dict[str, Any] | None) -> None:
        """What a hospital answered: kind, words for the proposer, and what it signed."""
        signed: dict[str, Any] = {"permit": digest(envelope)} if envelope else {}
        self.log.append("answered", study=study, hospital=hospital, answer=kind, **signed)
        query = (
            "INSERT INTO answer VALUES (?, ?, ?, ?, ?) ON CONFLICT (study, hospital) "
            "DO UPDATE SET kind = excluded.kind, said = excluded.said, received = excluded.received"
        )
        with self.transaction():
            self.put_permit(study, hospital, envelope)
            self._database.write(query, (study, hospital, kind, said, _now()))

    def answers(self, study: str) -> dict[str, tuple[str, str, str]]:
        """Hospital → (kind, what it said, when)."""
        rows = self._database.rows("SELECT hospital, kind, said, received FROM answer WHERE study = ?", (study,))
        return {str(hospital): (str(kind), str(said), str(when)) for hospital, kind, said, when in rows}

    def put_board_decision(self, study: str, board: str, envelope: dict[str, Any]) -> None:
        """The signed decision of a board that hospitals share; a later one replaces the earlier."""
        self.log.append("board decided", study=study, board=board, decision=digest(envelope))
        query = (
            "INSERT INTO board_decision VALUES (?, ?, ?, ?) ON CONFLICT (study, board) "
            "DO UPDATE SET envelope = excluded.envelope, received = excluded.received"
        )
        self._database.write(query, (study, board, json.dumps(envelope), _now()))

    def board_decisions(self, study: str) -> dict[str, dict[str, Any]]:
        rows = self._database.rows("SELECT board, envelope FROM board_decision WHERE study = ?", (study,))
        return {str(board): json.loads(envelope) for board, envelope in rows}

    # ── releases ──

    def put_release_request(self, study: str, context: dict[str, str], name: str, organisation: str) -> None:
        self.log.append("release asked", study=study, by=name, organisation=organisation)
        query = (
            "INSERT INTO release_request VALUES (?, ?, ?, ?, ?) ON CONFLICT (study) DO UPDATE SET "
            "context = excluded.context, name = excluded.name, organisation = excluded.organisation, "
            "asked = excluded.asked"
        )
        values = (study, json.dumps(context, ensure_ascii=False), name, organisation, _now())
        self._database.write(query, values)

    def release_request(self, study: str) -> dict[str, Any] | None:
        """{context, name, organisation, asked}."""
        query = "SELECT context, name, organisation, asked FROM release_request WHERE study = ?"
        rows = self._database.rows(query, (study,))
        names = ("context", "name", "organisation", "asked")
        return {**dict(zip(names, rows[0])), "context": json.loads(rows[0][0])} if rows else None

    def put_release_decision(
        self, study: str, digest: str, name: str, organisation: str, role: str, approves: bool, said: str
    ) -> None:
        """One person's decision on exactly this content; deciding again replaces it."""
        said_ = "release approved" if approves else "release refused"
        self.log.append(said_, study=study, content=digest, by=name, organisation=organisation, role=role)
        query = (
            "INSERT INTO release_decision VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (study, digest, name, organisation) DO UPDATE SET role = excluded.role, "
            "approves = excluded.approves, said = excluded.said, decided = excluded.decided"
        )
        self._database.write(query, (study, digest, name, organisation, role, int(approves), said, _now()))

    def release_decisions(self, study: str) -> list[dict[str, Any]]:
        """Every decision, the first one first."""
        names = ("digest", "name", "organisation", "role", "approves", "said", "decided")
        query = f"SELECT {', '.join(names)} FROM release_decision WHERE study = ? ORDER BY decided, name"
        return [dict(zip(names, row)) for row in self._database.rows(query, (study,))]

    def put_released(self, study: str, digest: str, content: bytes) -> None:
        self.log.append("released", study=study, content=digest)
        query = (
            "INSERT INTO released VALUES (?, ?, 1, ?, ?) ON CONFLICT (study) DO UPDATE SET digest = excluded.digest, "
            "times = released.times + 1, released = excluded.released, content = excluded.content"
        )
        self._database.write(query, (study, digest, _now(), content))

    def released(self, study: str) -> ReleaseRecord | None:
        query = "SELECT digest, times, released, content FROM released WHERE study = ?"
        rows = self._database.rows(query, (study,))
        return ReleaseRecord(str(rows[0][0]), int(rows[0][1]), str(rows[0][2]), bytes(rows[0][3])) if rows else None

    def delivered(self, study: str) -> set[str]:
        """Hospitals that hold the study in their inbox."""
        return {str(name) for (name,) in self._database.rows("SELECT hospital FROM delivery WHERE study = ?", (study,))}

    def put_delivered(self, study: str, hospital: str) -> None:
        query = "INSERT INTO delivery VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        self._database.write(query, (study, hospital, _now()))

    # ── runs ──

    def put_run(self, name: str, study: str) -> None:
        if name not in self.runs(study):
            self.log.append("run", study=study, run=name)
        self._database.write("INSERT INTO run VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (name, study, _now()))

    def runs(self, study: str) -> list[str]:
        rows = self._database.rows("SELECT name FROM run WHERE study = ? ORDER BY started, name", (study,))
        return [str(name) for (name,) in rows]

    def sum_members(self, study: str) -> tuple[str, ...]:
        """The hospitals with which a study's masked sums began; none before the first."""
        rows = self._database.rows("SELECT hospitals FROM sum_members WHERE study = ?", (study,))
        return tuple(json.loads(rows[0][0])) if rows else ()

    def put_sum_members(self, study: str, hospitals: tuple[str, ...]) -> None:
        """Kept once: hospitals take part in no sum of the study among others."""
        query = "INSERT INTO sum_members VALUES (?, ?) ON CONFLICT DO NOTHING"
        self._database.write(query, (study, json.dumps(hospitals, ensure_ascii=False)))

    def ledger(self, run: str) -> StoredLedger:
        return StoredLedger(self._database, run)

    # ── what happened ──

    def put_event(self, study: str, event: str, details: dict[str, Any]) -> None:
        """Names and counts of rounds, never of patients."""
        query = (
            "INSERT INTO event SELECT CAST(? AS TEXT), COALESCE(MAX(number), 0) + 1, CAST(? AS TEXT), CAST(? AS TEXT), "
            "CAST(? AS TEXT) FROM event WHERE study = ?"
        )
        values = (study, _now(), event, json.dumps(details, ensure_ascii=False), study)
        with self.transaction():
            self._database.write(query, values)

    def events(self, study: str, after: int = 0) -> list[dict[str, Any]]:
        query = "SELECT number, time, event, details FROM event WHERE study = ? AND number > ? ORDER BY number"
        rows = self._database.rows(query, (study, after))
        return [
            {"number": number, "time": time, "event": event, **json.loads(details)}
            for number, time, event, details in rows
        ]


class StoredLedger:
    """The rounds of one run (`dure.federation.rounds.Ledger`)."""

    def __init__(self, database: Database, run: str) -> None:
        self._database, self._run = database, run

    def read(self, step: str, fold: str | None) -> bytes | None:
        query = "SELECT entry FROM ledger WHERE run = ? AND step = ? AND fold = ?"
        rows = self._database.rows(query, (self._run, step, fold or ""))
        return bytes(rows[0][0]) if rows else None

    def folds(self, step: str) -> list[bytes]:
        """Every entry of a step: one, or one by hospital."""
        query = "SELECT entry FROM ledger WHERE run = ? AND step = ? ORDER BY fold"
        return [bytes(entry) for (entry,) in self._database.rows(query, (self._run, step))]

    def write(self, step: str, fold: str | None, entry: bytes) -> None:
        query = (
            "INSERT INTO ledger VALUES (?, ?, ?, ?) ON CONFLICT (run, step, fold) DO UPDATE SET entry = excluded.entry"
        )
        self._database.write(query, (self._run, step, fold or "", entry))


def _now() -> str:
    return datetime.now(UTC).isoformat()
