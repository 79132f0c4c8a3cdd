"""Feasibility: how many people remain after each criterion, and how many there are by year, age, sex and the like.

Counts of one column, and of pairs of columns, over all hospitals; the attrition also by hospital. A table hides its
small cells, and as many others as keep them from following from the rest (`dure.estimation.suppression`).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import model_validator

from dure.errors import InvalidParameter
from dure.estimation.parameters import Asked, Levels, described
from dure.estimation.suppression import hidden_cells, marks
from dure.language import Words
from dure.study.method import DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Figure, Result, Table
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

EVERYONE = (Words("People", "대상자"),)
STROBE = (
    "von Elm E, Altman DG, Egger M, Pocock SJ, Gøtzsche PC, Vandenbroucke JP. The Strengthening the Reporting of "
    "Observational Studies in Epidemiology (STROBE) statement: guidelines for reporting observational studies. "
    "Lancet. 2007;370(9596):1453-1457."
)


class Parameters(Asked):
    by_hospital: Annotated[
        bool,
        described("also count each hospital (needs per_hospital permits)", "병원별로도 셈(per_hospital 허가 필요)"),
    ] = False
    by: Annotated[
        tuple[str, ...],
        described(
            "columns by which people are counted: categories, flags, or numbers with cut points under levels",
            "사람 수를 나누어 셀 열: 범주, 유무, 또는 levels에 나누는 점을 준 숫자",
        ),
    ] = ()
    crossed: Annotated[
        tuple[tuple[str, str], ...],
        described("pairs of such columns, counted together", "함께 교차하여 셀 열의 쌍"),
    ] = ()
    levels: Levels = None

    @model_validator(mode="after")
    def _once(self) -> Parameters:
        pairs = [frozenset(pair) for pair in self.crossed]
        if len(set(self.by)) < len(self.by) or len(set(pairs)) < len(pairs) or any(len(pair) < 2 for pair in pairs):
            raise ValueError("a column or a pair is named twice, or a column is paired with itself")
        return self


class Feasibility(DerivesNothing):
    name = "feasibility"
    title = Words("Feasibility", "연구 가능성")
    about = Words(
        "People who remain after each criterion (attrition), and people by year, age, sex and other columns.",
        "기준마다 남는 사람 수(대상자 선정 과정)와 연도, 나이, 성별 등으로 나눈 사람 수.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def start(self, question: Question) -> State:
        return {}

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        lines = len(question.criteria or EVERYONE)
        found = [ArraySpec("persons", (lines,), "count")]
        if p.by_hospital:
            found.append(ArraySpec("by_hospital", (len(question.hospitals), lines), "count", per_hospital=True))
        for name in p.by:
            levels = _levels(question, name, "by")
            # One place more: people of no level.
            found.append(ArraySpec(f"by {name}", (len(levels) + 1,), "count", labels=(*levels, "missing")))
        for pair in p.crossed:
            rows, columns = (_levels(question, name, "crossed") for name in pair)
            found.append(ArraySpec(_crossing(pair), (len(rows), len(columns)), "count", labels=columns))
        return tuple(found)

    def sensitivity(self, question: Question) -> int:
        """By how much one person more or less can change all counts together: one in each line of the attrition, and
        one in each of the other tables, where everybody stands in at most one cell."""
        p: Parameters = question.parameters
        return len(question.criteria or EVERYONE) + len(p.by) + len(p.crossed)

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        p: Parameters = question.parameters
        counts = np.asarray(rows.attrition, dtype=np.int64)
        found: Summary = {"persons": counts}
        if p.by_hospital:
            own = np.zeros((len(question.hospitals), len(counts)), dtype=np.int64)
            own[question.hospitals.index(rows.hospital)] = counts
            found["by_hospital"] = own
        for name in p.by:
            size = len(_levels(question, name, "by"))
            codes = rows.codes(name, question.column(name))
            found[f"by {name}"] = np.bincount(np.where(codes < 0, size, codes), minlength=size + 1).astype(np.int64)
        for pair in p.crossed:
            one, other = (rows.codes(name, question.column(name)) for name in pair)
            shape = (len(_levels(question, pair[0], "crossed")), len(_levels(question, pair[1], "crossed")))
            known = (one >= 0) & (other >= 0)
            flat = one[known] * shape[1] + other[known]
            found[_crossing(pair)] = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)
        return found, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        tables, figures = {"attrition": _attrition(total, question)}, {"attrition": _attrition_figure()}
        hidden: dict[str, NDArray[np.bool_]] = {}
        for name in (*p.by, *(name for pair in p.crossed for name in pair)):
            hidden[name] = np.zeros(len(_levels(question, name, "by")), dtype=bool)
        for name in p.by:
            tables[f"by_{name}"], hidden[name] = _by(total, question, name)
            figures[f"by_{name}"] = _figure(f"by_{name}", name)
        for pair in p.crossed:
            table = "by_" + "_and_".join(pair)
            tables[table] = _cross(total, question, pair, hidden)
            figures[table] = _figure(table, pair[0], pair[1])
        return Result(
            method=self.name,
            tables=tables,
            facts={"n": int(total["persons"][-1])},
            people_facts=("n",),
            figures=figures,
            paragraph=_paragraph(p),
            references=(STROBE,),
        )

    def example(self, random: np.random.Generator) -> Example:
        frame = pl.DataFrame(
            {
                "sex": random.choice(["f", "m"], 120),
                "year": random.integers(2019, 2024, 120),
            }
        )
        return Example(frame, {"by": ["sex", "year"], "crossed": [["year", "sex"]]})


def _levels(question: Question, name: str, parameter: str) -> tuple[str, ...]:
    """Raises UnknownColumn, or InvalidParameter where people cannot be counted by it."""
    if name == "site":
        raise _unusable(
            parameter, "Ask `by_hospital: true` for counts of hospitals", "병원별 수는 `by_hospital: true`로 물으십시오"
        )
    levels = question.column(name).levels
    if not levels:
        raise _unusable(
            parameter,
            f"'{name}' has no declared levels; give cut points, e.g. levels: {{{name}: [40, 65]}}",
            f"'{name}'의 수준이 선언되지 않았습니다. 나누는 점을 주십시오. 예: levels: {{{name}: [40, 65]}}",
        )
    return levels


def _unusable(parameter: str, en: str, ko: str) -> InvalidParameter:
    return InvalidParameter(method="feasibility", parameter=parameter, problem=Words(en, ko))


def _crossing(pair: tuple[str, str]) -> str:
    return f"by {pair[0]} and {pair[1]}"


def _attrition(total: Total, question: Question) -> Table:
    criteria = question.criteria or EVERYONE
    columns: dict[str, Any] = {
        "criterion": [words.en for words in criteria],
        "criterion_ko": [words.ko for words in criteria],
        "persons": [int(value) for value in total["persons"]],
    }
    withheld: dict[tuple[int, str], str] = {}
    counts = ["persons"]
    if question.parameters.by_hospital:
        for place, hospital in enumerate(question.hospitals):
            codes = total.withheld["by_hospital"][place]
            values = total["by_hospital"][place]
            columns[hospital] = [None if code else int(value) for code, value in zip(codes, values)]
            withheld |= {(row, hospital): f"<{question.minimum_people}" for row, code in enumerate(codes) if code}
            counts.append(hospital)
    frame = pl.DataFrame(columns, schema_overrides=dict.fromkeys(counts, pl.Int64))
    return Table(frame, counts=tuple(counts), withheld=withheld)


def _by(total: Total, question: Question, name: str) -> tuple[Table, NDArray[np.bool_]]:
    """People of each level, with those of none on the first line; and which levels are hidden.

    Levels guard each other. Nearly nobody is missing in most columns, and a level hidden for that would be told
    nowhere: what rounded counts leave of the total says of the missing only what `<10` says, as in Table 1.
    """
    counts, levels = total.arrays[f"by {name}"], _levels(question, name, "by")
    out = np.append(hidden_cells(counts[None, :-1], question.minimum_people)[0], counts[-1] < question.minimum_people)
    cells = [None if gone else int(count) for count, gone in zip(counts, out)]
    named = marks(counts[None, :-1], out[None, :-1], question.minimum_people)
    withheld = {(row, "n"): mark for (_, row), mark in named.items()}
    if out[-1]:
        withheld[0, "missing"] = f"<{question.minimum_people}"
    rest = [None] * (len(levels) - 1)
    frame = pl.DataFrame(
        {
            "variable": [name] * len(levels),
            "level": list(levels),
            "n": cells[:-1],
            "of": [int(counts.sum())] * len(levels),
            "missing": [cells[-1], *rest],
        },
        schema_overrides=dict.fromkeys(("n", "of", "missing"), pl.Int64),
    )
    return _table(frame, ("n", "of", "missing"), withheld), out[:-1]


def _cross(total: Total, question: Question, pair: tuple[str, str], hidden: dict[str, NDArray[np.bool_]]) -> Table:
    """People of both columns' levels. A level whose own count is hidden stays hidden in all its cells."""
    counts = total.arrays[_crossing(pair)]
    also = hidden[pair[0]][:, None] | hidden[pair[1]][None, :]
    out = hidden_cells(counts, question.minimum_people, also)
    named = marks(counts, out, question.minimum_people)
    rows, columns = (_levels(question, name, "crossed") for name in pair)
    frame = pl.DataFrame(
        {
            pair[0]: [level for level in rows for _ in columns],
            pair[1]: list(columns) * len(rows),
            "n": [None if gone else int(count) for count, gone in zip(counts.ravel(), out.ravel())],
            "of": [int(counts.sum())] * counts.size,
        },
        schema_overrides={"n": pl.Int64, "of": pl.Int64},
    )
    return _table(
        frame, ("n", "of"), {(row * len(columns) + column, "n"): mark for (row, column), mark in named.items()}
    )


