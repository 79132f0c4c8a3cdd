"""The hub's half of a masked sum: it passes keys and shares on, adds masked vectors, and opens the total alone.

Three exchanges for a sum; the first of a run, and one after hospitals came or went, needs two more for keys.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dure.errors import AnswerBroken, DureError, QuorumMissed, RunWaits, SumRefused
from dure.federation.engine import Engine, Failure
from dure.federation.messages import Ask, error_from
from dure.federation.plain_sum import PlainSum, unreachable
from dure.federation.secure_sum import keys, masks, sharing
from dure.federation.secure_sum.exchange import Exchange, Stage, question_digest
from dure.federation.secure_sum.fixed_point import bytes_of, words_of
from dure.federation.secure_sum.keys import Advert, Roster
from dure.federation.sums import Left, Opened, never
from dure.guard import gate
from dure.language import Words
from dure.study.packing import unpack
from dure.study.summary import Declaration

MOST_TRIES = 64
"""Choices among shares where some are wrong, before a sum is given up."""
OTHER = Words("It answered another question, or declared other arrays", "다른 질문에 답했거나 다른 배열을 알렸습니다")
EARLIER = Words(
    "It builds on other earlier rounds than the others", "다른 병원과는 다른 이전 회차를 바탕으로 답했습니다"
)
Errors = Mapping[str, DureError]
Bodies = dict[str, dict[str, Any]]


class _Stopped(Exception):
    """A sum that is not opened: who stopped it, and what had left by then."""

    def __init__(self, errors: Errors, left: tuple[Left, ...] = ()) -> None:
        self.errors, self.left = dict(errors), left


@dataclass(frozen=True)
class _Session:
    """A session of one (study, run) whose keys all have; `sealed` shares by receiver, None where delivered."""

    id: bytes
    about: tuple[str, str]
    adverts: Mapping[str, Advert]
    sealed: Mapping[str, Mapping[str, bytes]] | None = None


@dataclass
class SecureSum:
    """`roster`: each hospital's Ed25519 key; `permits`: the signed envelopes of those that permit differences;
    `minimum`: hospitals that make a sum; `timeout` in seconds for one exchange."""

    roster: Roster
    permits: Mapping[str, Any] = field(default_factory=dict)
    minimum: int = 3
    timeout: float = 86_400.0
    random: keys.Random = os.urandom
    members: tuple[str, ...] = ()
    """The hospitals with which the study's sums began, of whom more than half have to sign each; none before."""
    remember: Callable[[tuple[str, ...]], None] = lambda members: None
    """Keeps `members` before anybody is asked for numbers."""
    _ready: _Session | None = None
    _agreed: set[frozenset[str]] = field(default_factory=set)
    """Sets of hospitals of which a sum was opened: no permit needs to be shown for them again."""

    def collect(
        self,
        engine: Engine,
        messages: Mapping[str, bytes],
        declaration: Declaration,
        step: str,
        round: int,
        fold: str | None,
        without: Callable[[Errors], bool] = never,
    ) -> Opened:
        ask = Ask.from_bytes(next(iter(messages.values())))
        if ask.alone or len(messages) == 1:  # a hospital's own Result, or the part that is the whole
            return PlainSum(self.timeout).collect(engine, messages, declaration, step, round, fold)
        ready, self._ready = self._ready, None
        try:
            if ready and ready.about == (ask.study, ask.run) and set(ready.adverts) == set(messages):
                try:
                    return self._sum(engine, messages, declaration, ask, ready, without)
                except _Stopped as stopped:  # a hospital that has lost the session: begin a new one
                    if not _refused(stopped.errors):
                        raise
            return self._sum(engine, messages, declaration, ask, self._agree(engine, messages, ask), without)
        except _Stopped as stopped:
            return Opened(None, stopped.left, stopped.errors)

    def _agree(self, engine: Engine, messages: Mapping[str, bytes], ask: Ask) -> _Session:
        """Two exchanges: keys, then sealed shares."""
        strangers = [name for name in messages if name not in self.roster]
        if strangers:
            raise _Stopped({name: _broken(name, "Its key is not known here") for name in strangers})
        begin, about = _exchange(ask, "keys", self.random(32)), (ask.study, ask.run)
        roster, members = {name: self.roster[name] for name in messages}, self.members or tuple(sorted(messages))
        body = {"roster": roster, "members": list(members)}
        said = self._everybody(engine, {name: begin.of("keys", body) for name in messages})
        adverts = {name: body["advert"] for name, body in said.items()}
        unsigned = set(adverts) - self._signed(begin.session, about, members, adverts)
        if unsigned:
            raise _Stopped({name: _broken(name, "Its keys do not have its signature") for name in sorted(unsigned)})
        said = self._everybody(engine, {name: begin.of("shares", {"keys": adverts}) for name in messages})
        if not self.members:
            self.members = members
            self.remember(members)
        return _Session(begin.session, about, adverts, _delivered(said))

    def _signed(
        self, session: bytes, about: tuple[str, str], members: tuple[str, ...], adverts: Mapping[str, Advert]
    ) -> set[str]:
        """Who has signed its own keys."""
        roster = {name: self.roster[name] for name in adverts}
        said = {name: keys.keys_statement(session, about, members, roster, name, adverts[name]) for name in adverts}
        return {name for name in adverts if keys.signed(roster[name], said[name], adverts[name]["signature"])}

    def _sum(
        self,
        engine: Engine,
        messages: Mapping[str, bytes],
        declaration: Declaration,
        ask: Ask,
        session: _Session,
        without: Callable[[Errors], bool],
    ) -> Opened:
        """Three exchanges: masked vectors, the signed set, shares; and along the way the keys of the next sum."""
        needed, sent = sharing.threshold(len(self.members)), (masks.WITHHELD, *declaration)
        about = _exchange(ask, "vector", session.id)
        asks = {
            name: about.of("vector", {"ask": message, "sealed": session.sealed[name] if session.sealed else None})
            for name, message in messages.items()
        }
        said, errors = self._some(engine, asks, words_of(sent) * 4)
        digest, other = _answered(said, ask, declaration)
        errors |= other
        said = {name: body for name, body in said.items() if name not in other}  # their masks would not cancel
        vectors, left = [said[name].pop("vector") for name in said], self._left(said, declaration, ask, len(messages))
        alive, dead = sorted(said), sorted(errors)
        again = session.sealed is None and _refused(errors)
        if errors and (again or not (len(alive) >= needed and without(errors))):
            raise _Stopped(errors, left)
        total = masks.added(vectors, sent)
        del vectors

        following = {name: said[name]["advert"] for name in alive} if not dead else None
        if following and self._signed(keys.next_session(session.id), session.about, self.members, following) < {*alive}:
            following = None  # the next sum begins with keys, and names who does not sign its own
        shown = {} if frozenset(alive) in self._agreed else dict(self.permits)
        body = {"alive": alive, "dead": dead, "permits": shown, "keys": following}
        signing, refused = self._some(engine, {name: about.of("set", body) for name in alive})
        statement = keys.set_statement(session.id, keys.digest_of(session.adverts), digest, alive)
        for name in [*signing]:
            if not keys.signed(self.roster[name], statement, signing[name]["signature"]):
                del signing[name]
                refused[name] = _broken(name, "It signed another set or another question")
        if len(signing) < needed:
            raise _Stopped(refused, left)

        signatures = {name: signing[name]["signature"] for name in signing}
        sealed = _delivered(signing) if following and len(signing) == len(messages) else None
        asks = {
            name: about.of("reveal", {"signatures": signatures, "sealed": sealed[name] if sealed else None})
            for name in signing
        }
        gave, silent = self._some(engine, asks)
        if len(gave) < sharing.threshold(len(messages)):
            raise _Stopped(refused | silent, left)
        shares = {name: gave[name]["shares"] for name in gave}
        opened = masks.opened(total, sent, self._remaining(session, digest, shares, alive, left))
        self._agreed.add(frozenset(alive))
        if following and sealed and len(gave) == len(messages):
            self._ready = _Session(keys.next_session(session.id), session.about, following)
        if opened.pop(masks.WITHHELD.name):  # the rest is noise
            return Opened(None, left, errors, withheld=True)
        return Opened(opened, left, errors)

    # ── opening ──

    def _remaining(
        self,
        session: _Session,
        question: bytes,
        shares: Mapping[str, Mapping[str, bytes]],
        alive: list[str],
        left: tuple[Left, ...],
    ) -> list[masks.Stream]:
        """What masks are still in the sum: own masks of those in it, and pair masks with those who are not."""
        found, everybody = [], sorted(session.adverts)
        for name in everybody:
            advert = session.adverts[name]
            if name in alive:
                public = advert["seed"]
                fingerprint: Callable[[bytes], bytes] = partial(keys.commitment, session.id, name)
            else:
                public, fingerprint = advert["mask"], keys.public
            secret = _rebuilt(name, shares, everybody, fingerprint, public)
            if secret is None:
                raise _Stopped({name: _broken(name, "Shares of its secrets do not fit")}, left)
            if name in alive:
                found.append(keys.own_stream(session.id, name, secret, -1))
                continue
            found += [  # the sign is that of its vector, which is not there: it cancels the other's
                keys.pair_stream(session.id, question, name, secret, other, session.adverts[other]["mask"])
                for other in alive
            ]
        return found

    # ── asking ──

    def _everybody(self, engine: Engine, asks: Mapping[str, Exchange]) -> Bodies:
        said, errors = self._some(engine, asks)
        if errors:
            raise _Stopped(errors)
        return said

    def _some(
        self, engine: Engine, asks: Mapping[str, Exchange], size: int | None = None
    ) -> tuple[Bodies, dict[str, DureError]]:
        """One exchange: replies by hospital, in the order asked, and why others gave none."""
        said: Bodies = {}
        errors: dict[str, DureError] = {}
        replies = dict(engine.ask({name: exchange.to_bytes() for name, exchange in asks.items()}, self.timeout))
        for name, exchange in asks.items():
            reply = replies.pop(name)
            if isinstance(reply, Failure):
                errors[name] = unreachable(name, exchange.step, reply)
                continue
            try:
                found = _read(reply, name, exchange, size)
            except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                found = _broken(name, str(error) if isinstance(error, ValueError) else "It cannot be read")
            if isinstance(found, DureError):
                errors[name] = found
            else:
                said[name] = found
        return said, errors

    def _left(self, said: Bodies, declaration: Declaration, ask: Ask, hospitals: int) -> tuple[Left, ...]:
        few = hospitals < self.minimum
        return tuple(
            Left(name, ask.step, ask.round, spec.name, spec.shape, bytes_of(spec), gate.rules_of(spec, few), ask.fold)
            for name in said
            for spec in declaration
            if spec.bytes
        )


