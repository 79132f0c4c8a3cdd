"""Masks: AES-256 keystreams that are added to a vector, and taken away from a sum of vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from dure.federation.secure_sum.fixed_point import (
    AT_ONCE,
    Digits,
    Words32,
    carry,
    decode,
    encode,
    flat,
    segments,
    spread,
    words_of,
)
from dure.study.summary import ArraySpec, Declaration, Summary

ZEROS = memoryview(bytes(4 * AT_ONCE))


@dataclass
class Stream:
    """The keystream of one key, from its beginning: AES-256 in counter mode, counter 0, of a key used once."""

    key: bytes = field(repr=False)
    sign: int

    def __post_init__(self) -> None:
        self._encryptor = Cipher(algorithms.AES(self.key), modes.CTR(bytes(16))).encryptor()
        self._buffer = bytearray(4 * AT_ONCE + 15)

    def add_to(self, digits: Digits) -> None:
        """The next words of the stream, added to (or taken from) the digits of a block."""
        self._encryptor.update_into(ZEROS[: 4 * digits.size], self._buffer)
        words = np.frombuffer(self._buffer, "<u4", digits.size).reshape(digits.shape)
        (np.add if self.sign > 0 else np.subtract)(digits, words, out=digits)


def masked(summary: Summary, declaration: Declaration, hospitals: int, streams: Sequence[Stream]) -> bytes:
    """A hospital's vector under its masks; raises SumOutOfRange."""
    out = np.empty(words_of(declaration), "<u4")
    for segment in segments(declaration):
        values = flat(segment, summary, hospitals)
        for first, last in segment.blocks():
            digits = np.zeros((last - first, 2 * segment.format.limbs), np.int64)
            encode(values[first:last], segment.format, digits)
            for stream in streams:
                stream.add_to(digits)
            carry(digits, out[segment.words(first, last)].reshape(digits.shape))
    return out.tobytes()


WITHHELD = ArraySpec(".", (), "count")
"""The first number of every vector: 0. In the sum it is something else where somebody withheld its numbers."""


def withheld(declaration: Declaration, hospitals: int, noise: Stream) -> bytes:
    """The vector of a hospital that has no numbers, or such as no sum can hold: nothing but noise, in which the others'
    numbers are lost, and how many hospitals there are of this kind."""
    nothing: Summary = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in declaration}
    return masked(nothing, declaration, hospitals, [noise])


def added(vectors: Sequence[bytes], declaration: Declaration) -> Words32:
    """The sum of masked vectors: all that the hub keeps of them."""
    words = [np.frombuffer(vector, "<u4") for vector in vectors]
    out = np.empty(words_of(declaration), np.uint32)
    for segment in segments(declaration):
        for first, last in segment.blocks():
            where = segment.words(first, last)
            digits = np.zeros((last - first, 2 * segment.format.limbs), np.int64)
            for vector in words:
                digits += vector[where].reshape(digits.shape)
            carry(digits, out[where].reshape(digits.shape))
    return out


def opened(total: Words32, declaration: Declaration, streams: Iterable[Stream]) -> Summary:
    """The declared arrays of a sum once what is left of its masks is taken away."""
    streams, numbers = list(streams), []
    for segment in segments(declaration):
        found: NDArray[Any] = np.empty(segment.numbers, segment.specs[0].dtype)
        for first, last in segment.blocks():
            words = total[segment.words(first, last)].reshape(last - first, -1)
            digits = words.astype(np.int64)
            for stream in streams:
                stream.add_to(digits)
            bare = np.empty(digits.shape, np.uint32)
            carry(digits, bare)
            found[first:last] = decode(bare, segment.format)
        numbers.append((segment, found))
    return spread(declaration, numbers)
