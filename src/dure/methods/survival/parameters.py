"""What a survival analysis can be asked, and the time grid that its parameters make."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dure.estimation.grids import joined_points
from dure.estimation.parameters import (
    Asked,
    Entry,
    Event,
    Grid,
    Level,
    Levels,
    Strata,
    Time,
    Weights,
    described,
    grid_points,
)

Transform = Literal["log-log", "log", "plain", "logit", "arcsine"]
Test = Literal["log_rank", "gehan", "tarone_ware"]
Point = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Parameters(Asked):
    time: Time
    event: Event
    grid: Grid
    group: str | None = described(
        "category, flag or site whose levels get a curve each and are compared; the first is the reference",
        "수준마다 곡선을 그려 비교할 범주, 유무, 또는 site. 첫 수준이 기준",
        default=None,
    )
    strata: Strata = None
    entry: Entry = None
    weights: Weights = None
    causes: tuple[str, ...] = described(
        "levels of event (a category) that compete: cumulative incidence of each; other levels are censoring",
        "event가 범주일 때 서로 경쟁하는 사건의 수준. 각각의 누적발생률을 구하며 다른 수준은 중도절단",
        default=(),
        max_length=9,
    )
    levels: Levels = None
    times: tuple[Point, ...] = described(
        "times at which survival is told; they become grid points",
        "생존율을 알릴 때. 격자점이 됨",
        default=(),
        max_length=20,
    )
    quantiles: tuple[Share, ...] = described(
        "shares of people with the event whose times are told, beside the median: 0.25, 0.75",
        "중앙값 밖에 시간을 알릴, 사건이 일어난 사람의 비율: 0.25, 0.75",
        default=(),
        max_length=9,
    )
    tau: float | None = described(
        "end of the restricted mean; without it the last grid point at which every group has enough people at risk",
        "제한평균의 끝. 없으면 모든 집단에 위험집단이 충분한 마지막 격자점",
        default=None,
        gt=0,
    )
    test: Test = described(
        "weight of each time in the comparison: log_rank (rho and gamma may bend it), gehan or tarone_ware",
        "비교에서 시간마다의 가중치: log_rank(rho와 gamma로 조정), gehan, tarone_ware",
        default="log_rank",
    )
    rho: float = described(
        "Fleming–Harrington weight S(t−)^rho of early events", "이른 사건의 플레밍–해링턴 가중치 S(t−)^rho",
        default=0.0, ge=0, le=5,
    )  # fmt: skip
    gamma: float = described(
        "Fleming–Harrington weight (1−S(t−))^gamma of late events",
        "늦은 사건의 플레밍–해링턴 가중치 (1−S(t−))^gamma",
        default=0.0,
        ge=0,
        le=5,
    )
    transform: Transform = described(
        "scale on which intervals of survival are symmetric", "생존율의 신뢰구간이 대칭인 척도", default="log-log"
    )
    robust: bool | None = described(
        "standard errors that allow for weights (infinitesimal jackknife); by default with weights and without entry",
        "가중치를 반영한 표준오차(무한소 잭나이프). 따로 정하지 않으면 가중치가 있고 entry가 없을 때",
        default=None,
    )
    level: Level = 0.95

    @model_validator(mode="after")
    def _fits(self) -> Parameters:
        points = grid_points(self.grid)
        if len(points) > 20_000:
            raise ValueError("the grid has more than 20,000 intervals; use fewer points")
        end = points[-1] * (1 + 1e-12)
        if any(time > end for time in self.times) or (self.tau is not None and self.tau > end):
            raise ValueError("times and tau lie within the grid; let it end later")
        if (self.rho or self.gamma) and self.test != "log_rank":
            raise ValueError("rho and gamma belong to the test log_rank")
        if self.robust and self.entry is not None:
            raise ValueError("robust errors with entry are not available; leave one of them out")
        if self.causes and self.entry is not None:
            raise ValueError("causes with entry are not available; leave one of them out")
        if len(set(self.causes)) < len(self.causes):
            raise ValueError("each of causes is named once")
        return self

    @property
    def robustly(self) -> bool:
        """Whether standard errors are the infinitesimal jackknife's."""
        return self.weights is not None and self.entry is None if self.robust is None else self.robust

    @property
    def bent(self) -> bool:
        """Whether the comparison weighs times or people unlike."""
        return bool(self.weights or self.rho or self.gamma or self.test != "log_rank")

    @property
    def by_strata(self) -> tuple[str, ...]:
        return (self.strata,) if isinstance(self.strata, str) else self.strata or ()

    def points(self) -> NDArray[np.float64]:
        """(T,) ends of the intervals: the grid, with `times` and `tau` among them."""
        more = [*self.times, *([self.tau] if self.tau is not None else [])]
        return joined_points(grid_points(self.grid), more)
