"""The search for marked numbers and texts in bytes of any kind: one function, the same for every place and every run.

A number is looked for as float64 and int64 in either byte order at any offset, as float32 beside its neighbour, and as
a decimal of at least twelve digits; one patient of each hospital also as shorter decimals. A text is looked for in
UTF-8 and UTF-16. What is packed with zlib or base64 is unpacked first; msgpack holds numbers as they are.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

LEAST_BITS = 36
"""Significant bits from which on a float64 is searched for: fewer are met by chance, in sums of other things."""
OVERLAP = 256
"""Bytes that two pieces of one place share, so that nothing is cut in two."""
DECIMAL = re.compile(rb"\d{15,20}(?!\d)|\d{1,20}\.\d{6,}(?:[eE][-+]?\d{1,3})?")
SHAPE = bytes(48 if 48 <= byte < 58 else byte if byte == 46 else 32 for byte in range(256))
"""Every digit as 0 and everything else but the point as a space: what looks like a decimal is then found fast."""
PACKED = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
MOST_UNPACKED = 4 << 20


def distinctive(values: np.ndarray) -> np.ndarray:
    """Of float64 numbers, which can be told from every other number: finite, with enough significant bits, and not next
    to a decimal of eight digits (2.5 less one bit of rounding lies in the memory of every process)."""
    mantissa = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64) & np.uint64(2**52 - 1)
    known = np.isfinite(values) & (values != 0)
    size = np.abs(np.where(known, values, 1.0))
    unit = 10.0 ** (np.floor(np.log10(size)) - 7)
    far = np.abs(size - np.round(size / unit) * unit) > 1e-12 * size
    return known & far & (mantissa % np.uint64(2 ** (53 - LEAST_BITS)) != 0)


@dataclass(frozen=True)
class Marks:
    """What nobody but its hospital may have. `whose` names each number for the report of a find.

    `values` (n,) float64, `wholes` int64 of at least 15 digits, `pairs` (k, 2) numbers side by side in a table,
    `texts`, and `short`: numbers that are looked for in texts with six digits too.
    """

    values: np.ndarray
    whose: tuple[str, ...]
    wholes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    texts: tuple[str, ...] = ()
    short: tuple[float, ...] = ()

    def __add__(self, other: Marks) -> Marks:
        """Both, for one search."""
        return Marks(
            np.concatenate([self.values, other.values]),
            self.whose + other.whose,
            np.concatenate([self.wholes, other.wholes]),
            np.vstack([self.pairs, other.pairs]),
            self.texts + other.texts,
            self.short + other.short,
        )

    @cached_property
    def words(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sorted 64-bit words as they lie in memory, what each is, and which upper 16 bits occur at all."""
        single = self.pairs.astype(np.float32)
        kinds = {
            "float64": np.ascontiguousarray(self.values, np.float64).view(np.uint64),
            "int64": self.wholes.astype(np.int64).view(np.uint64),
            "int64 as float64": self.wholes.astype(np.float64).view(np.uint64),
            "float32": np.ascontiguousarray(np.vstack([single, single[:, ::-1]])).view(np.uint64).ravel(),
        }
        words = np.concatenate(list(kinds.values()))
        kind = np.repeat(np.array(list(kinds)), [len(found) for found in kinds.values()])
        order = np.argsort(words, kind="stable")
        upper = np.zeros(1 << 16, dtype=bool)
        upper[words >> np.uint64(48)] = True
        return words[order], kind[order], upper

    @cached_property
    def decimals(self) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.abs(self.values)
        order = np.argsort(sizes)
        return sizes[order], order

    @cached_property
    def patterns(self) -> dict[str, re.Pattern[bytes]]:
        found = {}
        if self.texts:
            forms = [
                text.encode(coding)[cut:]
                for text in self.texts
                for coding, cut in (("utf-8", 0), ("utf-16-le", 0), ("utf-16-be", 0))
            ]
            forms += [text.encode("ascii", "backslashreplace") for text in self.texts]
            found["text"] = re.compile(b"|".join(map(re.escape, forms)))
        if self.short:
            shown = {f"{value:{form}}" for value in self.short for form in (".6f", ".6g", ".12g")}
            found["short decimal"] = re.compile(
                rb"(?<![\d.])(?:" + "|".join(map(re.escape, shown)).encode() + rb")(?!\d)"
            )
        return found


