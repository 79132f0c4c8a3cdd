"""One hospital's own estimate, its variance, and the people behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NotACount
from dure.language import Words
from dure.methods.meta_analysis.parameters import CELLS, Parameters
from dure.study.method import Question
from dure.study.rows import MISSING_LEVEL, Rows


@dataclass(frozen=True)
class Own:
    """One hospital's estimate, its variance, and the people behind it by class; zeros where there is none."""

    estimate: float
    variance: float
    people: dict[str, int]
    cells: NDArray[np.int64]


def own_estimate(rows: Rows, question: Question) -> Own:
    p: Parameters = question.parameters
    if p.outcome is None:
        return _earlier(rows, p)
    if p.two_by_two:
        cells = two_by_twos(rows, question, None)[0]
        estimate, variance = effect(cells, p.measure)
        return Own(estimate, variance, {"n": int(cells.sum()), **dict(zip(CELLS, map(int, cells)))}, cells)
    values, group = rows.numbers(p.outcome), _two_groups(rows, question, p.group or "")
    known = ~np.isnan(values) & (group != MISSING_LEVEL)
    exposed, unexposed = values[known & (group == 1)], values[known & (group == 0)]
    people = {"n": int(known.sum()), "exposed": len(exposed), "unexposed": len(unexposed), "varied": 0}
    if min(len(exposed), len(unexposed)) < 2:
        return Own(0.0, 0.0, people, np.zeros(4, dtype=np.int64))
    # A mean of two values is a share in disguise: behind it stand those who differ from the commonest value.
    people["varied"] = min(
        len(part) - int(np.unique(part, return_counts=True)[1].max()) for part in (exposed, unexposed)
    )
    centre = float(values[known].mean())  # a mean far from zero costs no digits
    estimate = float((exposed - centre).mean() - (unexposed - centre).mean())
    variance = float(
        np.var(exposed - centre, ddof=1) / len(exposed) + np.var(unexposed - centre, ddof=1) / len(unexposed)
    )
    return Own(estimate, variance, people, np.zeros(4, dtype=np.int64))


def _earlier(rows: Rows, p: Parameters) -> Own:
    """This hospital's own answer of the step named: its term, and the people of its model."""
    nobody = Own(0.0, 0.0, dict.fromkeys(p.classes, 0), np.zeros(4, dtype=np.int64))
    result = rows.own.get(p.estimates or "")
    if result is None:
        return nobody
    frame = result.tables[p.table].frame if p.table in result.tables else pl.DataFrame()
    if not {"term", "estimate", "std_error"} <= set(frame.columns) or p.term not in frame["term"].to_list():
        known = Words(
            f"The step '{p.estimates}' has no '{p.term}' in a table '{p.table}' of terms with standard errors",
            f"'{p.estimates}' 단계의 '{p.table}' 표에 표준오차가 있는 '{p.term}' 항이 없습니다",
        )
        raise InvalidParameter(method="meta_analysis", parameter="term", problem=known)
    row = frame.filter(pl.col("term") == p.term).to_dicts()[0]
    if row["estimate"] is None or not row["std_error"] or not math.isfinite(row["std_error"]):
        return nobody
    fitted = result.fitted
    n = fitted.n if fitted else result.facts.get("n", 0)
    assert isinstance(n, int)
    events = n if fitted is None or fitted.events is None else fitted.events
    others = n if fitted is None or fitted.non_events is None else fitted.non_events
    people = {"n": n, "events": events, "non_events": others}
    return Own(float(row["estimate"]), float(row["std_error"]) ** 2, people, nobody.cells)


def _two_groups(rows: Rows, question: Question, name: str) -> NDArray[np.int64]:
    codes = rows.codes(name, question.column(name))
    if (codes > 1).any():
        raise NotACount(
            column=name, role="group", problem=Words("It has more than two levels", "수준이 둘보다 많습니다")
        )
    return codes


def two_by_twos(rows: Rows, question: Question, by: str | None) -> NDArray[np.int64]:
    """(levels, 4) people by outcome and group, for each level of `by`, or (1, 4) for everyone."""
    p: Parameters = question.parameters
    event, group = (_two_groups(rows, question, name or "") for name in (p.outcome, p.group))
    place = rows.codes(by, question.column(by)) if by else np.zeros(rows.n, dtype=np.int64)
    levels = len(question.column(by).levels) if by else 1
    known = (event != MISSING_LEVEL) & (group != MISSING_LEVEL) & (place != MISSING_LEVEL)
    cell = 4 * place + 2 * (1 - group) + (1 - event)
    return np.bincount(cell[known], minlength=4 * levels).reshape(levels, 4).astype(np.int64)


def effect(cells: NDArray[np.int64], measure: str) -> tuple[float, float]:
    """Log odds ratio, log risk ratio or risk difference with its large-sample variance; zeros where a cell is empty:
    no half is added to it, and Mantel & Haenszel's estimate takes such hospitals in as they are."""
    if (cells == 0).any():
        return 0.0, 0.0
    a, b, c, d = map(float, cells)
    if measure == "odds_ratio":
        return math.log(a) - math.log(b) - math.log(c) + math.log(d), 1 / a + 1 / b + 1 / c + 1 / d
    risk, other = a / (a + b), c / (c + d)
    if measure == "risk_ratio":
        return math.log(risk) - math.log(other), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    return risk - other, risk * (1 - risk) / (a + b) + other * (1 - other) / (c + d)


def haenszel_sums(cells: NDArray[np.int64], measure: str) -> list[float]:
    """One hospital's terms of Mantel & Haenszel's estimate and of its variance (Robins, Breslow & Greenland 1986;
    of the risk ratio, Greenland & Robins 1985)."""
    a, b, c, d = map(float, cells)
    n = a + b + c + d
    if measure == "risk_ratio":
        exposed, unexposed = a + b, c + d
        spread = exposed * unexposed * (a + c) / n**2 - a * c / n
        return [a * unexposed / n, c * exposed / n, spread, 0.0, 0.0]
    r, s, like, unlike = a * d / n, b * c / n, (a + d) / n, (b + c) / n
    return [r, s, like * r, like * s + unlike * r, unlike * s]
