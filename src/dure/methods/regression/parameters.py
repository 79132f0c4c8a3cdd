"""What a regression can be asked."""

from __future__ import annotations

from typing import Annotated, Literal

from dure.estimation.families import FamilyName
from dure.estimation.parameters import Asked, FormulaText, Level, Levels, Offset, Penalty, Rounds, Weights, described


class Parameters(Asked):
    formula: FormulaText
    family: Annotated[
        FamilyName,
        described(
            "gaussian (linear), binomial (logistic) or poisson",
            "gaussian(선형), binomial(로지스틱), poisson(포아송)",
        ),
    ] = "gaussian"
    covariance: Annotated[
        Literal["model", "HC0"],
        described("model-based or robust (HC0) standard errors", "모형 기반 또는 로버스트(HC0) 표준오차"),
    ] = "model"
    weights: Weights = None
    offset: Offset = None
    levels: Levels = None
    penalty: Annotated[
        Penalty | None,
        described(
            "a ridge, lasso or elastic-net penalty: {l1_ratio, strength, folds, …}; none: maximum likelihood",
            "능형·라쏘·엘라스틱넷 벌점: {l1_ratio, strength, folds, …}. 없으면 최대가능도",
        ),
    ] = None
    level: Level = 0.95
    rounds: Rounds = 50
