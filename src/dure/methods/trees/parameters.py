"""What can be asked of boosted trees; names and meanings are XGBoost's where it has them."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from dure.errors import InvalidParameter
from dure.estimation.parameters import Asked, Levels, Weights, described
from dure.language import Words
from dure.study.method import Question
from dure.study.rows import Column

Family = Literal["binomial", "gaussian"]


class Parameters(Asked):
    outcome: str = described(
        "0/1 column or category of two levels (the second is the event): log loss; a number: squared error",
        "0/1 열이나 수준이 둘인 범주(둘째가 사건)면 로그 손실, 숫자면 제곱 오차",
    )
    inputs: tuple[str, ...] = described(
        "columns to predict from: numbers, flags, categories (one split per level)",
        "예측에 쓰는 열: 숫자, 0/1, 범주(수준마다 하나를 나머지에서 가름)",
        min_length=1,
        max_length=1000,
    )
    trees: int = described("trees at most", "나무 수의 최대", ge=1, le=1000, default=100)
    depth: int = described("splits on a path at most", "한 경로에서 가르는 횟수의 최대", ge=1, le=8, default=4)
    learning_rate: float = described("factor on every leaf", "모든 잎에 곱하는 수", gt=0, le=1, default=0.1)
    bins: int = described("bins of a number at most", "숫자 하나를 나누는 구간의 최대", ge=2, le=255, default=64)
    min_child_weight: float = described("least Hessian on either side", "갈린 양쪽 헤시안의 최소", ge=0, default=1.0)
    minimum_leaf: int = described(
        "least people on either side; never fewer than the rules' smallest count",
        "갈린 양쪽 사람 수의 최소. 규칙의 최소 인원보다 작을 수 없음",
        ge=1,
        default=1,
    )
    reg_lambda: float = described("ridge on leaves", "잎의 L2 벌점", ge=0, default=1.0)
    reg_alpha: float = described("lasso on leaves", "잎의 L1 벌점", ge=0, default=0.0)
    gamma: float = described("least gain of a split", "가르기가 얻어야 하는 최소 이득", ge=0, default=0.0)
    subsample: float = described("share of people each tree sees", "나무마다 보는 사람의 비율", gt=0, le=1, default=1.0)
    colsample: float = described("share of columns each tree sees", "나무마다 보는 열의 비율", gt=0, le=1, default=1.0)
    validation: float = described(
        "share of people held out to measure the loss", "손실을 재려고 떼어 두는 사람의 비율", ge=0, lt=0.9, default=0.0
    )
    patience: int | None = described(
        "stop after this many trees without a lower validated loss, and keep those of the lowest",
        "검증 손실이 이만큼의 나무 동안 낮아지지 않으면 멈추고, 가장 낮을 때까지의 나무를 씀",
        ge=1,
        default=None,
    )
    weights: Weights = None
    levels: Levels = None
    seed: int = described("of shares of people and columns", "사람과 열을 고르는 시드", ge=0, default=0)

    @model_validator(mode="after")
    def _usable(self) -> Parameters:
        if self.outcome in self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError("Each input is named once, and the outcome is none of them")
        if self.weights is not None and self.weights in (self.outcome, *self.inputs):
            raise ValueError("Weights are neither the outcome nor an input")
        if "site" in (self.outcome, *self.inputs):
            raise ValueError("The hospital is no input: a tree that splits on it would show single hospitals")
        if self.patience is not None and not self.validation:
            raise ValueError("`patience` needs a share of `validation`")
        return self


def family(question: Question) -> Family:
    """The loss that the outcome's kind asks for; raises UnknownColumn or InvalidParameter."""
    column = question.column(question.parameters.outcome)
    if column.kind == "category" and len(column.levels) != 2:
        raise _unusable("outcome", "A category as outcome needs two levels", "범주인 결과에는 수준이 둘이어야 합니다")
    return "gaussian" if column.kind == "number" else "binomial"


def inputs(question: Question) -> dict[str, Column]:
    """The inputs' declarations; raises UnknownColumn or InvalidParameter."""
    p: Parameters = question.parameters
    found = {name: question.column(name) for name in p.inputs}
    for name, column in found.items():
        if column.kind == "category" and not 1 <= len(column.levels) <= 255:
            raise _unusable(
                "inputs",
                f"The category '{name}' needs 1 to 255 declared levels",
                f"범주 '{name}'에는 선언된 수준이 1–255개 있어야 합니다",
            )
    if p.weights is not None and question.column(p.weights).kind == "category":
        raise _unusable("weights", "Weights are numbers", "가중치는 숫자여야 합니다")
    return found


def _unusable(parameter: str, en: str, ko: str) -> InvalidParameter:
    return InvalidParameter(method="trees", parameter=parameter, problem=Words(en, ko))
