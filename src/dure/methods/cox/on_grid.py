"""The global Cox model: what hospitals send per interval of the declared grid, and what the hub makes of its sum."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.estimation.grids import merge_until
from dure.estimation.interval_sums import (
    IntervalRows,
    Intervals,
    PowerSums,
    Told,
    event_sums,
    expected,
    intervals,
    relative_hazards,
    residuals,
    risk_sums,
    size_of_triangle,
    told,
    variances,
)
from dure.estimation.risk_sets import OVERFLOWN, CoxSums, clustered
from dure.methods.cox.model import Model
from dure.methods.cox.parameters import Transform
from dure.study.result import Table
from dure.study.summary import ArraySpec, Declaration, Summary, Total

Vector = NDArray[np.float64]
Spec = Callable[..., ArraySpec]
CONSTANT_WITHIN = 1e-11
"""Share of a column's squares, about the pooled mean, that is left within strata where it varies there at all."""
TOLD = ("hazard", "own_hazard", "mean", "mean_hazard", "own_mean_hazard")


def interval_labels(model: Model) -> tuple[str, ...]:
    """Of every (stratum, interval), one after the other."""
    edges = [0.0, *model.parameters.points().tolist()]
    times = [f"({start:g}, {end:g}]" for start, end in pairwise(edges)]
    return tuple(
        f"{name} & {model.parameters.time} {time}" if name else f"{model.parameters.time} {time}"
        for name in model.stratum_names()
        for time in times
    )


def declared_counts(model: Model, array: Spec) -> Declaration:
    """Enough people have to leave in every interval of every stratum before any sum at risk is sent: sums at risk of
    neighbouring intervals differ by those who leave. Sums of those with the event need enough of them."""
    labels, shape = interval_labels(model), model.shape
    exact = model.parameters.ties == "efron" or model.parameters.schoenfeld is not None
    return (
        array("leaving", shape, "count", on_small="refuse", labels=labels),
        array("interval_events", shape, "count", on_small="refuse" if exact else "suppress", labels=labels),
        array("event_rows", shape, "count"),
        array("at_risk", shape, "count"),
        array("leaving_rows", shape, "count"),
    )


def declared_sums(model: Model, array: Spec) -> Declaration:
    p, shape = model.columns, model.shape
    triangle = size_of_triangle(p)
    behind: dict[str, Any] = {"people": ("leaving",)}
    found = [
        array("s0", shape, "moment", **behind),
        array("s1", (*shape, p), "moment", **behind),
        array("s2", (*shape, triangle), "moment", **behind),
        array("event_weight", shape, "moment", people=("interval_events",)),
        array("event_x", (p,), "moment", people=("people_with_event",)),
        array("event_offset", (), "moment", people=("people_with_event",)),
        array("overflown", (), "moment", people=("n",)),
    ]
    if model.parameters.ties == "efron":
        events: dict[str, Any] = {"people": ("interval_events",)}
        found += [
            array("e0", shape, "moment", **events),
            array("e1", (*shape, p), "moment", **events),
            array("e2", (*shape, triangle), "moment", **events),
        ]
    if model.parameters.schoenfeld:
        found.append(array("events_x", (*shape, p), "moment", people=("interval_events",)))
    return tuple(found)


def sums(model: Model, rows: IntervalRows, beta: Vector) -> Summary:
    """One round of one hospital. `overflown`: relative hazards are no numbers, and the step has to be halved."""
    relative = relative_hazards(rows, beta)
    hazards = np.zeros(len(rows.weights)) if relative is None else relative
    at_risk, observed = risk_sums(rows, hazards), event_sums(rows, rows.weights)
    offset = 0.0 if rows.offset is None else float(rows.weights[rows.event] @ rows.offset[rows.event])
    found: Summary = {
        "s0": at_risk.zeroth,
        "s1": at_risk.first,
        "s2": at_risk.second,
        "event_weight": observed.zeroth,
        "event_x": observed.first.sum(axis=(0, 1)),
        "event_offset": np.array(offset),
        "overflown": np.array(float(relative is None)),
    }
    if model.parameters.ties == "efron":
        of_events = event_sums(rows, hazards)
        found |= {"e0": of_events.zeroth, "e1": of_events.first, "e2": of_events.second}
    if model.parameters.schoenfeld:
        found["events_x"] = observed.first
    return found


def pooled(model: Model, total: Total, events: NDArray[np.int64]) -> Intervals:
    """The total as intervals with events; `events` (S, T) how many."""
    at_risk = PowerSums(total["s0"], total["s1"], total["s2"])
    of_events = PowerSums(*(np.zeros_like(values) for values in (at_risk.zeroth, at_risk.first, at_risk.second)))
    if model.parameters.ties == "efron":
        of_events = PowerSums(total["e0"], total["e1"], total["e2"])
    return intervals(at_risk, of_events, events, total["event_weight"], model.parameters.ties)


def newton_sums(
    model: Model, total: Total, events: NDArray[np.int64], beta: Vector
) -> tuple[CoxSums, Intervals | None]:
    columns = model.columns
    if float(total["overflown"]) or not (total["s0"][events > 0] > 0).all():
        return CoxSums(-OVERFLOWN / 2, np.zeros(columns), np.zeros((columns, columns))), None
    found = pooled(model, total, events)
    likelihood = float(beta @ total["event_x"] + total["event_offset"] - found.steps.log.sum())
    gradient = total["event_x"] - expected(found).sum(axis=0)
    return CoxSums(likelihood, gradient, variances(found).sum(axis=0)), found


