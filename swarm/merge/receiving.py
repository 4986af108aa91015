"""One attempt's way in: what one other member sends over one connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swarm.merge.agreement import Agreement
from swarm.merge.attempt import Attempt
from swarm.merge.blocks import DIGEST, leaf, root, split
from swarm.merge.plan import Chunk
from swarm.merge.store import Store
from swarm.merge.wire import Channel, ConnectionGone, Garbled, Kind, WireError


class Receiver:
    """Takes in what member `i` sends; `serve` runs in the listener's threads."""

    def __init__(self, attempt: Attempt, store: Store, i: int) -> None:
        self._attempt = attempt
        self._store = store
        self._i = i
        self._link = attempt.links[i]
        self._public_key = b""
        self._leaves: list[bytes] | None = None  # of its contribution to our shard
        self._entrance = threading.Lock()

    def serve(self, channel: Channel, public_key: bytes) -> None:
        """Take all that comes. Returns when the sender has said END.

        `public_key` is that of the connection's certificate, DER. Raises ConnectionGone, or
        WireError for a peer that broke the rules.
        """
        with self._entered(channel):
            self._public_key = public_key
            channel.touched = self._touched
            try:
                self._take_all(channel)
            except WireError as fault:
                self._attempt.blame(self._i, fault.cause)
                raise
            except ConnectionGone as fault:
                with self._attempt.changed:
                    self._link.gone = fault.cause
                    if isinstance(fault, Garbled):
                        self._link.did_not_open()
                raise
            finally:
                channel.touched = None

    @contextmanager
    def _entered(self, channel: Channel) -> Iterator[None]:
        """Let one connection of the member in at a time; a newer one replaces an older one."""
        attempt = self._attempt
        with attempt.changed:
            older = attempt.incoming.get(self._i)
        if older:
            older.abort()
        with self._entrance:
            with attempt.changed:
                if attempt.aborted:
                    raise ConnectionGone("the exchange ended")
                attempt.incoming[self._i] = channel
                self._link.room(True, attempt.clock())
            try:
                yield
            finally:
                with attempt.changed:
                    attempt.incoming.pop(self._i, None)
                    attempt.changed.notify_all()

    def _touched(self, count: int) -> None:
        # No lock: only this thread counts, and a reader that sees half of it errs by one read.
        self._link.bytes_came(count, self._attempt.clock())

    def _take_all(self, channel: Channel) -> None:
        attempt, i = self._attempt, self._i
        needs = i in attempt.ready and attempt.mine > 0 and self._leaves is None
        with attempt.changed:
            answer = {
                "leaves": needs,
                "contrib": attempt.ready.get(i, 0),
                "reduced": attempt.got[i],
            }
            if attempt.agreement is not None:
                answer["distances"] = i not in attempt.agreement.statements
                answer["witness"] = not attempt.agreement.has_heard(i)
        channel.send_json(Kind.ANSWER, {"ok": True, **answer})
        channel.sock.settimeout(None)
        if needs:
            self._take_leaves(channel)
        while True:
            kind, length = channel.receive_header()
            if kind is Kind.CONTRIB:
                self._take_contribution(channel, length)
            elif kind is Kind.REDUCED:
                self._take_reduced(channel, length)
            elif kind is Kind.WAIT:
                self._take_wait(channel, length)
            elif kind is Kind.DISTANCES and attempt.agreement is not None:
                self._take_distances(channel, length, attempt.agreement)
            elif kind is Kind.WITNESS and attempt.agreement is not None:
                self._take_witness(channel, length, attempt.agreement)
            elif kind is Kind.END:
                self._take_end(channel)
                return
            else:
                raise WireError(f"unexpected {kind.name} frame")

    def _take_leaves(self, channel: Channel) -> None:
        plan = self._attempt.plan
        leaves = split(channel.expect_raw(Kind.DIGESTS, DIGEST * plan.blocks))
        if root(leaves) != self._attempt.members[self._i].root:
            raise WireError("its block digests do not fit the root of its check-in")
        first, last = plan.shard(self._attempt.me)
        self._leaves = leaves[first:last]

    def _take_contribution(self, channel: Channel, length: int) -> None:
        attempt, i = self._attempt, self._i
        number, size = channel.chunk_index(length)
        if i not in attempt.ready or number != attempt.ready[i] or number >= attempt.mine:
            raise WireError(f"contribution chunk {number} is not due")
        chunk = attempt.plan.chunk(attempt.me, number)
        if size != chunk.size:
            raise WireError(f"contribution chunk of {size} B, expected {chunk.size} B")
        self._await_room(lambda: self._store.fits(number, attempt.reduced))
        place = self._store.place(attempt.givers.index(i), number, size)
        channel.receive_into(place)
        self._check_blocks(place, chunk)
        with attempt.changed:
            attempt.ready[i] = number + 1
            attempt.progressed(i)
            if attempt.all_gave(number):  # nobody waits for less
                attempt.changed.notify_all()

    def _await_room(self, there_is: Callable[[], bool]) -> None:
        attempt = self._attempt
        with attempt.changed:
            if there_is():
                return
            self._link.room(False, attempt.clock())
            attempt.changed.wait_for(lambda: attempt.aborted or there_is())
            self._link.room(True, attempt.clock())
            if attempt.aborted:
                raise ConnectionGone("the exchange ended")

    def _check_blocks(self, data: memoryview, chunk: Chunk) -> None:
        assert self._leaves is not None, "they come before the first contribution"
        first, _ = self._attempt.plan.shard(self._attempt.me)
        block = self._attempt.plan.block
        for number in range(chunk.last - chunk.first):
            piece = data[number * block : (number + 1) * block]
            if leaf(piece) != self._leaves[chunk.first + number - first]:
                raise WireError(f"block {chunk.first + number} does not fit its digest")

    def _take_distances(self, channel: Channel, length: int, agreement: Agreement) -> None:
        attempt, i = self._attempt, self._i
        if i in agreement.statements or attempt.ready.get(i, attempt.mine) < attempt.mine:
            raise WireError("distances are not due")
        statement = agreement.read(i, channel.receive_raw(length), self._public_key)
        if attempt.slanders_us(i, statement.matrix):
            raise WireError("it says that our weights are not finite")
        with attempt.changed:
            agreement.statements[i] = statement
            attempt.progressed(i)
            attempt.blame_liars()
            attempt.changed.notify_all()

    def _take_witness(self, channel: Channel, length: int, agreement: Agreement) -> None:
        attempt, i = self._attempt, self._i
        if i not in agreement.statements or agreement.has_heard(i):
            raise WireError("a witness is not due")
        frame = channel.receive_json(length)
        with attempt.changed:
            agreement.hear(i, frame)
            attempt.progressed(i)
            attempt.blame_liars()
        attempt.arrived()

    def _take_reduced(self, channel: Channel, length: int) -> None:
        attempt, i = self._attempt, self._i
        number, size = channel.chunk_index(length)
        if number != attempt.got[i] or number >= attempt.plan.chunk_count(i):
            raise WireError(f"reduced chunk {number} is not due")
        if attempt.agreement is not None:
            if not attempt.agreement.has_heard(i):
                raise WireError("reduced chunks before its witness")
            self._await_room(lambda: attempt.reduced >= attempt.mine)  # see `store.Parked`
        chunk = attempt.plan.chunk(i, number)
        if size != chunk.size:
            raise WireError(f"reduced chunk of {size} B, expected {chunk.size} B")
        out = attempt.buffers.output[chunk.start : chunk.stop]
        channel.receive_into(out)
        attempt.note_leaves(chunk, out)
        with attempt.changed:
            attempt.got[i] = number + 1
            attempt.progressed(i)
        attempt.arrived()

    def _take_wait(self, channel: Channel, length: int) -> None:
        attempt, i = self._attempt, self._i
        if attempt.ready.get(i, attempt.mine) < attempt.mine:
            raise WireError("it waits before its contribution is out")
        waits = channel.receive_json(length).get("for")
        if not isinstance(waits, dict) or not all(map(_is_count, waits.values())):
            raise WireError("malformed WAIT frame")
        if not waits.keys() <= set(attempt.uids):
            raise WireError("it waits for strangers")
        with attempt.changed:
            self._link.wait_came(waits, attempt.clock())

    def _take_end(self, channel: Channel) -> None:
        with self._attempt.changed:
            self._attempt.progressed(self._i)
            complete = self._link.complete
        if not complete:
            raise WireError("END before everything was sent")
        channel.send(Kind.END)


def _is_count(value: object) -> bool:
    """A number of bytes; larger ones than anybody sends would not be counted with any more."""
    return type(value) is int and 0 <= value < 1 << 62
