"""What a validation can be asked."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from dure.estimation.parameters import Asked, Level, Levels, described

Columns = Annotated[tuple[str, ...], Field()]


class Parameters(Asked):
    outcome: str = described("0/1 column that happened or not", "일어났으면 1, 아니면 0인 열")
    scores: Columns = described(
        "columns with predicted probabilities, e.g. model.prediction",
        "예측 확률 열(예: model.prediction)",
        min_length=1,
    )
    probabilities: bool = described(
        "scores are probabilities from 0 to 1; of others (points) only discrimination is judged",
        "점수가 0~1의 확률임. 아니면(점수제) 판별력만 봄",
        default=True,
    )
    bins: int = described(
        "equal-width bins of predicted probability for calibration",
        "보정도를 볼 예측 확률 구간 수(같은 너비)",
        default=10,
        ge=2,
        le=100,
    )
    resolution: float | None = described(
        "also AUROC and average precision over all people, of scores rounded to a multiple of this",
        "점수를 이 수의 배수로 반올림하여 전체 대상자의 AUROC와 평균정밀도도 구함",
        default=None,
        ge=1e-4,
        le=0.1,
    )
    thresholds: tuple[float, ...] = described(
        "scores from which a person counts as positive: sensitivity and the like, and net benefit",
        "이 값 이상이면 양성으로 보는 점수들. 민감도 등과 순편익을 구함",
        default=(),
        max_length=100,
    )
    subgroups: Columns = described("columns in whose levels the scores are also judged", "수준별로도 볼 열", default=())
    auprc: bool = described("also average precision in each hospital", "병원별 평균정밀도(AUPRC)도 구함", default=False)
    hospitals: bool = described("also calibration in each hospital", "병원별 보정도도 구함", default=False)
    summary: bool = described(
        "also what hospitals say together: averages and random effects",
        "병원들을 합친 평균과 무작위 효과도 구함",
        default=True,
    )
    reference: str | None = described(
        "score with which the others' AUROC is compared in each hospital",
        "병원마다 다른 점수의 AUROC와 비교할 점수",
        default=None,
    )
    levels: Levels = None
    level: Level = 0.95

    @model_validator(mode="after")
    def _fitting(self) -> Parameters:
        points = np.asarray(self.thresholds, dtype=np.float64)
        if not np.isfinite(points).all() or (np.diff(points) <= 0).any():
            raise ValueError("thresholds are finite and increasing")
        if self.probabilities and len(points) and (points[0] <= 0 or points[-1] >= 1):
            raise ValueError("thresholds of a probability lie between 0 and 1")
        if not self.probabilities and (self.resolution or self.hospitals or self.subgroups):
            raise ValueError("`resolution`, `hospitals` and `subgroups` are for probabilities")
        if self.reference is not None and (self.reference not in self.scores or len(self.scores) < 2):
            raise ValueError("`reference` is one of several scores")
        if len(set(self.scores)) < len(self.scores):
            raise ValueError("a score is named twice")
        return self

    @property
    def others(self) -> tuple[str, ...]:
        """The scores compared with the reference."""
        return tuple(name for name in self.scores if name != self.reference) if self.reference else ()
