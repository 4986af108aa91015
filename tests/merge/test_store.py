"""Where contributions wait: no two in one place, none where something else is needed."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.merge.plan import Plan
from swarm.merge.store import Parked, Ring, Window


class Counting(Window):
    """A window that remembers how much was asked for."""

    asked = 0

    def take(self, use: str, size: int) -> memoryview:
        self.asked = size
        return super().take(use, size)


@pytest.mark.parametrize("members", [2, 3, 4, 7, 8, 33])
@pytest.mark.parametrize("size", [0, 64, 4096, 100_032, 3_000_000, 12_000_000])
def test_parked_contributions_have_a_place_each(size: int, members: int) -> None:
    plan = Plan(size, members)
    for me in {0, members // 2, members - 1}:
        window = Counting()
        store = Parked(plan, me, members - 1, window)
        for row in range(members - 1):
            for number in range(plan.chunk_count(me)):
                chunk = plan.chunk(me, number)
                place = np.frombuffer(store.place(row, number, chunk.size), np.uint8)
                assert store.fits(number, 0) and len(place) == chunk.size
                assert not place.any(), "nothing else lies here"
                place[:] = 1
        start, stop = plan.bounds(me)
        assert window.asked == (members - 1) * (stop - start), "no byte more than what comes"


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
    window.take("a", 100)[:] = b"x" * 100
    assert bytes(window.take("a", 50)) == b"x" * 50
    assert not any(window.take("b", 50)), "each use has its own"
    assert not any(window.take("a", 200))
