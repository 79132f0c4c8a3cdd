"""A Cox question made concrete: its design, and one hospital's rows as the question reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import FormulaError, InvalidParameter, NotACount
from dure.estimation.design import Design, design
from dure.estimation.formula import parse
from dure.estimation.interval_sums import IntervalRows, first_interval, interval_of
from dure.estimation.risk_sets import RiskSets, risk_sets
from dure.language import Words
from dure.methods.cox.parameters import Parameters
from dure.study.method import Question
from dure.study.rows import Rows

Vector = NDArray[np.float64]
Places = NDArray[np.int64]

MOST_NUMBERS = 8_000_000
"""Of one array of a global model, strata × intervals × terms², before it is halved: 64 MB."""


@dataclass(frozen=True)
class Model:
    """`design` has no intercept: the baseline hazard is in its place. `strata` are the declared levels of the columns
    that make strata across hospitals; none where the hospital is one of them."""

    parameters: Parameters
    design: Design
    strata: tuple[tuple[str, ...], ...]

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What the rows of this model depend on (with `site`, column names depend on who takes part)."""
        return self.parameters.model_dump_json(), self.design.names

    @property
    def columns(self) -> int:
        return len(self.design.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Strata and intervals of a model on a grid."""
        return int(np.prod([len(levels) for levels in self.strata], dtype=np.int64)), len(self.parameters.points())

    def stratum_names(self) -> list[str]:
        names = [""]
        for column, levels in zip(self.parameters.strata_columns, self.strata):
            names = [f"{name}{' & ' if name else ''}{column}={level}" for name in names for level in levels]
        return names

    def terms(self) -> dict[str, list[int]]:
        """Term of the formula → its columns: a category's levels are tested together."""
        found: dict[tuple[int, ...], list[int]] = {}
        for place, column in enumerate(self.design.columns):
            found.setdefault(tuple(sorted({index for index, _ in column.pieces})), []).append(place)
        return {":".join(self.design.factors[index].text for index in group): at for group, at in found.items()}


def model_of(question: Question) -> Model:
    """Raises FormulaError, UnknownColumn, InvalidParameter."""
    p: Parameters = question.parameters
    _fits_together(p)
    parsed = parse(p.formula, question.columns, question.hospitals)
    if parsed.outcome is not None:
        raise FormulaError(
            formula=p.formula,
            problem=Words(
                "Something stands left of ~, but `time` and `event` name the outcome",
                "결과는 `time`과 `event`로 정하는데 ~ 왼쪽에 무언가가 있습니다",
            ),
        )
    whole = design(parsed)
    if whole.intercept:
        whole = replace(whole, columns=whole.columns[1:])
    if not whole.columns:
        problem = Words("It has no terms besides the intercept", "절편 말고는 항이 없습니다")
        raise FormulaError(formula=p.formula, problem=problem)
    for role, name in (("time", p.time), ("event", p.event), ("entry", p.entry), ("offset", p.offset)):
        if name is not None and question.column(name).kind == "category":
            problem = Words(f"'{name}' is a category, not a number", f"'{name}'은(는) 숫자가 아니라 범주입니다")
            raise InvalidParameter(method="cox", parameter=role, problem=problem)
    for name in (p.weights, p.cluster, *p.strata_columns):
        if name is not None:
            question.column(name)
    strata = () if p.by_hospital else tuple(_declared(question, name) for name in p.strata_columns)
    found = Model(p, whole, strata)
    if not p.by_hospital and found.shape[0] * found.shape[1] * found.columns**2 > MOST_NUMBERS:
        raise InvalidParameter(
            method="cox",
            parameter="grid",
            problem=Words(
                "So many intervals, strata and terms would send more numbers than can be handled: use a coarser grid",
                "구간, 층, 항이 너무 많아 보낼 수가 감당할 수 없이 많아집니다. 더 굵은 격자를 쓰십시오",
            ),
        )
    return found


def _fits_together(p: Parameters) -> None:
    """Raises InvalidParameter."""

    def refuse(parameter: str, en: str, ko: str) -> InvalidParameter:
        return InvalidParameter(method="cox", parameter=parameter, problem=Words(en, ko))

    if not p.by_hospital and p.grid is None:
        raise refuse(
            "grid",
            "Strata without 'site' compare people across hospitals, which needs a grid of time intervals",
            "strata에 'site'가 없으면 병원을 넘어 비교하므로 시간 구간의 격자(grid)가 필요합니다",
        )
    if p.by_hospital and p.grid is not None:
        raise refuse(
            "grid",
            "With strata 'site' people are compared at their exact times and no grid is used: leave it out",
            "strata가 'site'이면 정확한 시간으로 비교하므로 grid를 쓰지 않습니다. 빼십시오",
        )
    if p.by_hospital and p.schoenfeld in ("km", "rank"):
        raise refuse(
            "schoenfeld",
            "km and rank need the times of all hospitals: use identity or log, or a grid and strata without 'site'",
            "km과 rank에는 모든 병원의 시간이 필요합니다. identity나 log를 쓰거나 'site' 없이 grid를 주십시오",
        )
    if not p.by_hospital and p.concordance:
        raise refuse(
            "concordance",
            "Pairs are counted within hospitals: use strata with 'site', or leave it out",
            "일치도는 병원 안의 짝으로 셉니다. strata에 'site'를 넣거나 빼십시오",
        )
    try:
        p.points()
    except ValueError:
        raise refuse(
            "grid", "Its points have to be positive and increasing", "양수이며 커지는 순서여야 합니다"
        ) from None


def _declared(question: Question, name: str) -> tuple[str, ...]:
    levels = question.column(name).levels
    if not levels:
        problem = Words(
            f"'{name}' has no declared levels, so strata could differ between hospitals",
            f"'{name}'의 수준이 선언되지 않아 병원마다 층이 달라질 수 있습니다",
        )
        raise InvalidParameter(method="cox", parameter="strata", problem=problem)
    return levels


@dataclass(frozen=True, repr=False)
class CoxRows:
    """Complete cases of one hospital. `x` (p, n), the others (n,); `cluster` counts from 0 where it was asked;
    `person` likewise where somebody has several rows."""

    x: NDArray[np.float64]
    keep: NDArray[np.bool_]
    time: Vector
    event: NDArray[np.bool_]
    entry: Vector | None
    stratum: Places
    weights: Vector | None
    offset: Vector | None
    cluster: Places | None
    person: Places | None


def read(rows: Rows, model: Model) -> CoxRows:
    """Raises NotACount, TextWhereNumbers, UndeclaredLevel."""
    p = model.parameters
    time, event = rows.numbers(p.time), rows.numbers(p.event)
    entry = rows.numbers(p.entry) if p.entry else None
    offset = rows.numbers(p.offset) if p.offset else None
    weights = rows.numbers(p.weights) if p.weights else None
    _check(time, event, entry, weights, p)
    if weights is not None:
        weights = np.where(weights == 0, np.nan, weights)  # a weight of zero is nobody, not a person
    stratum, known = _strata(rows, model)
    cluster = None
    if p.cluster:
        cluster, named = (np.zeros(rows.n, dtype=np.int64), np.ones(rows.n, dtype=bool))
        if p.cluster != "site":
            cluster, named = _groups(rows, p.cluster)
        known = known & named
    if entry is not None and not p.by_hospital:  # who enters after the end of the grid is never seen on it
        entry = np.where(entry >= p.points()[-1], np.nan, entry)
    extra = [values for values in (time, event, entry, offset, weights) if values is not None]
    x, keep = model.design.read(rows, *extra, np.where(known, 0.0, np.nan))

    def kept(values: Any) -> Any:
        return None if values is None else values[keep]

    return CoxRows(
        x=x,
        keep=keep,
        time=time[keep],
        event=event[keep] == 1,
        entry=kept(entry),
        stratum=_from_zero(stratum[keep]) if p.by_hospital else stratum[keep],
        weights=kept(weights),
        offset=kept(offset),
        cluster=None if cluster is None else _from_zero(cluster[keep]),
        person=_repeated(rows, keep),
    )


def _check(time: Vector, event: Vector, entry: Vector | None, weights: Vector | None, p: Parameters) -> None:
    if (time < 0).any():
        raise _unusable(p.time, "time", "It holds negative times", "음수인 시간이 있습니다")
    if p.schoenfeld == "log" and (time[event == 1] == 0).any():
        raise _unusable(
            p.time,
            "log(time)",
            "Some events are at time 0, which has no logarithm",
            "사건이 시간 0에 있어 로그가 없습니다",
        )
    if not np.isin(event[~np.isnan(event)], (0.0, 1.0)).all():
        raise _unusable(p.event, "event", "It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다")
    if weights is not None and (weights < 0).any():
        raise _unusable(p.weights, "weights", "Weights cannot be negative", "가중치는 음수일 수 없습니다")
    if entry is not None and (entry >= time).any():
        raise _unusable(
            p.entry,
            "entry",
            f"Some rows end ('{p.time}') at or before their entry",
            f"끝나는 때('{p.time}')가 들어온 때보다 늦지 않은 행이 있습니다",
        )


def _unusable(column: str | None, role: str, en: str, ko: str) -> NotACount:
    return NotACount(column=column, role=role, problem=Words(en, ko))


def _strata(rows: Rows, model: Model) -> tuple[Places, NDArray[np.bool_]]:
    """(n,) stratum of each row, and whether it is known. Inside a hospital any value makes a stratum of its own;
    across hospitals strata are combinations of declared levels."""
    p = model.parameters
    found, known = np.zeros(rows.n, dtype=np.int64), np.ones(rows.n, dtype=bool)
    for place, name in enumerate(p.strata_columns):
        if p.by_hospital:
            codes, named = _groups(rows, name)
            found = _from_zero(found * (codes.max(initial=0) + 1) + codes)
        else:
            levels = model.strata[place]
            codes = rows.codes(name, rows.columns[name])
            named, found = codes >= 0, found * len(levels) + np.maximum(codes, 0)
        known = known & named
    return found, known


def _groups(rows: Rows, name: str) -> tuple[Places, NDArray[np.bool_]]:
    """(n,) any column's values numbered from 0, and whether they are there."""
    if name not in rows.frame.columns:
        rows.numbers(name)  # raises UnknownColumn
    series = rows.frame.get_column(name)
    if series.dtype.is_float():
        series = series.fill_nan(None)
    known = series.is_not_null().to_numpy()
    codes = series.rank("dense").fill_null(1).to_numpy().astype(np.int64) - 1
    return codes, known


def _from_zero(codes: Places) -> Places:
    if not len(codes) or not codes.any():
        return codes
    return np.asarray(np.unique(codes, return_inverse=True)[1], dtype=np.int64)


def _repeated(rows: Rows, keep: NDArray[np.bool_]) -> Places | None:
    if rows.person is None:
        return None
    person = rows.person[keep]
    if len(person) < 2 or (np.diff(person) > 0).all():
        return None
    codes = _from_zero(person)
    return None if codes.max(initial=0) + 1 == len(codes) else codes


def fresh(rows: Rows, model: Model) -> CoxRows:
    """What `read` gives, once for the counts and for what is built of it next."""
    return rows.remember_latest("cox rows", model.key, lambda: read(rows, model))


def forget(rows: Rows) -> None:
    """Let go of the rows as they were read, once they are sorted."""
    rows.remember_latest("cox rows", None, lambda: None)


def sorted_rows(rows: Rows, model: Model) -> tuple[RiskSets, CoxRows]:
    """Risk sets inside this hospital, sorted once per step; of the rows read, only what no sum needs any more."""

    def build() -> tuple[RiskSets, CoxRows]:
        data = fresh(rows, model)
        sets = risk_sets(data.x, data.time, data.event, data.stratum, data.weights, data.offset, data.entry)
        return sets, replace(data, x=np.zeros((model.columns, 0)))

    return rows.remember(("cox risk sets", model.key), build)


def interval_rows(rows: Rows, model: Model, centre: Vector) -> tuple[IntervalRows, CoxRows]:
    """Rows on the grid, centred by the pooled means, once per step."""

    def build() -> tuple[IntervalRows, CoxRows]:
        data = fresh(rows, model)
        on_grid = gridded(data, model, data.x - centre[:, None])
        return on_grid, replace(data, x=np.zeros((model.columns, 0)))

    return rows.remember_latest(("cox intervals", model.key), centre.tobytes(), build)


def gridded(data: CoxRows, model: Model, x: NDArray[np.float64]) -> IntervalRows:
    points, (strata, intervals) = model.parameters.points(), model.shape
    last = interval_of(points, data.time)
    enters = np.zeros_like(last) if data.entry is None else first_interval(points, data.entry, last)
    start = data.stratum * (intervals + 1)
    weights = np.ones(len(last)) if data.weights is None else data.weights
    event = data.event & (last < intervals)
    return IntervalRows(x, weights, data.offset, start + last, start + enters, event, (strata, intervals))
