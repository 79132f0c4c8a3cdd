"""What weighting is asked: a propensity score, the people that the weighted arms stand for, and what to compare."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from dure.estimation.balance import Denominator
from dure.estimation.balancing import Target
from dure.estimation.parameters import Asked, Level, Levels, Score, Treatment, described

Bounds = tuple[float, float]


class Parameters(Asked):
    treatment: Treatment
    score: Score
    kind: Annotated[
        Target,
        described(
            "whom the weighted arms stand for: all (ate), the treated (att), controls (atc), people in equipoise "
            "(overlap, matching, entropy)",
            "가중한 집단이 대표하는 사람: 전체(ate), 치료군(att), 대조군(atc), "
            "임상적 균형에 있는 사람(overlap, matching, entropy)",
        ),
    ] = "ate"
    stabilised: Annotated[bool, described("multiply by the arm's share of people (ate)", "집단의 비율을 곱함(ate)")] = (
        False
    )
    trim: Annotated[
        Bounds | None,
        described("leave out people whose score lies beyond these", "점수가 이 범위를 벗어난 사람을 뺌"),
    ] = None
    trim_on: Annotated[
        Literal["score", "preference"], described("the score that trim speaks of", "trim이 가리키는 점수")
    ] = "score"
    truncate: Annotated[
        Bounds | None,
        described("propensities beyond these count as these", "이 범위를 벗어난 성향점수는 그 끝값으로 셈"),
    ] = None
    outcome: Annotated[
        str | None, described("0/1 column or number to compare between the arms", "집단 사이에 비교할 0/1 또는 숫자 열")
    ] = None
    errors: Annotated[
        Literal["stacked", "robust"],
        described(
            "stacked: errors know that the score was estimated; robust: weights are taken as known",
            "stacked: 점수가 추정되었음을 반영한 오차, robust: 가중치를 아는 값으로 봄",
        ),
    ] = "stacked"
    balance: Annotated[
        tuple[str, ...], described("columns whose balance is shown before and after", "가중 전후의 균형을 볼 열")
    ] = ()
    denominator: Annotated[
        Denominator,
        described(
            "whose standard deviation divides differences: both arms' (pooled), one arm's, or the weighted people's",
            "차이를 나누는 표준편차: 두 집단(pooled), 한 집단, 또는 가중한 사람들",
        ),
    ] = "pooled"
    level: Level = 0.95
    levels: Levels = None

    @model_validator(mode="after")
    def _sensible(self) -> Parameters:
        for name, bounds in (("trim", self.trim), ("truncate", self.truncate)):
            if bounds and not 0 < bounds[0] < bounds[1] < 1:
                raise ValueError(f"{name} is two numbers between 0 and 1, the smaller first")
        if self.stabilised and self.kind != "ate":
            raise ValueError("only weights for everybody (ate) are stabilised")
        return self
