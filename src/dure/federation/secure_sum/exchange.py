"""What travels in a masked sum: the hub's message of one stage, and a hospital's reply to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dure.federation.messages import PROTOCOL, Ask, of_kind
from dure.study.packing import pack, unpack
from dure.study.summary import Declaration

Stage = Literal["keys", "shares", "vector", "set", "reveal"]
STAGES: tuple[Stage, ...] = ("keys", "shares", "vector", "set", "reveal")


@dataclass(frozen=True)
class Exchange:
    """One stage of one session. The sum is that of a round (run, study, step, round, fold)."""

    stage: Stage
    session: bytes
    run: str
    study: str
    step: str
    round: int
    fold: str | None
    body: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return pack({"protocol": PROTOCOL, **{name: getattr(self, name) for name in self.__dataclass_fields__}})

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.to_bytes()).digest()

    def of(self, stage: Stage, body: Mapping[str, Any]) -> Exchange:
        """Another stage of the same session."""
        return Exchange(stage, self.session, self.run, self.study, self.step, self.round, self.fold, body)


@dataclass(frozen=True)
class Reply:
    """A hospital's reply to an exchange, where it is not an error (`dure.federation.messages.Answer`)."""

    hospital: str
    session: bytes
    stage: Stage
    body: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        return pack({name: getattr(self, name) for name in self.__dataclass_fields__})


def read_question(data: bytes) -> Ask | Exchange:
    """What the hub asks; raises ValueError, TypeError or KeyError if it is neither."""
    raw = unpack(data)
    if not isinstance(raw, dict) or "stage" not in raw:
        return Ask.from_bytes(data)
    if raw.pop("protocol", None) != PROTOCOL or raw["stage"] not in STAGES:
        raise ValueError("another protocol version")
    exchange = Exchange(**raw)
    of_kind(exchange, {"session": bytes, "run": str, "study": str, "step": str, "round": int, "body": dict})
    of_kind(exchange, {"fold": str | None})
    if not 16 <= len(exchange.session) <= 64:
        raise ValueError("its session is too short, or too long")
    return exchange


def question_digest(ask: Ask, declaration: Declaration, built_on: bytes) -> bytes:
    """Of what all hospitals of a sum must have been asked alike: the round, its state, the earlier results it builds
    on, the arrays declared, and (`built_on`) the questions whose answers they keep for it. Not of `Ask.own`, which
    differs: whoever is sent it permits differences."""
    arrays = [[spec.name, list(spec.shape), spec.kind, spec.sides] for spec in declaration]
    where = [ask.study, ask.run, ask.step, ask.round, ask.fold, list(ask.hospitals)]
    return hashlib.sha256(pack([*where, dict(ask.state), dict(ask.results), built_on, arrays])).digest()


@dataclass(frozen=True)
class Part:
    """A hospital's part in one round's sum, as far as it is known before it is computed.

    `chosen`: the hub could have chosen what is computed, so that an error that depends on data is an answer to it.
    `answer` computes: an `Answer`'s bytes, in the clear.
    """

    declaration: Declaration
    built_on: bytes
    chosen: bool
    answer: Callable[[], bytes]
