"""Running a permitted study from the hub: who takes part, on which engine, resumed from the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from dure.errors import PermitError, Refused
from dure.federation.engine import Engine
from dure.federation.ledger import InMemoryLedger, Ledger, Outcome
from dure.federation.local_engine import LocalEngine
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import plan_of
from dure.federation.rounds import Progress, Run
from dure.federation.secure_sum.opening import SecureSum
from dure.federation.sums import Summing
from dure.guard.audit import AuditLog, declaration_digest, digest
from dure.guard.history import cohort_digest
from dure.guard.release import numbers
from dure.guard.rules import DEFAULT, Limits, strictest, tighten
from dure.hub import studies
from dure.hub.store import Store
from dure.language import Words
from dure.study.method import Methods
from dure.study.packing import pack, unpack
from dure.study.permit import Permit, read_permit
from dure.study.spec import Study, seconds

NUMBERS, BEFORE = "numbers", "numbers before"
"""Entries of a run's ledger: how many numbers it would release, and how many others had of the same cohort."""
LAPSED = "lapsed"
"""Entry of a run's ledger: the hospitals that it leaves out since their permits do not hold any more, or came late."""
SHOWN = ("release_review", "released", "archived")


def run_study(
    store: Store,
    hash_: str,
    engine: Engine,
    methods: Methods,
    *,
    name: str | None = None,
    limits: Limits = DEFAULT,
    summing: Summing | None = None,
    progress: Progress = lambda event, details: None,
) -> tuple[Run, Mapping[str, Outcome]]:
    """Run, or resume, every step of a study at the hospitals that permitted it.

    A run that was cut goes on from its last round; steps that are finished are read from the ledger. A step
    that waits for a permission leaves the study `waiting`; when the permission has come, run again.
    Raises LifecycleError, PermitError.
    """
    state = studies.read(store, hash_)[1]
    studies.advance(store, hash_, "start" if state == "permitted" else "resume", "hub")
    run = _run(store, hash_, engine, methods, name, limits, summing or summing_of(store, hash_, limits), progress)
    run.progress = _logged(store.log, hash_, run.name, progress)
    store.put_run(run.name, hash_)
    _leave_out_lapsed(store, hash_, run)
    outcomes = run.steps()
    run.ledger.write("", NUMBERS, pack(_numbers(outcomes)))
    waiting = any(outcome.status == "waiting" for outcome in outcomes.values())
    studies.advance(store, hash_, "wait" if waiting else "finish", "hub")
    return run, outcomes


def _leave_out_lapsed(store: Store, hash_: str, run: Run) -> None:
    """Keep, and tell once, who is left out of the run because its permit does not hold any more, or came when the
    study's sums had begun."""
    late = Words("It came when the study's sums had begun without it", "연구의 합이 그 병원 없이 시작된 뒤에 왔습니다")
    errors = {name: PermitError(hospital=name, problem=late) for name in studies.permits(store, hash_)}
    errors = {name: error for name, error in (errors | dict(run.lapsed)).items() if name not in run.hospitals}
    entry = pack(list(errors))
    if entry != (run.ledger.read("", LAPSED) or pack([])):
        run.ledger.write("", LAPSED, entry)
        for name, error in errors.items():
            run.progress("dropped", {"hospital": name, "error": error})


def summing_of(store: Store, hash_: str, limits: Limits = DEFAULT) -> Summing:
    """Masked sums, unless every permit of the study has `visible_updates`. Raises UnknownStudy, PermitError."""
    within, permits = studies.read(store, hash_)[0].quorum.answer_within, studies.permits(store, hash_)
    wait = seconds(within) if within else PlainSum.timeout
    if permits and all(permit.visible_updates for permit in permits.values()):
        return PlainSum(wait)
    keys = {name: bytes.fromhex(key["keyval"]["public"]) for name, key in store.hospitals().items()}
    envelopes = store.permits(hash_)
    differing = {**permits, **studies.withdrawals(store, hash_)}
    shown = {name: envelopes[name] for name, permit in differing.items() if permit.difference}
    everybody = {**studies.permits(store, hash_, over=True), **differing}
    minimum, remember = _limits_of(everybody, limits).minimum_hospitals, partial(store.put_sum_members, hash_)
    return SecureSum(keys, shown, minimum, wait, members=store.sum_members(hash_), remember=remember)


def _limits_of(permits: Mapping[str, Permit], limits: Limits) -> Limits:
    """The tightest of all hospitals that are or were in the study."""
    return strictest((tighten(permit.limits, limits) for permit in permits.values()), limits)


def results(store: Store, hash_: str, methods: Methods, name: str | None = None) -> Mapping[str, Outcome]:
    """The outcomes of a run as the ledger has them; nobody is asked and nothing is written. A step without an
    outcome shows as waiting for its hospitals. Raises UnknownStudy, PermitError."""
    nobody = LocalEngine({})
    run = _run(store, hash_, nobody, methods, name, DEFAULT, PlainSum(), lambda event, details: None, over=True)
    run.ledger = _Unwritten(run.ledger)
    return run.steps()


