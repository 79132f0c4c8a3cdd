"""How many people stand behind the columns of a design: who is non-zero together, and how a column is spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 8192
"""Rows at a time: what is multiplied stays in a core's own cache."""


def powers(x: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """(p, 4) sums of powers 0, 2, 3 and 4 of each column's deviations from the pooled mean (`ArraySpec.sides`)."""
    found = np.zeros((len(x), 4))
    found[:, 0] = x.shape[1]
    for start in range(0, x.shape[1], BLOCK):
        deviation = x[:, start : start + BLOCK] - means[:, None]
        square = deviation * deviation
        found[:, 1] += square.sum(axis=1)
        found[:, 2] += np.einsum("ij,ij->i", square, deviation)
        found[:, 3] += np.einsum("ij,ij->i", square, square)
    return found


def together(x: NDArray[np.float64], pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """(pairs,) people who are non-zero in both columns; most numbers have no zeros, and nothing is multiplied."""
    people = x.shape[1]
    single = np.array([np.count_nonzero(row != 0) for row in x])
    both = np.minimum.outer(single, single)
    partly = sorted({column for j, k in pairs if j != k and max(single[j], single[k]) < people for column in (j, k)})
    if partly:
        present = (x[partly] != 0).astype(np.float32)  # exact: counts per block of rows stay far below 2**24
        blocks = (present[:, start : start + (1 << 20)] for start in range(0, people, 1 << 20))
        both[np.ix_(partly, partly)] = sum((block @ block.T).astype(np.int64) for block in blocks)
    return np.array([both[j, k] for j, k in pairs], dtype=np.int64)
