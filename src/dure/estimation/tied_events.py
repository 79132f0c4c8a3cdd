"""Event times that several people share: Breslow's and Efron's sums over the steps in which a tie is taken apart.

At a time with d events, S those at risk and E those with the event (sums of weight × relative hazard), Efron (1977)
divides by S − (k/d)·E for k = 0 … d − 1; Breslow (1974) divides by S each time. Everything a Cox model needs of one
time is a sum over k of a power of k/d over a power of that divisor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Ties = Literal["efron", "breslow"]


@dataclass(frozen=True, repr=False)
class Steps:
    """(D,) each, already multiplied by the events' mean weight: Σ log divisor; Σ (k/d)^j / divisor for j = 0, 1;
    Σ (k/d)^j / divisor² for j = 0, 1, 2."""

    log: Vector
    once: tuple[Vector, Vector]
    twice: tuple[Vector, Vector, Vector]


def steps(at_risk: Vector, of_events: Vector, events: NDArray[np.int64], mean_weight: Vector, ties: Ties) -> Steps:
    """The sums at D event times. `at_risk`, `of_events` (D,) positive; `events` (D,) how many, at least one each."""
    many = events.astype(np.float64)
    log, once = many * np.log(at_risk), many / at_risk
    twice, nothing = once / at_risk, np.zeros_like(at_risk)
    more = [nothing.copy() for _ in range(3)]
    tied = np.flatnonzero(events > 1)
    if ties == "efron" and len(tied):
        sizes = events[tied]
        starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        share = (np.arange(sizes.sum()) - np.repeat(starts, sizes)) / np.repeat(sizes, sizes)
        divisor = np.repeat(at_risk[tied], sizes) - share * np.repeat(of_events[tied], sizes)
        inverse = 1.0 / divisor

        def added(values: Vector) -> Vector:
            return np.add.reduceat(values, starts)

        log[tied], once[tied], twice[tied] = added(np.log(divisor)), added(inverse), added(inverse**2)
        for place, values in enumerate((share * inverse, share * inverse**2, (share * inverse) ** 2)):
            more[place][tied] = added(values)
    return Steps(
        mean_weight * log,
        (mean_weight * once, mean_weight * more[0]),
        (mean_weight * twice, mean_weight * more[1], mean_weight * more[2]),
    )
