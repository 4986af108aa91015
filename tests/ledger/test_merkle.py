"""Merkle trees against RFC 6962's recursion and its published test vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.ledger import merkle

# Inputs and roots of the reference implementation of Certificate Transparency
# (google/certificate-transparency, merkletree/merkle_tree_test.cc).
INPUTS = [
    b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57", bytes(range(0x60, 0x70)),
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def recursive(items: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word for word."""
    n = len(items)
    if n == 0:
        return hashlib.sha256(b"").digest()
    if n == 1:
        return hashlib.sha256(b"\x00" + items[0]).digest()
    k = 1
    while k * 2 < n:
        k *= 2
    return hashlib.sha256(b"\x01" + recursive(items[:k]) + recursive(items[k:])).digest()


def recursive_path(m: int, items: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1, word for word."""
    n = len(items)
    if n == 1:
        return []
    k = 1
    while k * 2 < n:
        k *= 2
    if m < k:
        return [*recursive_path(m, items[:k]), recursive(items[k:])]
    return [*recursive_path(m - k, items[k:]), recursive(items[:k])]


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_the_published_roots(size: int) -> None:
    assert merkle.root(INPUTS[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 500])
def test_roots_and_paths_are_the_rfcs_for_every_place(size: int) -> None:
    items = [b"%d" % number for number in range(size)]
    expected = merkle.root(items)
    assert expected == recursive(items)
    for index in range(size):
        path = merkle.proof(items, index)
        assert path == recursive_path(index, items)
        assert merkle.proves(expected, items[index], index, size, path)


def test_no_place_outside_the_list_has_a_path() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            merkle.proof([b"a", b"b", b"c"], index)


@given(st.integers(1, 40), st.data())
def test_a_proof_of_anything_else_is_refused(size: int, data: st.DataObject) -> None:
    items = [b"%d" % number for number in range(size)]
    expected, index = merkle.root(items), data.draw(st.integers(0, size - 1))
    path = merkle.proof(items, index)
    assert not merkle.proves(expected, b"another", index, size, path)
    for other in range(-1, size + 1):
        assert merkle.proves(expected, items[index], other, size, path) == (other == index)
    assert not merkle.proves(expected, items[index], index, size, [*path, b"x" * 32])
    assert not merkle.proves(expected, items[index], index, size, [*path[:-1], b"x" * 31])
    if path:
        assert not merkle.proves(expected, items[index], index, size, path[:-1])
        place = data.draw(st.integers(0, len(path) - 1))
        altered = bytearray(path[place])
        altered[data.draw(st.integers(0, 31))] ^= 1
        wrong = [*path[:place], bytes(altered), *path[place + 1 :]]
        assert not merkle.proves(expected, items[index], index, size, wrong)


def test_an_inner_node_is_no_item() -> None:
    items = [b"a", b"b", b"c", b"d"]
    inner = merkle.leaf(b"a") + merkle.leaf(b"b")
    right = merkle.node(merkle.leaf(b"c"), merkle.leaf(b"d"))
    assert not merkle.proves(merkle.root(items), inner, 0, 2, [right])
