"""Numbers as integers mod 2^(64·L): what masks are added to, and back to the nearest float64 once a sum is opened.

A vector is the numbers of all declared arrays: counts first, then weights, moments and power sums, each class in
declared order. A number takes 8·L bytes, little-endian two's complement of value · 2^F rounded half to even.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import SumOutOfRange
from dure.study.summary import ArraySpec, Declaration, Summary

Digits = NDArray[np.int64]
"""(numbers, 2·L): digits of base 2^32, lowest first; between carries they may be any int64."""
Words32 = NDArray[np.uint32]
AT_ONCE = 2**15
"""Digits worked on at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Format:
    """L limbs of 64 bits, F of all bits behind the point."""

    limbs: int
    fraction: int

    def most(self, hospitals: int) -> float:
        """Below it one hospital's number must stay, so that no sum of all leaves the range."""
        return float(2.0 ** (64 * self.limbs - self.fraction - max(6, 1 + (hospitals - 1).bit_length())))


COUNT, WEIGHTS, MOMENT, POWERS = Format(1, 0), Format(2, 64), Format(4, 128), Format(8, 256)
FORMATS = (COUNT, WEIGHTS, MOMENT, POWERS)


def format_of(spec: ArraySpec) -> Format:
    if spec.kind == "count":
        return COUNT
    if spec.kind == "weights":
        return WEIGHTS
    return POWERS if spec.sides else MOMENT


@dataclass(frozen=True, slots=True)
class Segment:
    """The numbers of one format; `start` counts 32-bit words from the beginning of the vector."""

    format: Format
    specs: Declaration
    start: int

    @property
    def numbers(self) -> int:
        return sum(_size(spec) for spec in self.specs)

    @property
    def end(self) -> int:
        return self.start + self.numbers * 2 * self.format.limbs

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(first, last) numbers of pieces that stay in the cache."""
        step = AT_ONCE // (2 * self.format.limbs)
        for first in range(0, self.numbers, step):
            yield first, min(first + step, self.numbers)

    def words(self, first: int, last: int) -> slice:
        wide = 2 * self.format.limbs
        return slice(self.start + first * wide, self.start + last * wide)


def segments(declaration: Declaration) -> tuple[Segment, ...]:
    found: list[Segment] = []
    for kind in FORMATS:
        specs = tuple(spec for spec in declaration if format_of(spec) == kind and _size(spec))
        if specs:
            found.append(Segment(kind, specs, found[-1].end if found else 0))
    return tuple(found)


def words_of(declaration: Declaration) -> int:
    """The vector's length in words of 32 bits."""
    found = segments(declaration)
    return found[-1].end if found else 0


def bytes_of(spec: ArraySpec) -> int:
    """What an array takes in a masked vector."""
    return _size(spec) * 8 * format_of(spec).limbs


def check_range(summary: Mapping[str, Any], declaration: Declaration, hospitals: int) -> None:
    """Raise SumOutOfRange where a number is beyond what a sum over so many hospitals holds."""
    for segment in segments(declaration):
        _parts(segment, summary, hospitals)


def flat(segment: Segment, summary: Mapping[str, Any], hospitals: int) -> NDArray[Any]:
    """A segment's numbers one after the other; raises SumOutOfRange with the array's name, never a value."""
    parts = _parts(segment, summary, hospitals)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _parts(segment: Segment, summary: Mapping[str, Any], hospitals: int) -> list[NDArray[Any]]:
    parts = [np.ravel(np.asarray(summary[spec.name], dtype=spec.dtype)) for spec in segment.specs]
    most = segment.format.most(hospitals)
    for spec, values in zip(segment.specs, parts):
        if not (np.abs(values.astype(np.float64, copy=False)) < most).all():  # NaN is not smaller either
            raise SumOutOfRange(array=spec.name, bits=int(np.log2(most)))
    return parts


