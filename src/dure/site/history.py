"""What a hospital remembers of earlier studies, in `history.db`: cohorts, answers, and who asked alike.

The file holds person ids and answers. It stays in the hospital's folder, readable by its owner only.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dure.errors import Refused
from dure.federation.answer import Told
from dure.federation.kept import run_of
from dure.federation.messages import Ask
from dure.federation.plan import Plan
from dure.guard import history as rules
from dure.guard.permissions import Actor, check, owner
from dure.guard.rules import Limits, refusal
from dure.site.settings import Site
from dure.study.method import read_parameters, source_hash
from dure.study.permit import Permit
from dure.study.rows import Rows
from dure.study.spec import Step, Study

MOST_BYTES = 16 * 2**20
"""Bytes of one answer and what was kept of it. Of a larger one only the hash is stored: when it is asked for again it
is computed again, and leaves only if it is the same."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS cohort (number INTEGER PRIMARY KEY, digest TEXT UNIQUE NOT NULL, people INTEGER NOT NULL,
                                   ids BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answered (cohort INTEGER NOT NULL, study TEXT NOT NULL, proposer TEXT NOT NULL,
                                     time TEXT NOT NULL, PRIMARY KEY (cohort, study));
CREATE TABLE IF NOT EXISTS answer (question TEXT PRIMARY KEY, study TEXT NOT NULL, cohort TEXT NOT NULL,
                                   time TEXT NOT NULL, sha256 TEXT NOT NULL, reply BLOB, kept BLOB,
                                   arrays TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS step (run TEXT NOT NULL, step TEXT NOT NULL, cohort TEXT NOT NULL, PRIMARY KEY (run, step));
CREATE TABLE IF NOT EXISTS alike (proposer TEXT NOT NULL, study TEXT NOT NULL, time TEXT NOT NULL, why TEXT NOT NULL,
                                  PRIMARY KEY (proposer, study));
CREATE TABLE IF NOT EXISTS lockout (proposer TEXT PRIMARY KEY, study TEXT NOT NULL, time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charge (number INTEGER PRIMARY KEY, proposer TEXT NOT NULL, study TEXT NOT NULL,
                                   epsilon REAL NOT NULL, time TEXT NOT NULL);
"""
STEP = "INSERT INTO step VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET cohort = excluded.cohort"


class HistoryStore:
    """One SQLite file, which several workers of a hospital share. `now` is the clock."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        self.now = now
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is read and written inside happens as if nobody else were writing; nothing stays if it raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(query, values))

    def close(self) -> None:
        self._connection.close()

    # ── who asked alike ──

    def note_alike(self, proposer: str, study: str, why: str, limits: Limits) -> None:
        """Count a study once among those alike; with the last one allowed, lock the proposer out of further studies."""
        now = self.now()
        since = (now - timedelta(days=limits.similar_days)).isoformat()
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO alike VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (proposer, study, now.isoformat(), why)
            )
            query = "SELECT count(*) FROM alike WHERE proposer = ? AND time > ?"
            ((count,),) = connection.execute(query, (proposer, since))
            if count >= limits.similar_questions:
                values = (proposer, study, now.isoformat())
                connection.execute("INSERT INTO lockout VALUES (?, ?, ?) ON CONFLICT DO NOTHING", values)

    def locked(self, proposer: str, study: str) -> bool:
        """Whether the proposer may have no answer for this study: the last of those alike still gets its own."""
        return bool(self.rows("SELECT 1 FROM lockout WHERE proposer = ? AND study <> ?", (proposer, study)))

    def locked_out(self) -> list[tuple[str, str]]:
        """(proposer, since when) of everybody who is locked out."""
        found = self.rows("SELECT proposer, time FROM lockout ORDER BY time")
        return [(str(proposer), str(time)) for proposer, time in found]

    def unlock(self, proposer: str) -> bool:
        """Lift a lockout and forget what it counted; False where there was none."""
        with self.transaction() as connection:
            found = connection.execute("DELETE FROM lockout WHERE proposer = ?", (proposer,)).rowcount
            connection.execute("DELETE FROM alike WHERE proposer = ?", (proposer,))
        return bool(found)


