"""What is known of one attempt to merge: shared by its threads, guarded by one condition.

`exchange` has the theory of operation; `sending`, `receiving` and the reducer work on this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from swarm.merge.blocks import leaf
from swarm.merge.dial import Member
from swarm.merge.mean import Segment, contributors
from swarm.merge.plan import Chunk, Plan
from swarm.merge.progress import Limits, Link
from swarm.merge.wire import Channel


class Key(NamedTuple):
    """Names one attempt; `contract` is the training contract's name."""

    contract: str
    round: int
    attempt: int


class Result(NamedTuple):
    """A finished exchange: the output holds the vector with this digest."""

    key: Key
    digest: bytes
    shards: list[bytes]  # root over the leaves of each member's shard
    leaves: list[bytes]


class Buffers(NamedTuple):
    """The vectors of an exchange, and the types in them. `leaves` are the contribution's."""

    contribution: memoryview
    leaves: list[bytes]
    output: memoryview
    layout: Sequence[Segment]


class Attempt:
    """State of one attempt. Indices are those of members in the order of their uids.

    Whoever writes to what follows `changed` holds that lock, except where a single thread writes
    what nobody else reads before it is announced under the lock.
    """

    def __init__(
        self,
        key: Key,
        me: str,
        members: Sequence[Member],
        buffers: Buffers,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self.key = key
        self.members = sorted(members, key=lambda member: member.uid)
        self.uids = [member.uid for member in self.members]
        self.me = self.uids.index(me)
        self.buffers = buffers
        self.clock = clock
        self.plan = Plan(len(buffers.contribution), len(members))
        self.mine = self.plan.chunk_count(self.me)
        self.contributors = contributors([member.weight for member in self.members])
        self.givers = [i for i in self.contributors if i != self.me]

        self.changed = threading.Condition()
        self.aborted = False
        self.done = False
        others = [i for i in range(len(members)) if i != self.me]
        now = clock()
        self.links = {i: Link(limits, now) for i in others}
        self.ready = dict.fromkeys(self.givers, 0)  # chunks of our shard, from each
        self.reduced = 0  # chunks of our shard
        self.got = dict.fromkeys(others, 0)  # reduced chunks of their shards
        self.leaves: list[bytes] = [b""] * self.plan.blocks  # of the output
        self.incoming: dict[int, Channel] = {}
        self.outgoing: dict[int, Channel] = {}
        self.bytes_sent = 0

    def name(self, i: int) -> str:
        """What people call member `i`."""
        return self.members[i].name

    def all_gave(self, number: int) -> bool:
        """Chunk `number` of our shard is here from all; or nobody cares any more."""
        return self.aborted or all(ready > number for ready in self.ready.values())

    def have_all(self) -> bool:
        """The whole output is here."""
        return self.reduced >= self.mine and all(
            got >= self.plan.chunk_count(j) for j, got in self.got.items()
        )

    def note_leaves(self, chunk: Chunk, data: memoryview) -> None:
        """Digest what was written to the output for `chunk`."""
        block = self.plan.block
        for number in range(chunk.last - chunk.first):
            piece = data[number * block : (number + 1) * block]
            self.leaves[chunk.first + number] = leaf(piece)

    def progressed(self, i: int) -> None:
        """Account for one more part of what member `i` owes; the caller holds the lock."""
        link = self.links[i]
        link.data_came(self.clock())
        gave = self.ready.get(i, self.mine) >= self.mine
        link.complete = gave and self.got[i] >= self.plan.chunk_count(i)

    def blame(self, i: int, why: str) -> None:
        """Member `i` provably did something wrong; the first thing counts."""
        with self.changed:
            self.links[i].fault = self.links[i].fault or why

    def not_reached(self, i: int, why: str) -> None:
        """Member `i` could not be connected to."""
        with self.changed:
            self.links[i].not_reached(why, self.clock())

    def abort(self) -> None:
        """Wake everybody, end all connections, and wait until nobody uses one any more."""
        with self.changed:
            self.aborted = True
            self.changed.notify_all()
            for channel in [*self.incoming.values(), *self.outgoing.values()]:
                channel.abort()
            self.changed.wait_for(lambda: not self.incoming and not self.outgoing)
