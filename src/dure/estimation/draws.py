"""Random draws that follow a person: the same number in whichever hospital, batch or order the person stands."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def draws(person: NDArray[np.int64], *seeds: int) -> NDArray[np.float64]:
    """(n,) a number in [0, 1) for each person from the person's number and the seeds alone: SplitMix64's finaliser
    (Steele, Lea & Flood 2014, OOPSLA), once for each seed."""
    mixed: NDArray[Any] = person.astype(np.uint64)
    for seed in seeds:
        mixed = mixed + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53)
