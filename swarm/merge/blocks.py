"""The hash tree over a vector: what the ledger knows of weights that never travel through it.

A vector (the data section of a tensor file) is cut into equal blocks, the last may be shorter. Leaf
digests are BLAKE3 of the blocks; the root is BLAKE3 of their concatenation. Two levels are enough:
the list of leaves is 32 B for each block, so it is sent whole, checked against the root from the
ledger, and then every block is checked on its own, in any order, from any peer.

One tree serves both purposes: the *contribution root* of a check-in and the *digest* of a merged
vector.
"""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

DIGEST = 32  # bytes of one digest
ALIGN = 64  # vectors are padded to it, so a block never cuts an element
LARGEST_BLOCK = 1 << 20
SMALLEST_BLOCK = 1 << 10
BLOCKS_AIMED_AT = 192  # can be shared out evenly by many numbers of members; the list stays short


def block_size(size: int) -> int:
    """Bytes of a block of a vector of `size` bytes: about 192 blocks, within 1 KiB to 1 MiB."""
    aimed = -(-size // BLOCKS_AIMED_AT)
    return min(LARGEST_BLOCK, max(SMALLEST_BLOCK, -(-aimed // ALIGN) * ALIGN))


def block_count(size: int) -> int:
    """Number of blocks of a vector of `size` bytes; an empty vector has none."""
    return -(-size // block_size(size))


def leaf(block: memoryview | bytes) -> bytes:
    """Digest of one block."""
    digest: bytes = blake3(block).digest()
    return digest


def leaves(vector: memoryview, block: int) -> list[bytes]:
    """Digests of all blocks of `block` bytes of `vector`, in order."""
    return [leaf(vector[at : at + block]) for at in range(0, len(vector), block)]


def root(digests: Iterable[bytes]) -> bytes:
    """Root over leaf digests; also the digest of a shard, over that shard's leaves."""
    digest: bytes = blake3(b"".join(digests)).digest()
    return digest


def split(raw: bytes | memoryview) -> list[bytes]:
    """Cut concatenated digests apart; a ragged end is the caller's length check to catch."""
    return [bytes(raw[at : at + DIGEST]) for at in range(0, len(raw), DIGEST)]
