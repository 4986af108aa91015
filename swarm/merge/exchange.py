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

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from swarm.errors import RemoteError
from swarm.merge.blocks import DIGEST, leaf, root, split
from swarm.merge.dial import HANDSHAKE, Dialler, Member
from swarm.merge.mean import Segment, WeightedMean
from swarm.merge.plan import Chunk, Plan
from swarm.merge.progress import Limits, Link
from swarm.merge.wire import PROTOCOL, Channel, ConnectionGone, Kind, WireError

log = logging.getLogger("swarm.merge")

WAIT_EVERY = 1.0  # seconds between two WAIT frames
RETRY_FIRST, RETRY_MOST = 0.05, 1.0  # seconds between two attempts to connect


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


UNWELCOME = "certificate"  # the reason when it is not about this conversation


class Refused(RemoteError):
    """The other side does not take part (yet): SW6105. `reason` is its word for it."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__("SW6105", text)
        self.reason = reason


class Buffers(NamedTuple):
    """The vectors of an exchange, and the types in them. `leaves` are the contribution's."""

    contribution: memoryview
    leaves: list[bytes]
    output: memoryview
    layout: Sequence[Segment]


class Window:
    """Memory for contributions that wait to be reduced; kept between exchanges."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def take(self, size: int) -> memoryview:
        """`size` bytes. Fresh pages cost as much as a copy, so a large enough piece is reused."""
        if len(self._memory) < size:
            self._memory = bytearray(size)
        return memoryview(self._memory)[:size]


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
        self.key = key
        self.members = sorted(members, key=lambda member: member.uid)
        self._uids = [member.uid for member in self.members]
        self._me = self._uids.index(me)
        self._buffers = buffers
        self._dialler = dialler
        self._on_done = on_done
        self._clock = clock
        self.plan = Plan(len(buffers.contribution), len(members))
        self._mean = WeightedMean(buffers.layout, [member.weight for member in self.members])
        self._givers = [i for i in self._mean.contributors if i != self._me]
        self._slots = self.plan.slots(len(self._givers))
        self._window = (window or Window()).take(
            self._slots * len(self._givers) * self.plan.largest_chunk()
        )
        self._mine = self.plan.chunk_count(self._me)

        self._changed = threading.Condition()
        self._aborted = False
        self._done = False
        others = [i for i in range(len(members)) if i != self._me]
        now = clock()
        self.links = {i: Link(limits or Limits(), now) for i in others}
        self._ready = dict.fromkeys(self._givers, 0)  # chunks of our shard, from each
        self._reduced = 0  # chunks of our shard
        self._got = dict.fromkeys(others, 0)  # reduced chunks of their shards
        self._their_leaves: dict[int, list[bytes]] = {}  # of our shard only
        self._leaves: list[bytes] = [b""] * self.plan.blocks  # of the output
        self._serving: dict[int, Channel] = {}
        self._entrance = {i: threading.Lock() for i in others}
        self._out: dict[int, Channel] = {}
        self._threads: list[threading.Thread] = []
        self.bytes_sent = 0

    # ---------------------------------------------------------------- control

    def start(self) -> None:
        """Start to send and reduce."""
        jobs: list[tuple[str, Callable[[], None]]] = [("reduce", self._reduce_all)]
        jobs += [(f"to {self.members[j].name}", partial(self._send_to, j)) for j in self._got]
        for name, job in jobs:
            thread = threading.Thread(target=job, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._check_done()

    def abort(self) -> None:
        """End it. When this returns, no thread touches the buffers any more.

        A sender that is just connecting may live on for seconds; it gives up before it sends.
        """
        with self._changed:
            self._aborted = True
            self._changed.notify_all()
            for channel in [*self._serving.values(), *self._out.values()]:
                channel.abort()
            self._changed.wait_for(lambda: not self._serving and not self._out)
        self._threads[0].join()

    def poll(self) -> dict[str, str]:
        """Uid -> why, for every member that is to blame now. Empty once all is here."""
        now = self._clock()
        with self._changed:
            if self._done or self._aborted:
                return {}
            found = {
                self._uids[i]: link.blame(self._uids[self._me], now)
                for i, link in self.links.items()
            }
        return {uid: why for uid, why in found.items() if why}

    def waiting(self) -> str:
        """What is still missing, in one sentence; empty when everything is here."""
        now = self._clock()
        with self._changed:
            if self._done:
                return ""
            have = self._reduced + sum(self._got.values())
            total = self._mine + sum(map(self.plan.chunk_count, self._got))
            parts = [
                f"{self.members[i].name} ({text})"
                for i, link in self.links.items()
                if (text := link.owes(now))
            ]
        share = 100 * have // max(1, total)
        return f"{share} % merged; waiting for " + (", ".join(parts) or "our own arithmetic")

    def delivered(self) -> bool:
        """Everything is here, and every other member has confirmed our part."""
        with self._changed:
            return self._done and not any(thread.is_alive() for thread in self._threads)

    def result_leaves(self) -> list[bytes] | None:
        """Leaf digests of the result; None while it is not whole."""
        with self._changed:
            return list(self._leaves) if self._done else None

    def partial_leaves(self) -> list[bytes]:
        """Leaf digests of what the output holds so far, b"" where it holds nothing yet."""
        with self._changed:
            return list(self._leaves)

    # ---------------------------------------------------------------- reducer

    def _reduce_all(self) -> None:
        for number in range(self._mine):
            with self._changed:
                self._changed.wait_for(partial(self._all_gave, number))
                if self._aborted:
                    return
            self._reduce(self.plan.chunk(self._me, number), number)
            with self._changed:
                self._reduced = number + 1
                self._changed.notify_all()
        self._check_done()

    def _all_gave(self, number: int) -> bool:
        return self._aborted or all(ready > number for ready in self._ready.values())

    def _reduce(self, chunk: Chunk, number: int) -> None:
        own = self._buffers.contribution[chunk.start : chunk.stop]
        inputs = [
            own if i == self._me else self._slot(i, number, chunk.size)
            for i in self._mean.contributors
        ]
        out = self._buffers.output[chunk.start : chunk.stop]
        self._mean.reduce(inputs, out, chunk.start)
        self._note_leaves(chunk, out)

    def _note_leaves(self, chunk: Chunk, data: memoryview) -> None:
        block = self.plan.block
        for number in range(chunk.last - chunk.first):
            piece = data[number * block : (number + 1) * block]
            self._leaves[chunk.first + number] = leaf(piece)

    def _slot(self, giver: int, number: int, size: int) -> memoryview:
        row = self._givers.index(giver) * self._slots + number % self._slots
        at = row * self.plan.largest_chunk()
        return self._window[at : at + size]

    def _check_done(self) -> None:
        with self._changed:
            missing = self._reduced < self._mine or any(
                got < self.plan.chunk_count(j) for j, got in self._got.items()
            )
            if missing or self._done or self._aborted:
                return
            self._done = True
        shards = []
        for index in range(len(self.members)):
            first, last = self.plan.shard(index)
            shards.append(root(self._leaves[first:last]))
        self._on_done(Result(self.key, root(self._leaves), shards, self._leaves))

    # ---------------------------------------------------------------- senders

    def _send_to(self, j: int) -> None:
        """Deliver all that member `j` is due, over as many connections as it takes."""
        member, link = self.members[j], self.links[j]
        pause = RETRY_FIRST
        while not self._aborted:
            kept = self._dialler.kept(member)
            try:
                channel = kept or self._dialler.dial(member)
            except RemoteError as fault:
                self._not_reached(link, fault.cause)
            else:
                if self._deliver(channel, j, fresh=kept is None):
                    return
                if kept is not None:
                    continue  # an idle connection had died; that says nothing about the member
            with self._changed:
                self._changed.wait_for(lambda: self._aborted, pause)
            pause = min(2 * pause, RETRY_MOST)

    def _deliver(self, channel: Channel, j: int, fresh: bool) -> bool:
        """Hold one conversation with member `j`; tells whether it has everything now."""
        member, link = self.members[j], self.links[j]
        with self._changed:
            if self._aborted:
                channel.close()
                return True
            self._out[j] = channel
        before = channel.sent
        try:
            answer = self._greet(channel)
            with self._changed:
                link.reached()
            self._stream(channel, j, answer)
        except Refused as fault:
            log.debug("%s: %s", member.name, fault.cause)
            if fault.reason == UNWELCOME:
                channel.close()
                self._not_reached(link, f"it refuses our certificate: {fault.cause}")
            else:
                self._dialler.keep(member, channel)
            return False
        except ConnectionGone as fault:
            channel.close()
            if fresh:
                self._not_reached(link, fault.cause)
            return False
        except WireError as fault:
            channel.close()
            self._blame(link, fault.cause)
            return False
        finally:
            with self._changed:
                self._out.pop(j, None)
                self._changed.notify_all()
                self.bytes_sent += channel.sent - before
        self._dialler.keep(member, channel)
        return True

    def _greet(self, channel: Channel) -> dict[str, Any]:
        channel.sock.settimeout(HANDSHAKE)
        hello = {"protocol": PROTOCOL, "want": "merge", "uid": self._uids[self._me]}
        channel.send_json(Kind.HELLO, {**hello, **self.key._asdict()})
        answer = channel.expect_json(Kind.ANSWER)
        if answer.get("ok") is not True:
            raise Refused(str(answer.get("reason"))[:40], str(answer.get("text"))[:400])
        channel.sock.settimeout(None)  # progress is watched from outside; abort ends a blocked call
        return answer

    def _stream(self, channel: Channel, j: int, answer: dict[str, Any]) -> None:
        contributes = self._me in self._mean.contributors
        chunks = self.plan.chunk_count(j) if contributes else 0
        start, reduced = answer.get("contrib"), answer.get("reduced")
        if not isinstance(start, int) or not isinstance(reduced, int) or min(start, reduced) < 0:
            raise WireError("ANSWER without positions")
        if answer.get("leaves") is True:
            channel.send(Kind.DIGESTS, b"".join(self._buffers.leaves))
        for number in range(start, chunks):
            chunk = self.plan.chunk(j, number)
            data = self._buffers.contribution[chunk.start : chunk.stop]
            channel.send_chunk(Kind.CONTRIB, number, data)
        for number in range(reduced, self._mine):
            self._await_reduced(channel, number)
            chunk = self.plan.chunk(self._me, number)
            data = self._buffers.output[chunk.start : chunk.stop]
            channel.send_chunk(Kind.REDUCED, number, data)
        channel.send(Kind.END)
        channel.expect_raw(Kind.END, 0)

    def _await_reduced(self, channel: Channel, number: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._aborted or self._reduced > number, WAIT_EVERY)
                if self._aborted:
                    raise ConnectionGone("the exchange ended")
                if self._reduced > number:
                    return
                late = {
                    self._uids[i]: self.links[i].received
                    for i, ready in self._ready.items()
                    if ready <= self._reduced
                }
            channel.send_json(Kind.WAIT, {"for": late})

    # -------------------------------------------------------------- receivers

    def serve(self, channel: Channel, uid: str) -> None:
        """Take in what member `uid` sends over `channel`; runs in the listener's thread.

        Returns when the sender has said END and may start another conversation. Raises
        ConnectionGone, or WireError for a peer that broke the rules.
        """
        if uid not in self._uids or uid == self._uids[self._me]:
            raise WireError(f"{uid} is not a member of this attempt")
        i = self._uids.index(uid)
        link = self.links[i]
        with self._entered(i, channel):
            channel.touched = lambda count: self._touched(link, count)
            try:
                self._take_all(channel, i)
            except WireError as fault:
                self._blame(link, fault.cause)
                raise
            except ConnectionGone as fault:
                with self._changed:
                    link.gone = fault.cause
                raise
            finally:
                channel.touched = None

    @contextmanager
    def _entered(self, i: int, channel: Channel) -> Iterator[None]:
        """Let one connection of a member in at a time; a newer one replaces an older one."""
        with self._changed:
            older = self._serving.get(i)
        if older:
            older.abort()
        with self._entrance[i]:
            with self._changed:
                if self._aborted:
                    raise ConnectionGone("the exchange ended")
                self._serving[i] = channel
                self.links[i].room(True, self._clock())
            try:
                yield
            finally:
                with self._changed:
                    self._serving.pop(i, None)
                    self._changed.notify_all()

    def _touched(self, link: Link, count: int) -> None:
        # No lock: only this thread counts, and a reader that sees half of it errs by one read.
        link.bytes_came(count, self._clock())

    def _take_all(self, channel: Channel, i: int) -> None:
        with self._changed:
            gives = i in self._ready
            positions = {"contrib": self._ready.get(i, 0), "reduced": self._got[i]}
        needs = gives and self._mine > 0 and i not in self._their_leaves
        channel.send_json(Kind.ANSWER, {"ok": True, "leaves": needs, **positions})
        channel.sock.settimeout(None)
        if needs:
            self._take_leaves(channel, i)
        while True:
            kind, length = channel.receive_header()
            if kind is Kind.CONTRIB:
                self._take_contribution(channel, i, length)
            elif kind is Kind.REDUCED:
                self._take_reduced(channel, i, length)
            elif kind is Kind.WAIT:
                self._take_wait(channel, i, length)
            elif kind is Kind.END:
                self._take_end(channel, i)
                return
            else:
                raise WireError(f"unexpected {kind.name} frame")

    def _take_leaves(self, channel: Channel, i: int) -> None:
        raw = channel.expect_raw(Kind.DIGESTS, DIGEST * self.plan.blocks)
        leaves = split(raw)
        if root(leaves) != self.members[i].root:
            raise WireError("its block digests do not fit the root of its check-in")
        first, last = self.plan.shard(self._me)
        self._their_leaves[i] = leaves[first:last]

    def _take_contribution(self, channel: Channel, i: int, length: int) -> None:
        number, size = channel.chunk_index(length)
        if i not in self._ready or number != self._ready[i] or number >= self._mine:
            raise WireError(f"contribution chunk {number} is not due")
        chunk = self.plan.chunk(self._me, number)
        if size != chunk.size:
            raise WireError(f"contribution chunk of {size} B, expected {chunk.size} B")
        self._await_room(i, number)
        slot = self._slot(i, number, size)
        channel.receive_into(slot)
        self._check_blocks(slot, chunk, i)
        with self._changed:
            self._ready[i] = number + 1
            self._progressed(i)
            self._changed.notify_all()

    def _await_room(self, i: int, number: int) -> None:
        with self._changed:
            if number - self._reduced < self._slots:
                return
            self.links[i].room(False, self._clock())
            self._changed.wait_for(lambda: self._aborted or number - self._reduced < self._slots)
            self.links[i].room(True, self._clock())
            if self._aborted:
                raise ConnectionGone("the exchange ended")

    def _check_blocks(self, data: memoryview, chunk: Chunk, i: int) -> None:
        first, _ = self.plan.shard(self._me)
        block, theirs = self.plan.block, self._their_leaves[i]
        for number in range(chunk.last - chunk.first):
            piece = data[number * block : (number + 1) * block]
            if leaf(piece) != theirs[chunk.first + number - first]:
                raise WireError(f"block {chunk.first + number} does not fit its digest")

    def _take_reduced(self, channel: Channel, i: int, length: int) -> None:
        number, size = channel.chunk_index(length)
        if number != self._got[i] or number >= self.plan.chunk_count(i):
            raise WireError(f"reduced chunk {number} is not due")
        chunk = self.plan.chunk(i, number)
        if size != chunk.size:
            raise WireError(f"reduced chunk of {size} B, expected {chunk.size} B")
        out = self._buffers.output[chunk.start : chunk.stop]
        channel.receive_into(out)
        self._note_leaves(chunk, out)
        with self._changed:
            self._got[i] = number + 1
            self._progressed(i)
        self._check_done()

    def _take_wait(self, channel: Channel, i: int, length: int) -> None:
        waits = channel.receive_json(length).get("for")
        if not isinstance(waits, dict) or not all(isinstance(n, int) for n in waits.values()):
            raise WireError("malformed WAIT frame")
        with self._changed:
            self.links[i].wait_came({str(uid): n for uid, n in waits.items()}, self._clock())

    def _take_end(self, channel: Channel, i: int) -> None:
        with self._changed:
            self._progressed(i)
            complete = self.links[i].complete
        if not complete:
            raise WireError("END before everything was sent")
        channel.send(Kind.END)

    # ---------------------------------------------------------------- private

    def _progressed(self, i: int) -> None:
        """Account for one more chunk of member `i`; the caller holds the lock."""
        link = self.links[i]
        link.data_came(self._clock())
        link.complete = self._ready.get(i, self._mine) >= self._mine and self._got[
            i
        ] >= self.plan.chunk_count(i)

    def _blame(self, link: Link, why: str) -> None:
        with self._changed:
            link.fault = link.fault or why

    def _not_reached(self, link: Link, why: str) -> None:
        with self._changed:
            link.not_reached(why, self._clock())
