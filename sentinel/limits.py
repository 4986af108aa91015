"""What one member may ask of this node: a bounded share, so that nobody waits for somebody else.

A member is a certificate's key. Each has a bucket of units that come back at a rate, and a number
of requests that may be under way at the same time. What is beyond waits for its turn, first come,
first served among the member's own requests, and is turned away after `HOLD` seconds with status
429. Waiting first is what makes refusals cheap: whoever asks again at once, over all connections
that it may have, gets `MAX_OF_ONE` (`sentinel.server`) refusals in `HOLD` seconds and no more.

The rates are far above what members need, and no promise: what the ledger carries is shared out by
turns (`swarm.ledger.mempool`). They bound the time that a member's requests may take from the node,
whatever they ask for: a unit is about a millisecond of it at most.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from swarm.bucket import Bucket
from swarm.identity import Peer

RATE, BURST = 400.0, 1200.0  # units a second, and at once
TICK = 0.001  # seconds
HOLD = 2.0  # seconds that a request waits for its turn
MAX_WAITING = 128  # requests of a member that wait; beyond, its connections are closed
UNIT_BYTES = 16 * 1024  # of an answer, for one unit
REFUSED = 8.0  # units for a request that was wrong
MAX_MEMBERS = 2048  # remembered; those that do nothing are forgotten first
MAX_NAMES = 256  # members whose refusals are counted by name


class Kind(NamedTuple):
    """A kind of requests: units for one, how many of a member at the same time, and in words."""

    units: float
    most: int
    name: str


TRANSACTION = Kind(1.0, 96, "transactions under way")
READ = Kind(4.0, 16, "reads under way")
STREAM = Kind(4.0, 96, "event streams")


class Crowded(Exception):
    """A member's request is turned away.

    `limit` is one word for counters; `close` asks for the end of its connection.
    """

    def __init__(self, limit: str, text: str, retry_after: int, close: bool = False) -> None:
        super().__init__(text)
        self.limit = limit
        self.text = text
        self.retry_after = retry_after
        self.close = close


class _Queue:
    """The requests of one member and kind: those under way, and those that wait in order."""

    __slots__ = ("freed", "turn", "used")

    def __init__(self) -> None:
        self.used = 0
        self.turn = trio.Lock()  # held by the first of those that wait
        self.freed = trio.Event()

    def idle(self) -> bool:
        return not self.used and not self.turn.locked()


class Member:
    """What one certificate does at this node now."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bucket = Bucket(RATE, BURST, clock())
        self._queues: dict[Kind, _Queue] = {}
        self._waiting = 0

    def idle(self) -> bool:
        """Whether it may be forgotten."""
        calm = self._bucket.full(self._clock())
        return calm and not self._waiting and all(q.idle() for q in self._queues.values())

    async def pay(self, units: float) -> None:
        """Use up some units, and wait until they are there: for what goes on for long."""
        debt = self._bucket.spend(units, self._clock())
        if debt:
            await trio.sleep(debt)

    async def enter(self, kind: Kind) -> None:
        """Wait for the turn of a request. Raises Crowded."""
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = _Queue()
        calm = queue.used < kind.most and not queue.turn.locked()
        if calm and self._bucket.take(kind.units, self._clock()):
            queue.used += 1
            return
        if self._waiting >= MAX_WAITING:
            text = f"{MAX_WAITING} requests of this certificate wait already"
            raise Crowded("waiting", text, math.ceil(HOLD), close=True)
        self._waiting += 1
        try:
            with trio.move_on_after(HOLD):
                async with queue.turn:
                    await self._wait(queue, kind)
                    return
        finally:
            self._waiting -= 1
        if queue.used >= kind.most:
            text = f"this certificate has {kind.most} {kind.name} at this node already"
            raise Crowded(kind.name.replace(" ", "_"), text, 1)
        text = f"this certificate asks for more than {RATE:g} units a second of this node"
        raise Crowded("rate", text, max(1, math.ceil(self._bucket.missing(1, self._clock()))))

    async def _wait(self, queue: _Queue, kind: Kind) -> None:
        while queue.used >= kind.most:
            queue.freed = trio.Event()
            await queue.freed.wait()
        while not self._bucket.take(kind.units, self._clock()):
            # Not by less than a tick: what rounding leaves would be waited for again and again.
            await trio.sleep(max(TICK, self._bucket.missing(kind.units, self._clock())))
        queue.used += 1

    def leave(self, kind: Kind, status: int, size: int) -> None:
        """A request is answered, with `size` bytes."""
        queue = self._queues[kind]
        queue.used -= 1
        queue.freed.set()
        units = size / UNIT_BYTES if size > UNIT_BYTES else 0.0
        if 400 <= status < 500 and status != 404:
            units += REFUSED
        if units:
            self._bucket.spend(units, self._clock())


class Limits:
    """All members of this node. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._members: OrderedDict[str, Member] = OrderedDict()
        self._refused: Counter[tuple[str, str]] = Counter()

    def member(self, peer: Peer) -> Member:
        """The member with this certificate's key."""
        member = self._members.get(peer.holder)
        if member is None:
            member = self._members[peer.holder] = Member(self._clock)
            self._forget_idle()
        return member

    def _forget_idle(self) -> None:
        """Keep the number bounded: connections are, so some of so many do nothing."""
        for _ in range(min(4, len(self._members) - MAX_MEMBERS)):
            key, member = self._members.popitem(last=False)
            if not member.idle():
                self._members[key] = member

    def refuse(self, name: str, limit: str) -> None:
        """Count a refusal, under the common name of the member."""
        key = (name, limit)
        if key not in self._refused and len(self._refused) >= MAX_NAMES:
            key = ("others", limit)
        self._refused[key] += 1

    def refused(self) -> Mapping[tuple[str, str], int]:
        """How often a member met a limit: (common name, limit) to number."""
        return self._refused

    def by_member(self) -> dict[str, int]:
        """Refusals of each member since the start."""
        totals: Counter[str] = Counter()
        for (name, _), count in self._refused.items():
            totals[name] += count
        return dict(totals)


class _Address:
    """What one address does."""

    def __init__(self, now: float) -> None:
        self.bucket = Bucket(Addresses.RATE, Addresses.BURST, now)
        self.slots = trio.Semaphore(Addresses.AT_ONCE)
        self.waiting = 0


class Addresses:
    """TLS handshakes, which cost more than any request: a rate, and how many at the same time.

    By address, as nobody is known yet. A host's learners may start together.
    """

    RATE, BURST = 50.0, 200.0  # handshakes a second, and at once
    AT_ONCE = 32
    MAX_WAITING = 64  # connections of an address that wait for their handshake
    MOST = 1024

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[str, _Address] = OrderedDict()

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait until this address may shake hands. Raises Crowded when too many wait already."""
        address = self._known.get(name)
        if address is None:
            address = self._known[name] = _Address(self._clock())
            while len(self._known) > self.MOST:
                self._known.popitem(last=False)
        if address.waiting >= self.MAX_WAITING:
            raise Crowded("handshakes", "too many connections wait for their handshake", 1)
        address.waiting += 1
        try:
            await address.slots.acquire()
        finally:
            address.waiting -= 1
        try:
            await trio.sleep(address.bucket.spend(1, self._clock()))
            yield
        finally:
            address.slots.release()
