"""From cells to tables in which no small cell is shown or follows from the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from dure.language import Words
from dure.methods.incidence import layout
from dure.methods.incidence.cells import EVERY, Cells, Rate, crude, directly, indirectly, ratio
from dure.methods.incidence.parameters import Parameters
from dure.methods.incidence.telling import NO_STANDARD, figures, told
from dure.study.method import Question
from dure.study.result import Fact, Fitted, Result, Table

ALL = "all"
HIDDEN = "–"
RATE = ("rate", "std_error", "ci_low", "ci_high")
TESTED = ("estimate", "std_error", "statistic", "p_value", "ci_low", "ci_high")


def shown_groups(cells: Cells, minimum: int) -> NDArray[np.bool_]:
    """(G,) which groups may be shown: enough people with an event, and without one (of a 0/1 column rate times
    person-time gives the events exactly, and the people less these; where events recur, cases tell the same); and so
    many of the others hidden that the total does not tell them (at least two, with enough of both together)."""
    cases = cells.cases.sum(axis=1)
    both = np.stack([cases, cells.people.sum(axis=1) - cases])
    shown = np.asarray((both >= minimum).all(axis=0))
    order = [place for place in np.argsort(cases, kind="stable") if shown[place]]
    while not shown.all() and order:
        hidden = ~shown
        if hidden.sum() > 1 and (both[:, hidden].sum(axis=1) >= minimum).all():
            break
        shown[order.pop(0)] = False
    return shown


def result(question: Question, cells: Cells) -> Result:
    p: Parameters = question.parameters
    minimum, groups = question.minimum_people, layout.groups(question)
    names = [" & ".join(group) or ALL for group in groups]
    whole = bool((cells.people - cells.cases).sum() >= minimum)
    shown = shown_groups(cells, minimum) if len(groups) > 1 else np.array([whole])
    found: list[Rate | None] = [crude(cells, place, p) for place in range(len(groups))]
    # Of a 0/1 column, people with an event and events are one number.
    flag = question.column(p.event).kind == "flag"
    rows = np.append(shown, whole) if len(groups) > 1 else shown
    tables = {"rates": _rates(names, cells, found, rows, p, flag)}
    plain = p.interval in ("exact", "mid_p")
    compared = [_compared("crude", names, found, shown, p, plain)]
    notes: tuple[Words, ...] = ()
    enough = shown & (cells.cases.sum(axis=1) >= minimum)
    weights = layout.weights(question)
    if weights is not None:
        direct = [directly(cells, place, weights, p, minimum) for place in range(len(groups))]
        tables["standardised"] = _standardised(names, cells, direct, enough, p)
        compared.append(_compared("standardised", names, direct, enough, p, exactly=False))
        if any(rate is None for rate, seen in zip(direct, enough) if seen):
            notes = (NO_STANDARD,)
    if p.reference is not None:
        reference = np.array([p.reference[age] for age in layout.over(question)])
        ratios = [indirectly(cells, place, reference, p) for place in range(len(groups))]
        tables["standardised_ratios"] = _indirect(names, cells, ratios, enough, flag)
    if len(groups) > 1:
        for which, name in enumerate(("rate_ratios", "rate_differences")):
            tables[name] = _table([row for rows in compared for row in rows[which]])
    facts: dict[str, Fact] = {"n": int(cells.people.sum())}
    facts |= {
        name: int(of.sum()) if whole else HIDDEN for name, of in (("cases", cells.cases), ("events", cells.events))
    }
    paragraph, references = told(p)
    return Result(
        method="incidence",
        tables=tables,
        facts=facts,
        people_facts=("n", "cases", "events"),
        fitted=_fitted(cells) if p.over else None,
        notes=notes,
        figures=figures(p),
        paragraph=paragraph,
        references=references,
    )


def _fitted(cells: Cells) -> Fitted | None:
    """A standardised rate as the model that it is: a parameter for each cell. Without events nothing is told of it."""
    cases = int(cells.cases.sum())
    return Fitted(cells.people.size, int(cells.people.sum()), cases) if cases else None


def _finite(values: Sequence[float]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _numbers(rate: Rate | None, scale: float) -> list[float | None]:
    if rate is None:
        return [None] * 4
    return _finite([scale * value for value in (rate.value, float(np.sqrt(rate.variance)), *rate.limits)])


def _rates(
    names: list[str], cells: Cells, found: list[Rate | None], shown: NDArray[np.bool_], p: Parameters, flag: bool
) -> Table:
    """A row for each group, and one for all together."""
    places: list[int | slice] = list(range(len(names)))
    if len(names) > 1:
        names, places, found = [*names, ALL], [*places, EVERY], [*found, crude(cells, EVERY, p)]
    counts = ("people", "events") if flag else ("people", "cases", "events")
    rows = []
    for name, place, rate, seen in zip(names, places, found, shown):
        of = {"people": cells.people, "cases": cells.cases, "events": cells.events}
        values: list[float | int | None] = [
            *(int(of[count][place].sum()) for count in counts),
            float(cells.time[place].sum()),
            *_numbers(rate, p.per),
        ]
        rows.append([name, *(values if seen else [None] * len(values))])
    columns = (*counts, "person_time", *RATE)
    frame = pl.DataFrame(
        rows,
        schema={"group": pl.String, **{name: pl.Int64 if name in counts else pl.Float64 for name in columns}},
        orient="row",
    )
    return Table(
        frame,
        counts=counts,
        behind=dict.fromkeys(("people", *counts[2:], "person_time", *RATE), counts[1]),
        derived=("std_error", "ci_low", "ci_high"),
        withheld={(row, name): HIDDEN for row in np.flatnonzero(~shown).tolist() for name in columns},
    )


def _standardised(
    names: list[str], cells: Cells, found: list[Rate | None], shown: NDArray[np.bool_], p: Parameters
) -> Table:
    values = [_numbers(rate if seen else None, p.per) for rate, seen in zip(found, shown)]
    frame = pl.DataFrame(
        [[name, *row] for name, row in zip(names, values)],
        schema={"group": pl.String, **dict.fromkeys(RATE, pl.Float64)},
        orient="row",
    )
    hidden = {(row, name): HIDDEN for row, seen in enumerate(shown) if not seen or found[row] is None for name in RATE}
    return Table(frame, derived=("std_error", "ci_low", "ci_high"), withheld=hidden)


def _indirect(names: list[str], cells: Cells, found: list[Rate | None], shown: NDArray[np.bool_], flag: bool) -> Table:
    """Events, those expected at the reference rates, and their ratio."""
    whole = ("events",) if flag else ("cases", "events")
    columns = (*whole, "expected", "ratio", "std_error", "ci_low", "ci_high")
    rows: list[list[Any]] = []
    for place, (name, rate, seen) in enumerate(zip(names, found, shown)):
        if rate is None or not seen:
            rows.append([name, *[None] * len(columns)])
            continue
        counts = [rate.events] if flag else [int(cells.cases[place].sum()), rate.events]
        rows.append([name, *counts, rate.time, *_numbers(rate, 1.0)])
    frame = pl.DataFrame(
        rows,
        schema={"group": pl.String, **{name: pl.Int64 if name in whole else pl.Float64 for name in columns}},
        orient="row",
    )
    gone = {(row, name): HIDDEN for row, values in enumerate(rows) if values[1] is None for name in columns}
    return Table(
        frame,
        counts=whole,
        behind=dict.fromkeys(columns[1:], columns[0]),
        derived=("std_error", "ci_low", "ci_high"),
        withheld=gone,
    )


Row = tuple[str, str, list[float | None], bool]


def _compared(
    measure: str, names: list[str], found: list[Rate | None], shown: NDArray[np.bool_], p: Parameters, exactly: bool
) -> tuple[list[Row], list[Row]]:
    """Ratios and differences of each group's rate to the first's; `std_error` of a ratio is its logarithm's."""
    ratios: list[Row] = []
    differences: list[Row] = []
    base = found[0]
    for name, rate, seen in zip(names[1:], found[1:], shown[1:]):
        term, hidden = f"{name} vs {names[0]}", not (seen and shown[0])
        nothing: list[float | None] = [None] * len(TESTED)
        if rate is None or base is None or hidden:
            ratios.append((term, measure, nothing, hidden))
            differences.append((term, measure, nothing, hidden))
            continue
        if rate.value > 0 and base.value > 0 and rate.variance + base.variance > 0:
            value, error, p_value, low, high = ratio(rate, base, p, exactly)
            ratios.append((term, measure, _finite([value, error, np.log(value) / error, p_value, low, high]), False))
        else:
            ratios.append((term, measure, nothing, False))
        gap, error = rate.value - base.value, float(np.sqrt(rate.variance + base.variance))
        if error > 0:
            wide = float(stats.norm.isf((1 - p.level) / 2)) * error
            scaled = [p.per * number for number in (gap, error)]
            limits = [p.per * (gap - wide), p.per * (gap + wide)]
            p_value = float(2 * stats.norm.sf(abs(gap) / error))
            differences.append((term, measure, _finite([*scaled, gap / error, p_value, *limits]), False))
        else:
            differences.append((term, measure, nothing, False))
    return ratios, differences


def _table(rows: list[Row]) -> Table:
    schema = {"term": pl.String, "measure": pl.String, **dict.fromkeys(TESTED, pl.Float64)}
    frame = pl.DataFrame([[term, measure, *values] for term, measure, values, _ in rows], schema=schema, orient="row")
    hidden = {(row, name): HIDDEN for row, (*_, gone) in enumerate(rows) if gone for name in TESTED}
    return Table(frame, derived=("statistic", "p_value", "ci_low", "ci_high"), withheld=hidden)
