"""From curves and comparisons to tables that know who stands behind each number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from dure.estimation.grids import merge_towards
from dure.methods.survival.comparison import Compared, Contrast, difference, ratio
from dure.methods.survival.curves import Curve, Mean, Values, limits, quantile
from dure.methods.survival.parameters import Parameters
from dure.study.result import Table

HIDDEN = "–"
INTERVAL = ("std_error", "ci_low", "ci_high")


@dataclass(frozen=True)
class Group:
    """A group's curve with its limits (T,), the runs of intervals between shown points, and whether enough people,
    events and weights stand behind its single numbers."""

    name: str
    curve: Curve
    low: Values
    high: Values
    runs: list[slice]
    enough: bool

    @property
    def ends(self) -> list[int]:
        return [run.stop - 1 for run in self.runs]


def group_of(name: str, curve: Curve, p: Parameters, minimum: int, enough: bool) -> Group:
    low, high = limits(curve.survival, curve.error, p.level, p.transform)
    wanted = [place_of(curve.points, time) for time in p.times]
    return Group(name, curve, low, high, merge_towards(curve.events[None, :], minimum, wanted), enough)


def place_of(points: Values, time: float) -> int:
    """The place of a time that is a grid point."""
    return int(np.searchsorted(points, time * (1 - 1e-12)))


class Rows:
    """Rows of a table under way, and which of their cells are withheld."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema, self.rows, self.withheld = schema, list[dict[str, object]](), dict[tuple[int, str], str]()

    def add(self, hidden: Sequence[str] = (), **values: object) -> None:
        """One row; NaN is nothing, and `hidden` columns are shown as withheld."""
        self.withheld |= {(len(self.rows), name): HIDDEN for name in hidden}
        row = {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in values.items()
        }
        self.rows.append({name: None if name in hidden else row.get(name) for name in self.schema})

    def frame(self) -> pl.DataFrame:
        return pl.DataFrame(self.rows, schema=self.schema)


TEXT, WHOLE, NUMBER = pl.String, pl.Int64, pl.Float64
SURVIVAL = dict.fromkeys(("survival", *INTERVAL), NUMBER)
TESTED = dict.fromkeys(("estimate", "std_error", "statistic", "p_value", "ci_low", "ci_high"), NUMBER)


def curves(groups: Sequence[Group]) -> Table:
    """Each curve at the ends of its runs; `at_risk` before the run, `events` within it."""
    rows = Rows({"group": TEXT, "time": NUMBER, "at_risk": WHOLE, "events": WHOLE, **SURVIVAL})
    for group in groups:
        of = group.curve
        for run in group.runs:
            end = run.stop - 1
            rows.add(
                hidden=() if group.enough else ("survival", *INTERVAL),
                group=group.name, time=float(of.points[end]), at_risk=int(of.at_risk[run.start]),
                events=int(of.events[run].sum()), **_survival(group, end),
            )  # fmt: skip
    return Table(
        rows.frame(),
        counts=("at_risk", "events"),
        behind=dict.fromkeys(SURVIVAL, "events"),
        derived=("time", "std_error", "ci_low", "ci_high"),
        withheld=rows.withheld,
    )


def _survival(group: Group, place: int) -> dict[str, object]:
    of = group.curve
    return {
        "survival": float(of.survival[place]), "std_error": float(of.error[place]),
        "ci_low": float(group.low[place]), "ci_high": float(group.high[place]),
    }  # fmt: skip


