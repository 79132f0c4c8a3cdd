"""What a propensity score tells: coefficients, the preference score's distribution by arm, its overlap, and words."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.estimation import penalised
from dure.estimation.coefficients import coefficient_table
from dure.language import Words
from dure.methods.propensity.model import Model
from dure.study.method import Question, State
from dure.study.result import Figure, Fitted, Result, Table
from dure.study.summary import Summary

BINS = 20
"""Intervals of the preference score from 0 to 1."""
OVERLAP = (6, 14)
"""Those from 0.3 to 0.7, where Walker and others look for equipoise."""
NOTHING = 1e-12
"""A penalised coefficient (per standard deviation) below which it is rounding of sums that balance."""
MOST_TERMS = 500
"""Coefficients shown, the largest first (per standard deviation)."""

SCORE = (
    "Rosenbaum PR, Rubin DB. The central role of the propensity score in observational studies for causal effects. "
    "Biometrika 1983;70:41-55."
)
PREFERENCE = (
    "Walker AM, Patrick AR, Lauer MS, et al. A tool for assessing the feasibility of comparative effectiveness "
    "research. Comp Eff Res 2013;3:11-20."
)
LARGE = (
    "Tian Y, Schuemie MJ, Suchard MA. Evaluating large-scale propensity score performance through real-world and "
    "synthetic data experiments. Int J Epidemiol 2018;47:2005-14."
)
PATHS = (
    "Friedman J, Hastie T, Tibshirani R. Regularization paths for generalized linear models via coordinate descent. "
    "J Stat Softw 2010;33(1):1-22."
)


def answer(model: Model, hub: State, state: State, bins: NDArray[np.float64], minimum: int) -> Result:
    """The Result, coefficients in the columns' own units."""
    penalty, n, treated = model.parameters.penalty, int(hub["n"]), int(hub["treated"])
    kept, centre = np.asarray(state["kept"], dtype=bool), np.asarray(state["centre"])
    dense, names = len(model.design.columns), model.names(kept)
    beta = np.asarray(state["beta"])[0].copy()
    if penalty is not None:
        beta[1:][np.abs(beta[1:]) * np.asarray(hub["fit"]["scale"])[0] < NOTHING] = 0.0
    beta[0] -= beta[1:] @ centre
    if penalty is None:
        active = np.asarray(hub["active"], dtype=bool)
        back = np.eye(dense)
        back[0, 1:] = -np.where(active[1:], centre, 0.0)
        covariance = back @ np.asarray(hub["covariance"]) @ back.T
        coefficients = coefficient_table(names, beta, covariance, active, model.parameters.level)
        fitted, deviance = int(active.sum()), float(hub["deviance"])
    else:
        fit, chosen = hub["fit"], int(hub["chosen"])
        scale = np.asarray(fit["scale"])[0]
        active = np.r_[True, scale > 0][:dense]
        coefficients = _non_zero(names, beta, scale, dense, model.parameters.level)
        fitted, deviance = int((beta[1:] != 0).sum()) + 1, float(fit["deviance"][0, chosen])
    facts: dict[str, Any] = {
        "n": n,
        "treated": treated,
        "terms": fitted - 1,
        "deviance": deviance,
        "treatment": model.parameters.treatment,
    }
    tables = {"coefficients": coefficients, "distribution": _distribution(bins, minimum), "overlap": _overlap(bins)}
    if penalty is not None:
        facts["lambda"] = float(hub["fit"]["lambdas"][hub["chosen"]])
        if len(hub["fit"]["lambdas"]) > 1:
            tables["path"] = _path(model, hub)
    places = np.flatnonzero(kept)[beta[dense:] != 0]
    return Result(
        method="propensity",
        tables=tables,
        facts=facts,
        people_facts=("n", "treated"),
        fitted=Fitted(fitted, n, treated, n - treated),
        portable={
            "treatment": model.parameters.treatment,
            "formula": model.parameters.formula or "1",
            "names": list(model.design.names),
            "beta": np.where(active, beta[:dense], 0.0),
            "active": active,
            "penalised": penalty is not None,
            "treated": treated,
            "n": n,
            "covariates": model.parameters.covariates,
            "code_places": places.astype(np.int64),
            "code_beta": beta[dense:][beta[dense:] != 0],
        },
        notes=_notes(model, kept, active, coefficients, fitted),
        figures={
            "preference": Figure(
                "bars",
                "distribution",
                "preference",
                "share",
                Words("Preference score by treatment", "치료군별 선호점수"),
                Words("Preference score", "선호점수"),
                Words("Share of the arm", "군 안의 비율"),
                group="arm",
            )
        },
        paragraph=_paragraph(model),
        references=_references(model),
    )


def _non_zero(names: tuple[str, ...], beta: Any, scale: Any, dense: int, level: float) -> Table:
    """The intercept and what is not zero, the largest first (per standard deviation)."""
    size = np.r_[np.inf, np.abs(beta[1:]) * scale]
    order = [int(place) for place in np.argsort(-size, kind="stable") if beta[place] != 0 or place == 0][:MOST_TERMS]
    order = sorted(order, key=lambda place: (place >= dense, place if place < dense else 0))  # terms, then codes
    chosen = np.array(order)
    empty = np.full((len(order), len(order)), np.nan)
    return coefficient_table([names[place] for place in order], beta[chosen], empty, np.ones(len(order), bool), level)


