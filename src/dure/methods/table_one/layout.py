"""What table 1 is asked, and where each number of it stands in the arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import field_validator

from dure.errors import InvalidParameter
from dure.estimation.parameters import Asked, Levels, Weights, described
from dure.estimation.quantile_search import Search, groups_of
from dure.language import Words
from dure.study.method import Question

QUARTILES = (0.25, 0.5, 0.75)


class Parameters(Asked):
    variables: Annotated[list[str], described("columns to describe", "기술할 열", min_length=1)]
    by: Annotated[
        str | None,
        described("category, flag or site whose levels become columns", "수준이 표의 열이 되는 범주, 유무, 또는 site"),
    ] = None
    medians: Annotated[
        dict[str, float] | None,
        described(
            "column → resolution: numbers that also get median and quartiles, as multiples of the resolution",
            "열 → 단위: 중앙값과 사분위수도 구할 숫자 열. 값은 그 단위의 배수로 알림",
        ),
    ] = None
    weights: Weights = None
    denominator: Annotated[
        Literal["weighted", "unweighted"],
        described(
            "standard deviations that divide weighted differences: those of the weighted people, or of all as they are",
            "가중 차이를 나누는 표준편차: 가중한 것(weighted) 또는 가중하지 않은 것(unweighted)",
        ),
    ] = "weighted"
    levels: Levels = None

    @field_validator("medians")
    @classmethod
    def _positive(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if not all(math.isfinite(resolution) and resolution > 0 for resolution in (value or {}).values()):
            raise ValueError("a resolution is a positive number")
        return value


@dataclass(frozen=True)
class Layout:
    """Where each number stands: groups, numeric variables, and the levels of the others one after another.

    `searches`: medians and quartiles, of the people as they are and weighted.
    """

    groups: tuple[str, ...]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]
    starts: dict[str, int]
    size: int
    by_site: bool
    weights: str | None
    searches: dict[str, Search]

    def part(self, name: str) -> slice:
        """The levels of a variable."""
        return slice(self.starts[name], self.starts[name] + len(self.levels[name]))


def layout_of(question: Question) -> Layout:
    """Raises UnknownColumn or InvalidParameter."""
    p: Parameters = question.parameters
    columns = {name: question.column(name) for name in p.variables}
    numbers = tuple(name for name, column in columns.items() if column.kind == "number")
    levels = {name: column.levels for name, column in columns.items() if column.kind != "number"}
    starts: dict[str, int] = dict(zip(levels, [0, *np.cumsum([len(names) for names in levels.values()]).tolist()]))
    groups = groups_of(question, p.by, "table_one")
    medians = p.medians or {}
    for name in medians:
        if name not in numbers:
            problem = Words(
                f"'{name}' is not among the variables that are numbers",
                f"'{name}'은(는) variables의 숫자 열이 아닙니다",
            )
            raise InvalidParameter(method="table_one", parameter="medians", problem=problem)
    if p.weights:
        question.column(p.weights)
    size = sum(len(names) for names in levels.values())
    asked: dict[str, Any] = {
        "method": "table_one",
        "columns": tuple(medians),
        "resolutions": tuple(medians.values()),
        "probabilities": QUARTILES,
        "by": p.by,
    }
    searches = {"plain": Search(**asked, definition=7, prefix="median_")} if medians else {}
    if medians and p.weights:
        searches["weighted"] = Search(**asked, definition=2, weights=p.weights, prefix="weighted_median_")
    return Layout(groups, numbers, tuple(levels), levels, starts, size, p.by == "site", p.weights, searches)