def at_times(groups: Sequence[Group], times: Sequence[float]) -> Table:
    """Survival at declared times, `events` since the beginning; withheld where no run of a curve ends there."""
    rows = Rows({"group": TEXT, "time": NUMBER, "at_risk": WHOLE, "events": WHOLE, **SURVIVAL})
    for group in groups:
        for time in times:
            place = place_of(group.curve.points, time)
            shown = group.enough and place in group.ends
            rows.add(
                hidden=() if shown else ("events", "survival", *INTERVAL),
                group=group.name, time=float(time), at_risk=int(group.curve.at_risk[place]),
                events=int(group.curve.events[: place + 1].sum()), **_survival(group, place),
            )  # fmt: skip
    return Table(
        rows.frame(),
        counts=("at_risk", "events"),
        behind=dict.fromkeys(SURVIVAL, "events"),
        derived=("time", "std_error", "ci_low", "ci_high"),
        withheld=rows.withheld,
    )


def risk_table(groups: Sequence[Group], times: Sequence[float]) -> Table:
    """Numbers at risk at the declared times, or at the beginning and about six grid points."""
    points = groups[0].curve.points
    if times:
        places = [place_of(points, time) for time in times]
    else:
        places = sorted(set(np.linspace(0, len(points) - 1, min(7, len(points))).round().astype(int).tolist()))
    rows = Rows({"group": TEXT, "time": NUMBER, "at_risk": WHOLE})
    for group in groups:
        for place in places:
            rows.add(group=group.name, time=float(points[place]), at_risk=int(group.curve.at_risk[place]))
    return Table(rows.frame(), counts=("at_risk",), derived=("time",))


def quantiles(groups: Sequence[Group], shares: Sequence[float], minimum: int) -> tuple[Table, Table]:
    """Medians, and all `shares` asked for: times with limits, withheld where too few events lie before, too few
    people after, or too few events between two of them."""
    medians = Rows({"group": TEXT, **dict.fromkeys(("median", "ci_low", "ci_high"), NUMBER)})
    every = Rows({"group": TEXT, "quantile": NUMBER, **dict.fromkeys(("time", "ci_low", "ci_high"), NUMBER)})
    for group in groups:
        shown: list[int] = []  # the median comes first: where two are too near, the other gives way
        found = {share: _quantile(group, share, minimum, shown) for share in (0.5, *shares)}
        time, low, high = found[0.5]
        medians.add(_gone(found[0.5], "median"), group=group.name, median=time, ci_low=low, ci_high=high)
        for share in shares:
            time, low, high = found[share]
            every.add(
                _gone(found[share], "time"), group=group.name, quantile=share, time=time, ci_low=low, ci_high=high
            )
    limits_of = ("ci_low", "ci_high")
    return (
        Table(medians.frame(), derived=limits_of, withheld=medians.withheld),
        Table(every.frame(), derived=("quantile", *limits_of), withheld=every.withheld),
    )


def _gone(found: tuple[object, object, object], name: str) -> list[str]:
    return [column for column, value in zip((name, "ci_low", "ci_high"), found) if value is HIDDEN]


def _quantile(group: Group, share: float, minimum: int, shown: list[int]) -> tuple[object, object, object]:
    """Time and limits, each None where the curve does not reach it, HIDDEN where it may not be told."""
    of = group.curve
    past = np.cumsum(of.events)

    def told(time: float | None, first: bool) -> object:
        if time is None:
            return None
        place = min(place_of(of.points, time), len(of.points) - 1)
        apart = all(other == place or abs(past[place] - past[other]) >= minimum for other in shown)
        if not group.enough or past[place] < minimum or of.at_risk[place] < minimum or not (apart or not first):
            return HIDDEN
        if first:
            shown.append(place)
        return time

    time = told(quantile(of.points, of.survival, share), first=True)
    if time is HIDDEN:
        return HIDDEN, HIDDEN, HIDDEN
    return (
        time,
        told(quantile(of.points, group.low, share), first=False),
        told(quantile(of.points, group.high, share), first=False),
    )


