"""One attempt to merge: every member reduces one shard and hands it to all.

Theory of operation. Members are sorted by uid; member j owns shard j (see `plan`). For each ordered
pair i → j there is one connection, with data in one direction, and on it, in this order:

    i's leaf digests · i's chunks of shard j · the reduced chunks of shard i

    sender threads     one for each other member; reads the contribution's and the output's memory
    receiver threads   one for each connection that came in (they belong to the listener)
    reducer thread     waits until chunk c of our shard is here from all, reduces it into the output

Received contributions go into a window, a ring of slots for each sender; a sender that is ahead of
the others finds no room and is slowed down by TCP. Reduced chunks go straight into the output.
Senders never wait for reductions before their contribution is out, so there is no cycle of waits.

Every contribution block is checked against its leaf digest and those against the root on the
ledger. Nobody can check a reduced shard that he has not the inputs of; its leaves become part of
the digest on which a majority must agree.

A connection that breaks is made again and goes on where it stopped: the listener says how many
chunks it has. `progress` decides who is to blame when nothing moves; `poll` tells.

Aborting must be quick and leave nobody with a reference to the buffers: `abort` shuts all sockets
down and joins the threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from swarm.merge.attempt import Attempt, Buffers, Key, Result
from swarm.merge.blocks import root
from swarm.merge.dial import Dialler, Member
from swarm.merge.mean import WeightedMean
from swarm.merge.plan import Plan
from swarm.merge.progress import Limits
from swarm.merge.receiving import Receiver
from swarm.merge.sending import Sender
from swarm.merge.store import Ring, Window
from swarm.merge.wire import Channel, WireError

__all__ = ["Buffers", "Exchange", "Key", "Result", "Window"]


class Exchange:
    """See the module's text. Made, then `start`ed; `poll`ed for blame; `abort`ed in any case."""

    def __init__(
        self,
        key: Key,
        me: str,
        members: Sequence[Member],
        buffers: Buffers,
        dialler: Dialler,
        on_done: Callable[[Result], None],
        *,
        window: Window | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        attempt = Attempt(key, me, members, buffers, limits or Limits(), clock)
        self.attempt = attempt
        self._on_done = on_done
        self._mean = WeightedMean(buffers.layout, [member.weight for member in attempt.members])
        self._store = Ring(attempt.plan, len(attempt.givers), window or Window())
        self._receivers = {
            i: Receiver(attempt, self._store, i, self._check_done) for i in attempt.links
        }
        self._senders = {j: Sender(attempt, dialler, j) for j in attempt.links}
        self._threads: list[threading.Thread] = []

    @property
    def key(self) -> Key:
        """Which attempt this is."""
        return self.attempt.key

    @property
    def members(self) -> list[Member]:
        """The roster, by uid."""
        return self.attempt.members

    @property
    def plan(self) -> Plan:
        """Who reduces what."""
        return self.attempt.plan

    @property
    def bytes_sent(self) -> int:
        """Bytes of finished conversations."""
        return self.attempt.bytes_sent

    # ---------------------------------------------------------------- control

    def start(self) -> None:
        """Start to send and reduce."""
        jobs: list[tuple[str, Callable[[], None]]] = [("reduce", self._reduce_all)]
        jobs += [(f"to {self.attempt.name(j)}", one.run) for j, one in self._senders.items()]
        for name, job in jobs:
            thread = threading.Thread(target=job, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._check_done()

    def serve(self, channel: Channel, uid: str) -> None:
        """Take in what member `uid` sends over `channel`; runs in the listener's thread.

        Returns when the sender has said END and may start another conversation. Raises
        ConnectionGone, or WireError for a peer that broke the rules.
        """
        attempt = self.attempt
        if uid not in attempt.uids or uid == attempt.uids[attempt.me]:
            raise WireError(f"{uid} is not a member of this attempt")
        self._receivers[attempt.uids.index(uid)].serve(channel)

    def abort(self) -> None:
        """End it. When this returns, no thread touches the buffers any more.

        A sender that is just connecting may live on for seconds; it gives up before it sends.
        """
        self.attempt.abort()
        self._threads[0].join()

    def poll(self) -> dict[str, str]:
        """Uid -> why, for every member that is to blame now. Empty once all is here."""
        attempt = self.attempt
        now = attempt.clock()
        with attempt.changed:
            if attempt.done or attempt.aborted:
                return {}
            me = attempt.uids[attempt.me]
            found = {attempt.uids[i]: link.blame(me, now) for i, link in attempt.links.items()}
        return {uid: why for uid, why in found.items() if why}

    def waiting(self) -> str:
        """What is still missing, in one sentence; empty when everything is here."""
        attempt = self.attempt
        now = attempt.clock()
        with attempt.changed:
            if attempt.done:
                return ""
            have = attempt.reduced + sum(attempt.got.values())
            total = attempt.mine + sum(map(attempt.plan.chunk_count, attempt.got))
            parts = [
                f"{attempt.name(i)} ({text})"
                for i, link in attempt.links.items()
                if (text := link.owes(now))
            ]
        share = 100 * have // max(1, total)
        return f"{share} % merged; waiting for " + (", ".join(parts) or "our own arithmetic")

    def delivered(self) -> bool:
        """Everything is here, and every other member has confirmed our part."""
        with self.attempt.changed:
            return self.attempt.done and not any(thread.is_alive() for thread in self._threads)

    def result_leaves(self) -> list[bytes] | None:
        """Leaf digests of the result; None while it is not whole."""
        with self.attempt.changed:
            return list(self.attempt.leaves) if self.attempt.done else None

    def partial_leaves(self) -> list[bytes]:
        """Leaf digests of what the output holds so far, b"" where it holds nothing yet."""
        with self.attempt.changed:
            return list(self.attempt.leaves)

    # ---------------------------------------------------------------- reducer

    def _reduce_all(self) -> None:
        attempt = self.attempt
        for number in range(attempt.mine):
            with attempt.changed:
                attempt.changed.wait_for(partial(attempt.all_gave, number))
                if attempt.aborted:
                    return
            self._reduce(number)
            with attempt.changed:
                attempt.reduced = number + 1
                attempt.changed.notify_all()
        self._check_done()

    def _reduce(self, number: int) -> None:
        attempt = self.attempt
        chunk = attempt.plan.chunk(attempt.me, number)
        out = attempt.buffers.output[chunk.start : chunk.stop]
        self._mean.reduce(self._inputs(number), out, chunk.start)
        attempt.note_leaves(chunk, out)

    def _inputs(self, number: int) -> list[memoryview]:
        """Chunk `number` of our shard, of every contributor in order."""
        attempt = self.attempt
        chunk = attempt.plan.chunk(attempt.me, number)
        own = attempt.buffers.contribution[chunk.start : chunk.stop]
        rows = {i: row for row, i in enumerate(attempt.givers)}
        return [
            own if i == attempt.me else self._store.place(rows[i], number, chunk.size)
            for i in attempt.contributors
        ]

    def _check_done(self) -> None:
        attempt = self.attempt
        with attempt.changed:
            if attempt.done or attempt.aborted or not attempt.have_all():
                return
            attempt.done = True
        shards = []
        for index in range(len(attempt.members)):
            first, last = attempt.plan.shard(index)
            shards.append(root(attempt.leaves[first:last]))
        self._on_done(Result(attempt.key, root(attempt.leaves), shards, attempt.leaves))