FORM: dict[Stage, dict[str, type | tuple[type, ...]]] = {
    "keys": {"advert": dict},
    "shares": {"sealed": dict},
    "vector": {"vector": bytes, "question": bytes, "built_on": bytes, "advert": dict},
    "set": {"signature": bytes, "sealed": (dict, type(None))},
    "reveal": {"shares": dict},
}


def _read(reply: bytes, hospital: str, exchange: Exchange, size: int | None) -> dict[str, Any] | DureError:
    """A reply's body, or the error it is; raises ValueError where it is neither."""
    raw = unpack(reply)
    if raw["hospital"] != hospital:
        raise ValueError("answered for another hospital")
    if raw.get("kind") == "error":
        error = error_from(raw["error"], hospital, exchange.step)
        if isinstance(error, RunWaits | QuorumMissed):
            raise ValueError("it speaks for other hospitals")
        return error
    body: dict[str, Any] = raw["body"]
    form = FORM[exchange.stage]
    if raw["session"] != exchange.session or raw["stage"] != exchange.stage or set(body) != set(form):
        raise ValueError("answered another question")
    if not all(isinstance(body[name], kind) for name, kind in form.items()):
        raise ValueError("a field is not of its kind")
    if "advert" in form and set(map(type, (body["advert"][name] for name in keys.FIELDS))) != {bytes}:
        raise ValueError("its keys are not of the right kind")
    if "sealed" in form and not _for_others(body["sealed"], exchange.body["keys"], hospital):
        raise ValueError("its sealed shares are not those of the other hospitals")
    if "shares" in form and not all(
        isinstance(name, str) and isinstance(share, bytes) and len(share) == 32
        for name, share in body["shares"].items()
    ):
        raise ValueError("its shares are not of the right kind")
    if size is not None and len(body["vector"]) != size:
        raise ValueError("its vector is not as long as declared")
    return body


