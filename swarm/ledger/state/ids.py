"""The ids of transactions that could still be replayed.

An id belongs to its sender: were it global, a member could copy the id of somebody's transaction
that it sees on its way, use it first, and so suppress the transaction. An id is kept until its
transaction has expired; then the expiry alone refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarm.ledger.state.table import Record, Table

IDS = "txids"
MAX_PER_SENDER = 20_000


def _key(fingerprint: str, tx_id: bytes) -> str:
    return f"{fingerprint}/{tx_id.hex()}"


class IdBook:
    """Immutable set of used ids."""

    __slots__ = ("_counts", "_due", "used")

    def __init__(
        self,
        used: Table | None = None,
        due: Mapping[int, tuple[str, ...]] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.used = used if used is not None else Table()
        self._due = due or {}  # expiry height to keys; follows from `used`
        self._counts = counts or {}  # per sender; follows from `used`

    def __len__(self) -> int:
        return len(self.used)

    def refusal(self, fingerprint: str, tx_id: bytes) -> str | None:
        """Why this sender may not use this id, or None."""
        if _key(fingerprint, tx_id) in self.used:
            return "its id was used already"
        if self._counts.get(fingerprint, 0) >= MAX_PER_SENDER:
            return f"its sender has {MAX_PER_SENDER} transactions that have not expired"
        return None

    def writer(self) -> IdWriter:
        """Start collecting the ids of a block."""
        return IdWriter(self)

    def with_block(self, fresh: Mapping[str, int], height: int) -> IdBook:
        """Return the book with `fresh` (key to expiry) added and all that expire at or before
        `height` removed."""
        changes: dict[str, Record | None] = {
            key: {"expires": expires} for key, expires in fresh.items()
        }
        due, counts = dict(self._due), dict(self._counts)
        for key, expires in fresh.items():
            due[expires] = (*due.get(expires, ()), key)
            _count(counts, key, 1)
        for expires in sorted(due):
            if expires > height:
                break
            for key in due.pop(expires):
                changes[key] = None
                _count(counts, key, -1)
        return IdBook(self.used.updated(changes), due, counts)

    @classmethod
    def of(cls, used: Table) -> IdBook:
        """The book of a stored table."""
        due: dict[int, tuple[str, ...]] = {}
        counts: dict[str, int] = {}
        for key, record in used.items():
            expires = record["expires"]
            due[expires] = (*due.get(expires, ()), key)
            _count(counts, key, 1)
        return cls(used, due, counts)


def _count(counts: dict[str, int], key: str, by: int) -> None:
    fingerprint = key.partition("/")[0]
    counts[fingerprint] = counts.get(fingerprint, 0) + by
    if not counts[fingerprint]:
        del counts[fingerprint]


class IdWriter:
    """The ids of the block that is being applied."""

    def __init__(self, book: IdBook) -> None:
        self._book = book
        self._fresh: dict[str, int] = {}

    def refusal(self, fingerprint: str, tx_id: bytes) -> str | None:
        """As `IdBook.refusal`, for ids of this block."""
        return "its id was used in this block" if _key(fingerprint, tx_id) in self._fresh else None

    def use(self, fingerprint: str, tx_id: bytes, expires: int) -> None:
        """Note an id."""
        self._fresh[_key(fingerprint, tx_id)] = expires

    def close(self, height: int) -> IdBook:
        """The book after the block of this height."""
        return self._book.with_block(self._fresh, height)
