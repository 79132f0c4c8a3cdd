"""What a hospital does with a question: derive columns, summarise its rows, pass the gate, remember, reply.

The site's runner puts permit and cohort in front of this; `simulate` calls it with frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from dure.errors import DataError, DureError, NotConverged, NotEstimable, PermitError, Refused
from dure.federation.messages import Answer, Ask, error_data
from dure.federation.plan import Plan
from dure.federation.secure_sum.exchange import Part
from dure.federation.secure_sum.fixed_point import bytes_of
from dure.guard import gate
from dure.guard.audit import AuditLog, declaration_digest
from dure.guard.release import release
from dure.guard.rules import Limits
from dure.language import Words
from dure.study.method import HUB, Kept, Question, read_parameters
from dure.study.packing import pack, unpack
from dure.study.permit import Grant
from dure.study.regroup import regrouped
from dure.study.result import Result, pack_result, unpack_result
from dure.study.rows import Column, Rows
from dure.study.spec import Step
from dure.study.summary import Declaration, Summary, Total

MOST_ROUNDS = 10_000
ALONE_RULES = (
    "per_hospital_permit",
    "minimum_cohort",
    "minimum_people",
    "parameters_per_person",
    "parameters_per_event",
    "round_counts",
)


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
class Departure:
    """One reply as it is about to leave: the question and its digest, the arrays declared, and the numbers themselves,
    before any mask. A hospital keeps them; they are in no log. `masked`: what travels is a masked part of a sum."""

    ask: Ask
    question: str
    declared: Declaration
    reply: Answer = field(repr=False)
    masked: bool = False


@dataclass(frozen=True)
class Told:
    """What an equivalent question was told: the reply, what the hospital kept, and the arrays as the log names them."""

    reply: bytes
    kept: bytes = field(repr=False)
    arrays: list[dict[str, Any]]


class History(Protocol):
    """What left this hospital in earlier studies (`dure.site.history`); every call may raise Refused."""

    def told(self, ask: Ask, built_on: bytes) -> Told | None:
        """The answer that an equivalent question, built on equivalent ones, was given, if there was one."""
        ...

    def check(self, ask: Ask, rows: Rows) -> None:
        """Whether these people may be answered about, beside those of earlier answers."""
        ...

    def record(self, ask: Ask, built_on: bytes, rows: Rows, told: Told) -> None:
        """This is about to leave."""
        ...


@dataclass
class Desk:
    """Everything a hospital needs to answer: its plan, permission, limits, rows, memory, audit log and history.

    `permit`: digest of the permit it answers under. `egress` is given every reply before it is sent. `noise` adds to a
    summary's counts what an open question costs (`dure.guard.budget`); None where boards permitted.
    """

    hospital: str
    plan: Plan
    grants: frozenset[Grant]
    limits: Limits
    rows: Callable[[], Rows]
    memory: Memory
    audit: AuditLog | None = None
    permit: str = ""
    egress: Callable[[Departure], None] | None = None
    history: History | None = None
    noise: Callable[[Summary, Question], Summary] | None = None
    masked: bool = False
    """Its part of a sum leaves under masks, which take more bytes than the numbers."""
    still: Callable[[], object] = lambda: None
    """Raises PermitError where the hospital has taken its permit back while the answer was computed."""

    def log(self, event: str, **details: Any) -> None:
        if self.audit is not None:
            self.audit.append(event, **details)


Leaving = tuple[Answer, Kept, dict[str, Any]]
"""What leaves, what is kept for the next round, and what the log says of the arrays."""


def answer(ask: Ask, desk: Desk) -> bytes:
    """The reply's bytes. Every DureError becomes an error reply; a repeated question gets the stored bytes."""
    digest = hashlib.sha256(ask.to_bytes()).hexdigest()
    stored = desk.memory.read(_run(ask), ask.step, ask.fold, ask.round)
    about = {"run": ask.run, "study": ask.study, "step": ask.step, "round": ask.round, "fold": ask.fold}
    step = desk.plan.step(ask.step)
    built_on = _built_on(ask, step, desk)
    asked = _asked_alike(ask, built_on)
    if stored and (stored.digest, stored.asked) == (digest, asked):  # built on the same
        desk.log("repeated", **about)
        return stored.reply
    try:
        if ask.alone != (step.scope == "each") or (ask.fold is not None) != (step.scope == "all_but_one"):
            problem = Words("The step is not asked in this way", "이 단계는 이렇게 묻지 않습니다")
            raise PermitError(hospital=desk.hospital, problem=problem)
        silent = ask.alone and not step.release
        gate.before_rows(_asked(ask, step, 0, _inside(desk) if silent else desk))
        past = None if silent else desk.history  # where nothing leaves, there is nothing to compare
        told = past.told(ask, built_on) if past else None
        repeated = told is not None
        if told is None:
            if past:
                past.check(ask, desk.rows())
            rows = _with_lineage(ask, step, desk)
            answered = _silent if silent else _alone if ask.alone else _summary
            reply, kept, details = answered(ask, step, rows, desk)
            told = Told(reply.to_bytes(), pack(kept), details["arrays"])
            if past:
                past.record(ask, built_on, desk.rows(), told)
        arrays = declared(ask, desk)
        desk.still()
    except DureError as error:
        if ask.alone:  # that it was asked, and has nothing, is what later steps build on
            nothing = pack({"result": None, "kept": {}})
            desk.memory.write(_run(ask), ask.step, ask.fold, ask.round, Remembered("", b"", nothing, asked))
        return _no(error, about, desk)
    data = told.reply
    if repeated:
        about["answered_from"] = "history"
    # The log first: a process killed in between leaves an array named twice, never one that is not named.
    bound = {"question": f"sha256:{digest}", "permit": desk.permit, "declaration": declaration_digest(arrays)}
    leaves = sum(array["bytes"] for array in told.arrays) if desk.masked else len(data)
    said: dict[str, Any] = {"bytes": leaves, "sha256": hashlib.sha256(data).hexdigest(), "arrays": told.arrays}
    desk.log("left", **said, **bound, **about)
    if desk.egress is not None:
        desk.egress(Departure(ask, digest, arrays, Answer.from_bytes(data), desk.masked))
    desk.memory.write(_run(ask), ask.step, ask.fold, ask.round, Remembered(digest, data, told.kept, asked))
    return data


