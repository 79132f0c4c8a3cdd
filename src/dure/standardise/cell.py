"""One cell of an export read as its plan says: a number, a code's concept, a finding, or missing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from dure.errors import TextWhereNumbers, UnmappedColumn
from dure.language import Words
from dure.standardise.mapping import ColumnPlan, Concept, Finding, FindingPlan, MappingPlan, NumberPlan

# Python's float() also reads "nan", "inf" and "1_000", none of which a hospital means as a number.
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)

OLDEST = 130


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cell stands; goes into errors, as the cell's value never does."""

    path: Path
    line: int
    column: str


def as_number(text: str, plan: MappingPlan) -> float | None:
    """The number a cell writes, or None if it writes none. A point is no number where commas are decimals."""
    if plan.decimal_comma:
        if "." in text:
            return None
        text = text.replace(",", ".")
    number = float(text) if NUMBER.match(text) else math.nan
    return number if math.isfinite(number) else None


def is_missing(text: str, plan: MappingPlan, column: ColumnPlan | None = None) -> bool:
    """Whether the file's marks or the column's own say "not known"; among numbers, 0.0 is the mark 0."""
    if text in plan.missing:
        return True
    if column is None or not column.missing:
        return False
    if any(text == mark.mark for mark in column.missing):
        return True
    number = as_number(text, plan)
    marks = [float(mark.mark) for mark in column.missing if NUMBER.match(mark.mark)]
    return column.category is None and number is not None and number in marks


def read_number(text: str, plan: MappingPlan, place: Place) -> float:
    """Raises TextWhereNumbers."""
    number = as_number(text, plan)
    if number is None:
        raise TextWhereNumbers(place.column, f"{place.path.name}:{place.line}")
    return number


def converted(number: float, plan: NumberPlan) -> float:
    """The number in the plan's unit, rounded to its decimals."""
    if plan.convert is not None:
        number = number * plan.convert.multiply + plan.convert.add
    return number if plan.decimals is None else round(number, plan.decimals)


def read_code(text: str, codes: dict[str, Concept], place: Place) -> Concept:
    """Raises UnmappedColumn for a code that the plan does not list."""
    if text not in codes:
        raise unknown_code(place)
    return codes[text]


def read_finding(text: str, finding: FindingPlan, plan: MappingPlan, place: Place) -> Finding | None:
    """What is to be recorded: the yes, the no, or nothing; raises TextWhereNumbers or UnmappedColumn."""
    rule, absent = finding.present.when, finding.absent
    assert rule is not None  # `FindingPlan` asks for it
    if rule.one_of is not None:
        if text in rule.one_of:
            return finding.present
        if absent is not None and absent.when is not None and text in (absent.when.one_of or ()):
            return absent
        raise unknown_code(place)
    number = read_number(text, plan, place)
    if rule.holds(number):
        return finding.present
    return absent if absent is not None and (absent.when is None or absent.when.holds(number)) else None


def read_date(text: str, form: str, place: Place) -> date:
    """Raises UnmappedColumn for what is no date in the plan's form."""
    try:
        return datetime.strptime(text, form).date()
    except ValueError:
        problem = Words(
            f"Line {place.line} holds no date of the form {form}",
            f"{place.line}행의 값이 {form} 꼴의 날짜가 아닙니다",
        )
        hint = Words("Correct `format:` of the visit in the plan.", "계획에서 방문의 `format:`을 고치십시오.")
        raise UnmappedColumn(path=place.path, column=place.column, problem=problem, hint=hint) from None


def read_birth_year(number: float, day: date, place: Place) -> int:
    """Raises UnmappedColumn for a year in which no patient of `day` was born: often a mark as -9."""
    if day.year - OLDEST <= number <= day.year:
        return int(number)
    problem = Words(
        f"Line {place.line} gives a year of birth that no patient can have",
        f"{place.line}행의 출생연도는 환자에게 있을 수 없는 값입니다",
    )
    hint = Words(
        "Look at that line; if the value means not known, the hospital has to supply the year of birth.",
        "그 행을 확인하십시오. 모른다는 표시라면 병원이 출생연도를 알려 주어야 합니다.",
    )
    raise UnmappedColumn(path=place.path, column=place.column, problem=problem, hint=hint)


def unknown_code(place: Place) -> UnmappedColumn:
    problem = Words(
        f"Line {place.line} holds a code that the plan does not list",
        f"{place.line}행에 계획에 없는 코드가 있습니다",
    )
    hint = Words(
        "Look at that line, then give the code a concept in the plan, or list it as a missing mark.",
        "그 행을 확인한 뒤 계획에서 코드에 개념을 정하거나 결측 표시로 적으십시오.",
    )
    return UnmappedColumn(path=place.path, column=place.column, problem=problem, hint=hint)
