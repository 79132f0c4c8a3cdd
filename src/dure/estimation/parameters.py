"""Parameters that mean the same in every method: one name, one type, one description in both languages.

A method takes what it needs: `weights: Weights = None`. Names of its own it declares beside them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator


def described(en: str, ko: str, **rules: Any) -> Any:
    """A field's description in both languages, with pydantic's constraints."""
    return Field(description=en, json_schema_extra={"ko": ko}, **rules)


class Asked(BaseModel):
    """What every method's parameters are: frozen, and nothing beside what is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Even(Asked):
    """Equal intervals of `width` from 0 to `until`, in the unit of time."""

    width: float = Field(gt=0)
    until: float = Field(gt=0)

    @model_validator(mode="after")
    def _bounded(self) -> Even:
        if self.until / self.width > 20_000:
            raise ValueError("the grid has more than 20,000 intervals; use a larger width")
        return self


def grid_points(grid: Even | list[float] | tuple[float, ...]) -> NDArray[np.float64]:
    """(T,) ends of the intervals (0, t1], (t1, t2], …; raises ValueError unless positive and increasing."""
    if isinstance(grid, Even):
        count = int(np.ceil(round(grid.until / grid.width, 9)))
        return np.arange(1, count + 1, dtype=np.float64) * grid.width
    points = np.asarray(grid, dtype=np.float64)
    if not len(points) or points[0] <= 0 or (np.diff(points) <= 0).any() or not np.isfinite(points).all():
        raise ValueError("grid points are positive and increasing")
    return points


class Penalty(Asked):
    """An elastic net: ½·(1 − l1_ratio)·λ·‖β‖² + l1_ratio·λ·‖β‖₁ beside the mean negative log-likelihood, on columns
    scaled to unit standard deviation; the intercept is free. (Friedman, Hastie & Tibshirani 2010, J Stat Softw 33(1).)

    `strength`: one λ, several, or none for a path of `path` values from the smallest that leaves no term down to
    `least` times it. With `folds`, λ is chosen by cross-validated deviance over people, `choose` the least or the
    strongest within one standard error of it.
    """

    l1_ratio: float = Field(1.0, ge=0, le=1)
    strength: float | tuple[float, ...] | None = None
    path: int = Field(50, ge=2, le=200)
    least: float = Field(1e-3, gt=0, lt=1)
    folds: int | None = Field(None, ge=2, le=20)
    choose: Literal["least", "one_se"] = "least"
    seed: int = 0


FormulaText = Annotated[
    str,
    described(
        "outcome ~ terms, or the terms alone where time and event name the outcome; e.g. disease ~ age + C(sex)",
        "결과 ~ 항, 또는 결과가 time과 event로 정해지면 항만. 예: disease ~ age + C(sex)",
    ),
]
Time = Annotated[str, described("column of follow-up times", "추적 시간 열")]
Event = Annotated[
    str, described("0/1 column: 1 where the event happened at that time", "그때 사건이 일어났으면 1인 0/1 열")
]
Entry = Annotated[
    str | None,
    described("column of times from which a row is observed: (entry, time]", "관찰이 시작되는 때의 열: (entry, time]"),
]
Strata = Annotated[
    str | tuple[str, ...] | None,
    described("columns within which people are compared; site: the hospital", "그 안에서 비교할 열. site는 병원"),
]
Ties = Annotated[Literal["efron", "breslow"], described("how tied event times count", "동시 사건의 처리")]
Weights = Annotated[str | None, described("column of non-negative weights, one per row", "행마다 0 이상인 가중치 열")]
Offset = Annotated[
    str | None,
    described("column added to the linear predictor with coefficient 1", "계수 1로 선형 예측자에 더하는 열"),
]
Cluster = Annotated[
    str | None,
    described(
        "column naming groups of rows that belong together for robust errors (within a hospital); site: the hospital",
        "로버스트 오차에서 함께 묶을 행의 무리를 나타내는 열(병원 안에서). site는 병원",
    ),
]
Grid = Annotated[
    Even | tuple[float, ...],
    described(
        "ends of time intervals, increasing; or {width, until} for equal ones",
        "시간 구간의 끝점(커지는 순서), 또는 같은 너비면 {width, until}",
    ),
]
Levels = Annotated[
    dict[str, tuple[float, ...] | tuple[str, ...] | dict[str, tuple[str, ...]]] | None,
    described(
        "column → levels in order, or new level → merged old levels, or cut points of a number",
        "열 → 수준의 순서, 또는 새 수준 → 합칠 수준들, 또는 숫자를 나눌 점들",
    ),
]
Tolerance = Annotated[
    float,
    described(
        "stop when a step moves no coefficient by more than this many standard errors",
        "한 걸음이 표준오차의 이 배수보다 작으면 멈춤",
        gt=0,
        le=1e-2,
    ),
]
Resolution = Annotated[
    float,
    described(
        "values are given as multiples of this, in the column's unit", "값은 이 수의 배수로 알림(열의 단위)", gt=0
    ),
]
Level = Annotated[float, described("confidence level of the intervals", "구간의 신뢰수준", gt=0, lt=1)]
Rounds = Annotated[int, described("give up after this many rounds", "이만큼의 라운드 뒤에 포기함", ge=3, le=1000)]
PenaltyChoice = Annotated[
    Penalty | None,
    described(
        "a ridge, lasso or elastic-net penalty: {l1_ratio, strength, folds, …}; none: maximum likelihood",
        "능형·라쏘·엘라스틱넷 벌점: {l1_ratio, strength, folds, …}. 없으면 최대가능도",
    ),
]
Treatment = Annotated[
    str,
    described(
        "0/1 column, or category of two levels, the second treated", "0/1 열, 또는 둘째 수준이 치료인 두 수준의 범주"
    ),
]
Score = Annotated[
    str,
    described(
        "propensity of treatment, derived by an earlier step: step.score", "앞 단계가 구한 치료 성향점수: 단계.score"
    ),
]
