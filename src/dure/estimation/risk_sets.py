"""Cox's partial likelihood where all risk sets are at one place: its sums, score residuals, and time-varying effects.

Rows are sorted once, by stratum and from the latest time back, so that every risk set is a run of rows and its sums
are cumulated from the start. The Hessian Σ_t (S2/S0 − S1·S1ᵀ/S0²) needs no matrix per time: its first part is one
cross-product of all rows, each weighted by the hazard cumulated while it was at risk, its second one cross-product
of the risk sets' means. (Cox 1972; Therneau & Grambsch 2000, chapter 3, for the sums; `tied_events` for ties.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from dure.estimation.tied_events import Steps, Ties, steps

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Places = NDArray[np.int64]

BLOCK = 4096
"""Rows per block: a block of 20 columns stays in a core's own cache."""
BLAS = ThreadpoolController()
SMALLEST = 1e-140
"""A relative hazard below this, beside 1, has a square that is no number any more."""
OVERFLOWN = 1e300
"""Stands for an infinite deviance: a step so far that it has to be halved."""


@dataclass(frozen=True, repr=False)
class RiskSets:
    """n rows, by stratum and from the latest time back; D event times in the same order.

    `x` (p, n) deviations from the stratum's mean; `order` (n,) where each row stood before. `strata` (S + 1,) where
    strata begin. `event_rows` (E,) rows with the event, `event_at` (E,) their event times. Of each event time: `time`,
    `events` (how many), `mean_weight`, `leave` (rows from 0 whose time is not before it), `begin` (where its stratum
    begins). Of each row: the event times at which it is at risk, `first` ≤ index < `last`. With entry times,
    `entry_order` sorts rows by stratum and from the latest entry back, and `entered` counts those not yet in at an
    event time.
    """

    x: Matrix
    weights: Vector
    offset: Vector | None
    order: Places
    strata: Places
    event_rows: Places
    event_at: Places
    time: Vector
    events: Places
    mean_weight: Vector
    leave: Places
    begin: Places
    first: Places
    last: Places
    entry_order: Places | None
    entered: Places | None

    @property
    def tied(self) -> NDArray[np.bool_]:
        """(E,) event rows that share their time with another."""
        return np.asarray(self.events[self.event_at] > 1)

    def compared(self) -> NDArray[np.bool_]:
        """(n,) rows that are at risk together with another one when an event happens: the others add nothing."""
        several = self.leave - (self.begin if self.entered is None else self.entered) > 1
        return np.asarray(_between(several.astype(np.float64), self) > 0.5)


@dataclass(frozen=True, repr=False)
class AtRisk:
    """Everything at one β: `relative` (n,) hazards, `eta` (n,), risk-set sums S1 (p, D) and, of times with several
    events, E1 (p, D') with their indices `shared`; and the sums over ties."""

    eta: Vector
    relative: Vector
    s1: Matrix
    e1: Matrix
    shared: Places
    steps: Steps


def risk_sets(
    x: Matrix,
    time: Vector,
    event: NDArray[np.bool_],
    stratum: Places,
    weights: Vector | None = None,
    offset: Vector | None = None,
    entry: Vector | None = None,
) -> RiskSets:
    """Sort rows and find every risk set. `x` (p, n), the others (n,); `stratum` counts from 0."""
    n = x.shape[1]
    order = np.lexsort((-time, stratum)) if stratum.any() else np.argsort(-time, kind="stable")
    time, event, stratum = time[order], event[order], stratum[order]
    strata = np.flatnonzero(np.concatenate(([True], stratum[1:] != stratum[:-1], [True]))) if n else np.zeros(1, int)
    apart = np.concatenate(([0], np.cumsum((np.diff(time) != 0) | (np.diff(stratum) != 0)))) if n else np.zeros(0, int)
    event_rows = np.flatnonzero(event)
    keys, starts, events = np.unique(apart[event_rows], return_index=True, return_counts=True)
    own = np.ones(n) if weights is None else weights[order]
    sizes = np.diff(strata)
    of_row = np.repeat(np.arange(len(sizes)), sizes)
    of_event = of_row[event_rows[starts]]
    times = time[event_rows[starts]]
    begin, end = strata[of_event], np.searchsorted(of_event, of_row, side="right")
    entry_order = entered = None
    if entry is not None:
        entry_order = np.lexsort((-entry[order], of_row))
        end, entered = _entries(entry[order], entry_order, strata, of_event, times)
    return RiskSets(
        x=_centred(np.take(x, order, axis=1), strata),
        weights=own,
        offset=None if offset is None else offset[order],
        order=order,
        strata=strata,
        event_rows=event_rows,
        event_at=np.repeat(np.arange(len(keys)), events),
        time=times,
        events=events.astype(np.int64),
        mean_weight=np.add.reduceat(own[event_rows], starts) / events if len(keys) else np.zeros(0),
        leave=np.searchsorted(apart, keys, side="right"),
        begin=begin,
        first=np.searchsorted(keys, apart, side="left"),
        last=end,
        entry_order=entry_order,
        entered=entered,
    )


