"""A question made concrete: the design, the outcome, and the complete cases of one hospital."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dure.errors import FormulaError, InvalidParameter, NotACount, NotAnOutcome, UnknownColumn
from dure.estimation.design import Design, design
from dure.estimation.families import LINKS, Family, family
from dure.estimation.formula import Factor, parse
from dure.estimation.likelihood import ModelRows
from dure.language import Words
from dure.methods.regression.parameters import Parameters
from dure.study.method import Question
from dure.study.rows import Rows, level_text
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

    @property
    def rates(self) -> bool:
        """Whether an offset multiplies what is expected of a person."""
        return self.parameters.offset is not None and self.family().link_name == "log"

    @property
    def by_site(self) -> bool:
        """Whether clusters are the hospitals, so that what a hospital's people add up to is shown."""
        return self.parameters.cluster == "site"

    @property
    def canonical(self) -> bool:
        """Whether expected and observed information are one."""
        return self.parameters.family != "negative_binomial" and self.family().canonical

    @property
    def one_round_less(self) -> bool:
        """Whether errors come from the information of the last step: it changes by less than it can be told."""
        return self.canonical and self.parameters.covariance in ("model", "observed")

    def family(self, theta: float = np.inf) -> Family:
        return family(self.parameters.family, self.parameters.link, theta)

    def clusters(self, rows: Rows) -> NDArray[np.int64]:
        """(n,) numbers of the clusters of these rows, -1 where missing; they never leave."""
        name = self.parameters.cluster
        if name is None or self.by_site:
            return np.zeros(rows.n, dtype=np.int64)

        def build() -> NDArray[np.int64]:
            if name not in rows.frame.columns:
                raise UnknownColumn(name, [*rows.frame.columns, "site"], rows.hospital)
            values = level_text(rows.frame.get_column(name))
            return values.rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1

        return rows.remember(("clusters", name), build)


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
    for name in (parameters.weights, parameters.offset, parameters.cluster):
        if name:
            question.column(name)
    _possible(parameters)
    return Model(parameters, design(parsed), outcome)


def _possible(parameters: Parameters) -> None:
    """Raise InvalidParameter where parameters contradict each other."""

    def unusable(name: str, en: str, ko: str) -> InvalidParameter:
        return InvalidParameter(method="regression", parameter=name, problem=Words(en, ko))

    kind, link = parameters.family, parameters.link
    if link and link not in LINKS[kind]:
        known = ", ".join(LINKS[kind])
        raise unusable("link", f"The family '{kind}' has the links {known}", f"'{kind}' 분포의 연결은 {known}입니다")
    if (parameters.covariance == "cluster") != (parameters.cluster is not None):
        raise unusable(
            "cluster",
            "`covariance: cluster` and a `cluster` column belong together",
            "`covariance: cluster`와 `cluster` 열은 함께 써야 합니다",
        )
    if parameters.firth and (kind != "binomial" or link not in (None, "logit") or parameters.covariance != "model"):
        raise unusable(
            "firth",
            "Firth's penalty is for a logistic model (binomial, logit) with model-based standard errors",
            "Firth 벌점은 모형 기반 표준오차의 로지스틱 모형(binomial, logit)에만 씁니다",
        )


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
        if model.parameters.cluster:
            extra.append(np.where(model.clusters(rows) < 0, np.nan, 0.0))
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
    outcome, kind = model.outcome, model.parameters.family
    if outcome.is_category:
        codes = outcome.codes(rows)
        return np.where(codes < 0, np.nan, codes == 1).astype(np.float64)
    y = outcome.numbers(rows)
    known = y[~np.isnan(y)]
    if kind == "binomial" and not np.isin(known, (0.0, 1.0)).all():
        raise NotAnOutcome(
            column=outcome.text,
            family=kind,
            problem=Words("It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다"),
            hint=Words("Recode it, or compare it: I(column > 0) ~ …", "값을 바꾸거나 I(열 > 0) ~ … 로 비교하십시오."),
        )
    if kind in ("poisson", "negative_binomial") and (known < 0).any():
        raise NotAnOutcome(
            column=outcome.text,
            family=kind,
            problem=Words("It holds negative values", "음수가 있습니다"),
            hint=Words("The outcome counts events: 0, 1, 2 …", "결과 변수는 사건 수(0, 1, 2 …)입니다."),
        )
    if kind == "gamma" and (known <= 0).any():
        raise NotAnOutcome(
            column=outcome.text,
            family=kind,
            problem=Words("It holds values that are not positive", "0이나 음수가 있습니다"),
            hint=Words(
                "A gamma outcome is positive, such as a cost or a length of stay; model zeros apart.",
                "감마 결과 변수는 비용, 재원일수처럼 양수입니다. 0은 따로 모형화하십시오.",
            ),
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
    if model.rates and data.offset is not None:
        found["sum_offset"] = np.array(data.offset.sum())
    if weights is not None:
        found["sum_ww"] = np.array(weights @ weights)
    if model.spreads_apart:
        found["sum_spread"] = model.design.spread_rows(rows, keep, data.x).sum(axis=1)
    if model.parameters.family == "binomial":
        found["events"] = np.array((data.y == 1).sum(), dtype=np.int64)
    else:
        found["outcome"] = np.array(np.count_nonzero(data.y), dtype=np.int64)
        found["sum_outcome"] = np.array(data.y.sum())
    return found
