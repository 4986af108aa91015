"""What is known of one attempt to merge: shared by its threads, guarded by one condition.

`exchange` has the theory of operation; `sending`, `receiving` and the reducer work on this.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3

from swarm.errors import LocalError, RemoteError
from swarm.merge import methods
from swarm.merge.agreement import Agreement
from swarm.merge.blocks import leaves, root
from swarm.merge.dial import Member
from swarm.merge.mean import Segment
from swarm.merge.methods import MixingWeights
from swarm.merge.methods.base import Matrix
from swarm.merge.methods.distances import Distances
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


class Law(NamedTuple):
    """How to merge: a method's name and its mergeArgs, as the contract's rules have them."""

    method: str = "mean"
    args: Mapping[str, Any] = {}


class Buffers(NamedTuple):
    """The vectors of an exchange, and the types in them. `leaves` are the contribution's.

    `output` may be `contribution`, the same object: then the result takes its place, piecewise.
    """

    contribution: memoryview
    leaves: list[bytes]
    output: memoryview
    layout: Sequence[Segment]


class Attempt:
    """State of one attempt. Indices are those of members in the order of their uids.

    Those who work on it refer to it, and it to none of them: when it has ended, its memory is free
    at once. Whoever writes to what follows `changed` holds that lock, except where a single thread
    writes what nobody else reads before it is announced under the lock.
    """

    def __init__(
        self,
        key: Key,
        me: str,
        members: Sequence[Member],
        buffers: Buffers,
        law: Law,
        limits: Limits,
        clock: Callable[[], float],
        on_done: Callable[[Result], None],
    ) -> None:
        """Raises LocalError when the method is not here (SW6006) or its arguments make no sense."""
        self.key = key
        self.members = sorted(members, key=lambda member: member.uid)
        self.uids = [member.uid for member in self.members]
        self.me = self.uids.index(me)
        self.buffers = buffers
        self.clock = clock
        self._on_done = on_done
        self.plan = Plan(len(buffers.contribution), len(members))
        self.mine = self.plan.chunk_count(self.me)
        weights = [member.weight for member in self.members]
        self.method = methods.make(law.method, law.args, buffers.layout, weights)
        self.contributors = self.method.contributors
        self.givers = [i for i in self.contributors if i != self.me]
        self.agreement: Agreement | None = None
        if isinstance(self.method, MixingWeights):
            names = [member.name for member in self.members]
            self.agreement = Agreement(self._subject(), self.me, names, len(self.contributors))

        self.changed = threading.Condition()
        self.aborted = False
        self.done = False
        self.failure: LocalError | RemoteError | None = None  # our own part cannot be done
        others = [i for i in range(len(members)) if i != self.me]
        now = clock()
        self.links = {i: Link(limits, now, self.plan.largest_chunk()) for i in others}
        self.ready = dict.fromkeys(self.givers, 0)  # chunks of our shard, from each
        self.measured = 0  # chunks of our shard whose distances are known; with an agreement only
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
        """Chunk `number` of our shard is here from all."""
        return all(ready > number for ready in self.ready.values())

    def have_all(self) -> bool:
        """The whole output is here, and all have made it from the same distances."""
        if self.reduced < self.mine:
            return False
        if any(got < self.plan.chunk_count(j) for j, got in self.got.items()):
            return False
        return self.agreement is None or self.agreement.sealed()

    def arrived(self) -> None:
        """A part of the output has come: if it was the last one, say that it is whole."""
        with self.changed:
            if self.done or self.aborted or not self.have_all():
                return
            self.done = True
        shards = []
        for index in range(len(self.members)):
            first, last = self.plan.shard(index)
            shards.append(root(self.leaves[first:last]))
        self._on_done(Result(self.key, root(self.leaves), shards, self.leaves))

    def own_progress(self) -> int:
        """Bytes that we have taken in and worked on: what those wait for who wait for us."""
        took = sum(self.ready.values()) + sum(self.got.values())
        return (took + self.measured + self.reduced) * self.plan.largest_chunk()

    def progress_of(self, i: int) -> int:
        """Bytes that have come from member `i`, and that it says it has worked on itself.

        The latter as one may wait for its distances while it takes in what is due to it. What it
        says of others is not passed on: around a circle that would grow without an end.
        """
        link = self.links[i]
        return link.received + link.heard.get(self.uids[i], 0)

    def note_leaves(self, chunk: Chunk, data: memoryview) -> None:
        """Digest what was written to the output for `chunk`."""
        self.leaves[chunk.first : chunk.last] = leaves(data, self.plan.block)

    def progressed(self, i: int) -> None:
        """Account for one more part of what member `i` owes; the caller holds the lock."""
        link = self.links[i]
        link.data_came(self.clock())
        gave = self.ready.get(i, self.mine) >= self.mine
        if self.agreement is not None:
            gave = gave and self.agreement.has_heard(i)
        link.complete = gave and self.got[i] >= self.plan.chunk_count(i)

    def fail(self, fault: LocalError | RemoteError) -> None:
        """This member cannot do its part, and no other roster would help."""
        with self.changed:
            self.failure = fault

    def blame(self, i: int, why: str) -> None:
        """Member `i` provably did something wrong; the first thing counts."""
        with self.changed:
            self.links[i].fault = self.links[i].fault or why

    def blame_liars(self) -> None:
        """Blame whoever has lied about distances; the caller holds the lock."""
        assert self.agreement is not None
        for i, why in self.agreement.liars().items():
            self.links[i].fault = self.links[i].fault or why

    def slanders_us(self, i: int, matrix: Matrix) -> bool:
        """Owner `i` would have us left out for values that are finite in its shard."""
        if self.me not in self.contributors:
            return False
        row = self.contributors.index(self.me)
        if np.isfinite(matrix[row, row]):
            return False
        start, stop = self.plan.bounds(i)
        own = Distances(self.buffers.layout, 1)
        own.add([self.buffers.contribution[start:stop]], start)
        return bool(np.isfinite(own.matrix[0, 0]))

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

    def _subject(self) -> bytes:
        """Digest of all that makes this attempt what it is."""
        brought = [[one.uid, one.weight, one.root.hex()] for one in self.members]
        digest: bytes = blake3(json.dumps([self.key, brought]).encode()).digest()
        return digest
