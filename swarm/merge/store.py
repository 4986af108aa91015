"""Where contributions to our shard lie until they are reduced, and how vectors are copied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from swarm.merge.plan import Plan


def copy(source: memoryview, target: memoryview) -> None:
    """Copy between vectors: by numpy, as it lets other threads run meanwhile."""
    np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))


class Window:
    """Memory for contributions that wait to be reduced; kept between exchanges."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def take(self, size: int) -> memoryview:
        """`size` bytes. Fresh pages cost as much as a copy, so a large enough piece is reused."""
        if len(self._memory) < size:
            self._memory = bytearray(size)
        return memoryview(self._memory)[:size]


class Store(ABC):
    """Memory for chunks of our shard; `row` is the index of a giver among all givers."""

    @abstractmethod
    def fits(self, number: int, reduced: int) -> bool:
        """There is room for chunk `number` when the first `reduced` ones are reduced."""

    @abstractmethod
    def place(self, row: int, number: int, size: int) -> memoryview:
        """Memory for chunk `number`, of `size` bytes, of giver `row`; the same at each call."""


class Ring(Store):
    """A ring of chunk slots for each giver: enough when chunks are reduced as soon as all gave."""

    def __init__(self, plan: Plan, givers: int, window: Window) -> None:
        self._slots = plan.slots(givers)
        self._slot = plan.largest_chunk()
        self._memory = window.take(self._slots * givers * self._slot)

    def fits(self, number: int, reduced: int) -> bool:
        """See `Store`."""
        return number - reduced < self._slots

    def place(self, row: int, number: int, size: int) -> memoryview:
        """See `Store`."""
        at = (row * self._slots + number % self._slots) * self._slot
        return self._memory[at : at + size]


class Parked(Store):
    """Room for all contributions to our shard, in memory that is free until that is reduced.

    It may be the output outside our shard, which is as large as what the n-1 others contribute to a
    shard, up to a block of each. What does not fit goes to the window: a chunk at the end of each
    part, and those blocks; or all, when nothing is free.
    """

    def __init__(
        self, plan: Plan, me: int, givers: int, free: Sequence[memoryview], window: Window
    ) -> None:
        parts, used = list(free), [0] * len(free)
        over = 0
        spilled: list[tuple[int, int]] = []
        self._places: dict[tuple[int, int], memoryview] = {}
        for row in range(givers):
            for number in range(plan.chunk_count(me)):
                size = plan.chunk(me, number).size
                part = next((p for p, m in enumerate(parts) if used[p] + size <= len(m)), None)
                if part is None:
                    spilled.append((row, number))
                    over += size
                    continue
                self._places[row, number] = parts[part][used[part] : used[part] + size]
                used[part] += size
        memory = window.take(over)
        for row, number in spilled:
            size = plan.chunk(me, number).size
            self._places[row, number], memory = memory[:size], memory[size:]

    def fits(self, number: int, reduced: int) -> bool:
        """See `Store`."""
        return True

    def place(self, row: int, number: int, size: int) -> memoryview:
        """See `Store`."""
        return self._places[row, number]
