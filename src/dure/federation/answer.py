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
from dure.federation.kept import BuiltOn, Memory, Remembered, asked_alike, built_on, check_all_kept, run_of
from dure.federation.messages import Answer, Ask, error_data
from dure.federation.plan import Plan
from dure.federation.secure_sum.exchange import Part
from dure.federation.secure_sum.fixed_point import bytes_of, check_range
from dure.guard import gate
from dure.guard.audit import AuditLog, declaration_digest
from dure.guard.release import release
from dure.guard.rules import Limits, refusal
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
    stored: BuiltOn = field(default=BuiltOn(None, {}), repr=False)
    """What the answer under way builds on."""

    def log(self, event: str, **details: Any) -> None:
        if self.audit is not None:
            self.audit.append(event, **details)


Leaving = tuple[Answer, Kept, dict[str, Any]]
"""What leaves, what is kept for the next round, and what the log says of the arrays."""


def answer(ask: Ask, desk: Desk, stored: BuiltOn | None = None) -> bytes:
    """The reply's bytes. Every DureError becomes an error reply; a repeated question gets the stored bytes.

    `stored`: what the answer builds on, where a caller has read and told of it already.
    """
    digest = hashlib.sha256(ask.to_bytes()).hexdigest()
    about = {"run": ask.run, "study": ask.study, "step": ask.step, "round": ask.round, "fold": ask.fold}
    step, run = desk.plan.step(ask.step), run_of(ask)
    desk = replace(desk, stored=stored or built_on(ask, desk.plan, desk.hospital, desk.memory))
    asked, entry = asked_alike(ask, desk.stored), desk.memory.read(run, ask.step, ask.fold, ask.round)
    if entry and (entry.digest, entry.asked) == (digest, asked):  # what it was built on is the same, too
        desk.log("repeated", **about)
        return entry.reply
    try:
        if not _in_its_way(ask, step, desk):
            problem = Words("The step is not asked in this way", "이 단계는 이렇게 묻지 않습니다")
            raise PermitError(hospital=desk.hospital, problem=problem)
        silent = ask.alone and not step.release
        inside = _inside(desk) if silent else desk
        gate.before_rows(_asked(ask, step, 0, inside))
        _before_lineage(ask, step, inside)
        if not ask.alone:  # before anything is computed: that it went wrong would show in what later rounds build on
            desk.memory.write(run, ask.step, ask.fold, ask.round, Remembered("", b"", pack({}), asked))
            _all_there(ask, desk)
        past = None if silent else desk.history  # where nothing leaves, there is nothing to compare
        told = past.told(ask, desk.stored.digest) if past else None
        repeated = told is not None
        if told is None:
            if past:
                past.check(ask, desk.rows())
            before = desk.stored.before
            with desk.rows().going_on(before.asked if before else None, asked):
                answered = _silent if silent else _alone if ask.alone else _summary
                reply, kept, details = answered(ask, step, desk)
            told, why = Told(reply.to_bytes(), pack(kept), details["arrays"]), details.get("no_answer")
            about |= {"no_answer": why} if why else {}
            if past:
                past.record(ask, desk.stored.digest, desk.rows(), told)
        arrays = declared(ask, desk)
        desk.still()
    except DureError as error:
        if ask.alone and isinstance(error, DataError | NotEstimable | Refused):
            # That it was asked, and its data give nothing, is what later steps build on.
            nothing = pack({"result": None, "kept": {}})
            desk.memory.write(run, ask.step, ask.fold, ask.round, Remembered("", b"", nothing, asked))
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
    desk.memory.write(run, ask.step, ask.fold, ask.round, Remembered(digest, data, told.kept, asked))
    return data


def _no(error: DureError, about: dict[str, Any], desk: Desk) -> bytes:
    if isinstance(error, Refused):
        # The hospital's own people see the cell and the count; the reply holds the rule and the way out.
        desk.log("refused", rule=error.rule, detail=error.detail, **about)
    else:
        lacks = {"used": error.fields["used"]} if "used" in error.fields else {}
        desk.log("failed", error=error.code(), **lacks, **about)
    return Answer(desk.hospital, "error", error=error_data(error)).to_bytes()


def part(ask: Ask, desk: Desk) -> Part:
    """What a masked sum needs to know of an answer before it is computed. Raises DureError."""
    step, stored = desk.plan.step(ask.step), built_on(ask, desk.plan, desk.hospital, desk.memory)
    chosen = bool(ask.round or desk.plan.lineage(step))
    if not chosen:  # the state may be large: it is made only where it says something
        start = desk.plan.method(step).start(desk.plan.question(step, ask.hospitals, {}))
        chosen = pack({name: value for name, value in start.items() if name != HUB}) != pack(dict(ask.state))
    return Part(declared(ask, desk), stored.digest, chosen, lambda: answer(ask, desk, stored))