def _for_others(sealed: Any, asked: Mapping[str, Advert] | None, hospital: str) -> bool:
    """Whether it sealed something for each of the others whose keys it was shown; nothing where it was shown none."""
    if asked is None or sealed is None:
        return sealed is asked
    return set(sealed) == set(asked) - {hospital} and all(isinstance(share, bytes) for share in sealed.values())


def _exchange(ask: Ask, stage: Stage, session: bytes) -> Exchange:
    return Exchange(stage, session, ask.run, ask.study, ask.step, ask.round, ask.fold)


def _answered(said: Bodies, ask: Ask, declaration: Declaration) -> tuple[bytes, dict[str, DureError]]:
    """The digest of the question that most have answered, and who has answered another."""
    built_on = Counter(body["built_on"] for body in said.values()).most_common(1)
    digest = question_digest(ask, declaration, built_on[0][0] if built_on else b"")
    other: dict[str, DureError] = {}
    for name, body in said.items():
        if body["question"] != digest:
            own = built_on[0][0] != body["built_on"]
            other[name] = _broken(name, EARLIER if own else OTHER)
    return digest, other


def _delivered(said: Bodies) -> dict[str, dict[str, bytes]]:
    """Sealed shares by receiver, from those by sender."""
    return {
        receiver: {sender: body["sealed"][receiver] for sender, body in said.items() if sender != receiver}
        for receiver in said
    }