def _table(frame: pl.DataFrame, counts: tuple[str, ...], withheld: dict[tuple[int, str], str]) -> Table:
    shares = {"percent": ("n", "of", 100.0)}
    return Table(frame, counts=counts, shares=shares, derived=("of", "percent"), withheld=withheld)


def _attrition_figure() -> Figure:
    return Figure(
        "bars",
        "attrition",
        "criterion",
        "persons",
        Words("People left after each criterion", "기준을 적용한 뒤 남은 사람"),
        Words("Criterion", "기준"),
        Words("People", "사람 수"),
    )


def _figure(table: str, name: str, other: str = "") -> Figure:
    title = Words(f"People by {name}", f"{name}별 사람 수")
    if other:
        title = Words(f"People by {name} and {other}", f"{name} 및 {other}별 사람 수")
    x = name if other else "level"
    return Figure("bars", table, x, "n", title, Words(name, name), Words("People", "사람 수"), group=other)


def _paragraph(p: Parameters) -> Words:
    en, ko = "People were counted after each eligibility criterion [1]", "선정 기준마다 남은 대상자 수를 세었다 [1]"
    if p.by_hospital:
        en, ko = f"{en}, in all hospitals and in each", f"{ko}(전체와 병원별)"
    named = [*p.by, *(f"{one} × {other}" for one, other in p.crossed)]
    if named:
        en += f"; those included were also counted by {', '.join(named)}"
        ko += f". 포함된 대상자는 {', '.join(named)}에 따라서도 나누어 세었다"
    return Words(f"{en}. Only sums over hospitals were used." if not p.by_hospital else f"{en}.", f"{ko}.")


method = Feasibility()
