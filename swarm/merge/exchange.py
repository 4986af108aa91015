"""One attempt to merge: every member reduces one shard and hands it to all.

Theory of operation. Members are sorted by uid; member j owns shard j (see `plan`). For each ordered
pair i → j there is one connection, with data in one direction, and on it, in this order:

    i's leaf digests · i's chunks of shard j · [distances · witness] · the reduced chunks of shard i

    sender threads     one for each other member; reads the contribution's and the output's memory
    receiver threads   one for each connection that came in (they belong to the listener)
    reducer thread     waits until chunk c of our shard is here from all, reduces it into the output

The output may lie where the contribution lies. A chunk is overwritten by its own reduction alone,
and that comes from an owner who has needed, and checked, our contribution to it before; so what is
overwritten is never sent again in this attempt, connections that break included. Another attempt
needs the contribution anew.

*Methods per coordinate.* Received contributions go into a window, a ring of slots for each sender;
a sender that is ahead of the others finds no room and is slowed down by TCP. Senders never wait for
reductions before their contribution is out, so there is no cycle of waits.

*Methods that mix* need the distances between whole vectors before the first value can be reduced.
Each owner measures its shard, chunk by chunk as they come, and sends the matrix to all; the sum of
all matrices gives everybody the same shares (see `agreement`, also for who lies about them). Until
then all contributions to our shard are kept, if possible in the part of the output that is not our
shard, which is just as large (see `store`). So reduced chunks of others are not let in before our
own shard is reduced.
No cycle here either: contributions always find room, distances wait for contributions alone, and
reductions for distances alone.

Every contribution block is checked against its leaf digest and those against the root on the
ledger. Nobody can check a reduced shard, or distances, that he has not the inputs of; but all get
the same, as the leaves become part of the digest on which a majority must agree. Whose values are
not finite is named, and left out by methods that can; the others blame it.

A connection that breaks is made again and goes on where it stopped: the listener says what it has.
`progress` decides who is to blame when nothing moves; `poll` tells.

Aborting must be quick and leave nobody with a reference to the buffers: `abort` shuts all sockets
down and joins the threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from swarm.errors import LocalError, RemoteError
from swarm.merge.attempt import Attempt, Buffers, Key, Law, Result
from swarm.merge.dial import Dialler, Member
from swarm.merge.plan import Plan
from swarm.merge.progress import Limits
from swarm.merge.receiving import Receiver
from swarm.merge.reducing import Reducer
from swarm.merge.sending import Sender
from swarm.merge.store import Parked, Ring, Store, Window
from swarm.merge.wire import Channel, WireError

__all__ = ["Buffers", "Exchange", "Key", "Law", "Result", "Window"]


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
        law: Law | None = None,
        window: Window | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises LocalError: SW6006 the method of `law` is not here, SW6013 its arguments."""
        attempt = Attempt(
            key, me, members, buffers, law or Law(), limits or Limits(), clock, on_done
        )
        self.attempt = attempt
        store = _store(attempt, window or Window())
        self._reducer = Reducer(attempt, store, dialler.sign)
        self._receivers = {i: Receiver(attempt, store, i) for i in attempt.links}
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
        jobs: list[tuple[str, Callable[[], None]]] = [("reduce", self._reducer.run)]
        jobs += [(f"to {self.attempt.name(j)}", one.run) for j, one in self._senders.items()]
        for name, job in jobs:
            thread = threading.Thread(target=job, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self.attempt.arrived()

    def serve(self, channel: Channel, uid: str, public_key: bytes) -> None:
        """Take in what member `uid` sends over `channel`; runs in the listener's thread.

        `public_key` is that of its certificate, DER.

        Returns when the sender has said END and may start another conversation. Raises
        ConnectionGone, or WireError for a peer that broke the rules.
        """
        attempt = self.attempt
        if uid not in attempt.uids or uid == attempt.uids[attempt.me]:
            raise WireError(f"{uid} is not a member of this attempt")
        self._receivers[attempt.uids.index(uid)].serve(channel, public_key)

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
            have = attempt.reduced + attempt.measured + sum(attempt.got.values())
            steps = 1 if attempt.agreement is None else 2
            total = steps * attempt.mine + sum(map(attempt.plan.chunk_count, attempt.got))
            parts = [
                f"{attempt.name(i)} ({text})"
                for i, link in attempt.links.items()
                if (text := link.owes(now))
            ]
        share = 100 * have // max(1, total)
        return f"{share} % merged; waiting for " + (", ".join(parts) or "our own arithmetic")

    @property
    def failure(self) -> LocalError | RemoteError | None:
        """Why our own part cannot be done, whoever is in the roster; None when it can."""
        return self.attempt.failure

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


def _store(attempt: Attempt, window: Window) -> Store:
    """Memory for the contributions: a ring, or room for all of them when they have to wait."""
    givers = len(attempt.givers)
    if attempt.agreement is None:
        return Ring(attempt.plan, givers, window)
    output = attempt.buffers.output
    start, stop = attempt.plan.bounds(attempt.me)
    in_place = output is attempt.buffers.contribution
    return Parked(
        attempt.plan,
        attempt.me,
        givers,
        () if in_place else (output[:start], output[stop:]),
        window,
    )
