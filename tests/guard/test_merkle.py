"""The Merkle tree: Certificate Transparency's published vectors, the RFC's own definition, and laws of its proofs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dure.guard.merkle import EMPTY, Tree, consistent, included

# The reference tree of google/certificate-transparency (merkle_tree_test.cc) and transparency-dev/merkle.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
A, B, C = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
)
D = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
E = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSION = [
    (0, 1, []),
    (0, 8, [A, B, C]),
    (5, 8, [E, D, ROOTS[3]]),
    (2, 3, [ROOTS[1]]),
    (1, 5, [ROOTS[0], B, E]),
]
CONSISTENCY = [(1, 1, []), (1, 8, [A, B, C]), (6, 8, [F, D, ROOTS[3]]), (2, 5, [B, E])]


def grown(entries: list[bytes]) -> Tree:
    tree = Tree()
    for entry in entries:
        tree.append(entry)
    return tree


def by_definition(entries: list[bytes]) -> bytes:
    """MTH(D[n]) as RFC 6962 writes it, hashing everything again."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    left, right = by_definition(entries[:split]), by_definition(entries[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def hexes(path: list[bytes]) -> list[str]:
    return [node.hex() for node in path]


# ── published vectors ──


def test_the_published_roots_come_out_at_every_size() -> None:
    tree = Tree()
    assert tree.root() == EMPTY
    for entry, root in zip(LEAVES, ROOTS, strict=True):
        tree.append(entry)
        assert tree.root().hex() == root
    assert [tree.root(size).hex() for size in range(1, 9)] == list(ROOTS)


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_the_published_inclusion_proofs_come_out_and_hold(index: int, size: int, path: list[str]) -> None:
    tree = grown(LEAVES)
    assert hexes(tree.inclusion(index, size)) == path
    assert included(LEAVES[index], index, size, [bytes.fromhex(node) for node in path], tree.root(size))


@pytest.mark.parametrize(("first", "size", "path"), CONSISTENCY)
def test_the_published_consistency_proofs_come_out_and_hold(first: int, size: int, path: list[str]) -> None:
    tree = grown(LEAVES)
    assert hexes(tree.consistency(first, size)) == path
    nodes = [bytes.fromhex(node) for node in path]
    assert consistent(first, size, bytes.fromhex(ROOTS[first - 1]), bytes.fromhex(ROOTS[size - 1]), nodes)


# ── laws ──

entries = st.lists(st.binary(max_size=6), min_size=1, max_size=70)


@given(entries)
def test_the_growing_tree_has_the_roots_of_the_definition(given_: list[bytes]) -> None:
    tree = grown(given_)
    assert tree.size == len(given_)
    assert [tree.root(size) for size in range(len(given_) + 1)] == [
        by_definition(given_[:size]) for size in range(len(given_) + 1)
    ]


@given(entries, st.data())
def test_every_entry_is_proved_and_no_other_entry_or_place(given_: list[bytes], data: st.DataObject) -> None:
    tree, size = grown(given_), data.draw(st.integers(1, len(given_)))
    index = data.draw(st.integers(0, size - 1))
    path, root = tree.inclusion(index, size), tree.root(size)
    assert included(given_[index], index, size, path, root)
    assert not included(given_[index] + b"!", index, size, path, root)
    for place in range(size):
        if place != index and given_[place] != given_[index]:
            assert not included(given_[place], place, size, path, root)
    assert not included(given_[index], index, size, [*path, root], root)
    assert not included(given_[index], size, size, path, root)
    if path:
        assert not included(given_[index], index, size, path[:-1], root)


@given(entries, st.data())
def test_every_state_is_proved_to_begin_with_every_earlier_one(given_: list[bytes], data: st.DataObject) -> None:
    tree, size = grown(given_), data.draw(st.integers(0, len(given_)))
    first = data.draw(st.integers(0, size))
    assert consistent(first, size, tree.root(first), tree.root(size), tree.consistency(first, size))


@given(entries, st.data())
def test_no_proof_joins_a_state_to_a_log_that_was_rewritten_before_it(given_: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(given_)))
    place = data.draw(st.integers(0, first - 1))
    changed = [*given_[:place], given_[place] + b"!", *given_[place + 1 :]]
    before, after = grown(given_), grown(changed)
    size = len(given_)
    for path in (before.consistency(first, size), after.consistency(first, size)):
        assert not consistent(first, size, before.root(first), after.root(size), path)


@given(entries, st.data())
def test_a_proof_with_one_bit_changed_holds_no_more(given_: list[bytes], data: st.DataObject) -> None:
    tree, size = grown(given_), len(given_)
    first = data.draw(st.integers(1, size))
    path = tree.consistency(first, size)
    assume(path)
    place, bit = data.draw(st.integers(0, len(path) - 1)), data.draw(st.integers(0, 255))
    node = bytearray(path[place])
    node[bit // 8] ^= 1 << bit % 8
    changed: list[Any] = [*path[:place], bytes(node), *path[place + 1 :]]
    assert not consistent(first, size, tree.root(first), tree.root(size), changed)
    assert not consistent(first, size, tree.root(first), tree.root(size), path[:-1])
    assert not consistent(first, size, tree.root(first), tree.root(size), [*path, path[0]])


def test_states_the_tree_never_had_are_refused() -> None:
    tree = grown(LEAVES)
    for wrong in (
        lambda: tree.root(9),
        lambda: tree.inclusion(8),
        lambda: tree.consistency(5, 4),
        lambda: tree.root(-1),
    ):
        with pytest.raises(ValueError, match="8 leaves"):
            wrong()
    assert not consistent(3, 2, tree.root(3), tree.root(2), [])
    assert not consistent(0, 2, tree.root(1), tree.root(2), [])
