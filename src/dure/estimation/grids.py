"""Time grids and bins: places of times on a grid, and merging neighbours until enough people stand behind each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEAR = 1e-12
"""Times that differ by less than this share are one time: 0.1 + 0.2 lies on the grid point 0.3."""


def joined_points(points: NDArray[np.float64], more: Sequence[float]) -> NDArray[np.float64]:
    """(T,) grid points with further ones among them, each once."""
    found = np.unique(np.concatenate([points, np.asarray(more, dtype=np.float64)]))
    apart = np.concatenate([[True], np.diff(found) > NEAR * found[1:]])
    return np.asarray(found[apart])


def leaving_places(points: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) the interval in which each time falls, its end included; T for times beyond the last point."""
    return np.asarray(np.searchsorted(points, times * (1 - NEAR), side="left"), dtype=np.int64)


def entry_places(points: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) the first interval in which someone who enters then is at risk: whoever enters within an interval is
    taken as entering at its beginning, so that nobody is lost who enters and leaves in the same one."""
    return np.asarray(np.searchsorted(points, times * (1 + NEAR), side="right"), dtype=np.int64)


def merge_until(counts: NDArray[np.float64], minimum: int) -> list[slice]:
    """Runs of neighbouring columns in which every row of `counts` (classes, bins) reaches `minimum`.

    Greedy from the left; what is left over at the end joins the last run. With `minimum` 0 nothing merges.
    If even all bins together do not reach it, there is one run.
    """
    runs: list[slice] = []
    start, bins = 0, counts.shape[1]
    so_far = np.zeros(counts.shape[0])
    for end in range(1, bins + 1):
        so_far = so_far + counts[:, end - 1]
        if (so_far >= minimum).all():
            runs.append(slice(start, end))
            start, so_far = end, np.zeros(counts.shape[0])
    if start < bins:
        runs = [*runs[:-1], slice(runs[-1].start if runs else 0, bins)]
    return runs


def merge_towards(counts: NDArray[np.float64], minimum: int, wanted: Sequence[int]) -> list[slice]:
    """As `merge_until`, but runs end after the `wanted` columns wherever each side then reaches `minimum`.

    What is left over after the last wanted end belongs to no run: its count would follow from the total.
    """
    runs: list[slice] = []
    start = 0
    for place in sorted(set(wanted)):
        if place < start:
            continue
        if (counts[:, start : place + 1].sum(axis=1) >= minimum).all():
            runs += [
                slice(run.start + start, run.stop + start) for run in merge_until(counts[:, start : place + 1], minimum)
            ]
            start = place + 1
    if start >= counts.shape[1]:
        return runs
    rest = counts[:, start:]
    if not runs or (rest.sum(axis=1) >= minimum).all():
        runs += [slice(run.start + start, run.stop + start) for run in merge_until(rest, minimum)]
    return runs
