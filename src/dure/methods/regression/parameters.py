"""What a regression can be asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import model_validator

from dure.estimation.families import FamilyName, LinkName
from dure.estimation.parameters import (
    Asked,
    Cluster,
    FormulaText,
    Level,
    Levels,
    Offset,
    PenaltyChoice,
    Rounds,
    Tolerance,
    Weights,
    described,
)

Covariance = Literal["model", "observed", "HC0", "HC1", "cluster"]


class Parameters(Asked):
    formula: FormulaText
    family: Annotated[
        FamilyName,
        described(
            "gaussian (linear), binomial (logistic), poisson, gamma or negative_binomial",
            "gaussian(선형), binomial(로지스틱), poisson(포아송), gamma(감마), negative_binomial(음이항)",
        ),
    ] = "gaussian"
    link: Annotated[
        LinkName | None,
        described(
            "identity, log, logit, probit, cloglog or inverse, where the family has it; none: its usual link "
            "(gamma and negative_binomial: log)",
            "identity, log, logit, probit, cloglog, inverse 중 분포에 맞는 것. 없으면 흔히 쓰는 연결"
            "(gamma와 negative_binomial은 log)",
        ),
    ] = None
    covariance: Annotated[
        Covariance,
        described(
            "standard errors: model (expected information), observed (observed information), HC0 or HC1 (robust), "
            "cluster (robust, by `cluster`)",
            "표준오차: model(기대 정보), observed(관측 정보), HC0·HC1(로버스트), cluster(`cluster`별 로버스트)",
        ),
    ] = "model"
    cluster: Cluster = None
    weights: Weights = None
    offset: Offset = None
    firth: Annotated[
        bool,
        described(
            "Firth's penalised likelihood for a logistic model: finite under separation, less biased with few events",
            "로지스틱 모형의 Firth 벌점 가능도: 분리가 있어도 유한하고 사건이 적을 때 편향이 작음",
        ),
    ] = False
    levels: Levels = None
    penalty: PenaltyChoice = None
    tolerance: Tolerance = 1e-9
    level: Level = 0.95
    rounds: Rounds = 50

    @model_validator(mode="before")
    @classmethod
    def _clusters_ask_for_their_errors(cls, values: Any) -> Any:
        """`cluster: ward` alone means `covariance: cluster`."""
        if isinstance(values, dict) and values.get("cluster") and "covariance" not in values:
            return {**values, "covariance": "cluster"}
        return values