def means(groups: Sequence[Group], found: Sequence[Mean], tau: float, p: Parameters) -> Table:
    """Restricted means up to `tau`; behind each stand the events before it."""
    rows = Rows({"group": TEXT, "tau": NUMBER, "events": WHOLE, "rmst": NUMBER, **dict.fromkeys(INTERVAL, NUMBER)})
    for group, mean in zip(groups, found):
        wide = difference((mean.value, mean.error), (0.0, 0.0), p.level)
        inside = group.curve.points <= tau * (1 + 1e-12)
        rows.add(
            hidden=() if group.enough and mean.known else ("rmst", *INTERVAL),
            group=group.name, tau=tau, events=int(group.curve.events[inside].sum()), rmst=mean.value,
            std_error=mean.error, ci_low=wide.low if wide else None, ci_high=wide.high if wide else None,
        )  # fmt: skip
    return Table(
        rows.frame(),
        counts=("events",),
        behind=dict.fromkeys(("rmst", *INTERVAL), "events"),
        derived=("tau", "ci_low", "ci_high"),
        withheld=rows.withheld,
    )


def contrasts(groups: Sequence[Group], found: Sequence[Mean], tau: float, p: Parameters, minimum: int) -> Table:
    """Each group against the first: restricted mean time (difference, ratio), time lost up to tau (ratio), survival
    at declared times (difference). `std_error` is that of the logarithm where the measure is a ratio."""
    rows = Rows({"term": TEXT, "measure": TEXT, "time": NUMBER, **TESTED})
    base, base_mean = groups[0], found[0]

    def add(term: str, measure: str, time: float, allowed: bool, contrast: Contrast | None) -> None:
        numbers = () if contrast is None else (
            contrast.estimate, contrast.error, contrast.statistic, contrast.p_value, contrast.low, contrast.high,
        )  # fmt: skip
        rows.add(
            () if allowed else tuple(TESTED),
            term=term, measure=measure, time=time, **dict(zip(TESTED, numbers)),
        )  # fmt: skip

    for group, mean in zip(groups[1:], found[1:]):
        term = f"{group.name} vs {base.name}"
        allowed = all(
            one.enough and m.known and one.curve.events[one.curve.points <= tau * (1 + 1e-12)].sum() >= minimum
            for one, m in ((group, mean), (base, base_mean))
        )
        one, other = (mean.value, mean.error), (base_mean.value, base_mean.error)
        add(term, "rmst_difference", tau, allowed, difference(one, other, p.level))
        add(term, "rmst_ratio", tau, allowed, ratio(one, other, p.level))
        lost, base_lost = tau - mean.value, tau - base_mean.value
        some = min(lost, base_lost) > 1e-12 * tau  # less is what rounding leaves of nothing
        add(
            term, "rmtl_ratio", tau, allowed,
            ratio((lost, mean.error), (base_lost, base_mean.error), p.level) if some else None,
        )  # fmt: skip
        for time in p.times:
            place = place_of(group.curve.points, time)
            allowed = all(one.enough and place in one.ends and _past(one, place) >= minimum for one in (group, base))
            pair = [(float(g.curve.survival[place]), float(g.curve.error[place])) for g in (group, base)]
            add(term, "survival_difference", float(time), allowed, difference(pair[0], pair[1], p.level))
    derived = ("time", "statistic", "p_value", "ci_low", "ci_high")
    return Table(rows.frame(), derived=derived, withheld=rows.withheld)


def _past(group: Group, place: int) -> float:
    return float(group.curve.events[: place + 1].sum())


def tested(names: Sequence[str], people: Values, events: Values, found: Compared, bent: bool) -> Table:
    """People and events of each group, and the events expected if the groups did not differ; where times or people
    are weighted (`bent`), `observed` are the weighted events, which are no count."""
    frame = pl.DataFrame({"group": list(names), "people": people.astype(np.int64), "events": events.astype(np.int64)})
    sums = {"observed": found.observed, "expected": found.expected} if bent else {"expected": found.expected}
    frame = frame.with_columns([pl.Series(name, values) for name, values in sums.items()])
    return Table(frame, counts=("people", "events"), behind=dict.fromkeys(sums, "events"))