def _distribution(bins: NDArray[np.float64], minimum: int) -> Table:
    """People by preference score and arm; intervals merged from below until both arms have enough in each."""
    edges, least = [0], max(minimum, 1)
    for end in range(1, BINS + 1):
        if (bins[:, edges[-1] : end].sum(axis=1) >= least).all():
            edges.append(end)
    if len(edges) == 1:
        edges.append(BINS)
    edges[-1] = BINS
    rows = [
        (arm, low / BINS, high / BINS, (low + high) / 2 / BINS, int(of[low:high].sum()), int(of.sum()))
        for arm, of in (("comparison", bins[0]), ("treated", bins[1]))
        for low, high in pairwise(edges)
    ]
    columns = {"arm": pl.String, "low": pl.Float64, "high": pl.Float64, "preference": pl.Float64}
    frame = pl.DataFrame(rows, schema={**columns, "people": pl.Int64, "of": pl.Int64}, orient="row")
    return Table(
        frame,
        counts=("people", "of"),
        group=("arm",),
        derived=("low", "high", "preference"),
        shares={"share": ("people", "of", 1.0)},
    )


def _overlap(bins: NDArray[np.float64]) -> Table:
    """How many of each arm have a preference score from 0.3 to 0.7."""
    inside = bins[:, slice(*OVERLAP)].sum(axis=1)
    rows = [
        (arm, place, int(count), int(bins[number].sum()))
        for number, arm in enumerate(("comparison", "treated"))
        for place, count in (
            ("0.3 to <0.7", inside[number]),
            ("outside", bins[number].sum() - inside[number]),
        )
    ]
    schema = {"arm": pl.String, "preference": pl.String, "people": pl.Int64, "of": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table(frame, counts=("people", "of"), group=("arm",), shares={"share": ("people", "of", 1.0)})


def _path(model: Model, hub: State) -> Table:
    fit, penalty = hub["fit"], model.parameters.penalty
    assert penalty is not None
    lambdas = np.asarray(fit["lambdas"])
    columns: dict[str, Any] = {
        "lambda": lambdas,
        "terms": penalised.terms(fit).astype(float),
        "deviance": np.asarray(fit["deviance"])[0] / hub["n"],
    }
    if penalty.folds:
        columns["held_out"], columns["held_out_error"] = penalised.held_out_deviance(fit)
    return Table(pl.DataFrame({**columns, "chosen": np.arange(len(lambdas)) == hub["chosen"]}))


def _notes(model: Model, kept: Any, active: Any, table: Table, fitted: int) -> tuple[Words, ...]:
    notes = []
    rare = int((~kept).sum())
    if rare:
        notes.append(
            Words(
                f"Codes left out, because too few people carry them or too few do not: {rare}.",
                f"가진 사람이나 갖지 않은 사람이 너무 적어 뺀 코드 수: {rare}.",
            )
        )
    dropped = [name for name, stays in zip(model.design.names, active) if not stays]
    if dropped:
        names = ", ".join(dropped)
        notes.append(
            Words(
                f"Left out, because constant or a combination of other terms: {names}.",
                f"변하지 않거나 다른 항의 조합이어서 뺀 항: {names}.",
            )
        )
    if model.parameters.penalty is not None and table.frame.height < fitted:
        notes.append(
            Words(f"The {MOST_TERMS} largest coefficients are shown.", f"가장 큰 계수 {MOST_TERMS}개만 보입니다.")
        )
    return tuple(notes)


def _references(model: Model) -> tuple[str, ...]:
    if model.parameters.penalty is None:
        return (SCORE, PREFERENCE)
    return (SCORE, PREFERENCE, PATHS, LARGE) if model.codes else (SCORE, PREFERENCE, PATHS)


def _paragraph(model: Model) -> Words:
    penalty = model.parameters.penalty
    english = "The propensity score was the fitted probability of treatment [1] from a logistic regression"
    korean = "성향점수는"
    if penalty is None:
        english += " by maximum likelihood."
        korean += " 최대가능도로 적합한 로지스틱 회귀에서 얻은 치료받을 확률로 정의하였다[1]."
    else:
        kind = {0.0: ("ridge", "능형"), 1.0: ("L1", "L1")}.get(penalty.l1_ratio, ("elastic-net", "엘라스틱넷"))
        english += f" with an {kind[0]} penalty [3]" if kind[0] != "ridge" else " with a ridge penalty [3]"
        english += " on all recorded concepts [4]." if model.codes else "."
        korean += f" {kind[1]} 벌점을 둔 로지스틱 회귀[3]에서 얻은 치료받을 확률로 정의하였다[1]."
        korean += " 기록된 모든 개념을 공변량으로 썼다[4]." if model.codes else ""
        if penalty.folds:
            english += f" Its strength was chosen by cross-validation in {penalty.folds} folds over all hospitals."
            korean += f" 벌점의 세기는 모든 병원에 걸친 {penalty.folds}겹 교차검증으로 정하였다."
    english += " Overlap was judged by the preference score [2]."
    korean += " 두 군의 겹침은 선호점수로 살펴보았다[2]."
    return Words(english, korean)


def fewer_folds(question: Question, model: Model, arrays: Summary, ends: tuple[str, ...]) -> dict[str, Any] | None:
    """As many folds as leave each about two and a half times the people of each arm that it needs."""
    penalty = model.parameters.penalty
    if penalty is None or not penalty.folds or not all(f"n{end}" in arrays for end in ends):
        return None
    n = sum(int(arrays[f"n{end}"]) for end in ends)
    treated = sum(int(arrays.get(f"treated{end}", np.array(n // 2))) for end in ends)
    fewest = min(treated, n - treated)
    folds = min(int(fewest / (2.5 * max(question.minimum_people, 1))), penalty.folds - 1)
    if fewest < question.minimum_people or (folds < 2 and penalty.l1_ratio == 0):
        return None
    return {"penalty": {**penalty.model_dump(), "folds": folds if folds >= 2 else None}}
