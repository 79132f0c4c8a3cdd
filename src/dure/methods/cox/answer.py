"""From the last sums of a Cox model to its Result: hazard ratios, tests, baseline, what a paper says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from dure.estimation import newton
from dure.estimation.coefficients import coefficient_table
from dure.language import Words
from dure.methods.cox import on_grid
from dure.methods.cox.model import Model
from dure.methods.cox.wording import paragraph
from dure.study.method import HUB, Question, State
from dure.study.result import Fact, Figure, Fitted, Result, Table

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Varying = tuple[Vector, Matrix, Matrix]
"""Score and two information blocks of effects that change with time."""


def result(model: Model, question: Question, state: State, meat: Matrix | None, varying: Varying | None) -> Result:
    """`state` at the estimate; `meat` (p, p) where errors are robust."""
    p, hub, names = model.parameters, state[HUB], model.design.names
    active = np.asarray(hub["active"], dtype=bool)
    beta = np.where(active, state["beta"], 0.0)
    information = np.asarray(hub["information"])
    bread = newton.inverse(information, active)
    covariance = bread if meat is None else bread @ meat @ bread
    coefficients = coefficient_table(names, beta, covariance, active, p.level)
    tables = {"coefficients": coefficients, "hazard_ratios": _ratios(coefficients.frame)}
    if varying is not None:
        tables["proportional_hazards"] = proportional_hazards(model, information, varying, active)
    if not p.by_hospital:
        counts = {name: np.asarray(values) for name, values in hub["counts"].items()}
        tables["baseline"] = on_grid.baseline(model, np.asarray(hub["hazard"]), counts, question.minimum_people)
    dropped = [name for name, kept in zip(names, active) if not kept]
    notes = (
        Words(
            f"Left out, because constant within strata or a combination of other terms: {', '.join(dropped)}.",
            f"층 안에서 변하지 않거나 다른 항의 조합이어서 뺀 항: {', '.join(dropped)}.",
        ),
    )
    said, references = paragraph(p)
    rows: dict[str, Fact] = {"rows": hub["rows"]} if p.entry else {}
    return Result(
        method="cox",
        tables=tables,
        facts={"n": hub["n"], "events": hub["events"], **rows, **_tests(model, beta, covariance, active, hub)},
        people_facts=("n", "events", *rows),
        fitted=Fitted(int(active.sum()), hub["n"], hub["events"]),
        portable={"beta": beta, "active": active, "centre": np.asarray(state["centre"])},
        notes=notes if dropped else (),
        figures=_figures(p.by_hospital),
        paragraph=said,
        references=references,
    )


def _ratios(coefficients: pl.DataFrame) -> Table:
    """exp(estimate) with its interval; beyond what a number can hold, none."""
    shown = coefficients.select(
        "term",
        hazard_ratio=pl.col("estimate").exp(),
        ci_low=pl.col("ci_low").exp(),
        ci_high=pl.col("ci_high").exp(),
        p_value=pl.col("p_value"),
    ).with_columns(pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64)).otherwise(None))
    return Table(shown, derived=("hazard_ratio", "ci_low", "ci_high", "p_value"))


def _tests(
    model: Model, beta: Vector, covariance: Matrix, active: NDArray[np.bool_], hub: dict[str, Any]
) -> dict[str, Fact]:
    """Likelihood, and the three tests that all coefficients are zero (Wald's with the errors shown)."""
    freedom, at = int(active.sum()), np.flatnonzero(active)
    likelihood, null = float(hub["log_likelihood"]), float(hub["null"])
    wald = float(beta[at] @ _solve(covariance[np.ix_(at, at)], beta[at]))
    chosen = {"likelihood_ratio": 2 * (likelihood - null), "wald": wald, "score_test": float(hub["score"])}
    found: dict[str, Fact] = {"log_likelihood": likelihood, "log_likelihood_null": null, "freedom": freedom}
    for name, chi2 in chosen.items():
        known = bool(np.isfinite(chi2))
        found |= {name: chi2 if known else None, f"{name}_p": float(stats.chi2.sf(chi2, freedom)) if known else None}
    aic = -2 * likelihood + 2 * freedom
    return {**found, "aic": aic, "ties": model.parameters.ties, "formula": model.parameters.formula}


def _figures(by_hospital: bool) -> dict[str, Figure]:
    forest = Figure(
        drawn="forest",
        table="hazard_ratios",
        x="hazard_ratio",
        y="term",
        low="ci_low",
        high="ci_high",
        title=Words("Hazard ratios", "위험비"),
        x_title=Words("Hazard ratio (log scale)", "위험비(로그 눈금)"),
        y_title=Words("Term", "항"),
        log=True,
        rule=(1.0,),
    )
    curve = Figure(
        drawn="steps",
        table="baseline",
        x="time",
        y="survival",
        group="stratum",
        title=Words("Survival at the mean of every column", "모든 열이 평균일 때의 생존"),
        x_title=Words("Time", "시간"),
        y_title=Words("Survival", "생존"),
    )
    return {"hazard_ratios": forest} if by_hospital else {"hazard_ratios": forest, "baseline": curve}


def proportional_hazards(
    model: Model,
    information: NDArray[Any],
    varying: Varying,
    active: NDArray[np.bool_],
) -> Table:
    """Score tests that no term's effect changes with g(time), and none of all terms (Grambsch & Therneau 1994; as
    score tests of the extended model, Therneau & Grambsch 2000, 6.2)."""
    score, crossed, squared = varying
    groups = {name: np.array([column for column in at if active[column]]) for name, at in model.terms().items()}
    groups = {name: at.astype(np.int64) for name, at in groups.items() if len(at)}
    groups["GLOBAL"] = np.flatnonzero(active)
    kept = np.flatnonzero(active)
    inside = information[np.ix_(kept, kept)]
    found = []
    for name, at in groups.items():
        across = crossed[np.ix_(kept, at)]
        left = squared[np.ix_(at, at)] - across.T @ _solve(inside, across)
        chi2 = float(score[at] @ _solve(left, score[at]))
        found.append((name, chi2, len(at), float(stats.chi2.sf(chi2, len(at))) if np.isfinite(chi2) else None))
    frame = pl.DataFrame(
        found, schema={"term": pl.String, "chi2": pl.Float64, "freedom": pl.Int64, "p_value": pl.Float64}, orient="row"
    ).with_columns(pl.col("chi2").fill_nan(None))
    return Table(frame, derived=("freedom", "p_value"))


def _solve(matrix: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Scaled to unit diagonal; NaN where nothing is left to test (all events at one time)."""
    diagonal = np.diag(matrix)
    if not (diagonal > 0).all():
        return np.full(right.shape, np.nan)
    scale = 1.0 / np.sqrt(diagonal)
    tall = scale[:, None] if right.ndim == 2 else scale
    try:
        return np.asarray(tall * np.linalg.solve(matrix * np.outer(scale, scale), tall * right))
    except np.linalg.LinAlgError:
        return np.full(right.shape, np.nan)
