"""Levels of one column merged until enough people stand behind each: the setting that a refusal names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.study.method import Question


def merged_levels(
    question: Question, column: str, people: NDArray[Any], minimum: int, levels: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The parameter `levels` with `column` coarser, or None where fewer than two levels would be left.

    `people` (L,) or (L, …) by the levels that the step has now (every cell of a level has to reach `minimum`), and
    `levels` what the step says of levels now: its cut points are taken out, its merged levels merged further. Intervals
    of a number merge with a neighbour; other levels, the smallest first, with the next smallest.
    """
    now = question.column(column).levels
    if column == "site" or len(now) < 3:
        return None
    cells = np.asarray(people).reshape(len(now), -1)
    said = dict(levels or {})
    how = said.get(column)
    if how is not None and not isinstance(how, Mapping) and all(isinstance(item, int | float) for item in how):
        cuts = _fewer_cuts(list(how), cells, minimum)
        return {**said, column: cuts} if cuts else None
    groups = _smallest_together(cells, minimum)
    if len(groups) < 2:
        return None
    olds = {level: _old(level, how) for level in now}
    merged = {
        " or ".join(now[place] for place in places): [old for place in places for old in olds[now[place]]]
        for places in groups
    }
    kept = len(groups) == len(now)
    return None if kept else {**said, column: merged}


def _old(level: str, how: Any) -> Sequence[str]:
    return tuple(how[level]) if isinstance(how, Mapping) and level in how else (level,)


def _fewer_cuts(cuts: list[float], cells: NDArray[Any], minimum: int) -> list[float]:
    """Cut points without those beside an interval that is too small, from the left; the last ones go where the end
    stays too small."""
    kept: list[float] = []
    so_far = np.zeros(cells.shape[1])
    for place, counts in enumerate(cells):
        so_far = so_far + counts
        if place < len(cuts) and (so_far >= minimum).all():
            kept.append(cuts[place])
            so_far = np.zeros(cells.shape[1])
    return kept if (so_far >= minimum).all() else kept[:-1]


def _smallest_together(cells: NDArray[Any], minimum: int) -> list[list[int]]:
    groups = [[place] for place in range(len(cells))]
    while len(groups) > 1:
        sums = [cells[places].sum(axis=0) for places in groups]
        order = sorted(range(len(groups)), key=lambda index: (int(sums[index].min()), index))
        if (sums[order[0]] >= minimum).all():
            break
        one, other = sorted(order[:2])
        groups[one] = sorted(groups[one] + groups[other])
        del groups[other]
    return groups


def fewer_levels(question: Question, column: str, most: int, levels: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The parameter `levels` with neighbouring levels of `column` merged until at most `most` are left, or None where
    that leaves fewer than two."""
    now = question.column(column).levels
    if column == "site" or most < 2 or len(now) <= most:
        return None
    edges = np.linspace(0, len(now), most + 1).round().astype(int)
    said = dict(levels or {})
    how = said.get(column)
    if how is not None and not isinstance(how, Mapping) and all(isinstance(item, int | float) for item in how):
        return {**said, column: [how[place - 1] for place in edges[1:-1]]}
    parts = [now[low:high] for low, high in pairwise(edges)]
    return {**said, column: {" or ".join(part): [old for level in part for old in _old(level, how)] for part in parts}}