def _no(error: DureError, about: dict[str, Any], desk: Desk) -> bytes:
    if isinstance(error, Refused):
        # The hospital's own people see the cell and the count; the reply holds the rule and the way out.
        desk.log("refused", rule=error.rule, detail=error.detail, **about)
    else:
        desk.log("failed", error=error.code(), **about)
    return Answer(desk.hospital, "error", error=error_data(error)).to_bytes()


def part(ask: Ask, desk: Desk) -> Part:
    """What a masked sum needs to know of an answer before it is computed. Raises DureError."""
    step = desk.plan.step(ask.step)
    start = desk.plan.method(step).start(desk.plan.question(step, ask.hospitals, _results(ask, desk)))
    first = pack({name: value for name, value in start.items() if name != HUB}) == pack(dict(ask.state))
    chosen = bool(ask.round or desk.plan.lineage(step) or not first)
    return Part(declared(ask, desk), _built_on(ask, step, desk), chosen, lambda: answer(ask, desk))


def declared(ask: Ask, desk: Desk) -> Declaration:
    """Everything the reply to a question holds, companions included; none of a Result that was made inside the
    hospital. Raises DureError."""
    if ask.alone:
        return ()
    step = desk.plan.step(ask.step)
    question = desk.plan.question(step, ask.hospitals, _results(ask, desk))
    return gate.sent(desk.plan.method(step).declare(question, dict(ask.state)))


