"""What a meta-analysis can be asked."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from dure.estimation.parameters import Asked, Level, Levels, described

CELLS = ("exposed_events", "exposed_others", "unexposed_events", "unexposed_others")


class Parameters(Asked):
    estimates: str | None = described(
        "an earlier step that ran inside each hospital (scope: each)",
        "병원마다 따로 실행한 앞 단계(scope: each)",
        default=None,
    )
    term: str | None = described("which row of its table to combine", "그 표에서 합칠 행", default=None)
    table: str = described("which of its tables", "그 단계의 표", default="coefficients")
    exponentiate: bool = described(
        "also show the estimates' exponentials (odds, hazard and rate ratios)",
        "추정값의 지수(오즈비, 위험비, 발생률비)도 보임",
        default=False,
    )
    outcome: str | None = described("column of the outcome", "결과 열", default=None)
    group: str | None = described(
        "column of two groups, the second compared with the first",
        "두 집단을 나타내는 열. 둘째를 첫째와 비교",
        default=None,
    )
    measure: Literal["odds_ratio", "risk_ratio", "risk_difference", "mean_difference"] = described(
        "what each hospital estimates from its own rows", "병원마다 자기 자료에서 추정하는 것", default="odds_ratio"
    )
    by: str = described(
        "site, or a category whose levels take the place of hospitals (2×2 tables)",
        "site, 또는 병원 대신 쓸 범주(2×2 표)",
        default="site",
    )
    show: Literal["hospitals", "totals"] = described(
        "hospitals: each one's estimate is shown; totals: only sums over hospitals are",
        "hospitals: 병원마다 추정값을 보임, totals: 병원을 합한 것만 보임",
        default="hospitals",
    )
    tau2: Literal["REML", "DL", "PM"] = described(
        "estimator of the variance between hospitals", "병원 간 분산의 추정법", default="REML"
    )
    interval: Literal["hksj", "hksj_adhoc", "normal"] = described(
        "interval of the random effect: Hartung–Knapp–Sidik–Jonkman, the same never narrower than without, or normal",
        "무작위 효과의 구간: HKSJ, 좁아지지 않게 한 HKSJ, 또는 정규",
        default="hksj",
    )
    mantel_haenszel: bool = described(
        "of ratios, also Mantel and Haenszel's, which takes in hospitals with an empty cell",
        "비에 대해 Mantel–Haenszel 추정도 함께 보임. 빈 칸이 있는 병원도 들어감",
        default=True,
    )
    levels: Levels = None
    level: Level = 0.95

    @model_validator(mode="after")
    def _one_source(self) -> Parameters:
        rows = self.outcome is not None and self.group is not None
        earlier = self.estimates is not None and self.term is not None
        if rows == earlier or (rows and (self.estimates or self.term)) or (earlier and (self.outcome or self.group)):
            raise ValueError("give either `estimates` and `term`, or `outcome` and `group`")
        if self.by != "site" and (earlier or self.measure == "mean_difference" or self.show == "totals"):
            raise ValueError("`by` a column is for 2×2 tables that are shown; leave it at `site`")
        return self

    @property
    def two_by_two(self) -> bool:
        return self.outcome is not None and self.measure != "mean_difference"

    @property
    def haenszel(self) -> bool:
        return self.mantel_haenszel and self.outcome is not None and self.measure in ("odds_ratio", "risk_ratio")

    @property
    def ratio(self) -> bool:
        return self.exponentiate or (self.outcome is not None and self.measure in ("odds_ratio", "risk_ratio"))

    @property
    def classes(self) -> tuple[str, ...]:
        """Groups of people behind one hospital's estimate, each of which has to be large enough."""
        if self.outcome is None:
            return ("n", "events", "non_events")
        return ("n", *CELLS) if self.two_by_two else ("n", "exposed", "unexposed", "varied")

    @property
    def profile(self) -> bool:
        """Whether the interval of τ² is sought: it takes many sums."""
        return self.show == "hospitals" or self.tau2 != "DL"
