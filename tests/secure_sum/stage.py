"""Hospitals for the tests of masked sums: given numbers, keys and records of their own, a line that drops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from dure.errors import DureError
from dure.federation.engine import Failure
from dure.federation.messages import Answer, Ask
from dure.federation.secure_sum.exchange import Exchange, Part, read_question
from dure.federation.secure_sum.member import Member, PinsInMemory
from dure.federation.secure_sum.opening import SecureSum
from dure.federation.secure_sum.record import Record
from dure.federation.sums import Opened
from dure.study.permit import Permit, sign
from dure.study.summary import ArraySpec, Declaration, Summary

STUDY = "sha256:" + "5" * 64
DECLARED: Declaration = (
    ArraySpec("n", (), "count"),
    ArraySpec("cells", (2, 2), "count"),
    ArraySpec("sums", (3,), "moment", people=("n",)),
    ArraySpec("powers", (2, 4), "moment", sides=True),
    ArraySpec("weights", (5,), "weights"),
)


def numbers(seed: int, declaration: Declaration = DECLARED) -> Summary:
    """A hospital's numbers: counts, and floats of many sizes and both signs."""
    random = np.random.default_rng(seed)
    found: Summary = {}
    for spec in declaration:
        if spec.kind == "count":
            found[spec.name] = random.integers(0, 10**6, spec.shape)
        else:
            sizes = 2.0 ** random.integers(-20, 60 if spec.kind == "moment" else 3, spec.shape)
            found[spec.name] = np.asarray(random.normal(size=spec.shape) * sizes)
    return found


def exact(parts: Sequence[Summary], declaration: Declaration = DECLARED) -> Summary:
    """The sum, each cell exact and then the nearest float64; weights have 64 bits after the point."""
    found: Summary = {}
    for spec in declaration:
        if spec.kind == "count":
            found[spec.name] = np.asarray(sum(np.asarray(part[spec.name], np.int64) for part in parts))
            continue
        cells = zip(*(np.ravel(part[spec.name]).tolist() for part in parts))
        places = {"weights": 64, "moment": 256 if spec.sides else 128}[spec.kind]
        rounded = [sum(Fraction(round(Fraction(x) * 2**places), 2**places) for x in cell) for cell in cells]
        found[spec.name] = np.array([float(x) for x in rounded]).reshape(spec.shape)
    return found


def same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    return one is not None and all(
        np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes() for name in other
    )


@dataclass
class Hospital:
    """One hospital: its key, its record on disk or in memory, and the numbers it would send."""

    name: str
    part: Summary
    folder: Path | None = None
    minimum: int = 3
    grants: frozenset[Any] = frozenset()
    kind: type[Member] = Member
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    pins: PinsInMemory = field(default_factory=PinsInMemory)
    error: bytes | None = None
    logged: list[dict[str, Any]] = field(default_factory=list)
    declaration: Declaration = DECLARED
    built_on: bytes = b""
    chosen: bool = False
    fails: Exception | None = None

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> None:
        """As another process would open it."""
        self.record = Record(self.folder / "sums.db" if self.folder else ":memory:")

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def member(self) -> Member:
        def log(event: str, **details: Any) -> None:
            self.logged.append({"event": event, **details})

        return self.kind(
            self.name, self.public, self.key.sign, self.pins, self.record, self.minimum, self.grants, log=log
        )

    def answer(self, message: bytes) -> bytes:
        asked = read_question(message)
        assert isinstance(asked, Exchange)
        reply = self.error or Answer(self.name, "summary", arrays=self.part).to_bytes()

        def compute() -> bytes:
            if self.fails:
                raise self.fails
            return reply

        part = Part(self.declaration, self.built_on, self.chosen, compute)
        return self.member().answer(asked, lambda ask: part)

    def permit(self, difference: bool, study: str = STUDY, **changes: Any) -> dict[str, Any]:
        now = datetime.now(UTC)
        given: dict[str, Any] = {"study": study, "hospital": self.name, "methods": {}, "difference": difference}
        given |= {"issued": now - timedelta(days=1), "expires": now + timedelta(days=1)}
        return sign(Permit(**given | changes), CryptoSigner(self.key))


@dataclass
class Town:
    """Hospitals and a line to each; `lost` names, by stage, whose messages do not arrive, `unheard` whose replies."""

    hospitals: dict[str, Hospital]
    lost: dict[str, set[str]] = field(default_factory=dict)
    unheard: dict[str, set[str]] = field(default_factory=dict)
    after: Callable[[str], None] = lambda stage: None
    change: Callable[[str, Exchange], Exchange] = lambda name, exchange: exchange
    stages: list[str] = field(default_factory=list)
    replies: dict[tuple[str, str], bytes] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    """As the hub keeps them from the study's first sum on."""

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        found: dict[str, bytes | Failure] = {}
        stage = ""
        for name, message in messages.items():
            exchange = read_question(message)
            assert isinstance(exchange, Exchange)
            stage = exchange.stage
            if name in self.lost.get(stage, ()):
                found[name] = Failure("the line is cut")
                continue
            reply = self.hospitals[name].answer(self.change(name, exchange).to_bytes())
            self.replies[stage, name] = reply
            found[name] = Failure("the line is cut") if name in self.unheard.get(stage, ()) else reply
        self.stages.append(stage)
        self.after(stage)
        return found

    @property
    def roster(self) -> dict[str, bytes]:
        return {name: hospital.public for name, hospital in self.hospitals.items()}

    def summing(self, **settings: Any) -> SecureSum:
        def remember(members: tuple[str, ...]) -> None:
            self.members = members

        return SecureSum(self.roster, **{"members": self.members, "remember": remember} | settings)

    def collect(
        self,
        summing: SecureSum,
        names: Sequence[str] | None = None,
        round_: int = 0,
        without: Callable[[Mapping[str, DureError]], bool] = lambda errors: True,
        declaration: Declaration = DECLARED,
    ) -> Opened:
        members = tuple(names or self.hospitals)
        ask = Ask("run", STUDY, "step", round_, members, {"round": round_}).to_bytes()
        return summing.collect(self, dict.fromkeys(members, ask), declaration, "step", round_, None, without)


def town(count: int, folder: Path | None = None, **settings: Any) -> Town:
    hospitals = {}
    for place in range(count):
        home = folder / f"h{place}" if folder else None
        if home:
            home.mkdir(parents=True)
        hospitals[f"h{place}"] = Hospital(f"h{place}", numbers(place), home, **settings)
    return Town(hospitals)
