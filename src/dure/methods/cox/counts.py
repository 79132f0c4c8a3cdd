"""Who stands behind the sums of a Cox model: counted before anything else is sent, and again among the compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dure.estimation.interval_sums import IntervalRows
from dure.methods.cox.model import Model, fresh, gridded, sorted_rows
from dure.study.rows import Rows
from dure.study.summary import Summary

Places = NDArray[np.int64]


def counted(rows: Rows, model: Model) -> Summary:
    """The first round: who stands behind every number of the rounds to come, and the columns' sums."""
    data = fresh(rows, model)
    everyone = np.zeros(data.x.shape[1], dtype=np.int64)
    event = data.event
    found: Summary = {}
    if not model.parameters.by_hospital:
        on_grid = gridded(data, model, data.x)
        event = on_grid.event
        strata, intervals = model.shape
        for name, chosen in (("leaving", np.ones(len(event), dtype=bool)), ("interval_events", event)):
            cells = _people(on_grid.leaves[chosen], _of(data.person, chosen), strata * (intervals + 1))
            found[name] = cells.reshape(strata, intervals + 1)[:, :intervals]
        found |= _rows_on_grid(on_grid)
    weights = data.weights
    if data.offset is not None:
        found["sum_offset"] = np.array(data.offset.sum())
    if weights is not None:
        found["sum_ww"] = np.array(weights @ weights)
    time = np.log(data.time[event]) if model.parameters.schoenfeld == "log" else data.time[event]
    return {
        **found,
        "n": _people(everyone, data.person, 1)[0],
        "rows": np.array(len(everyone), dtype=np.int64),
        "people_with_event": _people(everyone[event], _of(data.person, event), 1)[0],
        "events": np.array(event.sum(), dtype=np.int64),
        "cells": _cells(rows, model, data.keep, data.person),
        "pairs": _pairs(rows, model, data.keep, data.x, data.person),
        "sum_x": data.x.sum(axis=1) if weights is None else data.x @ weights,
        "sum_w": np.array(float(len(everyone)) if weights is None else weights.sum()),
        "event_time": np.array(time.sum()),
    }


def _rows_on_grid(rows: IntervalRows) -> Summary:
    """(S, T) rows at risk at the end of each interval, rows that leave in it, and events."""
    strata, intervals = rows.shape

    def per_interval(codes: Places) -> Places:
        return np.bincount(codes, minlength=strata * (intervals + 1)).reshape(strata, intervals + 1)

    leaving, entering = per_interval(rows.leaves), per_interval(rows.enters)
    inside = np.cumsum(entering, axis=1)
    inside[:, 1:] -= np.cumsum(leaving, axis=1)[:, :-1]
    found = {"at_risk": inside, "leaving_rows": leaving, "event_rows": per_interval(rows.leaves[rows.event])}
    return {name: counts[:, :intervals].astype(np.int64) for name, counts in found.items()}


def _of(values: Places | None, chosen: NDArray[np.bool_]) -> Places | None:
    return None if values is None else values[chosen]


def _people(codes: Places, person: Places | None, size: int) -> Places:
    """(size,) people per code, each counted once however many rows they have there."""
    if person is not None:
        codes = np.unique(person * size + codes) % size
    return np.bincount(codes, minlength=size).astype(np.int64)


def _cells(rows: Rows, model: Model, keep: NDArray[np.bool_], person: Places | None) -> Places:
    if person is None:
        return model.design.count_cells(rows, keep)
    codes = {index: model.design.factors[index].codes(rows)[keep] for index in model.design.discrete()}
    found = [np.zeros(0, dtype=np.int64)]
    for group in model.design.cells().factors:
        sizes = [len(model.design.factors[index].levels) for index in group]
        flat = np.ravel_multi_index([codes[index] for index in group], sizes)
        found.append(_people(np.asarray(flat, dtype=np.int64), person, int(np.prod(sizes))))
    return np.concatenate(found)


def _pairs(rows: Rows, model: Model, keep: NDArray[np.bool_], x: NDArray[np.float64], person: Places | None) -> Places:
    if person is None:
        return model.design.count_pairs(rows, keep, x)
    pairs, present = model.design.numeric_pairs(), model.design.support_rows(rows, keep, x) != 0
    return np.array([len(np.unique(person[present[j] & present[k]])) for j, k in pairs], dtype=np.int64)


def compared(rows: Rows, model: Model, x: NDArray[np.float64]) -> Summary:
    """The counts again, of people who are at risk together with somebody else when an event happens: in strata of one
    person, or before the first event, nobody adds anything, and sums would stand on the others alone."""
    sets, data = sorted_rows(rows, model)
    inside = np.zeros(len(sets.order), dtype=bool)
    inside[sets.order] = sets.compared()
    chosen = np.zeros(rows.n, dtype=bool)
    chosen[np.flatnonzero(data.keep)[inside]] = True
    person, event = _of(data.person, inside), inside & data.event
    return {
        "compared": _people(np.zeros(int(inside.sum()), dtype=np.int64), person, 1)[0],
        "compared_events": _people(np.zeros(int(event.sum()), dtype=np.int64), _of(data.person, event), 1)[0],
        "compared_cells": _cells(rows, model, chosen, person),
        "compared_pairs": _pairs(rows, model, chosen, x if inside.all() else x[:, inside], person),
    }
