"""Histograms of gradients over binned columns, added exactly.

Gradients are rounded to multiples of a power of two so coarse that sums over everybody are still whole multiples below
2**53: floating-point addition is then exact, and neither the order of rows, nor threads, nor the split of people over
hospitals changes one bit of a total (and a node's total minus one child's is the other's).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Codes = NDArray[np.uint8]
Places = NDArray[np.int32]

TOGETHER = 1 << 16
"""Rows of one product: their places and ones need 12 bytes for each cell."""
DIGITS = 50
"""Bits of a total; two more than these are left for what a total may exceed its bound by."""


def unit_for(bound: float) -> float:
    """The power of two of which sums up to `bound` in size are exact multiples."""
    return float(2.0 ** (np.ceil(np.log2(bound * (1 + 1e-9))) - DIGITS)) if bound > 0 else 1.0


def quantised(values: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    """Multiples of `unit` nearest to the values."""
    return np.asarray(np.rint(values * (1.0 / unit)) * unit)


class Columns:
    """Binned columns of one hospital's people: codes (n, p), of which column j takes sizes[j] values."""

    def __init__(self, codes: Sequence[Codes], sizes: Sequence[int]) -> None:
        self.by_column = tuple(np.ascontiguousarray(column) for column in codes)
        self.by_person = np.stack(self.by_column, axis=1) if codes else np.zeros((0, 0), np.uint8)
        self.starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
        self.cells = int(sum(sizes))

    def sums(self, groups: Sequence[Places], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(groups, cells, k) sums of values (n, k) over each group's people, by column and bin.

        A product of a matrix of ones (people × cells) with the values; `groups` hold rows.
        """
        width, (people, columns) = values.shape[1], self.by_person.shape
        total = np.zeros((len(groups) * self.cells, width))
        sizes = [len(group) for group in groups]
        m = sum(sizes)
        if not m or not columns:
            return total.reshape(len(groups), self.cells, width)
        rows = np.concatenate(groups) if len(groups) > 1 else groups[0]
        ends = np.cumsum([0, *sizes])
        most = min(TOGETHER, max(-(-m // threads()), 4096))
        ones, pointers = _ones(most * columns), np.arange(0, (most + 1) * columns, columns, dtype=np.int32)

        def product(start: int) -> NDArray[np.float64]:
            stop = min(start + most, m)
            here = rows[start:stop]
            codes, places = self.by_person.take(here, axis=0), np.empty((stop - start, columns), np.int32)
            for group in range(np.searchsorted(ends, start, "right") - 1, len(groups)):
                a, b = max(int(ends[group]), start) - start, min(int(ends[group + 1]), stop) - start
                if a >= b:
                    if ends[group] >= stop:
                        break
                    continue
                np.add(codes[a:b], self.starts + np.int32(group * self.cells), out=places[a:b])
            held = (ones[: places.size], places.ravel(), pointers[: stop - start + 1])
            matrix = sparse.csr_array(held, shape=(stop - start, len(total)))
            return np.asarray(matrix.T @ values.take(here, axis=0))

        starts = range(0, m, most)
        for part in map(product, starts) if len(starts) == 1 else _pool().map(product, starts):
            total += part
        return total.reshape(len(groups), self.cells, width)


def threads() -> int:
    """Cores this process may use, 8 at most: sums are exact, so their number changes no bit."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="histograms")


_held: list[NDArray[np.float64]] = []


def _ones(size: int) -> NDArray[np.float64]:
    """The same ones every time: they are never written to."""
    if not _held or len(_held[0]) < size:
        _held[:] = [np.ones(size)]
    return _held[0][:size]
