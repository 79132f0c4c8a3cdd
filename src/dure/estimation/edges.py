"""Bin edges near a column's quantiles, from counts alone: cells of the ordered bits of single-precision numbers.

The order of numbers is the order of their bits, once negative ones are turned over. The leading `STAGES[0]` bits are
counted first; cells that hold much of a column are divided by their next bits, twice. No range is needed before, scales
may be any, and a value is known to 17 bits of its mantissa at the finest (1 part in 131,072 of its size): values closer
than that fall together. Each edge is the number of fewest bits between the fullest cell below it and the next above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint32]
Counts = NDArray[np.int64]

STAGES = (12, 8, 6)
"""Bits looked at by one round after another: sign, exponent and 3 bits of the mantissa; then 8 and 6 more."""
MANY = 1 << 15
"""Values from which a table of leading bits is quicker than a search for each."""
LARGEST = np.float32(3e38)
"""Beyond it single precision has no numbers; larger values count as this."""


def single(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values in single precision, as XGBoost reads them; missing as NaN, minus zero as zero."""
    return np.clip(values, -float(LARGEST), float(LARGEST)).astype(np.float32) + np.float32(0)


def keys(values: NDArray[np.float32]) -> Keys:
    """Whole numbers in the order of the values (no NaN among them)."""
    bits = values.view(np.uint32)
    return np.asarray(np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31)), dtype=np.uint32)


def values_of(found: NDArray[np.int64]) -> NDArray[np.float64]:
    """The inverse of `keys`."""
    bits = np.asarray(found).astype(np.uint32)
    raw = np.where(bits >> np.uint32(31), bits ^ np.uint32(1 << 31), ~bits)
    return np.asarray(raw.astype(np.uint32).view(np.float32), dtype=np.float64)


def first_counts(values: NDArray[np.float32]) -> Counts:
    """(2**12,) values by their leading bits."""
    places = keys(values) >> np.uint32(32 - STAGES[0])
    return np.bincount(places, minlength=1 << STAGES[0]).astype(np.int64)


def divided_counts(values: NDArray[np.float32], cells: NDArray[np.int64], stage: int) -> Counts:
    """(cells, 2**bits) values within each cell to be divided at `stage` (1, 2), by the next bits."""
    before, bits = sum(STAGES[:stage]), STAGES[stage]
    if not len(cells):
        return np.zeros((0, 1 << bits), dtype=np.int64)
    key = keys(values)
    prefix = (key >> np.uint32(32 - before)).astype(np.int64)
    place = np.minimum(np.searchsorted(cells, prefix), len(cells) - 1)
    inside = cells[place] == prefix
    below = (key >> np.uint32(32 - before - bits)).astype(np.int64) & ((1 << bits) - 1)
    flat = (place[inside] << bits) | below[inside]
    found = np.bincount(flat, minlength=len(cells) << bits).astype(np.int64)
    return found.reshape(len(cells), -1)


@dataclass(frozen=True)
class Cells:
    """A column's cells that hold somebody, in order: first key, width in keys, people."""

    start: NDArray[np.int64]
    width: NDArray[np.int64]
    people: Counts

    @classmethod
    def first(cls, counts: Counts) -> Cells:
        held = np.flatnonzero(counts)
        width = 1 << (32 - STAGES[0])
        return cls(held * width, np.full(len(held), width), np.asarray(counts, dtype=np.int64)[held])

    def heavy(self, bins: int, minimum: int, stage: int) -> NDArray[np.int64]:
        """Prefixes of the cells to divide at `stage`: those of that width with more than half a bin's people, and
        enough for two bins."""
        share = max(self.people.sum() / (2 * bins), 2 * minimum, 1)
        full = (self.width == 1 << (32 - sum(STAGES[:stage]))) & (self.people > share)
        return np.asarray(self.start[full] >> (32 - sum(STAGES[:stage])))

    def divided(self, cells: NDArray[np.int64], counts: Counts, stage: int) -> Cells:
        """With the cells `cells` replaced by their parts."""
        before, bits = 32 - sum(STAGES[:stage]), STAGES[stage]
        stay = ~np.isin(self.start, cells << before) | (self.width != 1 << before)
        row, part = np.nonzero(counts)
        width = 1 << (before - bits)
        start = np.concatenate([self.start[stay], (cells[row] << before) + part * width])
        order = np.argsort(start, kind="stable")
        widths = np.concatenate([self.width[stay], np.full(len(row), width)])
        people = np.concatenate([self.people[stay], np.asarray(counts, dtype=np.int64)[row, part]])
        return Cells(start[order], widths[order], people[order])

    def edges(self, bins: int, minimum: int) -> NDArray[np.float64]:
        """At most bins − 1 increasing edges: bin k holds edges[k − 1] ≤ x < edges[k], and `minimum` people or more.

        From the left, a bin closes when it holds its share of the people not yet in one; what is left over at the end
        joins the last bin.
        """
        found: list[float] = []
        upto = np.cumsum(self.people)
        everybody, least, closed = int(self.people.sum()), max(minimum, 1), 0
        while len(found) < bins - 1:
            share = max((everybody - closed) / (bins - len(found)), least)
            place = int(np.searchsorted(upto, closed + share))
            if place + 1 >= len(upto) or everybody - upto[place] < least:
                break
            found.append(_roundest(int(self.start[place] + self.width[place]), int(self.start[place + 1])))
            closed = int(upto[place])
        return np.asarray(found, dtype=np.float64)


def _roundest(low: int, high: int) -> float:
    """The number of fewest bits with a key in [low, high]: everybody below stands below `low`, all others from `high`
    on."""
    trailing = 32
    while trailing:
        step = 1 << trailing
        candidate = -(-low // step) * step
        if candidate <= high:
            return float(values_of(np.array([candidate]))[0])
        trailing -= 1
    return float(values_of(np.array([low]))[0])


def binned(values: NDArray[np.float32], edges: NDArray[np.float64], missing: int) -> NDArray[np.uint8]:
    """(n,) the bin of each value: how many edges are at most the value; `missing` for NaN. Edges are numbers of single
    precision, so that x < edge means the same here and in XGBoost."""
    exact = edges.astype(np.float32)
    if len(values) < MANY:
        found = np.searchsorted(exact, values, side="right").astype(np.uint8)
    else:  # leading bits tell the bin, unless an edge stands among the numbers that begin with them
        heads = np.arange(1 << 16, dtype=np.int64) << 16
        edge_keys = keys(exact).astype(np.int64)
        low, high = (np.searchsorted(edge_keys, heads + end, side="right") for end in (0, (1 << 16) - 1))
        head = keys(values) >> np.uint32(16)
        found = low.astype(np.uint8).take(head)
        unsure = np.flatnonzero((low != high).take(head))
        found[unsure] = np.searchsorted(exact, values[unsure], side="right")
    found[np.isnan(values)] = missing
    return found
