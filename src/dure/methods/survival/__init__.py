"""Kaplan–Meier curves, restricted means and the log-rank test on a declared time grid, from counts of who leaves.

Times are moved up to the next grid point (a death in an interval counts at its end, before censoring there), entries
down to the last one; where the grid holds every distinct time, nothing moves. One round: counts by stratum, group and
interval, and sums of weights and their squares where people have weights.

What is shown of a curve are the ends of intervals widened until enough events lie between them, declared `times` among
them where they can be; a note says so where points that the question names are not shown. Single numbers
(medians, restricted means, tests, differences) are computed on the declared grid, and told only of groups with enough
people and events, a median only with enough events before and people after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NobodyLeft, NotACount, Refused
from dure.estimation.grids import entry_places, leaving_places
from dure.estimation.merging import merged_levels
from dure.estimation.parameters import Even
from dure.language import Words
from dure.methods.survival import competing, tables, telling
from dure.methods.survival.comparison import compare
from dure.methods.survival.curves import Leaving, curve, restricted_mean
from dure.methods.survival.parameters import Parameters
from dure.study.method import DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Fact, Result, Table
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

MOST_CELLS = 4_000_000


class Survival(DerivesNothing):
    name = "survival"
    title = Words("Survival", "생존분석")
    about = Words(
        "Kaplan–Meier curves, medians, restricted means and log-rank tests on a guarded time grid.",
        "보호된 시간 격자 위의 카플란–마이어 곡선, 중앙값, 제한평균과 로그순위 검정.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        for name in (p.time, p.event, p.entry, p.weights):
            if name is not None:
                question.column(name)
        groups, points = _levels(question, p.group), len(p.points())
        strata = int(np.prod([len(_levels(question, name)) for name in p.by_strata], dtype=np.int64))
        if strata * len(groups) * points > MOST_CELLS:
            problem = Words(
                "The grid, groups and strata make too many cells; use fewer points or strata",
                "격자와 집단, 층을 곱한 칸이 너무 많습니다. 점이나 층을 줄이십시오",
            )
            raise InvalidParameter(method=self.name, parameter="grid", problem=problem)
        opens = "site" in (p.group, *p.by_strata)
        compared = tuple(f"{p.group}={level}" for level in groups) if p.group else ("people",)
        _causes(question)
        cells = {name: (strata, len(groups), points + (name != "events")) for name in _kinds(p)}
        if p.causes:
            cells["causes"] = (len(groups), len(p.causes), points)
        found = [
            # Who is compared has to be many: a statistic of a group of one is that person's time.
            ArraySpec("people", (len(groups),), "count", on_small="refuse", opens_hospitals=opens, labels=compared)
        ]
        # One place more than points: those who leave or enter beyond the last.
        found += [ArraySpec(name, shape, "count", opens_hospitals=opens) for name, shape in cells.items()]
        for power in ("weights", "squares") if p.weights else ():
            found += [
                ArraySpec(f"{power}.{name}", shape, "moment", people=(name,), opens_hospitals=opens)
                for name, shape in cells.items()
            ]
        return tuple(found)

    def start(self, question: Question) -> State:
        return {}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        p: Parameters = question.parameters
        points = p.points()
        numbers = {name: rows.numbers(name) for name in (p.time, p.entry, p.weights) if name is not None}
        numbers[p.event] = _event(rows, question)
        group, stratum = _codes(rows, question, p.group), _strata(rows, question)
        keep = (group >= 0) & (stratum >= 0)
        for read in numbers.values():
            keep &= ~np.isnan(read)
        if p.weights:
            _refuse((numbers[p.weights] < 0).any(), p.weights, "weights", "negative weights", "음수인 가중치")
            keep &= numbers[p.weights] != 0
        if not keep.all():
            numbers = {name: read[keep] for name, read in numbers.items()}
            group, stratum = group[keep], stratum[keep]
        time, event = numbers[p.time], numbers[p.event]
        _refuse((time < 0).any(), p.time, "time", "negative times", "음수인 시간")
        unknown = (event != 0) & (event != 1)
        if not p.causes:
            _refuse(unknown.any(), p.event, "event", "values other than 0 and 1", "0과 1이 아닌 값")
        groups = len(_levels(question, p.group))
        strata = int(np.prod([len(_levels(question, name)) for name in p.by_strata], dtype=np.int64))
        place = leaving_places(points, time)
        beyond = len(points)
        happened = (event > 0) & (place < beyond)
        cell = (stratum * groups + group) * (beyond + 1)
        at = {"events": (cell + place, happened), "censored": (cell + place, ~happened)}
        if p.causes:
            cause = np.maximum(event - 1, 0).astype(np.int64)
            at["causes"] = ((group * len(p.causes) + cause) * beyond + place, happened)
        if p.entry:
            entry = numbers[p.entry]
            _refuse((entry >= time).any(), p.entry, "entry", "entries at or after the end", "끝과 같거나 늦은 진입")
            at["entered"] = (cell + entry_places(points, entry), np.ones(len(time), dtype=bool))
        found: dict[str, NDArray[Any]] = {"people": np.bincount(group, minlength=groups).astype(np.int64)}
        weight = numbers[p.weights] if p.weights else None
        for name, (flat, chosen) in at.items():
            for label, values in {name: None, "weights": weight, "squares": weight}.items():
                if values is None and label != name:
                    continue
                of = None if values is None else (values if label == "weights" else values * values)[chosen]
                if name == "causes":
                    shape = (groups, len(p.causes), beyond)
                else:
                    shape = (strata, groups, beyond + 1)
                sums = np.bincount(flat[chosen], weights=of, minlength=int(np.prod(shape))).reshape(shape)
                if name == "events":
                    sums = sums[..., :-1]
                found[name if label == name else f"{label}.{name}"] = (
                    sums if values is not None else sums.astype(np.int64)
                )
        return found, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        people = _leaving(total, "")
        weighted = _leaving(total, "weights.") if p.weights else people
        squares = _leaving(total, "squares.") if p.weights else None
        counts, events = total["people"], people.events.sum(axis=(0, 2))
        n = int(counts.sum())
        if not n:
            raise NobodyLeft(columns=", ".join(name for name in (p.time, p.event, p.group, p.entry, p.weights) if name))
        minimum, names = question.minimum_people, _levels(question, p.group)
        heavy = _dominated(weighted, squares, minimum) if squares else np.zeros(len(names), dtype=bool)
        robust = (squares if squares else people) if p.robustly else None
        groups = [
            tables.group_of(
                name,
                curve(p.points(), people.of(g), weighted.of(g), robust.of(g) if robust else None),
                p,
                minimum,
                bool(counts[g] >= minimum and events[g] >= minimum and not heavy[g]),
            )
            for g, name in enumerate(names)
        ]
        tau = p.tau if p.tau is not None else _last_followed(groups, minimum)
        means = [restricted_mean(group.curve, tau) for group in groups]
        medians, quantiles = tables.quantiles(groups, p.quantiles, minimum)
        found: dict[str, Table] = {"curve": tables.curves(groups), "medians": medians}
        if p.quantiles:
            found["quantiles"] = quantiles
        if p.times:
            found["at_times"] = tables.at_times(groups, p.times)
        if p.causes:
            counted, of_weights, of_squares = (
                total[f"{power}causes"] for power in (("", "weights.", "squares.") if p.weights else ("", "", ""))
            )
            found["cumulative_incidence"] = competing.table(
                groups, counted, of_weights, of_squares, squares or people, p, minimum
            )
        found |= {"at_risk": tables.risk_table(groups, p.times), "rmst": tables.means(groups, means, tau, p)}
        facts: dict[str, Fact] = {"n": n, "events": int(events.sum())}
        notes = _notes(p, groups, means, people, heavy)
        if p.causes:
            notes += (telling.ANY_CAUSE,)
        if len(names) > 1:
            found["contrasts"] = tables.contrasts(groups, means, tau, p, minimum)
            if all(group.enough for group in groups):
                test = compare(people, weighted, squares, p)
                found["log_rank"] = tables.tested(names, counts, events, test, p.bent)
                facts |= {"log_rank_chi2": test.chi2, "log_rank_df": test.freedom, "log_rank_p": test.p_value}
            else:
                notes += (telling.NOT_COMPARED,)
        paragraph, references = telling.told(p)
        return Result(
            method=self.name,
            tables=found,
            facts=facts,
            people_facts=("n", "events"),
            notes=notes,
            figures=telling.figures(p),
            paragraph=paragraph,
            references=references,
        )

    def remedy(self, question: Question, refused: Refused, arrays: Mapping[str, Any]) -> dict[str, Any] | None:
        """Levels of `group` merged until each has enough people, or no groups where two are not left."""
        p: Parameters = question.parameters
        if "people" not in refused.cells or "people" not in arrays or p.group is None:
            return None
        people = np.asarray(arrays["people"])
        if people.sum() < question.minimum_people:
            return None
        levels = merged_levels(question, p.group, people, question.minimum_people, p.levels)
        return {"levels": levels} if levels else {"group": None}

    def example(self, random: np.random.Generator) -> Example:
        n = 260
        group = random.choice(["a", "b"], n)
        death, censor = random.exponential(np.where(group == "a", 20, 12)), random.uniform(0, 40, n)
        frame = pl.DataFrame(
            {"time": np.minimum(death, censor), "event": (death <= censor).astype(float), "group": group}
        )
        grid = {"width": 1, "until": 40}
        return Example(frame, {"time": "time", "event": "event", "group": "group", "grid": grid, "times": [12, 24]})


def _kinds(p: Parameters) -> tuple[str, ...]:
    return ("events", "censored", "entered") if p.entry else ("events", "censored")


def _causes(question: Question) -> None:
    """Raises InvalidParameter where `causes` are not levels of `event`."""
    p: Parameters = question.parameters
    levels = question.column(p.event).levels
    unknown = [cause for cause in p.causes if cause not in levels]
    if unknown:
        problem = Words(
            f"'{unknown[0]}' is not a level of '{p.event}'; there are: {', '.join(levels)}",
            f"'{unknown[0]}'은(는) '{p.event}'의 수준이 아닙니다. 있는 수준: {', '.join(levels)}",
        )
        raise InvalidParameter(method="survival", parameter="causes", problem=problem)


def _event(rows: Rows, question: Question) -> NDArray[np.float64]:
    """(n,) 0 for censoring and 1, or the place of the cause among `causes`, for an event; NaN where missing."""
    p: Parameters = question.parameters
    if not p.causes:
        return rows.numbers(p.event)
    column = question.column(p.event)
    place = [float(p.causes.index(level) + 1) if level in p.causes else 0.0 for level in column.levels]
    return np.asarray([*place, np.nan])[rows.codes(p.event, column)]


def _leaving(total: Total, prefix: str) -> Leaving:
    entered = total[f"{prefix}entered"] if f"{prefix}entered" in total.arrays else None
    return Leaving(total[f"{prefix}events"], total[f"{prefix}censored"], entered)


def _levels(question: Question, name: str | None) -> tuple[str, ...]:
    if name is None:
        return ("all",)
    levels = question.column(name).levels
    if not levels:
        problem = Words(f"'{name}' has no declared levels", f"'{name}'의 수준이 선언되지 않았습니다")
        parameter = "group" if name == question.parameters.group else "strata"
        raise InvalidParameter(method="survival", parameter=parameter, problem=problem)
    return levels


def _codes(rows: Rows, question: Question, name: str | None) -> NDArray[np.int64]:
    return np.zeros(rows.n, dtype=np.int64) if name is None else rows.codes(name, question.column(name))


def _strata(rows: Rows, question: Question) -> NDArray[np.int64]:
    """(n,) the cell of the strata's columns together, negative where one is missing."""
    found = np.zeros(rows.n, dtype=np.int64)
    for name in question.parameters.by_strata:
        codes = _codes(rows, question, name)
        found = np.where((codes < 0) | (found < 0), -1, found * len(_levels(question, name)) + codes)
    return found


