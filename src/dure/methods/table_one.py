"""Table 1: people, missing values, means and standard deviations, levels, and standardised differences.

Two rounds: counts and sums; then squares about the means, so that no digits are lost. By `site` the columns
are single hospitals, each under the rules of a per-hospital answer. Differences: Yang & Dalton 2012 (SAS
Global Forum 335), the largest over all pairs of groups.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dure.errors import InvalidParameter, NobodyLeft
from dure.language import Words
from dure.study.method import HUB, DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Result, Table
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Kind, Summary, Total

OVERALL = "overall"


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    variables: list[str] = Field(min_length=1, description="columns to describe", json_schema_extra={"ko": "기술할 열"})
    by: str | None = Field(
        None,
        description="category, flag or site whose levels become columns",
        json_schema_extra={"ko": "수준이 표의 열이 되는 범주, 유무, 또는 site"},
    )


@dataclass(frozen=True)
class Layout:
    """Where each number stands: groups, numeric variables, and the levels of the others one after another."""

    groups: tuple[str, ...]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]
    starts: dict[str, int]
    size: int
    by_site: bool


class TableOne(DerivesNothing):
    name = "table_one"
    title = Words("Table 1", "표 1")
    about = Words(
        "Characteristics of the people: means, standard deviations, counts, missing values, differences.",
        "대상자 특성: 평균, 표준편차, 수, 결측, 표준화 차이.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        layout, first = _layout(question), state["phase"] == "sums"
        g = len(layout.groups)

        def array(
            name: str, size: int | None, kind: Kind, whole: str | None = None, people: str | None = None
        ) -> ArraySpec:
            return ArraySpec(
                name,
                (g,) if size is None else (g, size),
                kind,
                people=(people,) if people else (),
                whole=whole,
                per_hospital=layout.by_site,
            )

        known = array("known", len(layout.numbers), "count")
        if not first:
            return known, array("squares", len(layout.numbers), "moment", people="known")
        return (
            array("n", None, "count"),
            array("levels", layout.size, "count", whole="n"),
            array("missing_numbers", len(layout.numbers), "count", whole="n"),
            array("missing_levels", len(layout.categories), "count", whole="n"),
            known,
            array("sums", len(layout.numbers), "moment", people="known"),
        )

    def start(self, question: Question) -> State:
        _layout(question)
        return {"phase": "sums"}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        layout = _layout(question)
        found = {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in self.declare(question, state)}
        group = _groups(rows, question)
        first = state["phase"] == "sums"
        for place in range(len(layout.groups)):
            chosen = group == place
            for column, name in enumerate(layout.numbers):
                values = rows.numbers(name)[chosen]
                present = values[~np.isnan(values)]
                found["known"][place, column] = len(present)
                if first:
                    found["sums"][place, column] = present.sum()
                    found["missing_numbers"][place, column] = len(values) - len(present)
                else:
                    found["squares"][place, column] = ((present - state["means"][place][column]) ** 2).sum()
            if not first:
                continue
            found["n"][place] = chosen.sum()
            for column, name in enumerate(layout.categories):
                codes = rows.codes(name, question.column(name))[chosen]
                counts = np.bincount(codes[codes >= 0], minlength=len(layout.levels[name]))
                start = layout.starts[name]
                found["levels"][place, start : start + len(counts)] = counts
                found["missing_levels"][place, column] = (codes < 0).sum()
        return {**found}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        layout = _layout(question)
        if state["phase"] == "sums":
            if not total["n"].sum() and not any(total.withheld.get("n", np.zeros(1)).ravel()):
                raise NobodyLeft(columns=", ".join(question.parameters.variables))
            with np.errstate(invalid="ignore", divide="ignore"):
                means = np.where(total["known"] > 0, total["sums"] / total["known"], 0.0)
            arrays = {name: total[name] for name in total.arrays}
            withheld = {name: codes > 0 for name, codes in total.withheld.items()}
            return {"phase": "squares", "means": means, HUB: {"arrays": arrays, "withheld": withheld}}
        return _result(layout, question, state, total)

    def example(self, random: np.random.Generator) -> Example:
        n = 150
        age = np.where(random.random(n) < 0.1, np.nan, random.normal(60, 9, n))
        frame = pl.DataFrame(
            {
                "age": pl.Series(age).fill_nan(None),
                "sex": random.choice(["f", "m"], n),
                "arm": random.choice(["a", "b", "c"], n),
            }
        )
        return Example(frame, {"variables": ["age", "sex"], "by": "arm"})


def _layout(question: Question) -> Layout:
    p: Parameters = question.parameters
    columns = {name: question.column(name) for name in p.variables}
    numbers = tuple(name for name, column in columns.items() if column.kind == "number")
    levels = {name: column.levels for name, column in columns.items() if column.kind != "number"}
    starts = dict(zip(levels, [0, *np.cumsum([len(names) for names in levels.values()]).tolist()]))
    groups = question.column(p.by).levels if p.by else (OVERALL,)
    if not groups:
        problem = Words(f"'{p.by}' has no declared levels", f"'{p.by}'의 수준이 선언되지 않았습니다")
        raise InvalidParameter(method="table_one", parameter="by", problem=problem)
    size = sum(len(names) for names in levels.values())
    return Layout(groups, numbers, tuple(levels), levels, starts, size, p.by == "site")


def _groups(rows: Rows, question: Question) -> NDArray[np.int64]:
    by = question.parameters.by
    return np.zeros(rows.n, dtype=np.int64) if by is None else rows.codes(by, question.column(by))


def _result(layout: Layout, question: Question, state: State, total: Total) -> Result:
    arrays = {name: np.asarray(values) for name, values in state[HUB]["arrays"].items()}
    hidden = {name: np.asarray(values, dtype=bool) for name, values in state[HUB]["withheld"].items()}
    known, means, squares = arrays["known"], np.asarray(state["means"]), total["squares"]
    shown = f"<{question.minimum_people}"
    rows: list[dict[str, object]] = []
    withheld: dict[tuple[int, str], str] = {}

    def add(variable: str, level: str | None, place: int, **values: tuple[str, int | None] | float | None) -> None:
        """One row; a value given as (array, column) is a count that may have been withheld at its hospital."""
        row: dict[str, object] = {"variable": variable, "level": level, "group": layout.groups[place]}
        for name, value in values.items():
            if not isinstance(value, tuple):
                row[name] = value
                continue
            where = (place,) if value[1] is None else (place, value[1])
            gone = bool(hidden[value[0]][where]) if value[0] in hidden else False
            row[name] = None if gone else int(arrays[value[0]][where])
            if gone:
                withheld[len(rows), name] = shown
        rows.append(row)

    for place in range(len(layout.groups)):
        add("", None, place, n=("n", None))
    for name in question.parameters.variables:
        for place in range(len(layout.groups)):
            if name in layout.numbers:
                column = layout.numbers.index(name)
                people = known[place, column]
                mean = float(means[place, column]) if people > 0 else None
                spread = float(np.sqrt(squares[place, column] / (people - 1))) if people > 1 else None
                missing = ("missing_numbers", column)
                add(name, None, place, n=("known", column), missing=missing, mean=mean, sd=spread)
                continue
            missing = ("missing_levels", layout.categories.index(name))
            for index, level in enumerate(layout.levels[name]):
                more = {"missing": missing} if index == 0 else {}
                add(name, level, place, n=("levels", layout.starts[name] + index), of=("n", None), **more)
    schema = {
        **dict.fromkeys(("variable", "level", "group"), pl.String),
        **dict.fromkeys(("n", "of", "missing"), pl.Int64),
        **dict.fromkeys(("mean", "sd"), pl.Float64),
    }
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
    table = Table(
        frame,
        counts=("n", "of", "missing"),
        behind={"mean": "n", "sd": "n"},
        group=("variable", "group"),
        shares={"percent": ("n", "of", 100.0)},
        derived=("of", "percent"),
        withheld=withheld,
    )
    tables = {"table_one": table}
    if len(layout.groups) > 1:
        tables["differences"] = Table(_differences(layout, question, arrays, means, squares))
    n = int(arrays["n"].sum())
    return Result(method="table_one", tables=tables, facts={"n": n}, people_facts=("n",))


def _differences(
    layout: Layout,
    question: Question,
    arrays: dict[str, NDArray[np.float64]],
    means: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> pl.DataFrame:
    """The largest absolute standardised difference of each variable over pairs of groups with enough people."""
    minimum = max(2, question.minimum_people)
    found: list[float | None] = []
    for name in question.parameters.variables:
        sizes: list[float] = []
        for one, other in itertools.combinations(range(len(layout.groups)), 2):
            if name in layout.numbers:
                column = layout.numbers.index(name)
                people = arrays["known"][[one, other], column]
                if (people < minimum).any():
                    continue
                variance = (squares[[one, other], column] / (people - 1)).mean()
                gap = means[one, column] - means[other, column]
                sizes.append(
                    abs(float(gap / np.sqrt(variance))) if variance > 0 else (0.0 if gap == 0 else float("nan"))
                )
            else:
                part = slice(layout.starts[name], layout.starts[name] + len(layout.levels[name]))
                counts = arrays["levels"][[one, other], part]
                if (counts.sum(axis=1) < minimum).any():
                    continue
                sizes.append(_category_difference(counts / counts.sum(axis=1, keepdims=True)))
        known = [size for size in sizes if not np.isnan(size)]
        found.append(max(known) if known else None)
    return pl.DataFrame(
        {"variable": list(question.parameters.variables), "smd": found},
        schema={"variable": pl.String, "smd": pl.Float64},
    )


def _category_difference(shares: NDArray[np.float64]) -> float:
    """Mahalanobis distance between two multinomial shares (2, L), the first level left out."""
    one, other = shares[0, 1:], shares[1, 1:]
    covariance = sum((np.diag(p) - np.outer(p, p)) for p in (one, other)) / 2
    gap = one - other
    distance = float(gap @ np.linalg.pinv(np.atleast_2d(covariance)) @ gap)
    return float(np.sqrt(max(0.0, distance)))


method = TableOne()
