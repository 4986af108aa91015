"""Reading the contract's log: what is final, in order, complete, and never anything else. Pure.

Theory of operation
-------------------
The network's newest blocks may be replaced by others. A block with `confirmations` - 1 blocks on
top of it counts as final; on networks with instant finality the newest one does (confirmations 1).
The follower's `position` is the last final block that it has read. It asks for the blocks between
its position and the last final one, a page at a time, and believes an answer when:

1. the block at the position still has the hash that it had. Otherwise something that was final has
   changed. What was built on it cannot be undone here, so the node stops (`Changed`);
2. the last block of the page had the same hash before and after the events were read, so all of
   them are of one branch;
3. the contract's numbering has no gap and its hash chain over all entries fits each of them. An end
   point that leaves out or alters an event is found out at the next one; an honest one is asked.

Position and blocks are made durable together, so that a restart goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from swarm.errors import LocalError, RemoteError
from swarm.ledger import codec
from swarm.ledger.ethereum.contract import MALFORMED, Entry, Keccak, head_after
from swarm.ledger.ethereum.entries import ChainBlock

PAGE_MOST, PAGE_LEAST = 2000, 1  # blocks asked for at once; end points have limits of their own
NO_HASH = b""


class Position(NamedTuple):
    """How far the log has been read: a final block, and the contract's state after it."""

    number: int
    hash: bytes  # NO_HASH before the first block was read
    length: int  # entries read so far
    head: bytes  # the contract's hash chain over them

    def encode(self) -> bytes:
        """Canonical bytes, for the store."""
        return codec.encode(list(self))

    @classmethod
    def decode(cls, data: bytes) -> Position:
        """The inverse. Raises RemoteError SW3001."""
        value = codec.decode(data, limit=256, what="position in the network")
        codec.require(type(value) is list, "position is not a list")
        parts = codec.fields(["", *value], "", (int, bytes, int, bytes), "position")
        return cls(*parts)

    @classmethod
    def before(cls, first: int) -> Position:
        """Where a reader begins: `first` is the block of the contract's deployment."""
        return cls(first - 1, NO_HASH, 0, bytes(32))


class Head(NamedTuple):
    """What is needed of a block's header."""

    number: int
    hash: bytes
    parent: bytes
    time: int  # seconds
    base_fee: int | None = None  # None: a network without EIP-1559


class Event(NamedTuple):
    """An entry, and the block that it is in. `time` is that block's, in seconds."""

    number: int
    hash: bytes
    time: int
    entry: Entry


class Page(NamedTuple):
    """An end point's answer to a question for blocks `first` to `last.number`."""

    first: int
    position: Head | None  # the header at the follower's position; None: the end point has none
    before: Head  # the header of the last block, read before the events …
    last: Head  # … and after them
    events: tuple[Event, ...]


class Changed(LocalError):
    """Something final is not what it was."""


class Follower:
    """Decides what to read next and whether to believe it."""

    def __init__(self, position: Position, confirmations: int, keccak: Keccak) -> None:
        self.position = position
        self.confirmations = confirmations
        self.newest = 0  # the highest block number that any end point has told
        self._page = PAGE_MOST
        self._keccak = keccak

    @property
    def final(self) -> int:
        """Number of the last final block, as far as is known."""
        return self.newest - self.confirmations + 1

    def question(self, newest: Head) -> tuple[int, int] | None:
        """First and last block to ask an end point for whose newest is this; None for nothing.

        Raises Changed (SW3108) when it is the block at the position, and another one.
        """
        at = self.position
        if newest.number == at.number and at.hash not in (NO_HASH, newest.hash):
            raise _changed(at, newest)
        self.newest = max(self.newest, newest.number)
        first = at.number + 1
        last = min(newest.number - self.confirmations + 1, first + self._page - 1)
        return (first, last) if last >= first else None

    def too_much(self) -> None:
        """An end point would not give so many blocks at once: ask for fewer from now on."""
        self._page = max(PAGE_LEAST, self._page // 2)

    def take(self, page: Page) -> tuple[Position, list[ChainBlock]]:
        """Check an answer; return the position after it and the blocks that have entries.

        Raises Changed (SW3108) when a final block is another one now, RemoteError SW3109 when the
        answer is not to be believed. `position` moves only when the caller sets it.
        """
        self._check_branch(page)
        # Slowly: what an end point refuses costs a request each time.
        self._page = min(PAGE_MOST, self._page + self._page // 8 + 1)
        length, head = self.position.length, self.position.head
        blocks: list[ChainBlock] = []
        for event in page.events:
            entry = event.entry
            if not page.first <= event.number <= page.last.number:
                raise _unbelievable(f"an event of block {event.number} for another question")
            if entry.number != length:
                raise _unbelievable(f"entry {entry.number} where {length} comes next")
            head = head_after(head, entry, self._keccak)
            if head != entry.head:
                raise _unbelievable(f"entry {entry.number} does not fit the contract's hash chain")
            length += 1
            _append(blocks, event)
        return Position(page.last.number, page.last.hash, length, head), blocks

    def _check_branch(self, page: Page) -> None:
        at = self.position
        if at.hash != NO_HASH:
            if page.position is None:
                raise _unbelievable(f"block {at.number}, which was final, is unknown to it")
            if page.position.hash != at.hash:
                raise _changed(at, page.position)
        if page.first != at.number + 1 or page.last.number < page.first:
            raise _unbelievable("an answer to another question")
        if page.before.hash != page.last.hash:
            raise _unbelievable(f"block {page.last.number} changed while its events were read")


def _append(blocks: list[ChainBlock], event: Event) -> None:
    if blocks and blocks[-1].number == event.number:
        last = blocks[-1]
        if last.hash != event.hash:
            raise _unbelievable(f"two blocks with number {event.number}")
        blocks[-1] = last._replace(entries=(*last.entries, event.entry))
    elif blocks and blocks[-1].number > event.number:
        raise _unbelievable("events out of order")
    else:
        blocks.append(ChainBlock(event.number, event.hash, event.time, (event.entry,)))


def sorted_events(events: Sequence[tuple[int, int, Event]]) -> tuple[Event, ...]:
    """Events by block and place in it."""
    return tuple(event for _, _, event in sorted(events, key=lambda item: item[:2]))


def _changed(before: Position, now: Head) -> Changed:
    was, is_ = before.hash.hex(), now.hash.hex()
    return Changed(
        "SW3108", f"block {before.number} was final with hash 0x{was}, and is now 0x{is_}"
    )


def _unbelievable(what: str) -> RemoteError:
    return RemoteError(MALFORMED, f"an RPC end point tells {what}")
