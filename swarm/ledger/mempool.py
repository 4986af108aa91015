"""Transactions that wait for a block: bounded for each sender, and picked fairly among them.

A sender's own transactions go in the order in which they came. Between senders turns are taken:
one of each organisation, within it one of each sender, and who got a turn in a block stands behind
the others in the next one. What a block may hold of one sender is bounded too (`_Share.limit`),
more tightly while others are active: a large block takes long, and those others would wait for it.
A member that floods the ledger thus waits for itself. It uses, beside members that send now and
then, what these leave; alone, it has the whole throughput.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from swarm.errors import RemoteError
from swarm.ledger.application import Application, Ticket
from swarm.ledger.transaction import transaction_hash

MAX_ALL = 8000
MAX_SENDER = 256
MAX_ALL_BYTES = 32 << 20
MAX_SENDER_BYTES = 4 << 20
# Transactions of one sender in a block. A block of 100 takes about as long as six small ones.
ALONE = 100  # while nobody else is active
TOGETHER = 24  # divided by those that are,
LEAST = 8  # but not below this: where blocks take long, as between continents, they may be larger
ACTIVE = 10  # blocks for which a sender counts as active after its last transaction


@dataclass
class _Share:
    """What waits of one sender, oldest first."""

    organisation: str
    items: dict[bytes, bytes] = field(default_factory=dict)  # by transaction id
    size: int = 0


@dataclass
class Mempool:
    """In memory only: what is lost with a node, its clients send again to another one."""

    _items: dict[bytes, Ticket] = field(default_factory=dict)  # by transaction id, oldest first
    _hashes: dict[bytes, bytes] = field(default_factory=dict)  # of the bytes, by transaction id
    _held: set[bytes] = field(default_factory=set)
    _shares: OrderedDict[str, _Share] = field(default_factory=OrderedDict)  # next turn first
    _counts: Counter[str] = field(default_factory=Counter)  # by organisation
    _sizes: Counter[str] = field(default_factory=Counter)
    _active: OrderedDict[str, int] = field(default_factory=OrderedDict)  # sender -> last block
    _blocks: int = 0

    def __len__(self) -> int:
        return len(self._items)

    def holds(self, tx: bytes) -> bool:
        """Whether exactly these bytes wait here already; cheap, so ask before checking."""
        return transaction_hash(tx) in self._held

    def add(self, tx: bytes, ticket: Ticket) -> bool:
        """Add what was checked; False if its id waits already. Raises RemoteError SW3007."""
        if ticket.id in self._items:
            return False
        share = self._shares.get(ticket.sender)
        count, size = (len(share.items), share.size) if share else (0, 0)
        if count >= MAX_SENDER or size + len(tx) > MAX_SENDER_BYTES:
            raise RemoteError("SW3007", f"{count} transactions of this sender wait already")
        of, total = ticket.organisation, self._sizes.total() + len(tx)
        if self._counts[of] >= MAX_ALL // 2 or self._sizes[of] + len(tx) > MAX_ALL_BYTES // 2:
            raise RemoteError("SW3007", f"{self._counts[of]} of this organisation wait already")
        if len(self._items) >= MAX_ALL or total > MAX_ALL_BYTES:
            raise RemoteError("SW3007", f"{len(self._items)} transactions wait already, as allowed")
        if share is None:
            share = self._shares[ticket.sender] = _Share(ticket.organisation)
        share.items[ticket.id] = tx
        share.size += len(tx)
        digest = transaction_hash(tx)
        self._counts[of] += 1
        self._sizes[of] += len(tx)
        self._items[ticket.id] = ticket
        self._hashes[ticket.id] = digest
        self._held.add(digest)
        return True

    def remove(self, tx_id: bytes) -> None:
        """Forget it, if it is there."""
        ticket = self._items.pop(tx_id, None)
        if ticket is None:
            return
        self._held.discard(self._hashes.pop(tx_id))
        share = self._shares[ticket.sender]
        size = len(share.items.pop(tx_id))
        share.size -= size
        if not share.items:
            del self._shares[ticket.sender]
        self._counts[ticket.organisation] -= 1
        self._sizes[ticket.organisation] -= size
        if not self._counts[ticket.organisation]:
            del self._counts[ticket.organisation], self._sizes[ticket.organisation]

    def committed(self, tickets: Iterable[Ticket]) -> None:
        """A block is decided: its transactions leave, and their senders stand behind the others."""
        self._blocks += 1
        for ticket in tickets:
            self.remove(ticket.id)
            self._active[ticket.sender] = self._blocks
            self._active.move_to_end(ticket.sender)
            if ticket.sender in self._shares:
                self._shares.move_to_end(ticket.sender)
        while self._active:
            sender = next(iter(self._active))
            if self._active[sender] > self._blocks - ACTIVE:
                break
            del self._active[sender]

    def limit(self) -> int:
        """How many transactions of one sender a block may hold now."""
        active = len(self._shares.keys() | self._active.keys())
        return ALONE if active <= 1 else max(LEAST, TOGETHER // active)

    def pick(
        self, app: Application, *, count: int, size: int
    ) -> tuple[list[bytes], list[tuple[bytes, RemoteError]]]:
        """Return the transactions whose turn it is and that `app` would include, and those that it
        refuses.

        What is refused now was includable once and never will be again: it leaves the mempool.
        """
        chosen: list[bytes] = []
        refused: list[tuple[bytes, RemoteError]] = []
        limit = self.limit()
        left = dict.fromkeys(self._shares, limit)
        for sender, tx_id, tx in self._in_turn():
            if len(chosen) >= count or len(tx) > size:
                break
            if not left[sender]:
                continue
            try:
                app.check(tx)
            except RemoteError as error:
                refused.append((tx_id, error))
                continue
            chosen.append(tx)
            left[sender] -= 1
            size -= len(tx) + 5  # its CBOR head
        for tx_id, _ in refused:
            self.remove(tx_id)
        return chosen, refused

    def _in_turn(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Sender, id and bytes of all: an organisation after the other, in it a sender after the
        other."""
        organisations: dict[str, deque[tuple[str, Iterator[tuple[bytes, bytes]]]]] = {}
        for sender, share in self._shares.items():
            queue = organisations.setdefault(share.organisation, deque())
            queue.append((sender, iter(share.items.items())))
        turns = deque(organisations.values())
        while turns:
            senders = turns.popleft()
            sender, items = senders.popleft()
            item = next(items, None)
            if item is None:
                if senders:
                    turns.appendleft(senders)
                continue
            yield sender, *item
            senders.append((sender, items))
            turns.append(senders)

    def oldest(self, count: int, size: int) -> Iterable[bytes]:
        """The transactions that wait longest, for telling others."""
        for number, (tx_id, ticket) in enumerate(self._items.items()):
            tx = self._shares[ticket.sender].items[tx_id]
            size -= len(tx)
            if number >= count or size < 0:
                return
            yield tx
