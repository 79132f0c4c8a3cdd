"""The Merkle tree of a log, with proofs that one state follows another: RFC 6962 section 2.1, RFC 9162 section 2.1.

Leaf: SHA-256(0x00 ‖ entry). Node: SHA-256(0x01 ‖ left ‖ right). A tree of n leaves splits at the largest power of
two below n. Hashes are 32 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

BYTES = 32
EMPTY = hashlib.sha256().digest()
"""The root of no leaves."""


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that only grows. It keeps the hash of every complete subtree, 64 bytes a leaf: an entry is added in
    O(1) on average, the root of any earlier size and every proof cost O(log² n) or less."""

    def __init__(self) -> None:
        self._levels = [bytearray()]
        """Level k holds, one after another, the hashes of the complete subtrees of 2^k leaves."""

    @property
    def size(self) -> int:
        return len(self._levels[0]) // BYTES

    def append(self, entry: bytes) -> None:
        found, level = leaf_hash(entry), 0
        self._levels[0] += found
        while len(self._levels[level]) // BYTES % 2 == 0:  # it completes a pair, and perhaps the pair above
            found = node_hash(bytes(self._levels[level][-2 * BYTES : -BYTES]), found)
            level += 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += found

    def root(self, size: int | None = None) -> bytes:
        """The root when the tree had `size` leaves (None: now); raises ValueError beyond its size."""
        size = self.size if size is None else size
        self._within(0, size)
        return self._subtree(0, size) if size else EMPTY

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """PATH(index, D[size]): what `included` needs besides the entry; raises ValueError if there is no such leaf."""
        size = self.size if size is None else size
        self._within(index + 1, size)
        start, end, path = 0, size, list[bytes]()
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, first: int, size: int | None = None) -> list[bytes]:
        """PROOF(first, D[size]): what `consistent` needs besides the two roots; empty where nothing has to be shown."""
        size = self.size if size is None else size
        self._within(first, size)
        if first in (0, size):
            return []
        start, end, path, whole = 0, size, list[bytes](), True
        while end > first:
            middle = start + _split(end - start)
            if first <= middle:
                path.append(self._subtree(middle, end))
                end = middle
            else:
                path.append(self._subtree(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self._subtree(start, end))
        return path[::-1]

    def _subtree(self, start: int, end: int) -> bytes:
        """The hash of leaves start … end − 1, where `start` is a multiple of the largest power of two within."""
        leaves = end - start
        if leaves & (leaves - 1) == 0:
            level = leaves.bit_length() - 1
            place = start // leaves * BYTES
            return bytes(self._levels[level][place : place + BYTES])
        middle = start + _split(leaves)
        return node_hash(self._subtree(start, middle), self._subtree(middle, end))

    def _within(self, first: int, size: int) -> None:
        if not 0 <= first <= size <= self.size:
            raise ValueError(f"the tree has {self.size} leaves: no state of {first} and {size}")


def included(entry: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the tree of `size` leaves with this root holds `entry` at `index` (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf_hash(entry)
    for other in path:
        if last == 0:
            return False
        if place % 2 or place == last:
            found = node_hash(other, found)
            while place % 2 == 0 and place:
                place, last = place // 2, last // 2
        else:
            found = node_hash(found, other)
        place, last = place // 2, last // 2
    return last == 0 and found == root


def consistent(first: int, size: int, first_root: bytes, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the tree of `size` leaves begins with the tree of `first` leaves (RFC 9162 section 2.1.4.2)."""
    if not 0 <= first <= size:
        return False
    if first == size:
        return first_root == root and not path
    if first == 0:
        return first_root == EMPTY and not path
    steps = list(path) if first & (first - 1) else [first_root, *path]
    if not steps:
        return False
    place, last = first - 1, size - 1
    while place % 2:
        place, last = place // 2, last // 2
    before = after = steps[0]
    for other in steps[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            before, after = node_hash(other, before), node_hash(other, after)
            while place % 2 == 0 and place:
                place, last = place // 2, last // 2
        else:
            after = node_hash(after, other)
        place, last = place // 2, last // 2
    return last == 0 and before == first_root and after == root


def _split(leaves: int) -> int:
    """The largest power of two smaller than `leaves` (2 or more)."""
    return 1 << ((leaves - 1).bit_length() - 1)