def _refuse(wrong: bool | np.bool_, column: str, role: str, en: str, ko: str) -> None:
    if wrong:
        raise NotACount(column=column, role=role, problem=Words(f"It holds {en}", f"{ko}이(가) 있습니다"))


def _dominated(weighted: Leaving, squares: Leaving, minimum: int) -> NDArray[np.bool_]:
    """(G,) whether a group's weights stand for fewer people than the minimum: (Σw)²/Σw² (Kish 1965)."""
    sums, square = (of.events.sum(axis=(0, 2)) + of.censored.sum(axis=(0, 2)) for of in (weighted, squares))
    return np.asarray((square > 0) & (sums**2 < minimum * square))


def _last_followed(groups: list[tables.Group], minimum: int) -> float:
    """The last grid point at which every group has enough people at risk, or the first."""
    many = np.min([group.curve.at_risk for group in groups], axis=0) >= max(1, minimum)
    points = groups[0].curve.points
    return float(points[int(np.flatnonzero(many)[-1]) if many.any() else 0])


def _notes(
    p: Parameters, groups: list[tables.Group], means: list[Any], people: Leaving, heavy: NDArray[np.bool_]
) -> tuple[Words, ...]:
    notes = []
    # Equal widths are a resolution; points by name, and declared times, are what somebody wants to see.
    named = {tables.place_of(groups[0].curve.points, time) for time in p.times}
    if not isinstance(p.grid, Even):
        named = set(range(len(groups[0].curve.points)))
    if any(named - set(group.ends) for group in groups):
        notes.append(telling.COARSER)
    if heavy.any():
        notes.append(telling.DOMINATED)
    if any(not mean.known for mean in means):
        notes.append(telling.BEYOND)
    if people.entered is not None:
        for place, group in enumerate(groups):
            gone = np.flatnonzero(group.curve.survival == 0)
            later = people.of(place).entered
            if len(gone) and later is not None and later[gone[0] + 1 : -1].sum():
                notes.append(telling.EMPTY_RISK)
                break
    return tuple(notes)


method = Survival()
