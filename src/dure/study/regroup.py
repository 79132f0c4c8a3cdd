"""Levels of a step's own: declared in another order, merged, or cut from a number; the parameter `levels`.

The study declares a column's levels once. A step may need them coarser, above all where a rule refused small cells,
and says so in its parameters; everything a method sees (question and rows) is then as if declared so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from dure.errors import InvalidParameter, UnknownColumn
from dure.language import Words
from dure.study.rows import MISSING_LEVEL, Column, Rows

Regroup = Mapping[str, Sequence[str] | Sequence[float] | Mapping[str, Sequence[str]]]
"""Column → levels in a new order (the first is the reference), or cut points of a number (each opens an interval that
holds it), or new level → old levels; old levels that are not named stay as they are, after the new ones."""


def regrouped_columns(columns: Mapping[str, Column], levels: Regroup | None) -> dict[str, Column]:
    """The columns as the step declares them; raises UnknownColumn or InvalidParameter."""
    found = dict(columns)
    for name, how in (levels or {}).items():
        if name not in columns:
            raise UnknownColumn(name, columns)
        found[name] = Column("category", tuple(_groups(name, columns[name], how)), columns[name].label)
    return found


def regrouped(rows: Rows, levels: Regroup | None) -> Rows:
    """The rows with the columns coded as the step declares them."""
    if not levels:
        return rows

    def build() -> Rows:
        known = {name: how for name, how in levels.items() if name in rows.frame.columns}
        columns = regrouped_columns({**rows.columns}, known)
        series = {name: _recoded(rows, name, how, columns[name].levels) for name, how in known.items()}
        frame = rows.frame.with_columns([values.alias(name) for name, values in series.items()])
        return Rows(frame, rows.hospital, columns, rows.attrition, rows.person)

    key = repr(
        sorted((name, list(how.items()) if isinstance(how, Mapping) else list(how)) for name, how in levels.items())
    )
    return rows.remember_latest(("regrouped", key), rows.frame.columns, build)


def _cuts(how: Any) -> bool:
    return not isinstance(how, Mapping) and all(isinstance(item, int | float) for item in how)


def _groups(name: str, column: Column, how: Any) -> dict[str, tuple[str, ...]]:
    """New level → old levels (nothing for intervals of a number)."""
    if _cuts(how):
        points = [float(point) for point in how]
        if column.kind != "number" or not points or sorted(set(points)) != points:
            raise _unusable(
                f"Cut points of '{name}' have to be increasing, and '{name}' a column of numbers",
                f"'{name}'은(는) 숫자 열이어야 하고 나누는 점은 커지는 순서여야 합니다",
            )
        text = [f"{point:g}" for point in points]
        inner = [f"{low} to <{high}" for low, high in pairwise(text)]
        return dict.fromkeys([f"<{text[0]}", *inner, f"≥{text[-1]}"], ())
    old = column.levels
    if not old:
        raise _unusable(f"'{name}' has no declared levels", f"'{name}'의 수준이 선언되지 않았습니다")
    groups = {new: tuple(map(str, of)) for new, of in how.items()} if isinstance(how, Mapping) else {}
    named = [level for of in groups.values() for level in of] if groups else [str(level) for level in how]
    unknown, twice = [level for level in named if level not in old], len(set(named)) < len(named)
    if unknown or twice or not named:
        problem = f"'{unknown[0]}' is not a level" if unknown else "a level is named twice, or none is"
        raise _unusable(
            f"Of '{name}', {problem}; there are: {', '.join(old)}",
            f"'{name}'의 수준이 아닙니다. 있는 수준: {', '.join(old)}",
        )
    rest = {level: (level,) for level in old if level not in named}
    clash = [level for level in rest if level in groups]
    if clash:
        raise _unusable(
            f"'{clash[0]}' is already a level of '{name}'", f"'{clash[0]}'은(는) 이미 '{name}'의 수준입니다"
        )
    return {**(groups or {level: (level,) for level in named}), **rest}


def _recoded(rows: Rows, name: str, how: Any, new: Sequence[str]) -> pl.Series:
    if _cuts(how):
        values = rows.numbers(name)
        place = np.searchsorted(np.asarray(how, dtype=np.float64), values, side="right")
        codes = np.where(np.isnan(values), MISSING_LEVEL, place)
    else:
        column = rows.columns[name]
        of = {level: place for place, olds in enumerate(_groups(name, column, how).values()) for level in olds}
        table = np.array([of[level] for level in column.levels] + [MISSING_LEVEL])
        codes = table[rows.codes(name, column)]
    return pl.Series([None if code < 0 else new[code] for code in codes], dtype=pl.Enum(list(new)))


def _unusable(en: str, ko: str) -> InvalidParameter:
    return InvalidParameter(method="step", parameter="levels", problem=Words(en, ko))
