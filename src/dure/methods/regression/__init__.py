"""Linear, logistic and Poisson regression: the pooled maximum-likelihood fit, from sums over hospitals.

Rounds: one of counts and means, then Newton steps on centred columns (5 to 8), and one more for HC0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import NobodyLeft, NotConverged, NothingVaries, OneClass, Refused, Separation
from dure.estimation import newton, people
from dure.estimation.coefficients import coefficient_table
from dure.estimation.families import FAMILIES, Family
from dure.estimation.likelihood import ModelRows, sums_at
from dure.estimation.remedy import merged_design
from dure.language import Words
from dure.methods.regression.model import Model, counts, model_of, model_rows
from dure.methods.regression.parameters import Parameters
from dure.methods.regression.path import Path
from dure.study.method import HUB, Example, Kept, Law, Question, State
from dure.study.result import Fitted, Result
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary, Total

PATH = Path()


class Regression:
    name = "regression"
    title = Words("Regression", "회귀분석")
    about = Words(
        "Linear, logistic or Poisson regression; coefficients and standard errors equal the pooled fit.",
        "선형·로지스틱·포아송 회귀. 계수와 표준오차가 자료를 모아 분석한 것과 같습니다.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        if question.parameters.penalty is not None:
            return PATH.declare(question, state)
        model = model_of(question)
        p, opens = len(model.design.columns), any(f.column == "site" for f in model.design.factors)

        def array(name: str, shape: tuple[int, ...], kind: Kind, **more: Any) -> ArraySpec:
            return ArraySpec(name, shape, kind, opens_hospitals=opens, **more)

        if state["phase"] == "counts":
            cells, pairs = model.design.cells(), model.design.numeric_pairs()
            counts = [array("n", (), "count", on_small="refuse")]
            if model.parameters.family == "binomial":
                events = (f"{model.outcome.text} (events)",)
                counts.append(array("events", (), "count", whole="n", on_small="refuse", labels=events))
            return (
                *counts,
                array("cells", (cells.size,), "count", whole="n", on_small="refuse", labels=cells.labels),
                array("pairs", (len(pairs),), "count", on_small="refuse", labels=model.design.pair_names()),
                array("sum_x", (p,), "moment", people=("cells", "pairs")),
                *(
                    (array("sum_spread", (len(model.design.spreads()),), "moment", people=("cells", "pairs")),)
                    if model.spreads_apart
                    else ()
                ),
                array("sum_y", (), "moment", people=("n",)),
                array("sum_w", (), "moment", people=("n",)),
            )
        behind = {"people": ("n", "cells", "pairs")}
        sums: Declaration = (
            array("gradient", (p,), "moment", **behind),
            array("hessian", (p, p), "moment", **behind),
            array("deviance", (), "moment", people=("n",)),
            array("log_likelihood", (), "moment", people=("n",)),
        )
        if state["phase"] == "start":
            names = tuple(column.name for column in model.design.spreads())
            sums = (*sums, array("powers", (len(names), 4), "moment", people=("n",), sides=True, labels=names))
        return (*sums, array("meat", (p, p), "moment", **behind)) if state["phase"] == "robust" else sums

    def start(self, question: Question) -> State:
        if question.parameters.penalty is not None:
            return PATH.start(question)
        model_of(question)
        return {"phase": "counts", "round": 0}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        if question.parameters.penalty is not None:
            return PATH.summarise(rows, question, state, kept)
        model = model_of(question)
        data, keep = model_rows(rows, model)
        if state["phase"] == "counts":
            return counts(rows, model, data, keep), {}
        family = FAMILIES[model.parameters.family]
        mean = state["mean_y"] if state["phase"] == "start" else None
        centred = rows.remember_latest(
            ("centred", model.key),
            np.asarray(state["centre"]).tobytes(),
            lambda: replace(data, x=data.x - np.asarray(state["centre"])[:, None]),
        )
        sums = sums_at(family, centred, state["beta"], mean_outcome=mean, robust=state["phase"] == "robust")
        found: Summary = {
            "gradient": sums.gradient,
            "hessian": sums.hessian,
            "deviance": np.array(sums.deviance),
            "log_likelihood": np.array(_likelihood(sums.log_likelihood, family, data)),
        }
        if sums.meat is not None:
            found["meat"] = sums.meat
        if state["phase"] == "start":
            found["powers"] = people.powers(model.design.spread_rows(rows, keep, data.x), state["means"])
        return found, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        if question.parameters.penalty is not None:
            return PATH.conclude(total, question, state)
        model = model_of(question)
        state = {**state, "round": state["round"] + 1}
        if state["phase"] == "counts":
            return {**state, **_centres(total, model)}
        if state["phase"] == "robust":
            return _result(total, model, state)
        hub, hessian = state[HUB], total["hessian"]
        if state["phase"] == "start":
            aliased = newton.aliased_columns(hessian, state["centre"], hub["sum_w"])
            if aliased.all():
                raise NothingVaries(terms=", ".join(model.design.names))
            hub = {**hub, "active": ~aliased}
        active = np.asarray(hub["active"], dtype=bool)
        deviance = float("inf") if state["phase"] == "start" else float(total["deviance"])
        try:
            weight = hub["sum_w"] / hub["n"]
            step = newton.advance(hub["newton"], total["gradient"], hessian, deviance, active, weight)
        except newton.Stuck:
            raise Separation(terms=", ".join(_named(model, active))) from None
        if step.separating.any() and model.parameters.family != "gaussian":
            raise Separation(terms=", ".join(_named(model, step.separating)))
        after = {**state, "beta": step.state["beta"], HUB: {**hub, "newton": step.state}}
        if state["phase"] == "newton" and step.converged:
            if model.parameters.covariance == "HC0":
                return {**after, "phase": "robust"}
            return _result(total, model, after)
        if state["round"] >= model.parameters.rounds:
            raise NotConverged(rounds=model.parameters.rounds)
        return {**after, "phase": "newton"}

    def remedy(self, question: Question, refused: Refused, arrays: Summary) -> dict[str, Any] | None:
        """Merged levels, fewer knots or fewer terms that pass (`dure.estimation.remedy`)."""
        model = model_of(question)
        return merged_design(model.parameters.formula, question, model.design, refused, arrays)

    def derives(self, question: Question) -> Mapping[str, Column]:
        if question.parameters.penalty is not None:
            return PATH.derives(question)
        return {"prediction": Column("number", label=Words("Predicted value", "예측값"))}

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """`prediction`: the fitted mean (a probability for binomial), NaN where a term is missing."""
        if question.parameters.penalty is not None:
            return PATH.derive(rows, question, result, kept)
        model = model_of(question)
        x, keep = model.design.read(rows)
        eta = np.asarray(result.portable["beta"]) @ x
        if model.parameters.offset:
            eta = eta + rows.numbers(model.parameters.offset)[keep]
        values = np.full(rows.n, np.nan)
        values[keep] = FAMILIES[model.parameters.family].mean(eta)
        return {"prediction": values}

    def example(self, random: np.random.Generator) -> Example:
        n = 240
        age, group = random.normal(60, 9, n), random.choice(["a", "b", "c"], n)
        eta = 0.05 * (age - 60) + 0.7 * (group == "b") - 0.4 * (group == "c")
        y = (random.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        return Example(
            pl.DataFrame({"y": y, "age": age, "group": group}),
            {"formula": "y ~ age + C(group)", "family": "binomial", "covariance": "HC0"},
        )


def _likelihood(value: float, family: Family, data: ModelRows) -> float:
    """The sum; of a gaussian likelihood only what the weights give, since the rest needs the dispersion."""
    if family.name != "gaussian":
        return float(np.nan_to_num(value))
    return 0.0 if data.weights is None else float(np.log(data.weights).sum() / 2)


def _centres(total: Total, model: Model) -> State:
    """The state after the first round: what to centre by, where to start, and whether anybody is there."""
    n, sum_w = total.count("n"), float(total["sum_w"])
    if n == 0:
        raise NobodyLeft(columns=", ".join(model.design.parsed.columns()))
    events = total.count("events") if model.parameters.family == "binomial" else None
    mean = float(total["sum_y"]) / sum_w
    if events in (0, n) or (model.parameters.family == "poisson" and mean == 0):
        raise OneClass(outcome=model.outcome.text)
    centre = total["sum_x"] / sum_w if model.design.intercept else np.zeros(len(model.design.columns))
    if model.design.intercept:
        centre[0] = 0.0
    return {
        "phase": "start",
        "centre": centre,
        "means": total["sum_spread" if model.spreads_apart else "sum_x"] / n,
        "mean_y": mean,
        "beta": np.zeros(len(centre)),
        HUB: {"n": n, "events": events, "sum_w": sum_w, "newton": newton.first(len(centre))},
    }


def _result(total: Total, model: Model, state: State) -> Result:
    """Coefficients in the formula's own units, from a fit on centred columns."""
    hub, names = state[HUB], model.design.names
    active = np.asarray(hub["active"], dtype=bool)
    fitted, n = int(active.sum()), int(hub["n"])
    back = np.eye(len(names))
    if model.design.intercept:
        back[0, 1:] = -np.where(active, state["centre"], 0.0)[1:]
    beta = back @ np.where(active, state["beta"], 0.0)
    bread = newton.inverse(total["hessian"], active)
    deviance, freedom = float(total["deviance"]), n - fitted
    gaussian = model.parameters.family == "gaussian"
    dispersion = (deviance / freedom if freedom > 0 else float("nan")) if gaussian else 1.0
    covariance = bread @ total["meat"] @ bread if state["phase"] == "robust" else bread * dispersion
    covariance = back @ covariance @ back.T
    likelihood = float(total["log_likelihood"])
    if gaussian:
        likelihood -= n / 2 * (np.log(2 * np.pi * deviance / n) + 1)
    table = coefficient_table(names, beta, covariance, active, model.parameters.level, freedom if gaussian else None)
    dropped = [name for name, kept in zip(names, active) if not kept]
    notes = (
        Words(
            f"Left out, because constant or a combination of other terms: {', '.join(dropped)}.",
            f"변하지 않거나 다른 항의 조합이어서 뺀 항: {', '.join(dropped)}.",
        ),
    )
    events = hub["events"]
    return Result(
        method="regression",
        tables={"coefficients": table},
        facts={
            "n": n,
            "events": events,
            "deviance": deviance,
            "log_likelihood": float(likelihood),
            "aic": float(-2 * likelihood + 2 * (fitted + gaussian)),
            "dispersion": dispersion,
            "family": model.parameters.family,
            "formula": model.parameters.formula,
        },
        people_facts=("n",) if events is None else ("n", "events"),
        fitted=Fitted(fitted, n, events, None if events is None else n - events),
        portable={"beta": beta, "active": active},
        notes=notes if dropped else (),
    )


def _named(model: Model, chosen: NDArray[np.bool_]) -> list[str]:
    names = [name for name, picked in zip(model.design.names, chosen) if picked]
    return [name for name in names if name != "Intercept"] or names


method = Regression()
