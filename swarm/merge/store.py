"""Where contributions to our shard lie until they are reduced, and what takes the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from swarm.merge.plan import Plan

Write = Callable[[int, memoryview], None]  # takes bytes of a vector from this one on, or OSError


class Window:
    """Memory that exchanges work in; kept between them, as fresh pages cost as much as a copy."""

    def __init__(self) -> None:
        self._pieces: dict[str, bytearray] = {}

    def take(self, use: str, size: int) -> memoryview:
        """`size` bytes for one use: the same memory at each call, or more of it."""
        piece = self._pieces.get(use, bytearray())
        if len(piece) < size:
            piece = self._pieces[use] = bytearray(size)
        return memoryview(piece)[:size]


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
        self._memory = window.take("waiting", self._slots * givers * self._slot)

    def fits(self, number: int, reduced: int) -> bool:
        """See `Store`."""
        return number - reduced < self._slots

    def place(self, row: int, number: int, size: int) -> memoryview:
        """See `Store`."""
        at = (row * self._slots + number % self._slots) * self._slot
        return self._memory[at : at + size]


class Parked(Store):
    """Room for all contributions to our shard, for methods that must have seen all before one."""

    def __init__(self, plan: Plan, me: int, givers: int, window: Window) -> None:
        start, stop = plan.bounds(me)
        self._shard = stop - start
        self._chunk = plan.largest_chunk()
        self._memory = window.take("waiting", givers * self._shard)

    def fits(self, number: int, reduced: int) -> bool:
        """See `Store`."""
        return True

    def place(self, row: int, number: int, size: int) -> memoryview:
        """See `Store`."""
        at = row * self._shard + number * self._chunk
        return self._memory[at : at + size]
