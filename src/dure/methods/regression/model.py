"""A question made concrete: the design, the outcome, and the complete cases of one hospital."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dure.errors import FormulaError, NotACount, NotAnOutcome
from dure.estimation.design import Design, design
from dure.estimation.formula import Factor, parse
from dure.estimation.likelihood import ModelRows
from dure.language import Words
from dure.methods.regression.parameters import Parameters
from dure.study.method import Question
from dure.study.rows import Rows
from dure.study.summary import Summary


@dataclass(frozen=True)
class Model:
    """A question made concrete: parameters, design and outcome."""

    parameters: Parameters
    design: Design
    outcome: Factor

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What the rows of this model depend on (with `site`, column names depend on who takes part)."""
        return self.parameters.model_dump_json(), self.design.names

    @property
    def spreads_apart(self) -> bool:
        """Whether the means about which columns spread are not those that the columns are centred by."""
        return self.parameters.weights is not None or self.design.spreads() != self.design.columns


def model_of(question: Question) -> Model:
    parameters: Parameters = question.parameters
    parsed = parse(parameters.formula, question.columns, question.hospitals)
    if parsed.outcome is None:
        problem = Words(
            "It names no outcome (nothing stands left of ~)", "결과 변수가 없습니다(~ 왼쪽이 비어 있습니다)"
        )
        raise FormulaError(formula=parameters.formula, problem=problem)
    outcome = parsed.outcome
    if outcome.is_category and (parameters.family != "binomial" or len(outcome.levels) != 2):
        raise NotAnOutcome(
            column=outcome.text,
            family=parameters.family,
            problem=Words(
                f"It is a category of {len(outcome.levels)} levels",
                f"수준이 {len(outcome.levels)}개인 범주입니다",
            ),
            hint=Words(
                "A binomial outcome is 0/1 or a category of exactly two levels, the second being the event.",
                "이항 결과 변수는 0/1이거나 수준이 둘인 범주여야 하며, 둘째 수준이 사건입니다.",
            ),
        )
    for name in (parameters.weights, parameters.offset):
        if name:
            question.column(name)
    return Model(parameters, design(parsed), outcome)


def model_rows(rows: Rows, model: Model) -> tuple[ModelRows, NDArray[np.bool_]]:
    """Complete cases of this hospital, read once per step."""

    def build() -> tuple[ModelRows, NDArray[np.bool_]]:
        y = _outcome(rows, model)
        extra = [y]
        weights = offset = None
        if model.parameters.weights:
            weights = rows.numbers(model.parameters.weights)
            if (weights < 0).any():
                problem = Words("Weights cannot be negative", "가중치는 음수일 수 없습니다")
                raise NotACount(column=model.parameters.weights, role="weights", problem=problem)
            weights = np.where(weights == 0, np.nan, weights)  # a weight of zero is nobody, not a person
            extra.append(weights)
        if model.parameters.offset:
            offset = rows.numbers(model.parameters.offset)
            extra.append(offset)
        x, keep = model.design.read(rows, *extra)
        kept = ModelRows(
            x, y[keep], None if weights is None else weights[keep], None if offset is None else offset[keep]
        )
        return kept, keep

    return rows.remember(("model rows", model.key), build)


def _outcome(rows: Rows, model: Model) -> NDArray[np.float64]:
    outcome, family = model.outcome, model.parameters.family
    if outcome.is_category:
        codes = outcome.codes(rows)
        return np.where(codes < 0, np.nan, codes == 1).astype(np.float64)
    y = outcome.numbers(rows)
    known = y[~np.isnan(y)]
    if family == "binomial" and not np.isin(known, (0.0, 1.0)).all():
        raise NotAnOutcome(
            column=outcome.text,
            family=family,
            problem=Words("It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다"),
            hint=Words("Recode it, or compare it: I(column > 0) ~ …", "값을 바꾸거나 I(열 > 0) ~ … 로 비교하십시오."),
        )
    if family == "poisson" and (known < 0).any():
        raise NotAnOutcome(
            column=outcome.text,
            family=family,
            problem=Words("It holds negative values", "음수가 있습니다"),
            hint=Words("A Poisson outcome counts events: 0, 1, 2 …", "포아송 결과 변수는 사건 수(0, 1, 2 …)입니다."),
        )
    return y


def counts(rows: Rows, model: Model, data: ModelRows, keep: NDArray[np.bool_]) -> Summary:
    present = data.x.shape[1]
    weights = data.weights
    found: Summary = {
        "n": np.array(present, dtype=np.int64),
        "cells": model.design.count_cells(rows, keep),
        "pairs": model.design.count_pairs(rows, keep, data.x),
        "sum_x": data.x.sum(axis=1) if weights is None else data.x @ weights,
        "sum_y": np.array(data.y.sum() if weights is None else data.y @ weights),
        "sum_w": np.array(float(present) if weights is None else weights.sum()),
    }
    if model.spreads_apart:
        found["sum_spread"] = model.design.spread_rows(rows, keep, data.x).sum(axis=1)
    if model.parameters.family == "binomial":
        found["events"] = np.array((data.y == 1).sum(), dtype=np.int64)
    return found
