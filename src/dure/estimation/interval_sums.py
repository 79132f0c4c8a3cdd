"""Cox's partial likelihood on a grid of times: risk-set sums per interval, which add over hospitals.

Times are moved up to the end of their interval (an event counts there, those who leave are at risk there); an entry
is moved up too, but never past the beginning of the row's own last interval, so that nobody is lost. The sums over
all hospitals give the pooled Cox model of people with these times. Matrices are sent as their lower triangles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dure.estimation.tied_events import Steps, Ties, steps

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Places = NDArray[np.int64]

CHUNK = 65_536
"""Rows of one cross-product: bounded memory, however many leave in one interval."""
LARGEST = 1e140
"""The square of a sum of relative hazards stands in the information; beyond this it is no number."""
NEARLY = 1e-12
"""A time this close above a grid point is that point: 0.1 · 3 is 0.3."""


@dataclass(frozen=True, repr=False)
class IntervalRows:
    """Rows on a grid of T intervals in S strata: `x` (p, n) centred; `leaves` (n,) = stratum·(T + 1) + the last
    interval in which a row is at risk (T: beyond the grid); `enters` likewise the first one; `event` (n,) on the grid.
    """

    x: Matrix
    weights: Vector
    offset: Vector | None
    leaves: Places
    enters: Places
    event: NDArray[np.bool_]
    shape: tuple[int, int]


def interval_of(points: Vector, time: Vector) -> Places:
    """(n,) the interval (…, points[i]] that holds each time; T beyond the last one."""
    return np.asarray(np.searchsorted(points, time - np.abs(time) * NEARLY, side="left"), dtype=np.int64)


def first_interval(points: Vector, entry: Vector, last: Places) -> Places:
    """(n,) the first interval at whose end a row entering then is at risk."""
    entered = np.where(entry <= 0, 0, interval_of(points, entry) + 1)
    return np.asarray(np.minimum(entered, last))


def size_of_triangle(columns: int) -> int:
    return columns * (columns + 1) // 2


def square(triangles: Matrix, columns: int) -> Matrix:
    """(…, p, p) symmetric matrices from (…, p·(p + 1)/2) lower triangles."""
    rows, across = np.tril_indices(columns)
    full = np.zeros((*triangles.shape[:-1], columns, columns))
    full[..., rows, across] = triangles
    full[..., across, rows] = triangles
    return full


@dataclass(frozen=True, repr=False)
class PowerSums:
    """Σ w, Σ w·x, Σ w·x·xᵀ per stratum and interval: (S, T), (S, T, p), (S, T, p·(p + 1)/2)."""

    zeroth: Matrix
    first: NDArray[np.float64]
    second: NDArray[np.float64]


def relative_hazards(rows: IntervalRows, beta: Vector) -> Vector | None:
    """(n,) weight × exp(linear predictor); None where it overflows."""
    with np.errstate(over="ignore"):
        eta = beta @ rows.x if rows.offset is None else beta @ rows.x + rows.offset
        relative = np.exp(eta) * rows.weights
    return relative if np.isfinite(relative).all() and relative.sum() < LARGEST else None


def risk_sums(rows: IntervalRows, relative: Vector) -> PowerSums:
    """Sums over those at risk at the end of each interval."""
    strata, intervals = rows.shape
    everyone = np.arange(len(relative))
    leave = _grouped(rows.x, relative, rows.leaves, everyone, strata * (intervals + 1))
    later = np.flatnonzero(rows.enters % (intervals + 1) > 0)
    enter = _grouped(rows.x, relative, rows.enters - 1, later, strata * (intervals + 1))
    found = []
    for leaving, entering in zip(leave, enter):
        each = (leaving - entering).reshape(strata, intervals + 1, -1)
        found.append(np.cumsum(each[:, ::-1], axis=1)[:, ::-1][:, :intervals])
    return PowerSums(found[0][..., 0], found[1], found[2])


def event_sums(rows: IntervalRows, weights: Vector) -> PowerSums:
    """Sums over those with the event in each interval."""
    strata, intervals = rows.shape
    found = _grouped(rows.x, weights, rows.leaves, np.flatnonzero(rows.event), strata * (intervals + 1))
    shaped = [values.reshape(strata, intervals + 1, -1)[:, :intervals] for values in found]
    return PowerSums(shaped[0][..., 0], shaped[1], shaped[2])


def _grouped(x: Matrix, weights: Vector, group: Places, chosen: Places, groups: int) -> tuple[Matrix, Matrix, Matrix]:
    """(groups, 1), (groups, p), (groups, p·(p + 1)/2) sums over the chosen rows of each group."""
    columns = len(x)
    triangle = np.tril_indices(columns)
    sums = (np.zeros((groups, 1)), np.zeros((groups, columns)), np.zeros((groups, size_of_triangle(columns))))
    for place, rows in _runs(group, chosen):
        part, weight = np.take(x, rows, axis=1), weights[rows]
        weighted = part * weight
        sums[0][place] += weight.sum()
        sums[1][place] += weighted.sum(axis=1)
        sums[2][place] += (weighted @ part.T)[triangle]
    return sums


def _runs(group: Places, chosen: Places) -> Iterator[tuple[int, Places]]:
    """Rows of one group after the other, at most CHUNK at a time."""
    order = chosen[np.argsort(group[chosen], kind="stable")]
    sorted_groups = group[order]
    edges = np.flatnonzero(np.diff(sorted_groups, prepend=-1, append=-1)) if len(order) else np.zeros(0, dtype=np.int64)
    for start, stop in pairwise(edges):
        for begin in range(start, stop, CHUNK):
            yield int(sorted_groups[start]), order[begin : min(begin + CHUNK, stop)]


@dataclass(frozen=True, repr=False)
class Intervals:
    """The pooled sums at one β, flattened to the I cells (stratum, interval) in which there was an event.

    `cells` (I,) their places; `time` index; S0, S1 (I, p), S2 (I, p, p) of those at risk; E0, E1, E2 likewise of those
    with the event (zero for Breslow); `events` (I,), `mean_weight` (I,).
    """

    cells: Places
    s: tuple[Vector, Matrix, NDArray[np.float64]]
    e: tuple[Vector, Matrix, NDArray[np.float64]]
    events: Places
    mean_weight: Vector
    steps: Steps


def intervals(at_risk: PowerSums, of_events: PowerSums, events: Places, weight: Matrix, ties: Ties) -> Intervals:
    """`events` (S, T) how many; `weight` (S, T) the sum of their weights."""
    columns = at_risk.first.shape[-1]
    cells = np.flatnonzero(events.ravel() > 0)

    def flat(sums: PowerSums) -> tuple[Vector, Matrix, NDArray[np.float64]]:
        second = sums.second.reshape(-1, sums.second.shape[-1])[cells]
        return sums.zeroth.ravel()[cells], sums.first.reshape(-1, columns)[cells], square(second, columns)

    s, e = flat(at_risk), flat(of_events)
    many = events.ravel()[cells].astype(np.int64)
    mean = weight.ravel()[cells] / many
    return Intervals(cells, s, e, many, mean, steps(np.maximum(s[0], e[0]), e[0], many, mean, ties))


def expected(found: Intervals) -> Matrix:
    """(I, p) what the model expects the events' x to sum to."""
    once = found.steps.once
    return np.asarray(once[0][:, None] * found.s[1] - once[1][:, None] * found.e[1])


