"""The model behind an estimated score: where its sums are needed for errors that know it was estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import InvalidParameter
from dure.estimation.arms import Scored
from dure.estimation.balance import by_arm
from dure.estimation.design import Design, design
from dure.estimation.formula import parse
from dure.estimation.stacked import bread, influence
from dure.language import Words
from dure.methods.weighting.parameters import Parameters
from dure.study.method import Question, State
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
BLOCK = 65_536


@dataclass(frozen=True)
class ScoreModel:
    """`active` (p,): the columns of the design that were estimated."""

    design: Design
    active: NDArray[np.bool_]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, there in zip(self.design.names, self.active) if there)

    @property
    def opens(self) -> bool:
        return any(factor.column == "site" for factor in self.design.factors)


def told(question: Question) -> dict[str, Any] | None:
    """At the hub: formula and estimated columns of the step that made the score, where its likelihood was maximised
    with the logit link and without a penalty; else None."""
    p: Parameters = question.parameters
    if p.outcome is None or p.errors == "robust":
        return None
    result = question.results.get(p.score.rsplit(".", 1)[0])
    if result is None:
        return None
    portable, facts = result.portable, result.facts
    formula = portable.get("formula", facts.get("formula"))
    likelihood = facts.get("family", "binomial") == "binomial" and facts.get("link", "logit") == "logit"
    if (
        not isinstance(formula, str)
        or portable.get("penalised")
        or portable.get("covariates")
        or "active" not in portable
        or not likelihood
    ):
        return None
    names = portable.get("names") or (
        result.tables["coefficients"].frame["term"].to_list() if "coefficients" in result.tables else None
    )
    model = _model(question, formula, portable["active"])
    if names is not None and tuple(names) != model.design.names:
        problem = Words(
            "The step that made the score codes its columns differently; give this step the same `levels`, or take the "
            "weights as known (errors: robust)",
            "점수를 만든 단계가 열을 다르게 부호화했습니다. 같은 `levels`를 주거나 "
            "가중치를 아는 값으로 보십시오(errors: robust)",
        )
        raise InvalidParameter(method="weighting", parameter="levels", problem=problem)
    return {"formula": formula, "active": np.asarray(portable["active"], dtype=bool)}


def model_of(question: Question, state: State) -> ScoreModel | None:
    known: Mapping[str, Any] | None = state.get("model")
    return _model(question, known["formula"], known["active"]) if known else None


def _model(question: Question, formula: str, active: Any) -> ScoreModel:
    made = design(parse(formula, question.columns, question.hospitals))
    return ScoreModel(made, np.asarray(active, dtype=bool))


def declare_counts(model: ScoreModel) -> Declaration:
    """The counts that stand in the information matrix, and the columns' sums, to centre by."""
    cells, pairs, opens = model.design.cells(), model.design.numeric_pairs(), model.opens
    more: dict[str, Any] = {"on_small": "refuse", "opens_hospitals": opens}
    return (
        ArraySpec("cells", (cells.size,), "count", whole="design_people", labels=cells.labels, **more),
        ArraySpec("pairs", (len(pairs),), "count", labels=model.design.pair_names(), **more),
        ArraySpec("design_people", (), "count", **more),
        ArraySpec("sum_x", (len(model.names),), "moment", people=("cells", "pairs"), opens_hospitals=opens),
    )


def count(rows: Rows, model: ScoreModel, arms: Scored) -> Summary:
    x, keep = read(rows, model, arms)
    whole = x if model.active.all() else model.design.read(rows, _present(arms))[0]
    return {
        "cells": model.design.count_cells(rows, keep),
        "pairs": model.design.count_pairs(rows, keep, whole),
        "design_people": np.array(keep.sum(), dtype=np.int64),
        "sum_x": x.sum(axis=1),
    }


def read(rows: Rows, model: ScoreModel, arms: Scored) -> tuple[Matrix, NDArray[np.bool_]]:
    """Estimated columns (p, people) and who they are (n,): those present with a value in every term."""

    def build() -> tuple[Matrix, NDArray[np.bool_]]:
        x, keep = model.design.read(rows, _present(arms))
        return (x if model.active.all() else x[model.active]), keep

    return rows.remember_latest(("score model",), (model.design.parsed.text, model.active.tobytes()), build)


def _present(arms: Scored) -> Vector:
    return np.where(arms.present, 0.0, np.nan)


def centre(model: ScoreModel, sums: Vector, people: float) -> Vector:
    """What to subtract: means, where an intercept takes them up; of the intercept nothing."""
    if not (model.design.intercept and model.active[0]):
        return np.zeros(len(sums))
    found = np.asarray(sums / max(people, 1.0))
    found[0] = 0.0
    return found


def declare_behind(model: ScoreModel) -> ArraySpec:
    """People of each arm who are non-zero in a column, among those whose outcome counts."""
    shape = (2, len(model.names))
    return ArraySpec(
        "arm_columns", shape, "count", on_small="refuse", labels=by_arm(model.names), opens_hospitals=model.opens
    )


def declare_bread(model: ScoreModel) -> Declaration:
    p = len(model.names)
    more: dict[str, Any] = {"people": ("cells", "pairs"), "opens_hospitals": model.opens}
    return (
        ArraySpec("gradient", (p,), "moment", **more),
        ArraySpec("information", (p, p), "moment", **more),
        ArraySpec("change", (2, p), "moment", people=("arm_columns",), opens_hospitals=model.opens),
    )


def declare_meat(model: ScoreModel | None) -> Declaration:
    opens = model is not None and model.opens
    return (ArraySpec("meat", (2, 2), "moment", people=("outcome_people",), opens_hospitals=opens),)


def behind(rows: Rows, model: ScoreModel, arms: Scored, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(2, p) of `declare_behind`; `counted` (people present,)."""
    x, keep = read(rows, model, arms)
    among = keep[arms.present]
    treated, there = arms.treated[among], counted[among]
    masks = (there & ~treated, there & treated)
    return np.array([[np.count_nonzero(row[mask]) for row in x] for mask in masks], dtype=np.int64).reshape(2, len(x))


def breads(rows: Rows, model: ScoreModel, arms: Scored, centre: Vector, slopes: Vector, residual: Vector) -> Summary:
    """`slopes`, `residual` (people present,); see `dure.estimation.stacked.bread`."""
    x, keep = read(rows, model, arms)
    among, p = keep[arms.present], len(model.names)
    scores, arm, bends, rests = arms.score[among], arms.treated[among], slopes[among], residual[among]
    found = (np.zeros(p), np.zeros((p, p)), np.zeros((2, p)))
    for start in range(0, x.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        sums = bread(x[:, part] - centre[:, None], scores[part], arm[part], bends[part], rests[part])
        for total, more in zip(found, sums):
            total += more
    return dict(zip(("gradient", "information", "change"), found))


def meat(
    rows: Rows,
    model: ScoreModel | None,
    arms: Scored,
    state: State,
    weights: Vector,
    residual: Vector,
) -> Matrix:
    """(2, 2) sum of squared influences; without a model the weights are taken as known."""
    people = len(weights)
    through = np.zeros((2, people))
    if model is not None:
        x, keep = read(rows, model, arms)
        among = np.flatnonzero(keep[arms.present])
        for start in range(0, x.shape[1], BLOCK):
            part = slice(start, start + BLOCK)
            here = among[part]
            way = np.asarray(state["through"]) @ (x[:, part] - np.asarray(state["centre_x"])[:, None])
            through[:, here] = way * (arms.treated[here] - arms.score[here])
    found = influence(weights, arms.treated, residual, np.asarray(state["sums"]), through)
    return np.asarray(found @ found.T)
