"""Who reduces what: a vector cut into one shard for each roster member, and shards into chunks.

    vector   |b|b|b|b|b|b|b|b|b|b|b|b|…        blocks: what is hashed (see `blocks`)
    shards   |---- 0 ----|---- 1 ----|…        whole blocks, counts equal within one
    chunks   |-- 0 --|-1-|-- 0 --|-1-|…        whole blocks, what one frame carries

Everybody computes the same plan from the vector's size and the number of members. A vector of fewer
blocks than members leaves the last members without a shard, which is a correct plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.merge.blocks import block_count, block_size

CHUNK = 1 << 20  # bytes aimed at: long enough to make frames cheap, short enough to stay in cache
# What a member sets aside for contributions that it has not reduced yet: a tenth of the vector, so
# that memory stays in proportion to the model, within these bounds.
LARGEST_WINDOW = 16 << 20
SMALLEST_WINDOW = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """A run of whole blocks: bytes `start` to `stop`, blocks `first` to `last` (exclusive)."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Bytes of the chunk."""
        return self.stop - self.start


class Plan:
    """The cut of a vector of `size` bytes among `members` members. Immutable."""

    def __init__(self, size: int, members: int) -> None:
        if size < 0 or members < 1:
            raise ValueError(f"no plan for {size} B and {members} members")
        self.size = size
        self.members = members
        self.block = block_size(size)
        self.blocks = block_count(size)
        self.window = min(LARGEST_WINDOW, max(SMALLEST_WINDOW, size // 10))
        # Two chunks of every other member fit into the window: one fills while one is reduced.
        aimed = min(CHUNK, self.window // (2 * max(1, members - 1)))
        self.run = max(1, aimed // self.block)  # blocks of a full chunk

    def shard(self, index: int) -> tuple[int, int]:
        """First block of shard `index`, and the block after its last."""
        return index * self.blocks // self.members, (index + 1) * self.blocks // self.members

    def bounds(self, index: int) -> tuple[int, int]:
        """First byte of shard `index`, and the byte after its last."""
        first, last = self.shard(index)
        return min(first * self.block, self.size), min(last * self.block, self.size)

    def chunk_count(self, index: int) -> int:
        """Number of chunks of shard `index`."""
        first, last = self.shard(index)
        return -(-(last - first) // self.run)

    def chunk(self, index: int, number: int) -> Chunk:
        """Chunk `number` of shard `index`."""
        first, last = self.shard(index)
        start = first + number * self.run
        stop = min(start + self.run, last)
        return Chunk(start * self.block, min(stop * self.block, self.size), start, stop)

    def slots(self, senders: int) -> int:
        """Chunks that each of `senders` may be ahead of the reduction.

        All of them stay within the window; only where single blocks are too large for that (more
        than 16 members and more than 1 GiB) it grows to one block for each.
        """
        return max(1, self.window // max(1, senders * self.largest_chunk()))

    def largest_chunk(self) -> int:
        """Bytes that hold any chunk of this plan."""
        return min(self.run * self.block, self.size)
