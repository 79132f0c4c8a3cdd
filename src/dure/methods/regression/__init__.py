"""Regression for linear, binary, count, positive and overdispersed outcomes: the pooled fit, from sums over hospitals.

Rounds: one of counts and means, one that starts from the data's own means, then Newton steps on centred columns (4 to
7), and one more for robust errors and where the link is not canonical. Firth's penalty takes two rounds a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from dure.errors import Refused
from dure.estimation import people
from dure.estimation.carried import refuse_few, refuse_few_rates, relative
from dure.estimation.likelihood import ModelRows, Sums, Wanted, saturated, sums_at
from dure.estimation.remedy import merged_design
from dure.language import Words
from dure.methods.regression import fitting
from dure.methods.regression.answer import result
from dure.methods.regression.model import Model, counts, model_of, model_rows
from dure.methods.regression.parameters import Parameters
from dure.methods.regression.path import Path
from dure.study.method import Example, Kept, Law, Question, State
from dure.study.result import Result
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary, Total

PATH = Path()
ROBUST = ("HC0", "HC1", "cluster")


class Regression:
    name = "regression"
    title = Words("Regression", "회귀분석")
    about = Words(
        "Linear, logistic, Poisson, gamma or negative binomial regression; coefficients and standard errors equal the "
        "pooled fit.",
        "선형·로지스틱·포아송·감마·음이항 회귀. 계수와 표준오차가 자료를 모아 분석한 것과 같습니다.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        if question.parameters.penalty is not None:
            return PATH.declare(question, state)
        model = model_of(question)
        p = len(model.design.columns)
        opens = any(factor.column == "site" for factor in model.design.factors)

        def array(name: str, shape: tuple[int, ...], kind: Kind, **more: Any) -> ArraySpec:
            return ArraySpec(name, shape, kind, **{"opens_hospitals": opens, **more})

        if state["phase"] == "counts":
            return self._first_round(model, array)
        behind = {"people": ("n", "cells", "pairs")}
        if state["phase"] == "penalty":
            return (array("penalty", (p,), "moment", **behind),)
        sums: Declaration = (
            array("gradient", (p,), "moment", **behind),
            array("hessian", (p, p), "moment", **behind),
            array("deviance", (), "moment", people=("n",)),
            array("log_likelihood", (), "moment", people=("n",)),
        )
        if model.parameters.family == "gamma":
            sums = (*sums, array("pearson", (), "moment", people=("n",)))
        if fitting.overdispersed(model, state):
            sums = (*sums, array("size", (p + 2,), "moment", people=("n",)))
        if state["phase"] == "start":
            sums = (*sums, *((array("relative", (2,), "moment", people=("n",)),) if model.rates else ()))
            names = tuple(column.name for column in model.design.spreads())
            if model.parameters.family != "binomial":
                of = {"people": ("n",), "sides": True, "labels": (model.outcome.text,)}
                sums = (*sums, array("outcome_powers", (1, 4), "moment", **of))
            return (*sums, array("powers", (len(names), 4), "moment", people=("n",), sides=True, labels=names))
        if not model.canonical:
            sums = (*sums, array("observed", (p, p), "moment", **behind))
        wanted = model.parameters.covariance
        if state["phase"] == "last" and wanted in ROBUST:
            if wanted == "cluster" and model.by_site:
                sums = (*sums, array("clusters", (), "count"))
                return (*sums, array("meat", (p, p), "moment", opens_hospitals=True, **behind))
            if wanted == "cluster":
                sums = (*sums, array("clusters", (), "count", on_small="refuse", labels=("clusters",)))
            return (*sums, array("meat", (p, p), "moment", **behind))
        return sums

    @staticmethod
    def _first_round(model: Model, array: Any) -> Declaration:
        cells, pairs, p = model.design.cells(), model.design.numeric_pairs(), len(model.design.columns)
        shown = {"opens_hospitals": True} if model.by_site else {}
        found = [array("n", (), "count", on_small="refuse", **shown)]
        if model.parameters.family == "binomial":
            events = (f"{model.outcome.text} (events)",)
            found.append(array("events", (), "count", whole="n", on_small="refuse", labels=events))
        else:  # a sum over an outcome that few people have is theirs
            named = (f"{model.outcome.text} (not 0)",)
            whole = "n" if model.outcome.levels else None
            found.append(array("outcome", (), "count", whole=whole, on_small="refuse", labels=named))
            found.append(array("sum_outcome", (), "moment", people=("outcome",)))
        found += [
            array("cells", (cells.size,), "count", whole="n", on_small="refuse", labels=cells.labels),
            array("pairs", (len(pairs),), "count", on_small="refuse", labels=model.design.pair_names()),
            array("sum_x", (p,), "moment", people=("cells", "pairs")),
        ]
        if model.spreads_apart:
            found.append(array("sum_spread", (len(model.design.spreads()),), "moment", people=("cells", "pairs")))
        if model.parameters.weights is not None:
            found.append(array("sum_ww", (), "moment", people=("n",)))
        if model.rates:
            found.append(array("sum_offset", (), "moment", people=("n",)))
        return (
            *found,
            array("sum_y", (), "moment", people=("n",)),
            array("sum_w", (), "moment", people=("n",)),
        )

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
        theta = state.get("theta", float("inf"))
        mean = state["mean_y"] if state["phase"] == "start" else None
        best = None
        if model.parameters.family != "negative_binomial":  # whose likelihood changes with θ
            best = rows.remember(("saturated", model.key), lambda: saturated(model.family(), data))
        centred = replace(data, centre=np.asarray(state["centre"]), saturated=best)
        last = state["phase"] == "last"
        clusters = None
        if last and model.parameters.covariance == "cluster":
            _, clusters = np.unique(model.clusters(rows)[keep], return_inverse=True)
        wanted = Wanted(
            robust=last and model.parameters.covariance in ROBUST,
            observed=mean is None and not model.canonical,
            pearson=model.parameters.family == "gamma",
            theta=theta if mean is None and fitting.overdispersed(model, state) else None,
            inverse=np.asarray(state["inverse"]) if state["phase"] == "penalty" else None,
            clusters=clusters,
        )
        sums = sums_at(model.family(theta), centred, state["beta"], mean_outcome=mean, wanted=wanted)
        if sums.penalty is not None:
            return {"penalty": sums.penalty}, {}
        found = self._sent(sums, model, data)
        if fitting.overdispersed(model, state) and mean is not None:
            found["size"] = np.zeros(len(data.x) + 2)
            squares = (data.y - mean) ** 2
            found["size"][0] = squares.sum() if data.weights is None else data.weights @ squares
        if clusters is not None:
            found["clusters"] = np.array(clusters.max() + 1 if len(clusters) else 0, dtype=np.int64)
        if state["phase"] == "start":
            if model.rates and data.offset is not None:
                found["relative"] = relative(data.offset, state["mean_offset"], data.weights)
            found["powers"] = people.powers(model.design.spread_rows(rows, keep, data.x), state["means"])
            if model.parameters.family != "binomial":
                found["outcome_powers"] = people.powers(data.y[None, :], np.array([state["outcome"]]))
        return found, {}

    @staticmethod
    def _sent(sums: Sums, model: Model, data: ModelRows) -> Summary:
        """The sums as arrays; of a gaussian likelihood only what the weights give, the rest needs the dispersion."""
        likelihood = float(np.nan_to_num(sums.log_likelihood))
        if model.parameters.family == "gaussian":
            likelihood = 0.0 if data.weights is None else float(np.log(data.weights).sum() / 2)
        found: Summary = {
            "gradient": sums.gradient,
            "hessian": sums.hessian,
            "deviance": np.array(sums.deviance),
            "log_likelihood": np.array(likelihood),
        }
        if model.parameters.family == "gamma":
            found["pearson"] = np.array(sums.pearson)
        more = {"size": sums.size, "observed": sums.observed, "meat": sums.meat}
        return found | {name: values for name, values in more.items() if values is not None}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        if question.parameters.penalty is not None:
            return PATH.conclude(total, question, state)
        model = model_of(question)
        state = {**state, "round": state["round"] + 1}
        if state["phase"] == "counts":
            found = fitting.centres(total, model)
            if weights := model.parameters.weights:
                refuse_few(float(total["sum_w"]), float(total["sum_ww"]), weights, question.minimum_people)
            if model.rates:
                found["mean_offset"] = float(total["sum_offset"]) / total.count("n")
            return {**state, **found}
        if state["phase"] == "start" and model.rates:
            refuse_few_rates(total["relative"], str(model.parameters.offset), question.minimum_people)
        if state["phase"] != "last":
            if state["phase"] == "newton" and model.parameters.firth:
                return fitting.ask_for_the_penalty(total, state)
            state, settled = fitting.advance(total, model, state)
            if not settled:
                return state
            if model.parameters.firth or not model.one_round_less:
                return {**state, "phase": "last"}
        return result(total, model, state)

    def remedy(self, question: Question, refused: Refused, arrays: Summary) -> dict[str, Any] | None:
        """Merged levels, fewer knots or fewer terms that pass (`dure.estimation.remedy`)."""
        if question.parameters.penalty is not None:
            return PATH.remedy(question, refused, arrays)
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
        with np.errstate(all="ignore"):
            values[keep] = model.family().mean(eta)
        return {"prediction": np.where(np.isfinite(values), values, np.nan)}

    def example(self, random: np.random.Generator) -> Example:
        n = 240
        age, group = random.normal(60, 9, n), random.choice(["a", "b", "c"], n)
        eta = 0.05 * (age - 60) + 0.7 * (group == "b") - 0.4 * (group == "c")
        y = (random.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        return Example(
            pl.DataFrame({"y": y, "age": age, "group": group}),
            {"formula": "y ~ age + C(group)", "family": "binomial", "covariance": "HC0"},
        )


method = Regression()
