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

TOGETHER, LEAST = 1 << 15, 1 << 11
"""Rows of one product: at most, and at least where threads share them."""
DIGITS = 50
"""Bits of a total; two more than these are left for what a total may exceed its bound by."""


def unit_for(bound: float) -> float:
    """The power of two of which sums up to `bound` in size are exact multiples."""
    return float(2.0 ** (np.ceil(np.log2(bound * (1 + 1e-9))) - DIGITS)) if bound > 0 else 1.0


def quantised(values: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    """Multiples of `unit` nearest to the values."""
    return np.asarray(np.rint(values * (1.0 / unit)) * unit)


class Columns:
    """Binned columns of one hospital's people: codes (n, p), of which column j takes sizes[j] values.

    `by_column` holds them by column, one byte each; `places` by person, as places among all columns' cells.
    """

    def __init__(self, codes: Sequence[Codes], sizes: Sequence[int]) -> None:
        self.by_column = tuple(np.ascontiguousarray(column) for column in codes)
        self.cells = int(sum(sizes))
        starts = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        self.places = np.empty((len(codes[0]), len(codes)), np.int32)
        for column, (code, start) in enumerate(zip(codes, starts)):
            self.places[:, column] = code + start
        block = min(TOGETHER, len(self.places))
        self._ones = np.ones(block * len(codes))
        self._pointers = np.arange(0, (block + 1) * len(codes), len(codes), dtype=np.int32)

    def sums(self, groups: Sequence[Places], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(groups, cells, k) sums of values (n, k) over each group's people, by column and bin; `groups` hold rows.

        A product of a matrix of ones (people × groups · cells) with the values, in blocks that stay in a core's cache.
        """
        sizes = [len(group) for group in groups]
        people, width = sum(sizes), values.shape[1]
        total = np.zeros((len(groups) * self.cells, width))
        if people:
            rows, ends = np.concatenate(groups), np.cumsum(sizes)
            block = min(TOGETHER, max(-(-people // threads()), LEAST))

            everybody = len(groups) == 1 and people == len(self.places)  # the order does not matter

            def product(start: int) -> NDArray[np.float64]:
                here = rows[start : start + block]
                if everybody:
                    places, own = self.places[start : start + block], values[start : start + block]
                else:
                    places, own = self.places.take(here, axis=0), values.take(here, axis=0)
                of = np.searchsorted(ends, [start, start + len(here) - 1], side="right")
                for group in range(max(of[0], 1), of[1] + 1):
                    low, high = ends[group] - sizes[group] - start, ends[group] - start
                    places[max(low, 0) : high] += np.int32(group * self.cells)
                held = (self._ones[: places.size], places.ravel(), self._pointers[: len(here) + 1])
                matrix = sparse.csr_array(held, shape=(len(here), len(total)))
                return np.asarray(matrix.T @ own)

            starts = range(0, people, block)
            for part in map(product, starts) if len(starts) == 1 else _pool().map(product, starts):
                total += part
        return total.reshape(len(groups), self.cells, width)


def threads() -> int:
    """Cores this process may use, 8 at most: sums are exact, so their number changes no bit."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="histograms")
