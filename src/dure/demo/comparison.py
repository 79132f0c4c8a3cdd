"""The owner's comparison: the same model at each hospital alone and on pooled rows.

Only the demonstration may do this, because it owns all four hospitals' data; in an alliance nobody could.
The rules are off for the fits, and on for every AUROC that is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from dure.client.simulate import run_frames
from dure.demo.alliance import Alliance
from dure.errors import DureError
from dure.federation.plan import Plan, plan_of
from dure.guard.rules import DEFAULT, OFF
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.spec import Step

POOLED = "pooled"
OUTCOME = "disease"


@dataclass(frozen=True)
class Comparison:
    """Fits by where they were trained (a hospital, or POOLED), errors where there is no fit, and the AUROC of
    each at each hospital as released: (trained, tested) → number or None, people or None, reason in en and ko."""

    fits: dict[str, Result]
    errors: dict[str, DureError]
    auroc: dict[tuple[str, str], tuple[float | None, int | None, str | None, str | None]]


def compare(alliance: Alliance, step: str = "model") -> Comparison:
    """Fit the step's model everywhere alone and pooled, and score everybody with every fit."""
    plan = plan_of(alliance.study, alliance.methods, DEFAULT.minimum_people)
    rows = {name: runner.rows(alliance.study, plan) for name, runner in alliance.runners.items()}
    frames = {name: part.frame for name, part in rows.items()}
    question = plan.step(step)
    fits: dict[str, Result] = {}
    errors: dict[str, DureError] = {}
    for name, part in {**{name: {name: frame} for name, frame in frames.items()}, POOLED: frames}.items():
        outcomes, _ = run_frames(part, (question,), OFF, columns=plan.columns, methods=alliance.methods)
        fold = outcomes[step].folds[None]
        if fold.working:
            fits[name] = fold.working
        elif fold.error:
            errors[name] = fold.error
    return Comparison(fits, errors, _auroc(plan, question, rows, fits))


def _auroc(
    plan: Plan, step: Step, rows: dict[str, Rows], fits: dict[str, Result]
) -> dict[tuple[str, str], tuple[float | None, int | None, str | None, str | None]]:
    method = plan.method(step)
    question = plan.question(step, tuple(rows))
    scored: dict[str, pl.DataFrame] = {}
    for name, part in rows.items():
        scores = {
            f"score.{trained}": pl.Series(np.asarray(method.derive(part, question, fit, {})["prediction"]))
            for trained, fit in fits.items()
        }
        scored[name] = pl.DataFrame({OUTCOME: part.frame[OUTCOME], **scores}).fill_nan(None)
    columns = {OUTCOME: Column("flag", ("0", "1")), **{f"score.{name}": Column("number") for name in fits}}
    parameters = {"outcome": OUTCOME, "scores": [f"score.{name}" for name in fits]}
    ask = (Step(name="auroc", method="validation", parameters=parameters),)
    outcomes, _ = run_frames(scored, ask, DEFAULT, frozenset(("per_hospital",)), columns=columns, methods=plan.methods)
    released = outcomes["auroc"].folds[None].released
    assert released is not None
    return {
        (row["score"].removeprefix("score."), row["hospital"]): (
            row["auroc"],
            row["n"],
            row["reason"],
            row["reason_ko"],
        )
        for row in released.tables["auroc"].frame.to_dicts()
    }