def _in_its_way(ask: Ask, step: Step, desk: Desk) -> bool:
    """Whether a step is asked as its scope says (inside a hospital of it alone, and in folds where one is left out),
    with results of what it builds on."""
    if ask.alone != (step.scope == "each") or (ask.fold is not None) != (step.scope == "all_but_one"):
        return False
    lineage = {earlier.name for earlier in desk.plan.lineage(step)}
    return {*ask.results, *ask.own} <= lineage and (not ask.alone or ask.hospitals == (desk.hospital,))


def _all_there(ask: Ask, desk: Desk) -> None:
    """Raise NumbersWithheld or StepSkipped where a part of a sum would be made of less than the hub had from the
    hospitals (`check_all_kept`). With nobody there is nothing to choose, and the gate refuses few."""
    if "per_hospital" in desk.grants or desk.limits.minimum_hospitals <= 1:
        return
    try:
        check_all_kept(ask, desk.plan, desk.hospital, desk.memory, desk.stored)
    except DureError:
        if desk.noise is not None or desk.rows().n >= max(1, desk.limits.minimum_cohort):
            raise


def _before_lineage(ask: Ask, step: Step, desk: Desk) -> None:
    """Raise Refused where an earlier step tells single hospitals apart, which their permits do not allow: its result is
    the hub's word here, and could make this hospital's people differ from all others."""
    if "per_hospital" in desk.grants or desk.limits.minimum_hospitals <= 1:
        return
    results = _results(ask, desk)
    for earlier in desk.plan.lineage(step):
        question, method = desk.plan.question(earlier, ask.hospitals, results), desk.plan.method(earlier)
        if earlier.scope != "each" and any(
            spec.per_hospital or spec.opens_hospitals for spec in method.declare(question, method.start(question))
        ):
            raise refusal("per_hospital_permit")


def declared(ask: Ask, desk: Desk) -> Declaration:
    """Everything the reply to a question holds, companions included; none of a Result that was made inside the
    hospital. Raises DureError."""
    if ask.alone:
        return ()
    step = desk.plan.step(ask.step)
    question = desk.plan.question(step, ask.hospitals, _results(ask, desk))
    return gate.sent(desk.plan.method(step).declare(question, dict(ask.state)))


def _summary(ask: Ask, step: Step, desk: Desk) -> Leaving:
    rows, method = _with_lineage(ask, step, desk), desk.plan.method(step)
    question = desk.plan.question(step, ask.hospitals, _results(ask, desk))
    asked = _asked(ask, step, rows.n, desk)
    declaration = method.declare(question, dict(ask.state))
    before = desk.stored.before
    summary, kept = method.summarise(rows, question, dict(ask.state), unpack(before.kept) if before else {})
    if desk.noise is not None:
        summary = desk.noise(summary, question)
    passed = gate.check(summary, declaration, asked)
    if desk.masked:
        check_range(passed.summary, gate.sent(declaration), len(ask.hospitals))
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


def _alone(ask: Ask, step: Step, desk: Desk) -> Leaving:
    """The whole loop inside this hospital; only the released Result may leave, the working one is kept."""
    rows, method = _with_lineage(ask, step, desk), desk.plan.method(step)
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


def _silent(ask: Ask, step: Step, desk: Desk) -> Leaving:
    """The loop inside this hospital of a step that releases nothing: its Result is kept for later steps, and the reply
    is empty, the same where the hospital's data give no answer; so is the number of lines in its log, which others see
    in its signed heads."""
    kept: Kept = {"result": None, "kept": {}}
    details: dict[str, Any] = {}
    try:
        _, kept, _ = _alone(ask, step, _inside(desk))
    except MemoryError:  # of the machine, not of its data
        raise
    except Exception as error:
        details["no_answer"] = error.code() if isinstance(error, DureError) else type(error).__name__
    data = pack_result(Result(method=step.method))
    arrays = [{"name": "result", "shape": [], "bytes": len(data), "withheld": 0}]
    return Answer(desk.hospital, "result", result=data), kept, {"arrays": arrays, **details}


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
    rows = desk.rows()
    stored = [hashlib.sha256(entry.kept).digest() if entry else None for entry in desk.stored.earlier.values()]
    built = hashlib.sha256(pack([list(ask.hospitals), dict(ask.results), dict(ask.own), stored])).digest()
    for earlier in desk.plan.lineage(step):
        declared = desk.plan.derived(earlier, ask.hospitals)
        if not declared:
            continue
        join = partial(_joined, rows, ask, earlier, desk, declared, *_own_result(ask, earlier, desk))
        rows = rows.remember_latest(("joined", earlier.name), built, join)
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


def _own_result(ask: Ask, earlier: Step, desk: Desk) -> tuple[bytes | None, Kept]:
    """The earlier step's Result for this hospital, and what this hospital kept of it."""
    entry = desk.stored.earlier.get(earlier.name)
    if earlier.scope == "each":
        if entry is None:
            return None, {}
        stored = unpack(entry.kept)
        return stored["result"], stored["kept"]
    return _told_result(ask, earlier), unpack(entry.kept) if entry else {}
