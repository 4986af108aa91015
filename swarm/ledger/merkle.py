"""Merkle trees as in RFC 6962, 2.1: one hash for a list, and short proofs that an item is in it.

Leaves and inner nodes are hashed with different prefixes, so an inner node cannot pass for a leaf.
The hash does not say how long the list is: whoever checks a proof must know that from elsewhere (a
block's header holds it), as otherwise a place could be claimed that is not the item's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

HASH = 32  # bytes
LEAF = b"\x00"
NODE = b"\x01"


def leaf(item: bytes) -> bytes:
    """Hash of one item."""
    return hashlib.sha256(LEAF + item).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Hash of two neighbours."""
    return hashlib.sha256(NODE + left + right).digest()


def root(items: Sequence[bytes]) -> bytes:
    """The hash of a list; of an empty one, the hash of nothing."""
    level = [leaf(item) for item in items]
    if not level:
        return hashlib.sha256(b"").digest()
    while len(level) > 1:
        level = _above(level)
    return level[0]


def _above(level: list[bytes]) -> list[bytes]:
    """The level above: pairs are joined, one without a neighbour moves up as it is.

    This is the RFC's recursion, which cuts at the largest power of two below the size, from below.
    """
    pairs = [node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return pairs + level[len(pairs) * 2 :]


def proof(items: Sequence[bytes], index: int) -> list[bytes]:
    """The neighbours on the way from item `index` to the root, the nearest first."""
    if not 0 <= index < len(items):
        raise IndexError(index)
    level, path = [leaf(item) for item in items], []
    while len(level) > 1:
        neighbour = index ^ 1
        if neighbour < len(level):
            path.append(level[neighbour])
        level, index = _above(level), index // 2
    return path


def proves(expected: bytes, item: bytes, index: int, size: int, path: Sequence[bytes]) -> bool:
    """Whether `path` shows that `item` is number `index` of the `size` items that hash to
    `expected`. Any values of the right types may be given."""
    if not 0 <= index < size or any(len(step) != HASH for step in path):
        return False
    value, steps = leaf(item), iter(path)
    last = size - 1
    while last:
        if index ^ 1 <= last:
            step = next(steps, None)
            if step is None:
                return False
            value = node(step, value) if index & 1 else node(value, step)
        index, last = index // 2, last // 2
    return next(steps, None) is None and value == expected
