"""What a penalised path tells: the chosen model, the path, the cross-validation, figures and words."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from dure.estimation import penalised
from dure.estimation.coefficients import coefficient_table
from dure.estimation.parameters import Penalty
from dure.language import Words
from dure.methods.regression.model import Model
from dure.study.method import State
from dure.study.result import Figure, Fitted, Result, Table

TRACED = 12
"""Values of λ at which the paths of single terms are told."""

PATHS = (
    "Friedman J, Hastie T, Tibshirani R. Regularization paths for generalized linear models via coordinate descent. "
    "J Stat Softw 2010;33(1):1-22."
)
RIDGE = (
    "Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 1970;12:55-67."
)
LASSO = "Tibshirani R. Regression shrinkage and selection via the lasso. J R Stat Soc Series B 1996;58:267-88."
NET = (
    "Zou H, Hastie T. Regularization and variable selection via the elastic net. J R Stat Soc Series B 2005;67:301-20."
)
BIC = "Zou H, Hastie T, Tibshirani R. On the degrees of freedom of the lasso. Ann Stat 2007;35:2173-92."


def answer(model: Model, penalty: Penalty, hub: State, state: State) -> Result:
    """The Result, coefficients in the formula's own units."""
    fit, names, family = hub["fit"], model.design.names, model.parameters.family
    n, events, gaussian = int(hub["n"]), hub["events"], family == "gaussian"
    lambdas = np.asarray(fit["lambdas"])
    chosen = penalised.choose(fit, penalty, gaussian, n)
    every = np.array([penalised.coefficients(fit, 0, place) for place in range(len(lambdas))])
    every[:, 0] += (hub["mean"] if gaussian else 0.0) - every[:, 1:] @ np.asarray(state["centre"])
    beta = every[chosen]
    active = np.r_[True, np.asarray(fit["scale"])[0] > 0]
    counted = penalised.terms(fit)
    deviance = np.asarray(fit["deviance"])[0]
    columns: dict[str, Any] = {
        "lambda": lambdas,
        "log_lambda": np.log(lambdas),
        "terms": counted.astype(float),
        "deviance": deviance / fit["weight"][0],
    }
    facts: dict[str, Any] = {
        "n": n,
        "events": events,
        "lambda": float(lambdas[chosen]),
        "terms": int(counted[chosen]),
        "deviance": float(deviance[chosen]),
        "l1_ratio": penalty.l1_ratio,
        "family": family,
        "formula": model.parameters.formula,
    }
    if penalty.folds:
        mean, error = penalised.held_out_deviance(fit)
        best = int(np.argmin(mean))
        columns |= {"held_out": mean, "held_out_error": error, "low": mean - error, "high": mean + error}
        facts |= {
            "folds": penalty.folds,
            "lambda_least": float(lambdas[best]),
            "lambda_one_se": float(lambdas[np.flatnonzero(mean <= mean[best] + error[best])[0]]),
            "held_out": float(mean[chosen]),
        }
    elif len(lambdas) > 1:
        columns["bic"] = penalised.criterion(fit, gaussian, n)
    path = pl.DataFrame({**columns, "chosen": np.arange(len(lambdas)) == chosen})
    derived = tuple(name for name in ("log_lambda", "low", "high") if name in columns)
    return Result(
        method="regression",
        tables={
            "coefficients": coefficient_table(
                names, beta, np.full((len(beta), len(beta)), np.nan), active, model.parameters.level
            ),
            "path": Table(path, derived=derived),
            **({"trace": _trace(model, lambdas, every)} if len(lambdas) > 1 else {}),
        },
        facts=facts,
        people_facts=("n",) if events is None else ("n", "events"),
        fitted=Fitted(int(counted[chosen]) + 1, n, events, None if events is None else n - events),
        portable={"beta": np.where(active, beta, 0.0), "active": active},
        notes=_notes(hub),
        figures=_figures(penalty, len(lambdas)),
        paragraph=_paragraph(model, penalty),
        references=_references(penalty),
    )


