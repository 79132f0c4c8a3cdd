"""What a propensity score can be asked, and its people: the treatment, a design, and sparse codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dure.errors import FormulaError, InvalidParameter, NotAnOutcome
from dure.estimation import penalised
from dure.estimation.design import Design, Matrix, design
from dure.estimation.fold_sums import FoldRows, by_fold, fold_of
from dure.estimation.formula import parse
from dure.estimation.parameters import Asked, Level, Levels, PenaltyChoice, Rounds, Tolerance, described
from dure.language import Words
from dure.study.method import Question
from dure.study.rows import Column, Rows


class Parameters(Asked):
    treatment: Annotated[
        str,
        described(
            "0/1 column, or a category of two levels of which the second is the treatment",
            "치료 여부의 0/1 열, 또는 둘째 수준이 치료인 두 수준 범주",
        ),
    ]
    formula: Annotated[
        str | None,
        described(
            "the terms alone, as right of ~; none: the codes alone",
            "~ 오른쪽의 항만. 없으면 코드만 씀",
        ),
    ] = None
    covariates: Annotated[
        str | None,
        described(
            "a column of codes: each of its codes becomes a 0/1 covariate; needs a penalty",
            "코드 열. 코드마다 0/1 공변량이 되며, 벌점이 필요함",
        ),
    ] = None
    levels: Levels = None
    penalty: PenaltyChoice = None
    tolerance: Tolerance = 1e-9
    level: Level = 0.95
    rounds: Rounds = 100


@dataclass(frozen=True)
class Model:
    """A question made concrete; without a formula the design is the intercept alone."""

    parameters: Parameters
    design: Design
    treatment: Column
    codes: tuple[str, ...]

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        return self.parameters.model_dump_json(), self.design.names

    @property
    def folds(self) -> int:
        return (self.parameters.penalty.folds or 1) if self.parameters.penalty else 1

    @property
    def by_site(self) -> bool:
        return any(factor.column == "site" for factor in self.design.factors)

    def names(self, kept: NDArray[np.bool_]) -> tuple[str, ...]:
        """Intercept, terms, and the codes kept."""
        column = self.parameters.covariates
        return (*self.design.names, *(f"{column}[{code}]" for code, stays in zip(self.codes, kept) if stays))


def model_of(question: Question) -> Model:
    p: Parameters = question.parameters
    if p.formula is None and p.covariates is None:
        raise _unusable("formula", "It needs a `formula` or `covariates`", "`formula`나 `covariates`가 필요합니다")
    treatment = question.column(p.treatment)
    if treatment.kind == "codes" or (treatment.kind == "category" and len(treatment.levels) != 2):
        raise NotAnOutcome(
            column=p.treatment,
            family="binomial",
            problem=Words("It has not exactly two levels", "수준이 둘이 아닙니다"),
            hint=Words("Give two levels (`levels`), the second the treatment.", "`levels`로 두 수준을 주십시오."),
        )
    parsed = parse(p.formula or "1", question.columns, question.hospitals)
    if parsed.outcome is not None or p.treatment in parsed.columns():
        problem = Words(
            "It names the terms alone; the treatment is not one of them",
            "항만 적고, 치료 열은 항으로 쓰지 않습니다",
        )
        raise FormulaError(formula=p.formula or "", problem=problem)
    if not parsed.intercept:
        raise _unusable("formula", "A propensity score has an intercept", "성향점수 모형에는 절편이 있어야 합니다")
    codes: tuple[str, ...] = ()
    if p.covariates is not None:
        column = question.column(p.covariates)
        if column.kind != "codes" or not column.levels:
            raise _unusable(
                "covariates", f"'{p.covariates}' is no column of codes", f"'{p.covariates}'은(는) 코드 열이 아닙니다"
            )
        if p.penalty is None:
            raise _unusable("penalty", "Codes need a penalty", "코드 공변량에는 벌점이 필요합니다")
        codes = column.levels
    if p.penalty is not None:
        given = penalised.strengths(p.penalty)
        if given is not None and (len(given) > 200 or not np.isfinite(given).all() or (given <= 0).any()):
            raise _unusable(
                "penalty", "`strength` is positive, at most 200 values", "`strength`는 양수이며 200개 이하입니다"
            )
        if p.penalty.l1_ratio == 0 and not p.penalty.folds and (given is None or len(given) > 1):
            raise _unusable(
                "penalty", "A ridge's λ is chosen by `folds`, or given", "능형의 λ는 `folds`로 고르거나 직접 주십시오"
            )
    return Model(p, design(parsed), treatment, codes)


def _unusable(name: str, en: str, ko: str) -> InvalidParameter:
    return InvalidParameter(method="propensity", parameter=name, problem=Words(en, ko))


@dataclass(frozen=True, repr=False)
class People:
    """Complete cases: columns without the intercept (p, n), treated (n,), codes (n, C) or None, fold (n,), and the mask
    of rows kept."""

    x: Matrix
    y: NDArray[np.float64]
    codes: sparse.csr_matrix | None
    fold: NDArray[np.int64]
    keep: NDArray[np.bool_]


def people_of(rows: Rows, model: Model) -> People:
    """This hospital's complete cases, read once per step; nobody's codes are missing: no list is no code."""

    def build() -> People:
        y = _treated(rows, model)
        x, keep = model.design.read(rows, y)
        codes, p = None, model.parameters
        if p.covariates is not None:
            codes = rows.code_matrix(p.covariates)
            codes = codes if keep.all() else codes[keep]
        penalty = p.penalty
        folds = fold_of(rows.person, rows.n, penalty.folds if penalty else None, penalty.seed if penalty else 0)
        return People(x[1:], y[keep], codes, folds[keep], keep)

    return rows.remember(("propensity", model.key), build)


def _treated(rows: Rows, model: Model) -> NDArray[np.float64]:
    name = model.parameters.treatment
    if model.treatment.kind == "category":
        codes = rows.codes(name, model.treatment)
        return np.where(codes < 0, np.nan, codes == 1).astype(np.float64)
    y = rows.numbers(name)
    if not np.isin(y[~np.isnan(y)], (0.0, 1.0)).all():
        raise NotAnOutcome(
            column=name,
            family="binomial",
            problem=Words("It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다"),
            hint=Words("Recode it to 0 and 1.", "0과 1로 바꾸십시오."),
        )
    return y


def centred(rows: Rows, model: Model, centre: NDArray[np.float64], kept: NDArray[np.bool_]) -> FoldRows:
    """People sorted by fold, dense columns centred, and of the codes those kept."""

    def build() -> FoldRows:
        data, dense = people_of(rows, model), len(model.design.columns) - 1
        codes = data.codes if data.codes is None or kept.all() else _chosen(data.codes, kept)
        x = data.x - centre[:dense, None]
        return by_fold(x, data.y, None, None, codes, data.fold, model.folds)

    return rows.remember_latest(("propensity centred", model.key), centre.tobytes() + kept.tobytes(), build)


def _chosen(codes: sparse.csr_matrix, kept: NDArray[np.bool_]) -> sparse.csr_matrix:
    """The columns kept, by one pass over the entries."""
    stays = kept[codes.indices]
    place = np.cumsum(kept, dtype=np.int32) - np.int32(1)
    before = np.concatenate([[0], np.cumsum(stays, dtype=np.int64)])
    pointers = before[codes.indptr].astype(np.int32)
    indices = place[codes.indices[stays]]
    return sparse.csr_matrix((np.ones(len(indices)), indices, pointers), shape=(codes.shape[0], int(kept.sum())))