def _centred(x: Matrix, strata: Places) -> Matrix:
    """In place; a column that is constant within a stratum becomes exactly 0 there: it says nothing."""
    for row in x:
        for start, stop in pairwise(strata):
            part = row[start:stop]
            part -= part.mean() if (part != part[0]).any() else part[0]
    return x


def _entries(entry: Vector, order: Places, strata: Places, of_event: Places, times: Vector) -> tuple[Places, Places]:
    """Of each row, the first event time that is not after its entry; of each event time, how many enter at or after
    it (rows of earlier strata counted in, as in `leave`)."""
    last, entered = np.zeros(len(entry), dtype=np.int64), np.zeros(len(times), dtype=np.int64)
    for place, (start, stop) in enumerate(pairwise(strata)):
        here = slice(*np.searchsorted(of_event, [place, place + 1]))
        last[start:stop] = here.start + np.searchsorted(-times[here], -entry[start:stop], side="left")
        late = -entry[order[start:stop]]
        entered[here] = start + np.searchsorted(late, -times[here], side="right")
    return last, entered


def at_risk(sets: RiskSets, beta: Vector, ties: Ties) -> AtRisk | None:
    """Risk-set sums at `beta`; None where relative hazards overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        eta = beta @ sets.x if sets.offset is None else beta @ sets.x + sets.offset
        sizes = np.diff(sets.strata)
        if len(eta):  # only ratios within a stratum matter
            eta = eta - np.repeat(np.maximum.reduceat(eta, sets.strata[:-1]), sizes)
        relative = np.exp(eta) * sets.weights
    if not np.isfinite(eta).all():
        return None
    sums = _sums(sets, relative, np.arange(len(eta)), sets.leave, sets.begin)
    if sets.entry_order is not None and sets.entered is not None:
        sums = sums - _sums(sets, relative, sets.entry_order, sets.entered, sets.begin)
    s0, s1 = sums[0].astype(np.float64), sums[1:].astype(np.float64)
    e0 = np.zeros(len(s0))
    shared = np.flatnonzero(sets.events > 1)
    e1 = np.zeros((len(beta), len(shared)))
    if len(s0):
        starts = np.concatenate(([0], np.cumsum(sets.events)[:-1]))
        e0 = np.add.reduceat(relative[sets.event_rows], starts)
    if len(shared):
        rows = sets.event_rows[sets.tied]
        starts = np.concatenate(([0], np.cumsum(sets.events[shared])[:-1]))
        e1 = np.add.reduceat(sets.x[:, rows] * relative[rows], starts, axis=1)
    s0 = np.maximum(s0, e0)  # who has the event is at risk, whatever rounding says
    if not (e0 > SMALLEST).all():
        return None
    return AtRisk(eta, relative, s1, e1, shared, steps(s0, e0, sets.events, sets.mean_weight, ties))


def _sums(sets: RiskSets, relative: Vector, order: Places, ends: Places, begins: Places) -> Matrix:
    """(1 + p, D) sums of relative hazards, and of them times x, over rows `begins` to `ends` of `order`.

    Cumulated block by block. Where sums are taken from each other (strata, entries), in extended precision.
    """
    columns, people = sets.x.shape
    plain = sets.entry_order is None and len(sets.strata) <= 2
    kind = np.float64 if plain else np.longdouble
    places, where = (ends, None) if plain else np.unique(np.concatenate((begins, ends)), return_inverse=True)
    found = np.zeros((1 + columns, len(places)), dtype=kind)
    carried = np.zeros((1 + columns, 1), dtype=kind)
    block = np.empty((1 + columns, BLOCK))
    run = np.empty((1 + columns, BLOCK), dtype=kind)
    for start in range(0, people, BLOCK):
        stop = min(start + BLOCK, people)
        size = stop - start
        if sets.entry_order is None:
            weight, part = relative[start:stop], sets.x[:, start:stop]
        else:
            weight, part = relative[order[start:stop]], np.take(sets.x, order[start:stop], axis=1)
        block[0, :size] = weight
        np.multiply(part, weight, out=block[1:, :size])
        np.cumsum(block[:, :size], axis=1, out=run[:, :size])
        low, high = np.searchsorted(places, [start, stop], side="right")
        found[:, low:high] = run[:, places[low:high] - start - 1] + carried
        carried = carried + run[:, size - 1 : size]
    if where is None:
        return found
    return np.asarray(found[:, where[len(begins) :]] - found[:, where[: len(begins)]])


@dataclass(frozen=True, repr=False)
class CoxSums:
    """Log partial likelihood, gradient (p,) and information (p, p) at one β."""

    log_likelihood: float
    gradient: Vector
    hessian: Matrix


def sums_at(sets: RiskSets, beta: Vector, ties: Ties) -> CoxSums:
    """What one Newton step needs; an overflow is a likelihood of −OVERFLOWN/2 with nothing beside it."""
    at = at_risk(sets, beta, ties)
    if at is None:
        return CoxSums(-OVERFLOWN / 2, np.zeros(len(beta)), np.zeros((len(beta), len(beta))))
    own = sets.weights[sets.event_rows]
    likelihood = float(own @ at.eta[sets.event_rows]) - float(at.steps.log.sum())
    return CoxSums(likelihood, *score_and_information(sets, at, None))


def score_and_information(sets: RiskSets, at: AtRisk, multiplier: Vector | None) -> tuple[Vector, Matrix]:
    """Σ_t g(t)·(observed − expected) (p,) and Σ_t g(t)·variance (p, p) over event times; `multiplier` g (D,), or 1."""
    one = np.ones(len(sets.time)) if multiplier is None else multiplier
    hazard = cumulated(sets, at, one)
    weight = at.relative * hazard
    observed = sets.weights[sets.event_rows] * one[sets.event_at]
    columns, people = sets.x.shape
    gradient, hessian = np.zeros(columns), np.zeros((columns, columns))
    marked = np.zeros(people)
    marked[sets.event_rows] = observed
    for start in range(0, people, BLOCK):
        part = slice(start, start + BLOCK)
        x = sets.x[:, part]
        gradient += x @ (marked[part] - weight[part])
        hessian += (x * weight[part]) @ x.T
    hessian -= (at.s1 * (one * at.steps.twice[0])) @ at.s1.T
    if len(at.shared):
        mixed = (at.s1[:, at.shared] * (one * at.steps.twice[1])[at.shared]) @ at.e1.T
        hessian += mixed + mixed.T - (at.e1 * (one * at.steps.twice[2])[at.shared]) @ at.e1.T
    return gradient, (hessian + hessian.T) / 2


def cumulated(sets: RiskSets, at: AtRisk, multiplier: Vector) -> Vector:
    """(n,) hazard cumulated over the event times at which a row is at risk; at a shared time of its own, a row with
    the event is taken out step by step (Efron)."""
    found = _between(multiplier * at.steps.once[0], sets)
    if len(at.shared):
        found[sets.event_rows] -= (multiplier * at.steps.once[1])[sets.event_at]
    return np.asarray(np.maximum(found, 0.0) if (multiplier >= 0).all() else found)


def _between(values: Matrix, sets: RiskSets) -> Matrix:
    """(…, n) sums of (…, D) over the event times of each row."""
    after = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    after[..., :-1] = np.cumsum(values[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(after[..., sets.first] - after[..., sets.last])


def score_residuals(sets: RiskSets, at: AtRisk) -> Matrix:
    """(p, n) score residuals times weight, in the sorted order (Lin & Wei 1989; Therneau & Grambsch 2000, 4.3)."""
    s1, e1 = at.s1, np.zeros_like(at.s1)
    e1[:, at.shared] = at.e1
    once, twice = at.steps.once, at.steps.twice
    expected = _between(twice[0] * s1 - twice[1] * e1, sets)
    if len(at.shared):
        expected[:, sets.event_rows] -= (twice[1] * s1 - twice[2] * e1)[:, sets.event_at]
    found = at.relative * (expected - sets.x * cumulated(sets, at, np.ones(len(sets.time))))
    mean = (once[0] * s1 - once[1] * e1) / (sets.events * sets.mean_weight)
    found[:, sets.event_rows] += sets.weights[sets.event_rows] * (sets.x[:, sets.event_rows] - mean[:, sets.event_at])
    return np.asarray(found)


def clustered(residuals: Matrix, cluster: Places | None) -> Matrix:
    """(p, p) outer products of the residuals (p, n) summed within clusters, or of each row where none is given."""
    if cluster is not None:
        residuals = np.array([np.bincount(cluster, weights=row) for row in residuals]).reshape(len(residuals), -1)
    return np.asarray(residuals @ residuals.T)
