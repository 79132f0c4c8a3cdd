"""What a hospital keeps of the rounds that it was asked, and what of it an answer builds on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dure.errors import NumbersWithheld, StepSkipped
from dure.federation.messages import Ask
from dure.federation.plan import Plan
from dure.language import Words
from dure.study.packing import pack, unpack


@dataclass(frozen=True)
class Remembered:
    """What a hospital stored for one round: the question's digest, its reply, and what it kept for later ones."""

    digest: str
    reply: bytes
    kept: bytes = field(repr=False)
    asked: bytes = b""
    """Digest of what all hospitals are asked alike in such a question, and of those that it builds on."""


class Memory(Protocol):
    """The hospital's own store, by (run, step, fold, round)."""

    def read(self, run: str, step: str, fold: str | None, round: int) -> Remembered | None: ...

    def last(self, run: str, step: str, fold: str | None) -> Remembered | None: ...

    def write(self, run: str, step: str, fold: str | None, round: int, entry: Remembered) -> None: ...


class InMemory:
    """A hospital's store that lives as long as the process: for `simulate`."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str | None], dict[int, Remembered]] = {}

    def read(self, run: str, step: str, fold: str | None, round: int) -> Remembered | None:
        return self._entries.get((run, step, fold), {}).get(round)

    def last(self, run: str, step: str, fold: str | None) -> Remembered | None:
        rounds = self._entries.get((run, step, fold), {})
        return rounds[max(rounds)] if rounds else None

    def write(self, run: str, step: str, fold: str | None, round: int, entry: Remembered) -> None:
        self._entries[run, step, fold] = {
            old: kept for old, kept in self._entries.get((run, step, fold), {}).items() if old >= round - 1
        } | {round: entry}


@dataclass(frozen=True)
class BuiltOn:
    """What a hospital keeps and one answer builds on, read once: of the round before, and the last of earlier steps."""

    before: Remembered | None
    earlier: Mapping[str, Remembered | None]

    @property
    def digest(self) -> bytes:
        """Of the questions alone. The same at all hospitals that were asked alike, so that none of them answers from
        less than the others."""
        return hashlib.sha256(
            pack([entry.asked if entry else None for entry in (self.before, *self.earlier.values())])
        ).digest()


def run_of(ask: Ask) -> str:
    """Where a run's rounds are kept: the hub names runs, and one study's say nothing about another's."""
    return f"{ask.study} {ask.run}"


def built_on(ask: Ask, plan: Plan, hospital: str, memory: Memory) -> BuiltOn:
    run, earlier = run_of(ask), plan.lineage(plan.step(ask.step))
    before = memory.read(run, ask.step, ask.fold, ask.round - 1) if ask.round and not ask.alone else None
    folds = {step.name: hospital if step.scope == "all_but_one" else None for step in earlier}
    return BuiltOn(before, {name: memory.last(run, name, fold) for name, fold in folds.items()})


def asked_alike(ask: Ask, found: BuiltOn) -> bytes:
    """Digest of what all hospitals are asked alike in a question, and of what it builds on."""
    hospitals = [] if ask.alone else list(ask.hospitals)
    about = [ask.round, ask.fold, ask.alone, hospitals, dict(ask.state), dict(ask.results), found.digest]
    return hashlib.sha256(pack(about)).digest()


def check_all_kept(ask: Ask, plan: Plan, hospital: str, memory: Memory, found: BuiltOn) -> None:
    """Raise where an answer cannot build on what the hub says: whether a hospital's people are in a sum is not for the
    hub to choose. Neither by a round that this hospital could not answer or was stopped in (NumbersWithheld for its
    round before), nor by results with which a step inside the hospital has none (StepSkipped)."""
    if found.before is not None and not found.before.reply:
        raise NumbersWithheld()
    for step in plan.lineage(plan.step(ask.step)):
        entry, below = found.earlier[step.name], plan.lineage(step)
        lacks = step.scope != "each" and entry is not None and not entry.reply
        if step.scope == "each" and below:
            told = {one.name: ask.results[one.name] for one in below if one.name in ask.results}
            alone = Ask(ask.run, ask.study, step.name, 0, (hospital,), {}, told, alone=True)
            then = asked_alike(alone, built_on(alone, plan, hospital, memory))
            lacks = entry is None or entry.asked != then or unpack(entry.kept)["result"] is None
        if lacks:
            reason = Words("This hospital has none, or with other results.", "이 병원에 없거나, 앞선 결과가 다릅니다.")
            raise StepSkipped(step=ask.step, used=step.name, reason=reason)