def _rebuilt(
    hospital: str,
    shares: Mapping[str, Mapping[str, bytes]],
    everybody: list[str],
    fingerprint: Callable[[bytes], bytes],
    public: bytes,
) -> bytes | None:
    """A secret from any shares that give one that fits; a hospital that lies does not stop the others."""
    held = {everybody.index(name) + 1: given[hospital] for name, given in shares.items() if hospital in given}
    choices = _choices(sorted(held), sharing.threshold(len(everybody)))
    for places in itertools.islice(choices, MOST_TRIES):
        secret = sharing.combine({place: held[place] for place in places})
        if fingerprint(secret) == public:
            return secret
    return None


def _choices(places: list[int], needed: int) -> Iterator[tuple[int, ...]]:
    """Every choice where they are few; else first those that lie together in a circle, so that each place is left out
    of one of the first `len(places)`, then drawn ones."""
    if math.comb(len(places), needed) <= MOST_TRIES:
        yield from itertools.combinations(places, needed)
        return
    for start in range(len(places)):
        yield tuple((places[start:] + places[:start])[:needed])
    draws = random.Random(needed)  # an order of trying, which need not be secret
    while True:
        yield tuple(draws.sample(places, needed))


def _refused(errors: Errors) -> bool:
    return any(isinstance(error, SumRefused) for error in errors.values())


def _broken(hospital: str, problem: Words | str) -> AnswerBroken:
    said = Words(problem, problem) if isinstance(problem, str) else problem
    return AnswerBroken(hospital=hospital, problem=said)
