"""Order statistics from counts: people below edges are added over hospitals, and the edges close in on a rank.

A column is looked at through whole numbers that keep its order: multiples of a declared resolution (`cells`), or the
bits of the numbers themselves (`ordered`). A bracket [low, high) of such whole numbers is cut into at most 256 pieces;
one round of counts tells in which piece a rank lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Keys = NDArray[np.int64]

PIECES = 256
LARGEST = 2**52
"""Multiples of a resolution beyond this are not told apart: a float64 there has no digits below one."""


UNITS = 1.5 * 2**52
"""Added to a number, it leaves whole units only (`in_cells`)."""


def per_unit(resolution: float) -> float | None:
    """10 for a resolution of 0.1: multiplying by it is exact where dividing by 0.1 is not. None where 1/resolution
    is no whole number."""
    whole = round(1 / resolution) if resolution < 1 else 0
    return float(whole) if whole and abs(whole * resolution - 1) < 1e-12 else None


def cells(values: Numbers, resolution: float) -> Keys:
    """The nearest multiple of the resolution (halves to the even one), as its number; -0.0 is 0."""
    return np.clip(np.rint(_scaled(values, resolution)), -LARGEST, LARGEST).astype(np.int64)


def _scaled(values: Numbers, resolution: float) -> Numbers:
    whole = per_unit(resolution)
    with np.errstate(over="ignore"):  # the largest floats have no multiple of a small resolution: infinity is beyond
        return values * whole if whole else values / resolution


def multiples(places: Keys, resolution: float) -> Numbers:
    """The values of cells: with a resolution of 0.1, cell 53 is 5.3."""
    whole = per_unit(resolution)
    return np.asarray(places / whole if whole else places * resolution, dtype=np.float64)


def ordered(values: Numbers) -> Keys:
    """Whole numbers in the order of the values, one for each float64; -0.0 and 0.0 are one value."""
    bits = np.asarray(values + 0.0, dtype=np.float64).view(np.int64)
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)


def unordered(keys: Keys) -> Numbers:
    """The values of `ordered`."""
    keys = np.asarray(keys, dtype=np.int64)
    return np.where(keys < 0, keys ^ np.int64(2**63 - 1), keys).view(np.float64)


def first_edges() -> Keys:
    """(255,) edges between cells before anything is known: single cells around 0, then four to each doubling."""
    up = [1, 2, 3]
    while len(up) < PIECES // 2 - 1:
        octave, quarter = divmod(len(up) - 3, 4)
        up.append((4 + quarter) << octave)
    return np.array(sorted([*up, *(1 - edge for edge in up), LARGEST]), dtype=np.int64)


def edges(low: Keys, high: Keys, pieces: int) -> Keys:
    """(…, pieces - 1) edges, increasing, that cut the brackets (…, 2) of two ranks.

    Both ranks mostly lie in one bracket, which gets all edges; where they do not, each bracket gets half.
    """
    one = _cut(low[..., 0], high[..., 0], pieces)
    apart = (low[..., 0] != low[..., 1]) | (high[..., 0] != high[..., 1])
    if not apart.any():
        return one
    half = max(2, pieces // 2)
    parts = [_cut(low[..., side], high[..., side], half) for side in (0, 1)]
    rest = np.repeat(high[..., 1:], max(0, pieces - 1 - 2 * (half - 1)), axis=-1)
    both = np.sort(np.concatenate([*parts, rest], axis=-1)[..., : pieces - 1], axis=-1)
    return np.where(apart[..., None], both, one)


def _cut(low: Keys, high: Keys, pieces: int) -> Keys:
    """Equal pieces; in unsigned whole numbers, since a bracket may be longer than the largest signed one."""
    length = high.astype(np.uint64) - low.astype(np.uint64)
    steps = np.arange(1, pieces, dtype=np.uint64)
    many = np.uint64(pieces)
    offset = (length // many)[..., None] * steps + (length % many)[..., None] * steps // many
    return (low.astype(np.uint64)[..., None] + offset).astype(np.int64)


class InOrder:
    """One column's keys by group, counted once (few different keys) or sorted once, then asked for many edges.

    keys (n,), group (n,) codes or None for one group, weights (n,) or None. With `ends` (the smallest and the largest
    key) the keys are given less the smallest.
    """

    def __init__(
        self,
        keys: Keys,
        group: Keys | None,
        groups: int,
        weights: Numbers | None,
        ends: tuple[int, int] | None = None,
    ) -> None:
        n = len(keys)
        self.people = np.array([n]) if group is None else np.bincount(group, minlength=groups)
        self.weight = None
        if weights is not None:
            self.weight = np.array([weights.sum()]) if group is None else np.bincount(group, weights, groups)
        self._low, self._high = ends or ((int(keys.min()), int(keys.max())) if n else (0, 0))
        from_low = keys if ends else keys - self._low
        width = self._high - self._low + 1
        self._counted = width * groups <= max(n, 4096)
        if self._counted:
            flat = from_low if group is None else from_low + group * width
            self._counts = _below(np.bincount(flat, minlength=width * groups).reshape(groups, width))
            if weights is not None:
                self._weights = _below(np.bincount(flat, weights, width * groups).reshape(groups, width))
            return
        keys = from_low + self._low
        chosen: list[Any] = [slice(None)] if group is None else [group == place for place in range(groups)]
        if weights is None:
            self._keys = [np.sort(keys[own]) for own in chosen]
            return
        order = [np.argsort(keys[own], kind="stable") for own in chosen]
        self._keys = [keys[own][places] for own, places in zip(chosen, order)]
        self._sums = [np.append(0.0, np.cumsum(weights[own][places])) for own, places in zip(chosen, order)]

    def below(self, at: Keys) -> tuple[Keys, Numbers | None]:
        """(groups, …) people with a key below each edge of their group, and their weight."""
        counts = np.empty(at.shape, dtype=np.int64)
        sums = None if self.weight is None else np.empty(at.shape)
        for place, edges in enumerate(at):
            if self._counted:
                # Not `edges - low` first: far edges would overflow.
                row: Keys = np.minimum(np.maximum(edges, self._low), self._high + 1) - self._low
                counts[place] = self._counts[place][row]
            else:
                row = np.searchsorted(self._keys[place], edges).astype(np.int64)
                counts[place] = row
            if sums is not None:
                sums[place] = self._weights[place][row] if self._counted else self._sums[place][row]
        return counts, sums


def in_cells(values: Numbers, resolution: float, group: Keys | None, groups: int, weights: Numbers | None) -> InOrder:
    """People in order of their values' cells; values (n,) without missing ones."""
    if not len(values):
        return InOrder(np.zeros(0, dtype=np.int64), group, groups, weights)
    low, high = (int(end) for end in cells(np.array([values.min(), values.max()]), resolution))
    if low < -(LARGEST // 2) or high > LARGEST // 2:
        return InOrder(cells(values, resolution), group, groups, weights)
    # Beside 1.5 · 2**52 a float has no digits below one: the sum's last bits are the nearest whole number, halves to
    # the even one as np.rint has it, in one pass over many people instead of two slow ones.
    keys = (_scaled(values, resolution) + UNITS).view(np.int64)
    keys -= np.float64(UNITS).view(np.int64) + low
    return InOrder(keys, group, groups, weights, (low, high))


def _below(counts: NDArray[Any]) -> NDArray[Any]:
    """(groups, width) numbers of each key as (groups, width + 1) numbers below it."""
    found = np.zeros((len(counts), counts.shape[1] + 1), dtype=counts.dtype)
    np.cumsum(counts, axis=1, out=found[:, 1:])
    return found


def around(at: NDArray[Any], place: Keys, before: Any, after: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """What `at` (…, E) holds just before and at each place (…, 2) among the edges; `before` and `after` beyond them."""
    wide = np.broadcast_to(at[..., None, :], (*place.shape, at.shape[-1]))
    left = np.take_along_axis(wide, np.maximum(place - 1, 0)[..., None], axis=-1)[..., 0]
    right = np.take_along_axis(wide, np.minimum(place, at.shape[-1] - 1)[..., None], axis=-1)[..., 0]
    return np.where(place > 0, left, before), np.where(place < at.shape[-1], right, after)


def ranks(n: Numbers, probability: Numbers, definition: int) -> tuple[Numbers, Numbers, Numbers]:
    """The two ranks (from 1) between which a quantile of n people lies, and the share of the second.

    Definitions 1, 2 and 7 of Hyndman & Fan 1996 (Am Stat 50:361): the inverse of the distribution function, the same
    with averages at its steps, and interpolation at 1 + (n - 1)p. n·p within rounding of a whole number is that number.
    """
    place = (n - 1) * probability if definition == 7 else n * probability
    nearest = np.rint(place)
    whole = np.abs(place - nearest) <= 4 * np.finfo(np.float64).eps * np.maximum(1, np.abs(place))
    floor = np.where(whole, nearest, np.floor(place))
    if definition == 7:
        share = np.where(whole, 0.0, place - floor)
        return floor + 1, floor + 1 + (share > 0), share
    first = np.clip(np.where(whole, floor, floor + 1), 1, np.maximum(n, 1))
    if definition == 1:
        return first, first, np.zeros_like(first)
    second = np.clip(floor + 1, 1, np.maximum(n, 1))
    return first, second, np.where(second > first, 0.5, 0.0)
