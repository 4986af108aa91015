"""The shard plan and the hash tree, against slow and obvious versions."""

from __future__ import annotations

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from swarm.merge import blocks
from swarm.merge.plan import CHUNK, Plan

SIZES = st.integers(0, 1 << 22).map(lambda n: n // 64 * 64)


@given(st.integers(0, 1 << 40))
def test_block_size_is_bounded_and_never_cuts_an_element(size: int) -> None:
    block = blocks.block_size(size)
    assert 1 << 10 <= block <= 1 << 20
    assert block % 64 == 0
    if block < 1 << 20:
        assert blocks.block_count(size) <= 1024


@given(SIZES, st.integers(1, 25))
def test_shards_and_chunks_cover_every_block_once_in_order(size: int, members: int) -> None:
    plan = Plan(size, members)
    at_block, at_byte = 0, 0
    for index in range(members):
        first, last = plan.shard(index)
        assert first == at_block
        for number in range(plan.chunk_count(index)):
            chunk = plan.chunk(index, number)
            assert (chunk.first, chunk.start) == (at_block, at_byte)
            assert 0 < chunk.size <= max(CHUNK, plan.block)
            assert chunk.size <= plan.largest_chunk()
            at_block, at_byte = chunk.last, chunk.stop
        assert at_block == last
    assert at_block == plan.blocks
    assert at_byte == size


@given(SIZES, st.integers(1, 25))
def test_shards_are_equal_within_one_block(size: int, members: int) -> None:
    plan = Plan(size, members)
    counts = [last - first for first, last in map(plan.shard, range(members))]
    assert max(counts) - min(counts) <= 1


@given(st.binary(max_size=20_000))
def test_tree_is_what_its_description_says(data: bytes) -> None:
    size = blocks.block_size(len(data))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    slow = blake3(b"".join(blake3(piece).digest() for piece in pieces)).digest()
    leaves = blocks.leaves(memoryview(data), size)
    assert blocks.root(leaves) == slow
    assert len(leaves) == blocks.block_count(len(data))
    assert blocks.split(b"".join(leaves)) == leaves


@given(st.binary(min_size=1, max_size=5_000), st.data())
def test_one_changed_byte_changes_the_root(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    other = bytearray(data)
    other[at] ^= 1
    size = blocks.block_size(len(data))
    assert blocks.root(blocks.leaves(memoryview(data), size)) != blocks.root(
        blocks.leaves(memoryview(other), size)
    )
