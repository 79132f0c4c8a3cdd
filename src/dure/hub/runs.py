"""Running a permitted study from the hub: who takes part, on which engine, resumed from the ledger."""

from __future__ import annotations

from collections.abc import Mapping

from dure.federation.engine import Engine
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import plan_of
from dure.federation.rounds import Outcome, Progress, Run
from dure.federation.sums import Summing
from dure.guard.rules import DEFAULT, Limits, strictest, tighten
from dure.hub import studies
from dure.hub.store import Store
from dure.study.method import Methods


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
    study, state = studies.read(store, hash_)
    run_name = name or f"{hash_.removeprefix('sha256:')[:12]}-1"
    studies.advance(store, hash_, "start" if state == "permitted" else "resume", "hub")
    store.put_run(run_name, hash_)
    permits = studies.permits(store, hash_)
    limits = strictest((tighten(permit.limits, limits) for permit in permits.values()), limits)
    run = Run(
        run_name,
        plan_of(study, methods, limits.minimum_people),
        tuple(permits),
        {hospital: permit.grants() for hospital, permit in permits.items()},
        limits,
        engine,
        summing or PlainSum(),
        store.ledger(run_name),
        progress,
    )
    outcomes = run.steps()
    waiting = any(outcome.status == "waiting" for outcome in outcomes.values())
    studies.advance(store, hash_, "wait" if waiting else "finish", "hub")
    return run, outcomes
