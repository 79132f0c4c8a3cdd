"""Where a question's people stand: groups, levels to standardise over, the standard's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NotACount
from dure.estimation.rates import standard_weights
from dure.language import Words
from dure.methods.incidence.parameters import Parameters
from dure.study.method import Question
from dure.study.regroup import regrouped_columns
from dure.study.rows import Column, Rows


def categories(question: Question, name: str) -> tuple[str, ...]:
    levels = question.column(name).levels
    if not levels:
        problem = Words(f"'{name}' has no declared levels", f"'{name}'의 수준이 선언되지 않았습니다")
        parameter = "over" if name == question.parameters.over else "by"
        raise InvalidParameter(method="incidence", parameter=parameter, problem=problem)
    return levels


def groups(question: Question) -> list[tuple[str, ...]]:
    """Combinations of the levels of `by`, the last changing fastest; one empty one without."""
    found: list[tuple[str, ...]] = [()]
    for name in question.parameters.columns:
        found = [(*group, level) for group in found for level in categories(question, name)]
    return found


def over(question: Question) -> tuple[str, ...]:
    name = question.parameters.over
    return ("",) if name is None else categories(question, name)


def weights(question: Question) -> NDArray[np.float64] | None:
    """(A,) the standard's weights, adding up to 1; raises InvalidParameter where they do not fit the levels."""
    p: Parameters = question.parameters
    if p.over is None:
        return None
    ages = over(question)
    for parameter, given in (("standard", p.standard), ("reference", p.reference)):
        if isinstance(given, dict) and set(given) != set(ages):
            names = ", ".join(ages)
            problem = Words(
                f"It names every level of '{p.over}' once: {names}", f"'{p.over}'의 수준을 모두 적습니다: {names}"
            )
            raise InvalidParameter(method="incidence", parameter=parameter, problem=problem)
    if p.standard is None:
        return None
    if isinstance(p.standard, dict):
        weights: Sequence[float] | None = [p.standard[age] for age in ages]
    else:
        cuts = (p.levels or {}).get(p.over)
        numeric = cuts is not None and not isinstance(cuts, Mapping) and all(isinstance(c, int | float) for c in cuts)
        weights = standard_weights(p.standard, [float(cut) for cut in cuts or ()]) if numeric else None
    if weights is None:
        problem = Words(
            f"'{p.standard}' needs '{p.over}' in years, cut by `levels` at multiples of 5 up to 85",
            f"'{p.standard}'에는 `levels`로 85까지 5의 배수에서 나눈 '{p.over}'(세)이 필요합니다",
        )
        raise InvalidParameter(method="incidence", parameter="standard", problem=problem)
    return np.asarray(weights, dtype=np.float64) / float(np.sum(weights))


def added(question: Question, p: Parameters, how: Any) -> dict[str, float]:
    """A declared standard on merged levels: each new level weighs what its old ones do."""
    assert isinstance(p.standard, dict)
    assert p.over is not None
    if isinstance(how, Mapping):
        ages, weights = over(question), p.standard
        said = (p.levels or {}).get(p.over)
        olds = {age: tuple(said[age]) if isinstance(said, Mapping) and age in said else (age,) for age in ages}
        return {new: sum(weights[age] for age in ages if set(olds[age]) <= set(of)) for new, of in how.items()}
    cuts = [float(str(cut)) for cut in (p.levels or {})[p.over]]
    new = regrouped_columns({p.over: Column("number")}, {p.over: how})[p.over].levels
    place = np.searchsorted(np.asarray(how, dtype=np.float64), [-np.inf, *cuts], side="right")
    sums = np.bincount(place, weights=[p.standard[age] for age in over(question)], minlength=len(new))
    return dict(zip(new, sums.tolist()))


def people(rows: Rows, question: Question) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Cell, events and person-time of everybody whose values are all known."""
    p: Parameters = question.parameters
    cell = np.zeros(rows.n, dtype=np.int64)
    for name in (*p.columns, *([p.over] if p.over else [])):
        codes = rows.codes(name, question.column(name))
        cell = np.where((codes < 0) | (cell < 0), -1, cell * len(categories(question, name)) + codes)
    events, time = rows.numbers(p.event), rows.numbers(p.time)
    if p.entry:
        time = time - rows.numbers(p.entry)
    keep = (cell >= 0) & ~np.isnan(events) & ~np.isnan(time)
    cell, events, time = cell[keep], events[keep], time[keep]
    if (time < 0).any():
        problem = Words("It holds negative times, or ends before entry", "음수이거나 진입보다 이른 시간이 있습니다")
        raise NotACount(column=p.time, role="time", problem=problem)
    if (events < 0).any() or (events != np.floor(events)).any() or (events > 2**31).any():
        problem = Words("It holds values that are not counts", "셀 수 있는 수가 아닌 값이 있습니다")
        raise NotACount(column=p.event, role="event", problem=problem)
    return cell, events, time
