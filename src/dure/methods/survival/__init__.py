"""Kaplan–Meier curves and the log-rank test on a declared time grid, from counts of people who leave.

Times are moved up to the next grid point (a death in an interval counts at its end, before censoring there).
Curves (Kaplan & Meier 1958; Greenwood's variance, log-minus-log intervals) are computed on the declared grid and shown
at the ends of intervals widened until enough events stand behind each step; medians and the log-rank statistic
(Mantel 1966) have the declared grid's resolution.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import stats

from dure.errors import InvalidParameter, NobodyLeft, NotACount
from dure.estimation.grids import merge_until
from dure.language import Words
from dure.study.method import DerivesNothing, Example, Kept, Law, Question, State
from dure.study.result import Fact, Result, Table
from dure.study.rows import Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

Counts = NDArray[np.float64]


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str = Field(description="column of follow-up times", json_schema_extra={"ko": "추적 시간 열"})
    event: str = Field(
        description="0/1 column: 1 where the event happened at that time",
        json_schema_extra={"ko": "그때 사건이 일어났으면 1인 0/1 열"},
    )
    group: str | None = Field(
        None,
        description="category whose levels get a curve each and are compared",
        json_schema_extra={"ko": "수준마다 곡선을 그려 비교할 범주"},
    )
    strata: str | None = Field(
        None,
        description="category within which groups are compared, e.g. site",
        json_schema_extra={"ko": "그 안에서 집단을 비교할 범주(예: site)"},
    )
    grid: list[float] | None = Field(
        None,
        description="grid points, increasing; or give width and until",
        json_schema_extra={"ko": "커지는 격자점. 또는 width와 until을 줌"},
    )
    width: float | None = Field(
        None, gt=0, description="width of equal intervals", json_schema_extra={"ko": "같은 구간의 너비"}
    )
    until: float | None = Field(
        None, gt=0, description="end of follow-up on the grid", json_schema_extra={"ko": "격자에서 추적이 끝나는 때"}
    )
    level: float = Field(
        0.95, gt=0, lt=1, description="confidence level of the intervals", json_schema_extra={"ko": "구간의 신뢰수준"}
    )

    @model_validator(mode="after")
    def _one_grid(self) -> Parameters:
        if (self.grid is None) == (self.width is None or self.until is None):
            raise ValueError("give either grid, or width and until")
        if self.grid is not None and (not self.grid or sorted({*self.grid}) != self.grid or self.grid[0] <= 0):
            raise ValueError("grid points are positive and increasing")
        if self.width is not None and self.until is not None and self.until / self.width > 20_000:
            raise ValueError("the grid has more than 20,000 intervals; use a larger width")
        return self

    def points(self) -> NDArray[np.float64]:
        """(T,) ends of the intervals."""
        if self.grid is not None:
            return np.asarray(self.grid, dtype=np.float64)
        assert self.width is not None
        assert self.until is not None
        count = int(np.ceil(round(self.until / self.width, 9)))
        return np.arange(1, count + 1, dtype=np.float64) * self.width


class Survival(DerivesNothing):
    name = "survival"
    title = Words("Survival", "생존분석")
    about = Words(
        "Kaplan–Meier curves and the log-rank test on a guarded time grid.",
        "보호된 시간 격자 위의 카플란–마이어 곡선과 로그순위 검정.",
    )
    law: Law = "lossless"
    parameters = Parameters

    def declare(self, question: Question, state: State) -> Declaration:
        p: Parameters = question.parameters
        for name in (p.time, p.event):
            question.column(name)
        groups, strata = len(_levels(question, p.group)), len(_levels(question, p.strata))
        opens = "site" in (p.group, p.strata)
        points = len(p.points())
        compared = tuple(f"{p.group}={level}" for level in _levels(question, p.group)) if p.group else ("people",)
        return (
            # Who is compared has to be many: a statistic of a group of one is that person's time.
            ArraySpec("people", (groups,), "count", on_small="refuse", opens_hospitals=opens, labels=compared),
            ArraySpec("events", (strata, groups, points), "count", opens_hospitals=opens),
            # One place more: those followed beyond the last grid point.
            ArraySpec("censored", (strata, groups, points + 1), "count", opens_hospitals=opens),
        )

    def start(self, question: Question) -> State:
        return {}

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        p: Parameters = question.parameters
        points = p.points()
        time, event = rows.numbers(p.time), rows.numbers(p.event)
        group, stratum = _codes(rows, question, p.group), _codes(rows, question, p.strata)
        keep = ~np.isnan(time) & ~np.isnan(event) & (group >= 0) & (stratum >= 0)
        time, event, group, stratum = time[keep], event[keep], group[keep], stratum[keep]
        if (time < 0).any():
            problem = Words("It holds negative times", "음수인 시간이 있습니다")
            raise NotACount(column=p.time, role="time", problem=problem)
        if not np.isin(event, (0.0, 1.0)).all():
            problem = Words("It holds values other than 0 and 1", "0과 1이 아닌 값이 있습니다")
            raise NotACount(column=p.event, role="event", problem=problem)
        place = np.searchsorted(points, time * (1 - 1e-12), side="left")
        happened = (event == 1) & (place < len(points))
        shape = (len(_levels(question, p.strata)), len(_levels(question, p.group)), len(points) + 1)
        flat = np.ravel_multi_index((stratum, group, place), shape)
        size = int(np.prod(shape))
        events = np.bincount(flat[happened], minlength=size).reshape(shape)[..., :-1]
        censored = np.bincount(flat[~happened], minlength=size).reshape(shape)
        people = np.bincount(group, minlength=shape[1])
        found = {"people": people, "events": events, "censored": censored}
        return {name: counts.astype(np.int64) for name, counts in found.items()}, {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        events, censored = total["events"], total["censored"]
        n = int(events.sum() + censored.sum())
        if not n:
            raise NobodyLeft(columns=", ".join(name for name in (p.time, p.event, p.group) if name))
        names = _levels(question, p.group)
        curves = [
            _curve(name, events.sum(axis=0)[place], censored.sum(axis=0)[place], p, question.minimum_people)
            for place, name in enumerate(names)
        ]
        facts: dict[str, Fact] = {"n": n, "events": int(events.sum())}
        notes: tuple[Words, ...] = ()
        if len(names) > 1 and (events.sum(axis=(0, 2)) >= question.minimum_people).all():
            facts |= _log_rank(events, censored)
        elif len(names) > 1:
            notes = (
                Words(
                    "The groups are not compared: too few events stand behind one of them.",
                    "집단을 비교하지 않았습니다: 사건이 너무 적은 집단이 있습니다.",
                ),
            )
        curve = Table(
            pl.concat([frame for frame, _ in curves]),
            counts=("at_risk", "events"),
            behind=dict.fromkeys(("survival", "std_error", "ci_low", "ci_high"), "events"),
            derived=("time", "ci_low", "ci_high"),
        )
        medians = pl.DataFrame(
            {"group": list(names), "median": [median for _, median in curves]},
            schema_overrides={"median": pl.Float64},
        )
        return Result(
            method=self.name,
            tables={"curve": curve, "medians": Table(medians)},
            facts=facts,
            people_facts=("n", "events"),
            notes=notes,
        )

    def example(self, random: np.random.Generator) -> Example:
        n = 260
        group = random.choice(["a", "b"], n)
        death, censor = random.exponential(np.where(group == "a", 20, 12)), random.uniform(0, 40, n)
        frame = pl.DataFrame(
            {"time": np.minimum(death, censor), "event": (death <= censor).astype(float), "group": group}
        )
        return Example(frame, {"time": "time", "event": "event", "group": "group", "width": 1, "until": 40})


def _levels(question: Question, name: str | None) -> tuple[str, ...]:
    if name is None:
        return ("all",)
    levels = question.column(name).levels
    if not levels:
        problem = Words(f"'{name}' has no declared levels", f"'{name}'의 수준이 선언되지 않았습니다")
        raise InvalidParameter(method="survival", parameter="group", problem=problem)
    return levels


def _codes(rows: Rows, question: Question, name: str | None) -> NDArray[np.int64]:
    return np.zeros(rows.n, dtype=np.int64) if name is None else rows.codes(name, question.column(name))


def _at_risk(events: Counts, censored: Counts) -> Counts:
    """(…, T) people not yet gone before each grid point."""
    leaving = censored.copy()
    leaving[..., :-1] += events
    return np.asarray(np.cumsum(leaving[..., ::-1], axis=-1)[..., ::-1][..., :-1])


def _curve(
    name: str, events: Counts, censored: Counts, p: Parameters, minimum: int
) -> tuple[pl.DataFrame, float | None]:
    """The curve on the declared grid, shown at the ends of intervals with enough events; and its median, the first
    grid point at which survival is at most one half."""
    points = p.points()
    n = _at_risk(events, censored)
    with np.errstate(invalid="ignore", divide="ignore"):
        survival = np.cumprod(np.where(n > 0, 1 - events / n, 1.0))
        terms = np.where((n > 0) & (n > events), events / (n * (n - events)), 0.0)
        terms = np.where((n == events) & (events > 0), np.inf, terms)
        variance = np.cumsum(terms)
        error = np.where(survival > 0, survival * np.sqrt(variance), 0.0)
        spread = stats.norm.ppf(0.5 + p.level / 2) * np.sqrt(variance) / np.log(survival)
        inside = (survival > 0) & (survival < 1)
        low = np.where(inside, survival ** np.exp(-spread), np.nan)
        high = np.where(inside, survival ** np.exp(spread), np.nan)
    runs = merge_until(events[None, :], minimum)
    ends = [run.stop - 1 for run in runs]
    frame = pl.DataFrame(
        {
            "group": [name] * len(runs),
            "time": points[ends],
            "at_risk": n[[run.start for run in runs]].astype(np.int64),
            "events": np.array([events[run].sum() for run in runs], dtype=np.int64),
            "survival": survival[ends],
            "std_error": error[ends],
            "ci_low": np.minimum(low, high)[ends],
            "ci_high": np.maximum(low, high)[ends],
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    reached = np.flatnonzero((survival <= 0.5) & (np.cumsum(events) >= minimum))
    return frame, float(points[reached[0]]) if len(reached) else None


def _log_rank(events: Counts, censored: Counts) -> dict[str, Fact]:
    """Stratified by the first axis: observed minus expected and hypergeometric variance, added over strata."""
    n = _at_risk(events, censored)
    groups = events.shape[1]
    everyone, deaths = n.sum(axis=1), events.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(everyone[:, None] > 0, n / everyone[:, None], 0.0)
        factor = np.where(everyone > 1, deaths * (everyone - deaths) / (everyone - 1), 0.0)
    difference = (events - share * deaths[:, None]).sum(axis=(0, 2))
    spread = np.einsum("st,sgt->g", factor, share)
    variance = np.diag(spread) - np.einsum("st,sgt,sht->gh", factor, share, share)
    kept = slice(0, groups - 1)
    chi2 = float(difference[kept] @ np.linalg.pinv(variance[kept, kept]) @ difference[kept])
    freedom = int(np.linalg.matrix_rank(variance[kept, kept]))
    p_value = float(stats.chi2.sf(chi2, freedom)) if freedom else None
    return {"log_rank_chi2": chi2, "log_rank_df": freedom, "log_rank_p": p_value}


method = Survival()
