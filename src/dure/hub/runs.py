"""Running a permitted study from the hub: who takes part, on which engine, resumed from the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dure.errors import Refused
from dure.federation.engine import Engine
from dure.federation.ledger import InMemoryLedger, Ledger, Outcome
from dure.federation.local_engine import LocalEngine
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import plan_of
from dure.federation.rounds import Progress, Run
from dure.federation.sums import Summing
from dure.guard.audit import AuditLog, declaration_digest, digest
from dure.guard.rules import DEFAULT, Limits, strictest, tighten
from dure.hub import studies
from dure.hub.store import Store
from dure.study.method import Methods
from dure.study.spec import seconds


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
    within = studies.read(store, hash_)[0].quorum.answer_within
    waits = PlainSum(seconds(within)) if within else PlainSum()
    run = _run(store, hash_, engine, methods, name, limits, summing or waits, progress)
    run.progress = _logged(store.log, hash_, run.name, progress)
    store.put_run(run.name, hash_)
    outcomes = run.steps()
    waiting = any(outcome.status == "waiting" for outcome in outcomes.values())
    studies.advance(store, hash_, "wait" if waiting else "finish", "hub")
    return run, outcomes


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
    permits = studies.permits(store, hash_, over)
    limits = strictest((tighten(permit.limits, limits) for permit in permits.values()), limits)
    run_name = name or f"{hash_.removeprefix('sha256:')[:12]}-1"
    return Run(
        run_name,
        plan_of(study, methods, limits.minimum_people),
        tuple(permits),
        {hospital: permit.grants() for hospital, permit in permits.items()},
        limits,
        engine,
        summing,
        store.ledger(run_name),
        progress,
        quorum=study.quorum,
        joined=len(store.hospitals()),
    )
