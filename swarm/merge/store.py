"""Where contributions to our shard lie until they are reduced."""

from __future__ import annotations

from swarm.merge.plan import Plan


class Window:
    """Memory for contributions that wait to be reduced; kept between exchanges."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def take(self, size: int) -> memoryview:
        """`size` bytes. Fresh pages cost as much as a copy, so a large enough piece is reused."""
        if len(self._memory) < size:
            self._memory = bytearray(size)
        return memoryview(self._memory)[:size]


class Ring:
    """A ring of chunk slots for each giver: enough when chunks are reduced as soon as all gave."""

    def __init__(self, plan: Plan, givers: int, window: Window) -> None:
        self._slots = plan.slots(givers)
        self._slot = plan.largest_chunk()
        self._memory = window.take(self._slots * givers * self._slot)

    def fits(self, number: int, reduced: int) -> bool:
        """There is room for chunk `number` when the first `reduced` ones are reduced."""
        return number - reduced < self._slots

    def place(self, row: int, number: int, size: int) -> memoryview:
        """Memory for chunk `number`, of `size` bytes, of the giver with index `row`."""
        at = (row * self._slots + number % self._slots) * self._slot
        return self._memory[at : at + size]