def unlock(site: Site, proposer: str, actor: Actor | None = None) -> bool:
    """The hospital's board lifts a lockout; False where there was none. Raises NotPermitted."""
    check(actor or owner(site.hospital), "unlock")
    store = HistoryStore(site.folder / "history.db")
    try:
        lifted = store.unlock(proposer)
    finally:
        store.close()
    if lifted:
        site.audit.append("unlocked", proposer=proposer)
    return lifted


def locked_out(site: Site) -> list[tuple[str, str]]:
    """(proposer, since when) of everybody whom this hospital does not answer."""
    store = HistoryStore(site.folder / "history.db")
    try:
        return store.locked_out()
    finally:
        store.close()


@dataclass
class StudyHistory:
    """One study's question beside all that left before it (`dure.federation.answer.History`).

    `charge`: the study is asked openly, and this writes what an answer costs. Its answers carry noise, which protects
    where a refusal that depends on people would tell of them; so its cohort is neither compared nor remembered.
    """

    store: HistoryStore
    study: Study
    plan: Plan
    permit: Permit
    limits: Limits
    proposer: str
    charge: Callable[[sqlite3.Connection], None] | None = None
    _asked: tuple[Ask, str] | None = None

    # ── the calls of an answer ──

    def told(self, ask: Ask, built_on: bytes) -> Told | None:
        """The answer that an equivalent question, built on equivalent ones, got. Raises Refused where the proposer is
        locked out."""
        if self.store.locked(self.proposer, self.study.hash):
            raise refusal("lockout")
        query = "SELECT study, cohort, reply, kept, arrays FROM answer WHERE question = ?"
        for study, cohort, reply, kept, arrays in self.store.rows(query, (self._question(ask, built_on),)):
            self._alike(study, "an equivalent question")
            if reply is None:
                return None  # too large to be kept: `record` compares
            with self.store.transaction() as connection:
                connection.execute(STEP, (run_of(ask), ask.step, cohort))
            return Told(zlib.decompress(reply), zlib.decompress(kept), json.loads(str(arrays)))
        return None

    def check(self, ask: Ask, rows: Rows) -> None:
        """Compare the people with those of all earlier answers; raises Refused."""
        if self.charge or 0 < rows.n < self.limits.minimum_cohort:
            return  # noise, or the gate's own refusal
        people, cohort = _people(rows)
        self._same_people(ask, cohort)
        for changed, studies, own in self._earlier(people, cohort):
            try:
                rules.check_overlap(changed, self.limits.minimum_difference, studies)
            except Refused:
                self._alike(studies[0], "refused for its overlap")
                raise
            if rules.alike(changed, len(people)) and own:
                self._alike(own[0], "a cohort that is nearly an earlier one")

    def record(self, ask: Ask, built_on: bytes, rows: Rows, told: Told) -> None:
        """Remember the people and the answer before it leaves; raises Refused where another study was quicker, or
        where the answer is not the one that was given before."""
        people, cohort = _people(rows)
        cohort, now = "" if self.charge else cohort, self.store.now().isoformat()
        question, sha256 = self._question(ask, built_on), hashlib.sha256(told.reply).hexdigest()
        small = len(told.reply) + len(told.kept) <= MOST_BYTES
        stored = (zlib.compress(told.reply, 1), zlib.compress(told.kept, 1)) if small else (None, None)
        with self.store.transaction() as connection:
            if self.charge:
                self.charge(connection)
            if cohort:
                for changed, studies, _ in self._earlier(people, cohort):
                    rules.check_overlap(changed, self.limits.minimum_difference, studies)
                connection.execute(
                    "INSERT INTO cohort (digest, people, ids) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (cohort, len(people), rules.packed(people)),
                )
                connection.execute(
                    "INSERT INTO answered SELECT number, ?, ?, ? FROM cohort WHERE digest = ? ON CONFLICT DO NOTHING",
                    (self.study.hash, self.proposer, now, cohort),
                )
            for study, before in connection.execute("SELECT study, sha256 FROM answer WHERE question = ?", (question,)):
                if before != sha256 and study != self.study.hash:
                    raise rules.overlap(f"another answer than the one to study {study}: the database has changed")
            connection.execute(
                "INSERT INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (question, self.study.hash, cohort, now, sha256, *stored, json.dumps(told.arrays)),
            )
            connection.execute(STEP, (run_of(ask), ask.step, cohort))

    # ── cohorts ──

    def _earlier(self, people: rules.People, cohort: str) -> Iterator[tuple[int, list[str], list[str]]]:
        """(people who differ, studies, those of the same proposer) for earlier cohorts near in size. None where these
        very people were answered about before: whoever came later was compared with them."""
        if self.store.rows("SELECT 1 FROM cohort WHERE digest = ?", (cohort,)):
            return
        close, near = self.limits.minimum_difference, int(np.ceil(rules.NEAR * len(people)))
        query = (
            "SELECT number, ids FROM cohort WHERE abs(people - ?) < ? "
            "OR (abs(people - ?) < ? AND number IN (SELECT cohort FROM answered WHERE proposer = ?))"
        )
        for number, ids in self.store.rows(query, (len(people), close, len(people), near, self.proposer)):
            found = self.store.rows("SELECT study, proposer FROM answered WHERE cohort = ?", (number,))
            own = [str(study) for study, proposer in found if proposer == self.proposer]
            yield rules.difference(people, rules.unpacked(ids)), [str(study) for study, _ in found], own

    def _same_people(self, ask: Ask, cohort: str) -> None:
        """What a hospital kept of earlier rounds and steps belongs to the people they were about."""
        step = self.plan.step(ask.step)
        built_on = [earlier.name for earlier in self.plan.lineage(step)] + ([step.name] if ask.round else [])
        query, run = "SELECT cohort FROM step WHERE run = ? AND step = ?", run_of(ask)
        for name in built_on:
            for (earlier,) in self.store.rows(query, (run, name)):
                if earlier != cohort:
                    raise rules.overlap(f"'{name}' was answered about other people: the database has changed")

    def _alike(self, study: str, why: str) -> None:
        if study != self.study.hash:
            self.store.note_alike(self.proposer, self.study.hash, why, self.limits)

    # ── questions ──

    def _question(self, ask: Ask, built_on: bytes) -> str:
        """Everything that the answer to `ask` depends on, whatever the study and the run are called; digested once,
        since a state may hold millions of weights."""
        if self._asked is None or self._asked[0] is not ask:
            self._asked = ask, self._digest(ask, built_on)
        return self._asked[1]

    def _digest(self, ask: Ask, built_on: bytes) -> str:
        step = self.plan.step(ask.step)
        told = [dict(ask.state), dict(ask.results), dict(ask.own), built_on]
        names = [list(ask.hospitals), ask.round, ask.fold, ask.alone, *told]
        lineage = [[earlier.name, *self._step(earlier)] for earlier in self.plan.lineage(step)]
        under = [
            sorted(self.permit.grants()),
            self.limits.model_dump(),
            self.study.open.epsilon if self.study.open and self.charge else None,
        ]
        labels = [column.label for column in self.plan.columns.values() if column.label]
        said = [[words.en, words.ko] for words in (*self.plan.criteria, *labels)] if ask.alone else []  # in its Result
        return rules.question_digest(self.study, [names, self._step(step), lineage, under, said])

    def _step(self, step: Step) -> list[object]:
        method = self.plan.method(step)
        parameters = read_parameters(method, step.parameters).model_dump(mode="json")
        return [step.method, _source(method), parameters, list(step.uses), step.scope, step.release]  # type: ignore[arg-type]


@cache
def _source(method: Any) -> str:
    """Of the method as this process has loaded it."""
    return source_hash(method)


def _people(rows: Rows) -> tuple[rules.People, str]:
    """The people and their digest, once for these rows."""

    def build() -> tuple[rules.People, str]:
        people = rules.people_of(rows.person if rows.person is not None else np.arange(rows.n))
        return people, rules.digest(people)

    return rows.remember("people of the history", build)