def encode(values: NDArray[Any], format: Format, digits: Digits) -> None:
    """Add a block of values to its digits (not carried)."""
    if format.fraction == 0:
        whole = values.astype(np.int64, copy=False)
        digits[:, 0] += whole & 0xFFFFFFFF
        digits[:, 1] += whole >> 32
        return
    mantissa, exponent = np.frexp(values)
    number = (np.abs(mantissa) * 2.0**53).astype(np.int64)
    shift = exponent.astype(np.int64) - 53 + format.fraction
    right = np.clip(-shift, 0, 62)  # rounded half to even; from 54 on nothing is left of 53 bits
    kept = number >> right
    rest, half = number & ((np.int64(1) << right) - 1), (np.int64(1) << right) >> 1
    kept += (right > 0) & ((rest > half) | ((rest == half) & (kept & 1 == 1)))
    left = np.maximum(shift, 0)
    place, bits = left >> 5, left & 31
    low, high = (kept & 0xFFFFFFFF) << bits, (kept >> 32) << bits
    high += low >> 32
    sign = np.where(np.signbit(values), -1, 1)
    every, wide = digits.reshape(-1), digits.shape[1]
    row = np.arange(len(values), dtype=np.int64) * wide
    for step, digit in enumerate((low & 0xFFFFFFFF, high & 0xFFFFFFFF, high >> 32)):
        every[row + np.minimum(place + step, wide - 1)] += sign * digit  # beyond the last digit it is zero


def carry(digits: Digits, out: Words32) -> None:
    """Digits of any size as the words of one number mod 2^(64·L) each; `out` has the same shape."""
    last = digits.shape[1] - 1
    for place in range(last):
        digits[:, place + 1] += digits[:, place] >> 32
        out[:, place] = digits[:, place]
    out[:, last] = digits[:, last]


def decode(words: Words32, format: Format) -> NDArray[Any]:
    """The numbers: int64 without a fraction, else the nearest float64, ties to even."""
    if format.fraction == 0:
        return np.ascontiguousarray(words).view("<i8").reshape(-1).astype(np.int64)
    wide = words.shape[1]
    digits = words.astype(np.int64)
    negative = digits[:, -1] >> 31 == 1
    if negative.any():
        turned = np.empty((int(negative.sum()), wide), np.uint32)
        carry(-digits[negative], turned)
        digits[negative] = turned
    top = wide - 1 - np.argmax(digits[:, ::-1] != 0, axis=1)
    every, row = digits.reshape(-1), np.arange(len(digits)) * wide
    below = np.cumsum(digits != 0, axis=1).reshape(-1)  # non-zero digits up to each place
    first, second, third = (np.where(top >= back, every[row + np.maximum(top - back, 0)], 0) for back in range(3))
    inexact = (top >= 3) & (below[row + np.maximum(top - 3, 0)] > 0)
    missing = 32 - np.frexp(first.astype(np.float64))[1].astype(np.int64)  # leading zero bits of the first digit
    missing = np.where(first == 0, 0, missing)
    lead = (first.astype(np.uint64) << np.uint64(32) | second.astype(np.uint64)) << missing.astype(np.uint64)
    shifted = third << missing
    lead |= (shifted >> 32).astype(np.uint64)
    lead |= ((shifted & 0xFFFFFFFF != 0) | inexact).astype(np.uint64)
    kept, rest = lead >> np.uint64(11), lead & np.uint64(0x7FF)
    kept += (rest > 0x400) | ((rest == 0x400) & (kept & np.uint64(1) == 1))
    size = np.ldexp(kept.astype(np.float64), (32 * (top - 1) - missing + 11 - format.fraction).astype(np.int32))
    return np.asarray(np.where(negative, -size, size))


def spread(declaration: Declaration, numbers: Iterable[tuple[Segment, NDArray[Any]]]) -> Summary:
    """A vector's numbers as the declared arrays again."""
    found: Summary = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in declaration}
    for segment, values in numbers:
        start = 0
        for spec in segment.specs:
            found[spec.name] = values[start : start + _size(spec)].reshape(spec.shape)
            start += _size(spec)
    return found


def _size(spec: ArraySpec) -> int:
    return spec.bytes // 8
