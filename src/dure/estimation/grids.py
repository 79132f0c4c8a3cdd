"""Merging neighbouring intervals or bins until enough people stand behind each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def merge_until(counts: NDArray[np.float64], minimum: int) -> list[slice]:
    """Runs of neighbouring columns in which every row of `counts` (classes, bins) reaches `minimum`.

    Greedy from the left; what is left over at the end joins the last run. With `minimum` 0 nothing merges.
    If even all bins together do not reach it, there is one run.
    """
    runs: list[slice] = []
    start, bins = 0, counts.shape[1]
    for end in range(1, bins + 1):
        if (counts[:, start:end].sum(axis=1) >= minimum).all():
            runs.append(slice(start, end))
            start = end
    if start < bins:
        runs = [*runs[:-1], slice(runs[-1].start if runs else 0, bins)]
    return runs
