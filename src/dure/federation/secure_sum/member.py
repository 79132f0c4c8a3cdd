"""A hospital's half of a masked sum: it makes keys, masks its numbers, signs one set, and gives shares once.

Everything it decides is on disk before it is said. A hospital that was killed repeats the same bytes; one that is
asked for something else in the same session refuses (`refusals`, docs/secure-sum.md). What is read, decided and written
in a stage is one transaction, so that two processes of a hospital, one of them about to end, decide one thing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import SSlibKey

from dure.errors import DureError, PermitError, SumOutOfRange, SumRefused
from dure.federation.messages import LONGEST, Answer, Ask, error_data
from dure.federation.secure_sum import keys, masks, refusals, sharing
from dure.federation.secure_sum.exchange import Exchange, Part, Reply, Stage, question_digest
from dure.federation.secure_sum.keys import Advert, Roster
from dure.federation.secure_sum.record import Record
from dure.federation.sums import told_apart
from dure.study.permit import Grant, verify

Parts = Callable[[Ask], Part]
"""This hospital's own part in a round's sum."""
PLAIN = ("permit-error", "site-paused", "missing-package", "sum-refused")
"""Errors that are told as they are, whatever was asked: they do not depend on data."""
RULES = (
    "minimum_cohort",
    "minimum_hospitals",
    "per_hospital_permit",
    "difference_permit",
    "history_overlap",
    "lockout",
    "budget",
)
"""Refusals that are told, too: of permits, the study's cohort and what was asked before. Others look at numbers, and a
state or an earlier result could choose which."""
MOST = 1_000
"""Hospitals in a list. Names that are seen for the first time are pinned and logged for good."""
Facts = dict[str, Any]
GROUP = ("about", "members", "roster")
"""Facts of a session that the next one shares: study and run, the study's hospitals, and those of the session."""


class Pins(Protocol):
    """The Ed25519 keys of other hospitals as they are known here."""

    def hold(self, roster: Roster) -> bool:
        """Whether every key of the list is the one known; one seen for the first time becomes known, unless the
        hospital's list is closed."""
        ...

    def key(self, hospital: str) -> bytes | None: ...


