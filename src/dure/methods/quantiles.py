"""Quantiles of columns of numbers, exact by counts: medians, quartiles and others, overall and by groups.

Each is what sorting all people would give (Hyndman & Fan's definitions 1, 2 and 7), rounded to the declared
resolution: `resolution: 1` gives ages in whole years. No smallest or largest value is given, nor a quantile with
fewer people than the rules' minimum at or below it, or at or above it.

All columns, groups and probabilities are searched in the same rounds: hospitals count people below edges, and the
edges close in on the multiples of the resolution that the quantiles round to, two to four rounds of them. Only where
a quantile lies between two people whose values round differently (definitions 2 and 7) the search goes on below the
resolution, as far as the rounding needs. The counts are working totals: the hub's process sees, to the resolution or
in that case finer, how many people lie on either side of values near the quantiles, and hospitals see the edges.

With weights a quantile is the smallest value with at least the share p of all weight at or below it (definition 1); 2
takes the mean with the next value where the share is exactly p, and is the default there.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import model_validator

from dure.errors import InvalidParameter, NobodyLeft
from dure.estimation.parameters import Asked, Levels, Weights, described
from dure.estimation.quantile_search import Search, groups_of
from dure.language import Words
from dure.study.method import DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Figure, Result, Table
from dure.study.rows import Rows
from dure.study.summary import Declaration, Summary, Total

HYNDMAN_FAN = "Hyndman RJ, Fan Y. Sample quantiles in statistical packages. Am Stat. 1996;50(4):361-365."
MEANINGS = {
    1: Words("the inverse of the empirical distribution function", "경험적 분포함수의 역함수"),
    2: Words(
        "the inverse of the empirical distribution function with averaging at its steps",
        "계단에서 평균을 취하는 경험적 분포함수의 역함수",
    ),
    7: Words("linear interpolation between order statistics", "순서통계량 사이의 선형 보간"),
}


class Parameters(Asked):
    columns: Annotated[tuple[str, ...], described("columns of numbers", "숫자 열", min_length=1)]
    resolution: Annotated[
        float | dict[str, float],
        described(
            "quantiles are given as multiples of this; one number for all columns, or column → number",
            "분위수를 이 수의 배수로 알림. 모든 열에 한 수, 또는 열 → 수",
        ),
    ]
    probabilities: Annotated[
        tuple[float, ...], described("shares of people at or below the quantiles", "분위수 이하인 사람의 비율")
    ] = (0.25, 0.5, 0.75)
    by: Annotated[
        str | None,
        described(
            "category, flag or site whose levels get quantiles of their own",
            "수준마다 분위수를 따로 구할 범주, 유무, 또는 site",
        ),
    ] = None
    weights: Weights = None
    definition: Annotated[
        Literal[1, 2, 7] | None,
        described(
            "Hyndman and Fan's definition: 1, 2 or 7 (default 7; 2 with weights, where 7 is not defined)",
            "하인드먼–판의 정의: 1, 2, 7(기본 7. 가중치가 있으면 2이며 7은 정의되지 않음)",
        ),
    ] = None
    levels: Levels = None

    @model_validator(mode="after")
    def _possible(self) -> Parameters:
        given = self.resolution.values() if isinstance(self.resolution, dict) else (self.resolution,)
        if not all(np.isfinite(value) and value > 0 for value in given):
            raise ValueError("a resolution is a positive number")
        if not self.probabilities or not all(0 < p < 1 for p in self.probabilities):
            raise ValueError("probabilities lie between 0 and 1; no smallest or largest value is given")
        if len(set(self.probabilities)) < len(self.probabilities) or len(set(self.columns)) < len(self.columns):
            raise ValueError("a column or a probability is named twice")
        if self.weights and self.definition == 7:
            raise ValueError("with weights the definition is 1 or 2")
        return self

    @property
    def defined(self) -> Literal[1, 2, 7]:
        return self.definition or (2 if self.weights else 7)


class Quantiles(DerivesNothing):
    name = "quantiles"
    title = Words("Quantiles", "분위수")
    about = Words(
        "Medians, quartiles and other quantiles, exact by counts and given to a declared resolution.",
        "중앙값, 사분위수 등의 분위수. 사람 수만 세어 정확히 구하고, 정한 단위로 반올림하여 알림.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def start(self, question: Question) -> State:
        return _search(question).start()

    def declare(self, question: Question, state: State) -> Declaration:
        return _search(question).declare(question, state)

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        return _search(question).summarise(rows, question, state), {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        search = _search(question)
        known = total.withheld.get("people", np.zeros(1))
        if state["stage"] == "first" and not total["people"].any() and not known.any():
            raise NobodyLeft(columns=", ".join(search.columns))
        state = search.conclude(total, question, state)
        return _result(question, search, state) if search.finished(state) else state

    def example(self, random: np.random.Generator) -> Example:
        n = 160
        stay = np.where(random.random(n) < 0.1, np.nan, random.lognormal(1.5, 0.8, n))
        frame = pl.DataFrame(
            {
                "age": random.normal(61, 11, n).round(),
                "stay": pl.Series(stay).fill_nan(None),
                "arm": random.choice(["a", "b"], n),
            }
        )
        asked = {"columns": ["age", "stay"], "resolution": {"age": 1, "stay": 0.1}, "by": "arm"}
        return Example(frame, {**asked, "probabilities": [0.1, 0.5, 0.75]})


def _search(question: Question) -> Search:
    """What is looked for; raises UnknownColumn, or InvalidParameter where a column or resolution does not fit."""
    p: Parameters = question.parameters
    for name in p.columns:
        if question.column(name).kind == "category":
            raise _unusable(
                "columns",
                f"'{name}' is a category, not a column of numbers",
                f"'{name}'은(는) 숫자 열이 아니라 범주입니다",
            )
    each = p.resolution if isinstance(p.resolution, dict) else dict.fromkeys(p.columns, p.resolution)
    left = [name for name in p.columns if name not in each] + [name for name in each if name not in p.columns]
    if left:
        raise _unusable(
            "resolution",
            f"Name exactly the columns asked; see '{left[0]}'",
            f"묻는 열만 빠짐없이 적으십시오: '{left[0]}'",
        )
    if p.weights:
        question.column(p.weights)
    groups_of(question, p.by, "quantiles")
    resolutions = tuple(float(each[name]) for name in p.columns)
    return Search("quantiles", p.columns, resolutions, p.probabilities, p.defined, p.by, p.weights)


def _unusable(parameter: str, en: str, ko: str) -> InvalidParameter:
    return InvalidParameter(method="quantiles", parameter=parameter, problem=Words(en, ko))


def _result(question: Question, search: Search, state: State) -> Result:
    p: Parameters = question.parameters
    found, names = search.found(state), groups_of(question, p.by, "quantiles")
    small = f"<{question.minimum_people}"
    rows: list[tuple[object, ...]] = []
    people: list[tuple[object, ...]] = []
    hidden: dict[tuple[int, str], str] = {}
    gone: dict[tuple[int, str], str] = {}
    for v, column in enumerate(p.columns):
        for g, name in enumerate(names):
            for q, probability in enumerate(p.probabilities):
                value = float(found.values[g, v, q]) if found.shown[g, v, q] else None
                if value is None and (found.people[g, v] or found.people_withheld[g, v]):
                    hidden[len(rows), "quantile"] = small
                rows.append((column, name, probability, value))
            counts: list[int | None] = []
            for what, count, withheld in (
                ("n", found.people, found.people_withheld),
                ("missing", found.missing, found.missing_withheld),
            ):
                counts.append(None if withheld[g, v] else int(count[g, v]))
                if withheld[g, v]:
                    gone[len(people), what] = small
            people.append((column, name, *counts))
    texts = {"variable": pl.String, "group": pl.String}
    quantiles = pl.DataFrame(rows, {**texts, "probability": pl.Float64, "quantile": pl.Float64}, orient="row")
    counted = pl.DataFrame(people, {**texts, "n": pl.Int64, "missing": pl.Int64}, orient="row")
    tables = {
        "quantiles": Table(quantiles, derived=("probability",), withheld=hidden),
        "people": Table(counted, counts=("n", "missing"), withheld=gone),
    }
    n = int((found.people[:, 0] + found.missing[:, 0]).sum())
    return Result(
        method="quantiles",
        tables=tables,
        facts={"n": n, "definition": p.defined},
        people_facts=("n",),
        figures=_figures(p, search),
        paragraph=_paragraph(p, search),
        references=(HYNDMAN_FAN,),
    )


def _figures(p: Parameters, search: Search) -> dict[str, Figure]:
    """Of one column: columns of different units share no axis."""
    if len(p.columns) > 1 or len(p.probabilities) < 2:
        return {}
    figure = Figure(
        "points",
        "quantiles",
        "quantile",
        "probability",
        Words(f"Quantiles of {p.columns[0]}", f"{p.columns[0]}의 분위수"),
        Words(f"{p.columns[0]} (to {search.resolutions[0]:g})", f"{p.columns[0]} ({search.resolutions[0]:g} 단위)"),
        Words("Share of people at or below", "그 값 이하인 사람의 비율"),
        group="group" if p.by else "",
    )
    return {"quantiles": figure}


def _paragraph(p: Parameters, search: Search) -> Words:
    shares = ", ".join(f"{100 * share:g}" for share in p.probabilities)
    to = ", ".join(f"{name} {r:g}" for name, r in zip(p.columns, search.resolutions))
    meaning = MEANINGS[p.defined]
    by_en, by_ko = (f" within levels of {p.by}", f" {p.by}의 수준별로") if p.by else ("", "")
    weighted_en, weighted_ko = (
        (f", weighted by {p.weights},", f" {p.weights}(으)로 가중하여") if p.weights else ("", "")
    )
    return Words(
        f"Percentiles ({shares}) were computed{by_en}{weighted_en} as {meaning.en} (definition {p.defined} of Hyndman "
        f"and Fan [1]) from counts of people summed over hospitals, and are given to the nearest multiple of a "
        f"declared resolution ({to}). Neither smallest nor largest values were computed.",
        f"백분위수({shares})는{by_ko}{weighted_ko} {meaning.ko}(하인드먼과 판의 정의 {p.defined} [1])로 구하였다. "
        f"병원별 사람 수의 합만으로 계산하였고, 정한 단위의 배수로 반올림하였다({to}). "
        f"최솟값과 최댓값은 계산하지 않았다.",
    )


method = Quantiles()
