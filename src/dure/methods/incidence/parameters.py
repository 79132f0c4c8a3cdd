"""What can be asked of incidence rates."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import model_validator

from dure.estimation.parameters import Asked, Entry, Level, Levels, Time, described
from dure.estimation.rates import Interval


class Parameters(Asked):
    event: str = described(
        "0/1 column, or number of events of each person in their time", "0/1 열, 또는 그 기간의 사람마다 사건 수"
    )
    time: Time
    entry: Entry = None
    by: str | tuple[str, ...] = described(
        "categories, flags or site whose combinations get a rate each; the first is the reference",
        "조합마다 발생률을 구할 범주, 유무, 또는 site. 첫 조합이 기준",
        default=(),
    )
    over: str | None = described(
        "category over which rates are standardised, e.g. age cut by levels",
        "표준화할 범주. 예: levels로 나눈 나이",
        default=None,
    )
    standard: Literal["who_2000_2025", "segi", "european_2013"] | dict[str, float] | None = described(
        "standard population: level of `over` → weight, or who_2000_2025, segi, european_2013 for ages cut in years",
        "표준인구: `over`의 수준 → 가중치. 나이를 해로 나누었으면 who_2000_2025, segi, european_2013도 됨",
        default=None,
    )
    reference: dict[str, float] | None = described(
        "reference rates for standardised incidence ratios: level of `over` → events per unit of time",
        "표준화 발생비의 기준 발생률: `over`의 수준 → 시간 단위당 사건",
        default=None,
    )
    per: float = described(
        "rates are told per this much person-time, in the unit of time",
        "이만큼의 인시(시간의 단위)당 발생률",
        default=1.0, gt=0,
    )  # fmt: skip
    interval: Interval = described(
        "exact (Garwood; ratios: conditional binomial), mid_p, log_normal, or robust to repeated events",
        "exact(Garwood, 비는 조건부 이항), mid_p, log_normal, 또는 반복 사건에 로버스트한 robust",
        default="exact",
    )
    levels: Levels = None
    level: Level = 0.95

    @model_validator(mode="after")
    def _fits(self) -> Parameters:
        if (self.over is None) != (self.standard is None and self.reference is None):
            raise ValueError("over needs standard or reference, and they need over")
        for given in (self.standard, self.reference):
            weights = list(given.values()) if isinstance(given, dict) else [1.0]
            if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or sum(weights) <= 0:
                raise ValueError("weights and reference rates are not negative, and some are positive")
        if self.over in self.columns:
            raise ValueError("over is no column of by")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.by,) if isinstance(self.by, str) else self.by