Finds = dict[str, int]
"""What was found → how often."""


def search(pieces: Iterable[bytes], marks: Marks, unpack: bool = True, short: bool = True) -> Finds:
    """Every mark in the pieces of one place. `unpack`: also inside zlib and base64; `short`: also six-digit decimals,
    which in the memory of a process are met by chance."""
    finds: Finds = {}
    for piece in pieces:
        for data in (piece, *(_unpacked(piece) if unpack else ())):
            for what in _found(data, marks, short):
                finds[what] = finds.get(what, 0) + 1
    return finds


def _found(data: bytes, marks: Marks, short: bool) -> Iterator[str]:
    sorted_words, kinds, upper = marks.words
    for offset in range(min(8, max(len(data) - 7, 0))):
        words = np.frombuffer(data, "<u8", (len(data) - offset) // 8, offset)
        words = words[words != 0]
        for order in ("little", "big"):
            read = words if order == "little" else words.byteswap()
            read = read[upper[read >> np.uint64(48)]]
            place = np.minimum(np.searchsorted(sorted_words, read), len(sorted_words) - 1)
            for word in place[sorted_words[place] == read]:
                yield f"{kinds[word]}, {order}-endian{_name(sorted_words[word], kinds[word], marks)}"
    yield from _decimals(data, marks)
    for form, pattern in marks.patterns.items():
        if short or form != "short decimal":
            yield from (f"{form}: {found.group().decode('utf-8', 'replace')}" for found in pattern.finditer(data))


def _name(word: np.uint64, kind: str, marks: Marks) -> str:
    if kind != "float64":
        return ""
    return f": {marks.whose[int(np.flatnonzero(marks.values.view(np.uint64) == word)[0])]}"


def _decimals(data: bytes, marks: Marks) -> Iterator[str]:
    """Decimals of twelve digits or more that a mark rounds to, and whole numbers."""
    sizes, order = marks.decimals
    wholes = set(marks.wholes.tolist())
    for text in _numerals(data):
        if "." not in text:
            if int(text) in wholes:
                yield "whole decimal"
            continue
        digits, _, exponent = text.partition("e")
        whole, _, rest = digits.partition(".")
        if len((whole + rest).lstrip("0")) < 12 or not len(sizes):
            continue
        value, half = float(text), 0.51 * 10.0 ** (int(exponent or 0) - len(rest))
        near = int(np.clip(np.searchsorted(sizes, value), 1, len(sizes) - 1)) if len(sizes) > 1 else 0
        for place in {max(near - 1, 0), near}:
            if abs(sizes[place] - value) <= max(half, 2.0**-52 * value) < np.inf:
                yield f"decimal: {marks.whose[order[place]]}"


def _numerals(data: bytes) -> Iterator[str]:
    """Everything that is written as a decimal of six digits behind the point or a whole number of fifteen."""
    shape = data.translate(SHAPE)
    for looks in (b".000000", b"0" * 15):
        at = shape.find(looks)
        while at >= 0:
            start = at
            while start > max(at - 20, 0) and shape[start - 1] == 48:
                start -= 1
            match = DECIMAL.match(data, start)
            if match:
                yield match.group().decode().lower()
            at = shape.find(looks, max(match.end() if match else 0, at + len(looks)))


def _unpacked(data: bytes) -> Iterator[bytes]:
    for match in PACKED.finditer(data):
        try:
            yield zlib.decompressobj().decompress(data[match.start() :], MOST_UNPACKED)
        except zlib.error:
            continue
    for match in BASE64.finditer(data):
        text = match.group().rstrip(b"=")
        try:
            yield base64.b64decode(text[: len(text) // 4 * 4], b"-_" if b"-" in text or b"_" in text else None)
        except (binascii.Error, ValueError):
            continue


def report(finds: Mapping[str, Finds], most: int = 8) -> str:
    """Place by place, what was found there."""
    lines = []
    for place, found in finds.items():
        lines += [f"{place}: {what} ({count})" for what, count in list(found.items())[:most]]
        lines += [f"{place}: and {len(found) - most} more"] if len(found) > most else []
    return "\n".join(lines)