def _logged(log: AuditLog, study: str, run: str, progress: Progress) -> Progress:
    """Rounds go to the audit log: who was asked what, whose sum was opened, how a step ended; no number of it."""

    def tell(event: str, details: Mapping[str, Any]) -> None:
        said: dict[str, Any] = {"study": study, "run": run, **details}
        if event == "asked":
            said["questions"] = {hospital: digest(message) for hospital, message in said.pop("asks").items()}
        if event in ("asked", "opened"):
            declared = said.pop("declared")
            arrays = [[spec.name, list(spec.shape)] for spec in declared]
            # One sync a round: the line that a sum was opened is synced with the next question.
            log.append(event, event == "asked", **said, declaration=declaration_digest(declared), arrays=arrays)
        elif event == "ended":
            error = said.pop("error")
            rule = error.rule if isinstance(error, Refused) else None
            log.append(event, **said, error=error.code() if error else None, rule=rule)
        else:
            if event == "dropped":
                log.append("left out", study=study, run=run, hospital=said["hospital"], error=said["error"].code())
            progress(event, details)

    return tell


class _Unwritten:
    """A ledger to look at: what is written over it is forgotten."""

    def __init__(self, ledger: Ledger) -> None:
        self._below, self._above = ledger, InMemoryLedger()

    def read(self, step: str, fold: str | None) -> bytes | None:
        return self._above.read(step, fold) or self._below.read(step, fold)

    def write(self, step: str, fold: str | None, entry: bytes) -> None:
        self._above.write(step, fold, entry)


def _run(
    store: Store,
    hash_: str,
    engine: Engine,
    methods: Methods,
    name: str | None,
    limits: Limits,
    summing: Summing,
    progress: Progress,
    over: bool = False,
) -> Run:
    study = studies.read(store, hash_)[0]
    signed, gone = studies.permits(store, hash_, over=True), studies.withdrawals(store, hash_)
    limits = _limits_of({**gone, **signed}, limits)
    if study.open is not None:
        limits = limits.model_copy(update={"numbers_per_person": limits.open_numbers_per_person})
    run_name = name or f"{hash_.removeprefix('sha256:')[:12]}-1"
    ledger = store.ledger(run_name)
    lapsed = unpack(ledger.read("", LAPSED) or pack([])) if over else []
    permits = {name: signed[name] for name in signed if name not in lapsed} if over else studies.permits(store, hash_)
    members = store.sum_members(hash_)  # whoever signed, or signed again, once sums had begun is in none of them
    permits = {name: permit for name, permit in permits.items() if not members or name in members}
    return Run(
        run_name,
        plan_of(study, methods, limits.minimum_people),
        tuple(permits),
        {hospital: permit.grants() for hospital, permit in {**gone, **permits}.items()},
        limits,
        engine,
        summing,
        ledger,
        progress,
        quorum=study.quorum,
        joined=len(store.hospitals()),
        withdrawn=frozenset(gone),
        lapsed=studies.lapsed(store, hash_),
        released_before=_released_before(store, study, ledger, over),
        opened_before=tuple(_opened_before(store, study)),
    )


def _same_cohort(store: Store, study: Study) -> Iterator[tuple[str, str, Ledger]]:
    """(hash, state, ledger) of every run of other studies that ask about the same people."""
    asked = cohort_digest(study)
    for hash_, document, state in store.studies():
        runs = store.runs(hash_) if hash_ != study.hash else []
        if runs and cohort_digest(Study.model_validate(json.loads(document))) == asked:
            for run in runs:
                yield hash_, state, store.ledger(run)


def _opened_before(store: Store, study: Study) -> Iterator[tuple[tuple[str, ...], frozenset[str]]]:
    """Sets of hospitals of which a sum was opened about the same cohort, with those that granted `difference` then."""
    for hash_, _, ledger in _same_cohort(store, study):
        entry = ledger.read("", "opened")
        signed = {name: read_permit(found) for name, found in store.permits(hash_).items() if found}
        granted = frozenset(name for name, permit in signed.items() if permit.difference)
        for names in unpack(entry) if entry else []:
            yield tuple(names), granted


def _released_before(store: Store, study: Study, ledger: Ledger, over: bool) -> int:
    """Numbers about the same cohort in studies whose steps were finished before this one's. Counted anew whenever the
    study runs, and kept with the run, so that its results look the same whatever is released later."""
    entry = ledger.read("", BEFORE)
    if over:
        return int(unpack(entry)) if entry else 0
    found = [other.read("", NUMBERS) for _, state, other in _same_cohort(store, study) if state in SHOWN]
    count = sum(int(unpack(number)) for number in found if number)
    ledger.write("", BEFORE, pack(count))
    return count


def _numbers(outcomes: Mapping[str, Outcome]) -> int:
    folds = [fold for outcome in outcomes.values() for fold in outcome.folds.values()]
    return sum(numbers(fold.released) for fold in folds if fold.released)