def says_nothing(found: Intervals, hessian: NDArray[Any]) -> NDArray[np.bool_]:
    """(p,) columns that are constant within every stratum: what is left of their squares is rounding."""
    squares = found.steps.once[0] @ np.einsum("ijj->ij", found.s[2])
    return np.asarray(np.diag(hessian) <= CONSTANT_WITHIN * squares)


def tell(found: Intervals, shape: tuple[int, int]) -> dict[str, Any]:
    """What hospitals need of the pooled sums for their score residuals."""
    values = told(found, shape)
    return {name: getattr(values, name) for name in TOLD}


def meat(rows: IntervalRows, beta: Vector, state: dict[str, Any], cluster: NDArray[np.int64] | None) -> NDArray[Any]:
    """(p, p) this hospital's outer products of score residuals."""
    relative = relative_hazards(rows, beta)
    hazards = np.zeros(len(rows.weights)) if relative is None else relative
    return clustered(residuals(rows, hazards, Told(*(np.asarray(state[name]) for name in TOLD))), cluster)


def time_varying(
    model: Model, total: Total, found: Intervals, counts: dict[str, NDArray[np.int64]], transform: Transform
) -> tuple[Vector, NDArray[Any], NDArray[Any]]:
    """Score (p,) and information blocks (p, p) of effects that change with g(time), at the estimate."""
    intervals_ = model.shape[1]
    g = _transformed(model, counts, transform)[found.cells % intervals_]
    g = g - float(np.average(g, weights=found.events))
    observed = total["events_x"].reshape(-1, model.columns)[found.cells]
    each = variances(found)
    score = g @ (observed - expected(found))
    return score, np.einsum("i,ijk->jk", g, each), np.einsum("i,ijk->jk", g**2, each)


def _transformed(model: Model, counts: dict[str, NDArray[np.int64]], transform: Transform) -> Vector:
    """(T,) g at the grid points: of `km`, 1 − the survival curve just before; of `rank`, the mean rank among rows."""
    points = model.parameters.points()
    if transform == "identity":
        return points
    if transform == "log":
        return np.asarray(np.log(points))
    if transform == "rank":
        leaving = counts["leaving_rows"].sum(axis=0)
        return np.asarray(np.cumsum(leaving) - leaving + (leaving + 1) / 2)
    at_risk, events = (counts[name].sum(axis=0).astype(np.float64) for name in ("at_risk", "event_rows"))
    left = np.cumprod(np.where(at_risk > 0, 1 - events / np.maximum(at_risk, 1), 1.0))
    return np.asarray(1 - np.concatenate(([1.0], left[:-1])))


def hazards(model: Model, found: Intervals) -> NDArray[np.float64]:
    """(S, T) steps of the baseline hazard."""
    steps = np.zeros(model.shape[0] * model.shape[1])
    steps[found.cells] = found.steps.once[0]
    return steps.reshape(model.shape)


def baseline(model: Model, hazard: NDArray[np.float64], counts: dict[str, NDArray[np.int64]], minimum: int) -> Table:
    """The cumulative baseline hazard of people with the mean of every column and no offset, at the ends of intervals
    widened until enough events stand behind each step (Breslow 1974; Efron's steps where ties are Efron's)."""
    cumulated = np.cumsum(hazard, axis=1)
    frames = []
    for place, name in enumerate(model.stratum_names()):
        events, at_risk = counts["event_rows"][place], counts["at_risk"][place]
        runs = merge_until(counts["interval_events"][place][None, :].astype(np.float64), minimum)
        ends = [run.stop - 1 for run in runs]
        frames.append(
            pl.DataFrame(
                {
                    "stratum": [name] * len(runs),
                    "time": model.parameters.points()[ends],
                    "at_risk": at_risk[[run.start for run in runs]],
                    "events": np.array([events[run].sum() for run in runs], dtype=np.int64),
                    "hazard": cumulated[place, ends],
                    "survival": np.exp(-cumulated[place, ends]),
                }
            )
        )
    return Table(
        pl.concat(frames),
        counts=("at_risk", "events"),
        behind={"hazard": "events", "survival": "events"},
        derived=("time", "survival"),
    )


def merged_grid(model: Model, arrays: Summary, minimum: int) -> list[float] | None:
    """The finest merged grid on which enough people leave in every interval of every stratum, and have the event
    where that is asked; None where not even one interval would do."""
    exact = model.parameters.ties == "efron" or model.parameters.schoenfeld is not None
    counts = np.asarray(arrays["leaving"], dtype=np.float64)
    if exact:
        counts = np.concatenate((counts, np.asarray(arrays["interval_events"], dtype=np.float64)))
    runs = merge_until(counts, minimum)
    if any((counts[:, run].sum(axis=1) < minimum).any() for run in runs):
        return None
    points = model.parameters.points()
    return [float(f"{points[run.stop - 1]:.13g}") for run in runs]  # far closer than a time can be to a point
