"""Nearest-neighbour matching without replacement, in a stated order, in time that grows as n log n.

Free controls are found on a sorted list: two chains that jump over those already taken (union-find, Tarjan 1975) give
the nearest free one on either side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Whole = NDArray[np.int64]
NOBODY = -1


def matched_sets(
    treated: Vector,
    treated_person: Whole,
    order: Whole,
    control: Vector,
    control_person: Whole,
    ratio: int,
    width: float,
) -> Whole:
    """(treated, ratio) the index of each matched control, NOBODY where there is none within `width`.

    `order` lists the treated as they choose; everybody chooses once before anybody chooses again. Each takes the
    nearest free control; of controls equally near, the one with the smallest person number.
    """
    places = np.lexsort((control_person, control))
    values, people = control[places].tolist(), control_person[places].tolist()
    count = len(values)
    first = np.searchsorted(control[places], control[places], side="left").tolist()
    begin = np.searchsorted(control[places], treated, side="left").tolist()
    after, before = list(range(count + 1)), list(range(count + 1))  # before[i + 1] is of place i; before[0] is the end
    sets = np.full((len(treated), ratio), NOBODY, dtype=np.int64)
    own = treated.tolist()
    for turn in range(ratio):
        for one in order.tolist():
            if turn and sets[one, turn - 1] == NOBODY:
                continue
            mine = own[one]
            right, left = _free(after, begin[one]), _free(before, begin[one]) - 1
            if left >= 0:  # the first free one of those with the same score
                left = _free(after, first[left])
            far = values[right] - mine if right < count else np.inf
            near = mine - values[left] if left >= 0 else np.inf
            if min(far, near) > width or (right == count and left < 0):
                continue
            chosen = right if far < near or (far == near and people[right] < people[left]) else left
            sets[one, turn] = places[chosen]
            after[chosen], before[chosen + 1] = chosen + 1, chosen
    return sets


def _free(chain: list[int], place: int) -> int:
    """Where the chain from `place` ends; what was walked is shortened."""
    end = place
    while chain[end] != end:
        end = chain[end]
    while chain[place] != end and place != end:
        chain[place], place = end, chain[place]
    return end


def strata(columns: Sequence[Whole], people: int) -> tuple[Whole, int]:
    """(n,) a number for each combination of codes, and how many there are; −1 where a code is missing."""
    if not columns:
        return np.zeros(people, dtype=np.int64), 1
    codes = np.stack(columns)
    known = (codes >= 0).all(axis=0)
    found = np.full(people, -1, dtype=np.int64)
    _, places = np.unique(codes[:, known], axis=1, return_inverse=True)
    found[known] = places.reshape(-1)
    return found, int(found.max(initial=-1)) + 1
