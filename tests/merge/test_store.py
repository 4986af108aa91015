"""Where contributions wait: no two in one place, none where something else is needed."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.merge.plan import Plan
from swarm.merge.store import Parked, Ring, Window


class Counting(Window):
    """A window that remembers how much was asked for."""

    asked = 0

    def take(self, size: int) -> memoryview:
        self.asked = size
        return super().take(size)


@pytest.mark.parametrize("members", [2, 3, 4, 7, 8, 33])
@pytest.mark.parametrize("size", [0, 64, 4096, 100_032, 3_000_000, 12_000_000])
@pytest.mark.parametrize("in_place", [False, True])
def test_parked_contributions_lie_in_what_is_free(size: int, members: int, in_place: bool) -> None:
    """The output outside our shard, or nothing where the result takes the contribution's place."""
    plan = Plan(size, members)
    for me in {0, members // 2, members - 1}:
        window, output = Counting(), np.zeros(size, np.uint8)
        start, stop = plan.bounds(me)
        free = () if in_place else (memoryview(output)[:start], memoryview(output)[stop:])
        store = Parked(plan, me, members - 1, free, window)
        for row in range(members - 1):
            for number in range(plan.chunk_count(me)):
                chunk = plan.chunk(me, number)
                place = np.frombuffer(store.place(row, number, chunk.size), np.uint8)
                assert store.fits(number, 0) and len(place) == chunk.size
                assert not place.any(), "nothing else lies here"
                place[:] = 1
        assert not output[start:stop].any()
        if in_place:
            assert window.asked == (members - 1) * (stop - start), "no byte more than what comes"
        else:
            # A piece at the end of each part that no chunk fits in, and a block of each giver.
            assert window.asked <= 2 * plan.largest_chunk() + (members - 1) * plan.block


def test_a_ring_is_full_until_a_chunk_of_all_is_reduced() -> None:
    plan = Plan(3_000_000, 3)
    ring = Ring(plan, 2, Window())
    slots = plan.slots(2)
    assert slots < plan.chunk_count(0)
    assert ring.fits(slots - 1, 0) and not ring.fits(slots, 0) and ring.fits(slots, 1)
    size = plan.largest_chunk()
    for row in range(2):
        for number in range(slots):
            place = np.frombuffer(ring.place(row, number, size), np.uint8)
            assert not place.any()
            place[:] = 1
    assert bytes(ring.place(0, slots, 1)) == b"\1", "the slot of chunk 0"


def test_a_window_is_used_again() -> None:
    window = Window()
    window.take(100)[:] = b"x" * 100
    assert bytes(window.take(50)) == b"x" * 50
    assert not any(window.take(200))