class PinsInMemory:
    """For simulation."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}
        self.closed = False

    def hold(self, roster: Roster) -> bool:
        if self.closed and not set(roster) <= set(self._known):
            return False
        return all(self._known.setdefault(name, key) == key for name, key in roster.items())

    def key(self, hospital: str) -> bytes | None:
        return self._known.get(hospital)


class _Inside(Exception):
    """What went wrong while this hospital computed its own answer; its cause is raised on."""


@dataclass
class Member:
    """One hospital, for one question. `public` and `sign` are of its own Ed25519 key; `minimum` hospitals make a sum;
    `grants` are those of its own permit."""

    hospital: str
    public: bytes
    sign: Callable[[bytes], bytes]
    pins: Pins
    record: Record
    minimum: int
    grants: frozenset[Grant]
    log: Callable[..., None] = lambda event, **details: None
    random: keys.Random = os.urandom

    def answer(self, asked: Exchange, part: Parts) -> bytes:
        """The reply's bytes; every refusal is a reply too."""
        try:
            try:
                return self._stage(asked, part)
            except _Inside as inside:
                raise (inside.__cause__ or inside) from None
            except (ValueError, TypeError, KeyError, AttributeError, IndexError):
                raise refusals.refusal(self.hospital, "form") from None
        except DureError as error:
            rule = error.fields["rule"] if isinstance(error, SumRefused) else error.code()
            self.log("sum refused", rule=rule, stage=asked.stage, run=asked.run, study=asked.study, step=asked.step)
            return Answer(self.hospital, "error", error=error_data(error)).to_bytes()

    def must(self, rule: str, holds: object) -> None:
        """Raise SumRefused unless the rule holds."""
        if not holds:
            raise refusals.refusal(self.hospital, rule)

    def _stage(self, asked: Exchange, part: Parts) -> bytes:
        stages: dict[Stage, Callable[[Exchange], bytes]] = {
            "keys": self._keys,
            "shares": self._shares,
            "vector": partial(self._vector, part=part),
            "set": self._set,
            "reveal": self._reveal,
        }
        if asked.stage == "vector":  # it computes first, for as long as that takes
            return stages["vector"](asked)
        with self.record.whole():
            return stages[asked.stage](asked)

    # ── the five stages ──

    def _keys(self, asked: Exchange) -> bytes:
        """Begin a session: fresh keys, for the hospitals of the list and no others."""
        facts, roster = self.record.read(asked.session), dict(asked.body["roster"])
        members = sorted(asked.body["members"])
        named = all(isinstance(name, str) and len(name) <= LONGEST for name in [*members, *roster])
        self.must("form", named and len(set(members)) == len(members) <= MOST)
        self.must("form", all(isinstance(key, bytes) and len(key) == 32 for key in roster.values()))
        group = {"about": [asked.study, asked.run], "members": members, "roster": roster}
        if facts is not None:
            same = {name: facts[name] for name in group} == group
            self.must("replay", same)
            if same:
                return self._reply(asked, {"advert": facts["advert"]})
        self.must("members", set(roster) <= set(members) and self.record.members(asked.study) in (None, members))
        self.must("threshold", len(roster) >= sharing.threshold(len(members)))
        self.must("own_key", roster.get(self.hospital) == self.public)
        self.must("pinned_key", self.pins.hold(roster))
        self.must("minimum_hospitals", len(roster) >= self.minimum or "per_hospital" in self.grants)
        self.record.forget(_run(asked))
        facts = self._begin(asked, asked.session, group)
        return self._reply(asked, {"advert": facts["advert"]})

    def _shares(self, asked: Exchange) -> bytes:
        """Everybody's keys: check them, and share the secrets that a dropout would leave."""
        return self._reply(asked, {"sealed": self._deal(asked, asked.session, asked.body["keys"])})

    def _vector(self, asked: Exchange, part: Parts) -> bytes:
        """This hospital's numbers of the round, masked; and its keys for the next sum."""
        facts, ask = self._known(asked.session, asked), Ask.from_bytes(asked.body["ask"])
        asked_for = (ask.run, ask.study, ask.step, ask.round, ask.fold, ask.alone)
        same = asked_for == (asked.run, asked.study, asked.step, asked.round, asked.fold, False)
        self.must("question", same and sorted(ask.hospitals) == sorted(facts["roster"]))
        self.must("order", "keys" in facts and "over" not in facts)
        if asked.body["sealed"] is not None:
            self._take(facts, asked.session, asked.body["sealed"])
        self.must("order", "received" in facts)
        try:
            mine = part(ask)
        except Exception as error:
            raise _Inside from error
        question = question_digest(ask, mine.declaration, mine.built_on)
        with self.record.whole():  # before anything is computed, since an error is an answer too
            self._add(asked, facts, received=facts.get("received"), question=question)
        found = self._computed(asked, mine)
        if found is not None and found.kind == "error":
            return found.to_bytes()
        vector = self._masked(asked, mine, found, facts, question)
        with self.record.whole():
            now = self._add(asked, facts, vector=[hashlib.sha256(vector).digest(), question])
            self.record.keep_members(asked.study, now["members"])
            self.must("members", self.record.members(asked.study) == now["members"])
            following = keys.next_session(asked.session)
            after = self.record.read(following) or self._begin(asked, following, now)
        said = {"vector": vector, "question": question, "built_on": mine.built_on}
        return self._reply(asked, said | {"advert": after["advert"]})

    def _set(self, asked: Exchange) -> bytes:
        """Sign whose numbers are in the sum: one set in a session, and none that would show a few hospitals."""
        facts = self._known(asked.session, asked)
        alive, dead = list(asked.body["alive"]), list(asked.body["dead"])
        self.must("order", "vector" in facts and ("over" not in facts or facts["set"] == sorted(alive)))
        self.must("overlap", not set(alive) & set(dead))
        everybody = sorted({*alive, *dead}) == sorted(facts["roster"]) and len(alive) == len(set(alive))
        self.must("participants", everybody)
        self.must("not_present", self.hospital in alive)
        self.must("threshold", len(alive) >= sharing.threshold(len(facts["members"])))
        self.must("minimum_hospitals", len(alive) >= self.minimum or "per_hospital" in self.grants)
        self.must("second_set", facts.get("set", sorted(alive)) == sorted(alive))
        self.must("difference", self._differs_by_enough(asked, alive, asked.body["permits"]))
        facts["set"] = sorted(alive)
        statement = self._statement(asked.session, facts)
        body: dict[str, Any] = {"signature": self.sign(statement), "sealed": None}
        self.record.sign(asked.study, alive)
        self.record.write(asked.session, _run(asked), facts)
        if asked.body["keys"] is not None:
            body["sealed"] = self._deal(asked, keys.next_session(asked.session), asked.body["keys"])
        return self._reply(asked, body)

    def _reveal(self, asked: Exchange) -> bytes:
        """Shares that open the sum of the set all have signed: of own masks where a vector is in it, of pair masks
        where none is; never both of one hospital, and only once."""
        facts, signatures = self._known(asked.session, asked), dict(asked.body["signatures"])
        self.must("order", "set" in facts)
        if "over" in facts:
            self.must("replay", facts["over"][0] == asked.digest)
            return bytes(facts["over"][1])
        statement, alive, roster = self._statement(asked.session, facts), facts["set"], facts["roster"]
        theirs = all(
            name in alive and keys.signed(roster[name], statement, value) for name, value in signatures.items()
        )
        self.must("unsigned", theirs and len(signatures) >= sharing.threshold(len(facts["members"])))
        self.must("unsigned", self.hospital in signatures)
        shares = {name: (both[:32] if name in alive else both[32:]) for name, both in facts["received"].items()}
        reply = self._reply(asked, {"shares": shares})
        following = keys.next_session(asked.session)
        if asked.body["sealed"] is not None:
            after = self._known(following, asked)
            self._take(after, following, asked.body["sealed"])
            self.record.write(following, _run(asked), after)
        self.record.forget(_run(asked), but=(asked.session, following))
        public = {name: facts[name] for name in (*GROUP, "advert", "keys", "question", "vector", "set")}
        self.record.write(asked.session, _run(asked), public | {"over": [asked.digest, reply]})
        return reply

    # ── the numbers ──

    def _computed(self, asked: Exchange, mine: Part) -> Answer | None:
        """This hospital's answer in the clear; None where there is none, and the hub shall not hear whose it is."""
        try:
            found = Answer.from_bytes(mine.answer())
        except Exception as error:
            if not mine.chosen or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryException":
                raise _Inside from error
            why = type(error).__name__
            self.log("failed", error=why, run=asked.run, study=asked.study, step=asked.step, round=asked.round)
            return None
        if found.kind != "error" or not mine.chosen or _told(found.error):
            return found
        return None  # its log has one line, as for an answer: the hub sees how many there are

    def _masked(self, asked: Exchange, mine: Part, found: Answer | None, facts: Facts, question: bytes) -> bytes:
        declaration, hospitals = (masks.WITHHELD, *mine.declaration), len(facts["roster"])
        if found is not None:
            try:
                arrays = {**found.arrays, masks.WITHHELD.name: np.array(0)}
                return masks.masked(arrays, declaration, hospitals, self._streams(asked.session, facts, question))
            except SumOutOfRange:
                if not mine.chosen:
                    raise
        noise = keys.noise_stream(asked.session, self.hospital, facts["secrets"]["seal"])
        return masks.withheld(declaration, hospitals, noise)

    # ── what stages share ──

    def _add(self, asked: Exchange, facts: Facts, **said: Any) -> Facts:
        """What is on disk of the session, with what is said now, if it is still the session that was read."""
        now = self._known(asked.session, asked)
        self.must("order", "over" not in now)
        for name, value in ({name: facts[name] for name in ("advert", "keys")} | said).items():
            self.must("replay", now.setdefault(name, value) == value)
        self.record.write(asked.session, _run(asked), now)
        return now

    def _begin(self, asked: Exchange, session: bytes, group: Facts) -> Facts:
        """Fresh keys of a session, signed and on disk."""
        secrets, advert = keys.fresh(session, self.hospital, self.random)
        facts: Facts = {name: group[name] for name in GROUP} | {"secrets": secrets, "advert": advert}
        advert["signature"] = self.sign(self._keys_said(session, facts, self.hospital, advert))
        self.record.write(session, _run(asked), facts)
        return facts

    def _deal(self, asked: Exchange, session: bytes, adverts: Mapping[str, Advert]) -> dict[str, bytes]:
        """Check everybody's keys, and seal a share of both secrets for each of the others."""
        facts = self._known(session, asked)
        if "keys" in facts:
            self.must("replay", facts["keys"] == adverts)
            return dict(facts["sealed"])
        self.must("own_key", adverts.get(self.hospital) == facts["advert"])
        self.must("participants", sorted(adverts) == sorted(facts["roster"]))
        for name, advert in adverts.items():
            said = self._keys_said(session, facts, name, advert)
            self.must("key_signature", keys.signed(facts["roster"][name], said, advert["signature"]))
        names, secrets = sorted(facts["roster"]), facts["secrets"]
        seeds, privates = (sharing.split(secrets[name], len(names)) for name in ("seed", "mask"))
        shares = {name: seed + private for name, seed, private in zip(names, seeds, privates)}
        facts["sealed"] = {
            name: keys.seal(
                session, self.hospital, secrets["seal"], name, adverts[name]["seal"], shares[name], self.random
            )
            for name in names
            if name != self.hospital
        }
        facts["keys"], facts["own"] = dict(adverts), shares[self.hospital]
        self.record.write(session, _run(asked), facts)
        return dict(facts["sealed"])

    def _take(self, facts: Facts, session: bytes, sealed: Mapping[str, bytes]) -> None:
        """Open the shares that the others sealed for this hospital."""
        self.must("order", "keys" in facts)
        others = [name for name in sorted(facts["roster"]) if name != self.hospital]
        self.must("participants", sorted(sealed) == others)
        received = {self.hospital: facts["own"]}
        for name in others:
            private, key = facts["secrets"]["seal"], facts["keys"][name]["seal"]
            opened = keys.unseal(session, self.hospital, private, name, key, sealed[name])
            self.must("forged_share", opened is not None and len(opened) == 64)
            received[name] = opened or b""
        self.must("replay", facts.setdefault("received", received) == received)

    def _keys_said(self, session: bytes, facts: Facts, hospital: str, advert: Advert) -> bytes:
        return keys.keys_statement(session, tuple(facts["about"]), facts["members"], facts["roster"], hospital, advert)

    def _streams(self, session: bytes, facts: Facts, question: bytes) -> list[masks.Stream]:
        secrets, mine = facts["secrets"], self.hospital
        pairs = [
            keys.pair_stream(session, question, mine, secrets["mask"], name, advert["mask"])
            for name, advert in facts["keys"].items()
            if name != mine
        ]
        return [keys.own_stream(session, mine, secrets["seed"]), *pairs]

    def _statement(self, session: bytes, facts: Facts) -> bytes:
        return keys.set_statement(session, keys.digest_of(facts["keys"]), facts["vector"][1], facts["set"])

    def _differs_by_enough(self, asked: Exchange, alive: Collection[str], permits: Mapping[str, Any]) -> bool:
        """Two sums of one study show what lies between them: either enough hospitals, or such as permitted it."""
        before = self.record.signed(asked.study)
        if frozenset(alive) in before:
            return True
        granted = {
            name
            for name, envelope in permits.items()
            if _permits_differences(envelope, self.pins.key(name), name, asked.study)
        }
        return not told_apart(before, alive, granted, self.minimum)

    def _known(self, session: bytes, asked: Exchange) -> Facts:
        """A session's facts, which belong to one study and run: another study's permits say nothing about it."""
        facts = self.record.read(session)
        self.must("order", facts is not None)
        self.must("question", facts is None or facts["about"] == [asked.study, asked.run])
        return facts or {}

    def _reply(self, asked: Exchange, body: Mapping[str, Any]) -> bytes:
        return Reply(self.hospital, asked.session, asked.stage, body).to_bytes()


def _run(asked: Exchange) -> str:
    """The hub names runs; one study's say nothing about another's."""
    return f"{asked.study} {asked.run}"


def _told(error: Mapping[str, Any]) -> bool:
    """Whether an error is told as it is, whatever was asked."""
    code, rule = error["code"], error["fields"].get("rule")
    return code in PLAIN or (code == "refused" and rule in RULES)


def _permits_differences(envelope: Any, key: bytes | None, hospital: str, study: str) -> bool:
    if envelope is None or key is None:
        return False
    try:
        permit = verify(envelope, SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(key)), hospital)
    except PermitError:
        return False
    return permit.difference and permit.study == study and permit.issued <= datetime.now(UTC) < permit.expires