def variances(found: Intervals) -> NDArray[np.float64]:
    """(I, p, p) each interval's part of the information."""
    once, twice = found.steps.once, found.steps.twice
    (_, s1, s2), (_, e1, e2) = found.s, found.e
    mixed = np.einsum("i,ij,ik->ijk", twice[1], s1, e1)
    return np.asarray(
        once[0][:, None, None] * s2
        - once[1][:, None, None] * e2
        - np.einsum("i,ij,ik->ijk", twice[0], s1, s1)
        + mixed
        + mixed.transpose(0, 2, 1)
        - np.einsum("i,ij,ik->ijk", twice[2], e1, e1)
    )


@dataclass(frozen=True, repr=False)
class Told:
    """What hospitals are told of the pooled sums for residuals, spread over all (S, T) cells, zero where nobody had
    the event: `hazard`, `own_hazard` (S, T); `mean`, `mean_hazard`, `own_mean_hazard` (S, T, p)."""

    hazard: Matrix
    own_hazard: Matrix
    mean: NDArray[np.float64]
    mean_hazard: NDArray[np.float64]
    own_mean_hazard: NDArray[np.float64]


def told(found: Intervals, shape: tuple[int, int]) -> Told:
    once, (a0, a1, a2) = found.steps.once, (value[:, None] for value in found.steps.twice)
    s1, e1 = found.s[1], found.e[1]
    columns = s1.shape[1]

    def spread(values: Matrix) -> NDArray[np.float64]:
        full = np.zeros((shape[0] * shape[1], *values.shape[1:]))
        full[found.cells] = values
        return full.reshape(*shape, *values.shape[1:])

    mean = expected(found) / (found.events * found.mean_weight)[:, None]
    assert mean.shape[1] == columns
    return Told(spread(once[0]), spread(once[1]), spread(mean), spread(a0 * s1 - a1 * e1), spread(a1 * s1 - a2 * e1))


def residuals(rows: IntervalRows, relative: Vector, pooled: Told) -> Matrix:
    """(p, n) score residuals times weight against the pooled risk sets (Lin & Wei 1989)."""
    strata, intervals_ = rows.shape

    def between(values: NDArray[np.float64]) -> NDArray[np.float64]:
        before = np.zeros((strata, intervals_ + 2, *values.shape[2:]))
        before[:, 1 : intervals_ + 1] = np.cumsum(values, axis=1)
        before[:, intervals_ + 1] = before[:, intervals_]
        flat = before.reshape(strata * (intervals_ + 2), *values.shape[2:])
        stratum = rows.leaves // (intervals_ + 1)
        found = flat[rows.leaves + stratum + 1] - flat[rows.enters + stratum]
        return np.asarray(found.T)

    hazard, mean = between(pooled.hazard), between(pooled.mean_hazard)
    events = np.flatnonzero(rows.event)
    cell = rows.leaves[events] - rows.leaves[events] // (intervals_ + 1)  # without the places beyond the grid
    hazard[events] -= pooled.own_hazard.ravel()[cell]
    mean[:, events] -= pooled.own_mean_hazard.reshape(-1, len(rows.x))[cell].T
    found = relative * (mean - rows.x * hazard)
    average = pooled.mean.reshape(-1, len(rows.x))[cell].T
    found[:, events] += rows.weights[events] * (rows.x[:, events] - average)
    return np.asarray(found)