def _trace(model: Model, lambdas: np.ndarray[Any, Any], every: np.ndarray[Any, Any]) -> Table:
    """Coefficients of the terms that ever enter, at a few λ."""
    places = np.unique(np.linspace(0, len(lambdas) - 1, min(TRACED, len(lambdas))).round().astype(int))
    entered = [term for term in range(1, every.shape[1]) if every[:, term].any()]
    rows = [
        (model.design.names[term], lambdas[at], np.log(lambdas[at]), every[at, term])
        for term in entered
        for at in places
    ]
    schema = {"term": pl.String, "lambda": pl.Float64, "log_lambda": pl.Float64, "estimate": pl.Float64}
    return Table(pl.DataFrame(rows, schema=schema, orient="row"), derived=("lambda", "log_lambda"))


def _figures(penalty: Penalty, count: int) -> dict[str, Figure]:
    if count < 2:
        return {}
    log = Words("log λ", "log λ")
    found = {
        "trace": Figure(
            "lines", "trace", "log_lambda", "estimate", Words("Coefficients along the path", "경로를 따른 계수"),
            log, Words("Coefficient", "계수"), group="term",
        )
    }  # fmt: skip
    if penalty.folds:
        found["cross_validation"] = Figure(
            "points", "path", "log_lambda", "held_out", Words("Cross-validation", "교차검증"),
            log, Words("Held-out deviance per person", "검증 이탈도(1인당)"), low="low", high="high",
        )  # fmt: skip
    return found


def _notes(hub: State) -> tuple[Words, ...]:
    notes = []
    if hub["dropped"]:
        names = ", ".join(hub["dropped"])
        notes.append(Words(f"Left out, because constant: {names}.", f"변하지 않아 뺀 항: {names}."))
    if hub["copies"]:
        names = ", ".join(hub["copies"])
        notes.append(Words(f"Left out, because a copy of another term: {names}.", f"다른 항과 같아서 뺀 항: {names}."))
    return tuple(notes)


def _kind(penalty: Penalty) -> tuple[str, str]:
    if penalty.l1_ratio == 0:
        return "ridge", "능형"
    if penalty.l1_ratio == 1:
        return "lasso", "라쏘"
    return f"elastic-net (L1 share {penalty.l1_ratio:g})", f"엘라스틱넷(L1 비율 {penalty.l1_ratio:g})"


def _references(penalty: Penalty) -> tuple[str, ...]:
    kind = RIDGE if penalty.l1_ratio == 0 else LASSO if penalty.l1_ratio == 1 else NET
    by_criterion = not penalty.folds and (penalty.strength is None or isinstance(penalty.strength, tuple))
    return (kind, PATHS, BIC) if by_criterion else (kind, PATHS)


def _paragraph(model: Model, penalty: Penalty) -> Words:
    kind, korean = _kind(penalty)
    families = {
        "gaussian": ("linear", "선형"),
        "binomial": ("logistic", "로지스틱"),
        "poisson": ("Poisson", "포아송"),
    }
    name, named = families[model.parameters.family]
    english = (
        f"A {name} regression with a {kind} penalty was fitted [1,2]; columns were scaled to unit standard deviation "
        f"and the intercept was not penalised."
    )
    text = (
        f"{korean} 벌점을 둔 {named} 회귀를 적합하였으며[1,2], 열은 표준편차가 1이 되도록 맞추고 절편에는 벌점을 두지 "
        f"않았다."
    )
    if penalty.folds:
        how = (
            ("the least cross-validated deviance", "교차검증 이탈도가 가장 작은 값")
            if penalty.choose == "least"
            else (
                "the strongest within one standard error of the least cross-validated deviance",
                "교차검증 이탈도가 최소값에서 1 표준오차 이내인 가장 강한 값",
            )
        )
        english += f" The strength was that of {how[0]} in {penalty.folds} folds of people over all hospitals."
        text += f" 벌점의 세기는 모든 병원의 대상자를 {penalty.folds}개 묶음으로 나누어 {how[1]}으로 정하였다."
    elif penalty.strength is None or isinstance(penalty.strength, tuple):
        english += " The strength was that of the least Bayesian information criterion [3]."
        text += " 벌점의 세기는 베이즈 정보 기준이 가장 작은 값으로 정하였다[3]."
    else:
        english += f" The strength λ was {penalty.strength:g}."
        text += f" 벌점의 세기 λ는 {penalty.strength:g}이었다."
    return Words(english, text)