def _summary(ask: Ask, step: Step, rows: Rows, desk: Desk) -> Leaving:
    method = desk.plan.method(step)
    question = desk.plan.question(step, ask.hospitals, _results(ask, desk))
    asked = _asked(ask, step, rows.n, desk)
    declaration = method.declare(question, dict(ask.state))
    before = desk.memory.read(_run(ask), ask.step, ask.fold, ask.round - 1) if ask.round else None
    summary, kept = method.summarise(rows, question, dict(ask.state), unpack(before.kept) if before else {})
    if desk.noise is not None:
        summary = desk.noise(summary, question)
    passed = gate.check(summary, declaration, asked)
    rules = {name: list(applied) for name, applied in passed.rules.items()}
    arrays = [
        {
            "name": spec.name,
            "shape": list(spec.shape),
            "bytes": bytes_of(spec) if desk.masked else spec.bytes,
            "withheld": passed.withheld.get(spec.name, 0),
        }
        for spec in gate.sent(declaration)
    ]
    reply = Answer(desk.hospital, "summary", arrays=passed.summary, rules=rules)
    return reply, kept, {"arrays": arrays}


def _alone(ask: Ask, step: Step, rows: Rows, desk: Desk) -> Leaving:
    """The whole loop inside this hospital; only the released Result may leave, the working one is kept."""
    method = desk.plan.method(step)
    hospitals = (desk.hospital,)
    question = desk.plan.question(step, hospitals, _results(ask, desk))
    asked = _asked(ask, step, rows.n, desk)
    state = method.start(question)
    kept: Kept = {}
    for _ in range(MOST_ROUNDS):
        declaration = method.declare(question, state)
        summary, kept = method.summarise(rows, question, state, kept)
        passed = gate.check(summary, declaration, asked)
        gate.check_total(passed.summary, declaration, desk.limits)
        concluded = method.conclude(total_of(passed.summary), question, state)
        if isinstance(concluded, Result):
            released = release(concluded, desk.limits)
            data = pack_result(released)
            reply = Answer(desk.hospital, "result", result=data, rules={"result": list(ALONE_RULES)})
            arrays = [{"name": "result", "shape": [], "bytes": len(data), "withheld": 0}]
            return reply, {"result": pack_result(concluded), "kept": kept}, {"arrays": arrays}
        state = concluded
    raise NotConverged(rounds=MOST_ROUNDS)


def _silent(ask: Ask, step: Step, rows: Rows, desk: Desk) -> Leaving:
    """The loop inside this hospital of a step that releases nothing: its Result is kept for later steps, and the reply
    is empty, the same where the hospital's data give no answer."""
    kept: Kept = {"result": None, "kept": {}}
    try:
        _, kept, _ = _alone(ask, step, rows, _inside(desk))
    except (DataError, NotEstimable, Refused) as error:
        desk.log("no answer", error=error.code(), run=ask.run, study=ask.study, step=ask.step)
    data = pack_result(Result(method=step.method))
    arrays = [{"name": "result", "shape": [], "bytes": len(data), "withheld": 0}]
    return Answer(desk.hospital, "result", result=data), kept, {"arrays": arrays}


def _inside(desk: Desk) -> Desk:
    """The same desk where nothing leaves: one hospital alone is then enough, and needs no permit for it."""
    return replace(desk, limits=desk.limits.model_copy(update={"minimum_hospitals": 1}))


def total_of(summary: dict[str, Any]) -> Total:
    """A sum as `conclude` sees it: arrays, and which per-hospital numbers were withheld."""
    withheld = {
        name.removesuffix(".withheld"): np.asarray(values)
        for name, values in summary.items()
        if name.endswith(".withheld")
    }
    return Total(
        {name: np.asarray(values) for name, values in summary.items() if not name.endswith(".withheld")},
        withheld,
    )


def _asked(ask: Ask, step: Step, cohort: int, desk: Desk) -> gate.Asked:
    hospitals = (desk.hospital,) if ask.alone else ask.hospitals
    differs = any(one.scope == "all_but_one" for one in (step, *desk.plan.lineage(step)))
    return gate.Asked(desk.hospital, hospitals, cohort, desk.grants, desk.limits, differs, desk.noise is not None)


def _results(ask: Ask, desk: Desk) -> dict[str, Result]:
    """Results of the lineage: what all are told, and of steps that left each hospital out this hospital's own."""
    found = {earlier.name: _told_result(ask, earlier) for earlier in desk.plan.steps}
    return {name: unpack_result(data) for name, data in found.items() if data}


