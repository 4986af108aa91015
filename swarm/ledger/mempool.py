"""Transactions that wait for a block: first come, first served, bounded for each sender."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from swarm.errors import RemoteError
from swarm.ledger.application import Application, Ticket
from swarm.ledger.transaction import transaction_hash

MAX_ALL = 5000
MAX_SENDER = 256
MAX_ALL_BYTES = 32 << 20
MAX_SENDER_BYTES = 4 << 20


@dataclass
class _Share:
    count: int = 0
    size: int = 0


@dataclass
class Mempool:
    """In memory only: what is lost with a node, its clients send again to another one."""

    _items: dict[bytes, tuple[bytes, Ticket]] = field(default_factory=dict)  # by transaction id
    _hashes: set[bytes] = field(default_factory=set)
    _shares: dict[str, _Share] = field(default_factory=dict)
    _size: int = 0

    def __len__(self) -> int:
        return len(self._items)

    def holds(self, tx: bytes) -> bool:
        """Whether exactly these bytes wait here already; cheap, so ask before checking."""
        return transaction_hash(tx) in self._hashes

    def add(self, tx: bytes, ticket: Ticket) -> bool:
        """Add what was checked; False if its id waits already. Raises RemoteError SW3007."""
        if ticket.id in self._items:
            return False
        share = self._shares.setdefault(ticket.sender, _Share())
        if share.count >= MAX_SENDER or share.size + len(tx) > MAX_SENDER_BYTES:
            raise RemoteError(
                "SW3007", f"{share.count} transactions of this sender wait already, as allowed"
            )
        if len(self._items) >= MAX_ALL or self._size + len(tx) > MAX_ALL_BYTES:
            if not share.count:
                del self._shares[ticket.sender]
            raise RemoteError("SW3007", f"{len(self._items)} transactions wait already, as allowed")
        self._items[ticket.id] = (tx, ticket)
        self._hashes.add(transaction_hash(tx))
        share.count += 1
        share.size += len(tx)
        self._size += len(tx)
        return True

    def remove(self, tx_id: bytes) -> None:
        """Forget it, if it is there."""
        item = self._items.pop(tx_id, None)
        if item is None:
            return
        tx, ticket = item
        self._hashes.discard(transaction_hash(tx))
        self._size -= len(tx)
        share = self._shares[ticket.sender]
        share.count -= 1
        share.size -= len(tx)
        if not share.count:
            del self._shares[ticket.sender]

    def pick(
        self, app: Application, *, count: int, size: int
    ) -> tuple[list[bytes], list[tuple[bytes, RemoteError]]]:
        """Return the oldest transactions that `app` would include, and those that it refuses.

        What is refused now was includable once and never will be again: it leaves the mempool.
        """
        chosen: list[bytes] = []
        refused: list[tuple[bytes, RemoteError]] = []
        for tx_id, (tx, _) in self._items.items():
            if len(chosen) >= count or len(tx) > size:
                break
            try:
                app.check(tx)
            except RemoteError as error:
                refused.append((tx_id, error))
                continue
            chosen.append(tx)
            size -= len(tx) + 5  # its CBOR head
        for tx_id, _ in refused:
            self.remove(tx_id)
        return chosen, refused

    def oldest(self, count: int, size: int) -> Iterable[bytes]:
        """The transactions that wait longest, for telling others."""
        for number, (tx, _) in enumerate(self._items.values()):
            size -= len(tx)
            if number >= count or size < 0:
                return
            yield tx
