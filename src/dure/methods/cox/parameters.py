"""What a Cox model can be asked."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from dure.estimation.parameters import (
    Asked,
    Cluster,
    Entry,
    Even,
    Event,
    FormulaText,
    Level,
    Levels,
    Offset,
    Rounds,
    Strata,
    Ties,
    Time,
    Tolerance,
    Weights,
    described,
    grid_points,
)

Transform = Literal["identity", "log", "km", "rank"]
Schoenfeld = Annotated[
    Transform | None,
    described(
        "test proportional hazards against effects that change with time (identity), its logarithm (log), or, on a "
        "grid only, with the survival curve (km) or the rank of times (rank)",
        "비례위험 검정: 효과가 시간(identity), 시간의 로그(log), 또는 격자에서만 "
        "생존곡선(km)이나 시간 순위(rank)에 따라 변하는지 검정",
    ),
]
Covariance = Annotated[
    Literal["model", "robust"],
    described(
        "model-based or robust (Lin and Wei) standard errors; a cluster makes them robust",
        "모형 기반 또는 로버스트(Lin–Wei) 표준오차. cluster를 주면 로버스트",
    ),
]

AcrossGrid = Annotated[
    Even | tuple[float, ...] | None,
    described(
        "for a model across hospitals (strata without site): ends of the time intervals, or {width, until}",
        "병원을 넘어 비교할 때(strata에 site가 없을 때) 시간 구간의 끝점들 또는 {width, until}",
    ),
]

Concordance = Annotated[
    bool,
    described(
        "also the concordance of the linear predictor, over pairs within a hospital and stratum",
        "병원과 층 안의 짝으로 센 선형 예측자의 일치도도 구함",
    ),
]


class Parameters(Asked):
    formula: FormulaText
    time: Time
    event: Event
    entry: Entry = None
    strata: Strata = "site"
    ties: Ties = "efron"
    weights: Weights = None
    offset: Offset = None
    cluster: Cluster = None
    covariance: Covariance = "model"
    grid: AcrossGrid = None
    schoenfeld: Schoenfeld = None
    concordance: Concordance = False
    levels: Levels = None
    tolerance: Tolerance = 1e-9
    level: Level = 0.95
    rounds: Rounds = 50

    @property
    def strata_columns(self) -> tuple[str, ...]:
        """Columns that make strata, beside the hospital."""
        named = (self.strata,) if isinstance(self.strata, str) else tuple(self.strata or ())
        return tuple(dict.fromkeys(name for name in named if name != "site"))

    @property
    def by_hospital(self) -> bool:
        return self.strata == "site" or (not isinstance(self.strata, str) and "site" in (self.strata or ()))

    @property
    def robust(self) -> bool:
        return self.covariance == "robust" or self.cluster is not None

    def points(self) -> NDArray[np.float64]:
        """(T,) ends of the intervals; none where people are compared within hospitals."""
        return np.zeros(0) if self.grid is None else grid_points(self.grid)
