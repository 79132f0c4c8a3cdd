"""Treated and controls with a propensity score: who has both, as far as they can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NotACount
from dure.language import Words
from dure.study.method import Question
from dure.study.rows import Rows

Vector = NDArray[np.float64]
CERTAIN = 1e-15
"""Scores nearer to 0 or 1 than this are taken to be this far away: their logit stays finite."""


@dataclass(frozen=True, repr=False)
class Scored:
    """`present` (n,): who has a treatment and a score. `treated`, `score` (people present,)."""

    present: NDArray[np.bool_]
    treated: NDArray[np.bool_]
    score: Vector

    @property
    def people(self) -> NDArray[np.int64]:
        """(2,) controls and treated."""
        return np.bincount(self.treated, minlength=2).astype(np.int64)


def check_columns(question: Question, method: str, treatment: str, score: str) -> None:
    """Raises UnknownColumn or InvalidParameter where treatment and score cannot be what they should."""
    column = question.column(treatment)
    if column.kind == "category" and len(column.levels) != 2:
        problem = Words(f"'{treatment}' does not have two levels", f"'{treatment}'의 수준이 둘이 아닙니다")
        raise InvalidParameter(method=method, parameter="treatment", problem=problem)
    if question.column(score).kind == "category":
        problem = Words(f"'{score}' is not a column of numbers", f"'{score}'은(는) 숫자 열이 아닙니다")
        raise InvalidParameter(method=method, parameter="score", problem=problem)


def scored(rows: Rows, question: Question, treatment: str, score: str) -> Scored:
    """Who is treated (1, or the second level), and with what score. Raises NotACount where a hospital's treatment is
    neither 0 nor 1, or its score no probability."""

    def build() -> Scored:
        column = question.column(treatment)
        if column.kind == "category":
            codes = rows.codes(treatment, column)
            arm = np.where(codes < 0, np.nan, codes)
        else:
            arm = rows.numbers(treatment)
        known = arm[~np.isnan(arm)]
        if ((known != 0) & (known != 1)).any():
            raise NotACount(
                column=treatment,
                role=Words("a treatment", "치료"),
                problem=Words("It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다"),
            )
        values = rows.numbers(score)
        known = values[~np.isnan(values)]
        if ((known < 0) | (known > 1)).any():
            raise NotACount(
                column=score,
                role=Words("a propensity score", "성향점수"),
                problem=Words("It holds values outside 0 to 1", "0과 1 사이가 아닌 값이 있습니다"),
            )
        present = ~np.isnan(arm) & ~np.isnan(values)
        return Scored(present, arm[present] == 1, np.clip(values[present], CERTAIN, 1 - CERTAIN))

    return rows.remember(("scored", treatment, score), build)


def logit(score: Vector) -> Vector:
    return np.asarray(np.log(score) - np.log1p(-score))


def rounded_logit(score: Vector) -> Vector:
    """To nine digits: people alike have the same value whatever order their score was summed in."""
    return np.round(logit(score), 9)


def preference(score: Vector, share: float) -> Vector:
    """The preference score: the propensity as if half of all were treated; logit F = logit e − logit share (Walker et
    al. 2013, Comp Eff Res 3:11, equation 1)."""
    return np.asarray(1 / (1 + np.exp(-(logit(score) - np.log(share / (1 - share))))))