def _told_result(ask: Ask, earlier: Step) -> bytes | None:
    return (ask.own if earlier.scope == "all_but_one" else ask.results).get(earlier.name)


def _with_lineage(ask: Ask, step: Step, desk: Desk) -> Rows:
    """The cohort's rows with the columns that earlier steps derive; NaN where such a step has no result here."""
    rows, digest = desk.rows(), hashlib.sha256()
    for earlier in desk.plan.lineage(step):
        declared = desk.plan.derived(earlier, ask.hospitals)
        if not declared:
            continue
        data, kept = _own_result(ask, earlier, desk)
        for piece in (earlier.name.encode(), data or b"", pack(kept)):
            digest.update(hashlib.sha256(piece).digest())
        join = partial(_joined, rows, ask, earlier, desk, declared, data, kept)
        rows = rows.remember_latest(("joined", earlier.name), digest.digest(), join)
    parameters = read_parameters(desk.plan.method(step), step.parameters)
    coded, own = regrouped(rows, getattr(parameters, "levels", None)), _own_results(ask, step, desk)
    if not own:
        return coded
    told = hashlib.sha256(pack([[name, pack_result(result)] for name, result in own.items()])).digest()
    return coded.remember_latest(("own", step.name), told, lambda: replace(coded, own=own, _built={}))


def _joined(
    rows: Rows, ask: Ask, earlier: Step, desk: Desk, declared: Mapping[str, Column], data: bytes | None, kept: Kept
) -> Rows:
    """The rows with what one earlier step derives."""
    if data is None:
        return rows.with_columns({name: np.full(rows.n, np.nan) for name in declared}, declared)
    question = desk.plan.question(earlier, ask.hospitals, _results(ask, desk))
    coded = regrouped(rows, getattr(question.parameters, "levels", None))
    found = desk.plan.method(earlier).derive(coded, question, unpack_result(data), kept)
    return rows.with_columns({f"{earlier.name}.{name}": column for name, column in found.items()}, declared)


def _own_results(ask: Ask, step: Step, desk: Desk) -> dict[str, Result]:
    """This hospital's own Results of the steps used that ran inside each hospital; it may have none of some."""
    earlier = [desk.plan.step(name) for name in step.uses]
    found = {item.name: _own_result(ask, item, desk)[0] for item in earlier if item.scope == "each"}
    return {name: unpack_result(data) for name, data in found.items() if data is not None}


def _run(ask: Ask) -> str:
    """Where a run's rounds are kept: the hub names runs, and one study's say nothing about another's."""
    return f"{ask.study} {ask.run}"


def _entry(ask: Ask, earlier: Step, desk: Desk) -> Remembered | None:
    """What this hospital stored last of an earlier step."""
    return desk.memory.last(_run(ask), earlier.name, desk.hospital if earlier.scope == "all_but_one" else None)


def _built_on(ask: Ask, step: Step, desk: Desk) -> bytes:
    """Digest of the questions whose answers this hospital keeps and this one builds on: of the round before, and of
    earlier steps. The same at all hospitals that were asked alike, so that none of them answers from less."""
    before = desk.memory.read(_run(ask), ask.step, ask.fold, ask.round - 1) if ask.round and not ask.alone else None
    stored = (before, *(_entry(ask, earlier, desk) for earlier in desk.plan.lineage(step)))
    return hashlib.sha256(pack([entry.asked if entry else None for entry in stored])).digest()


def _asked_alike(ask: Ask, built_on: bytes) -> bytes:
    hospitals = [] if ask.alone else list(ask.hospitals)
    about = [ask.round, ask.fold, ask.alone, hospitals, dict(ask.state), dict(ask.results), built_on]
    return hashlib.sha256(pack(about)).digest()


def _own_result(ask: Ask, earlier: Step, desk: Desk) -> tuple[bytes | None, Kept]:
    """The earlier step's Result for this hospital, and what this hospital kept of it."""
    entry = _entry(ask, earlier, desk)
    if earlier.scope == "each":
        if entry is None:
            return None, {}
        stored = unpack(entry.kept)
        return stored["result"], stored["kept"]
    return _told_result(ask, earlier), unpack(entry.kept) if entry else {}
