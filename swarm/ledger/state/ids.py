"""The ids of transactions that could still be replayed.

An id belongs to its sender, a key or a SPIFFE id with all its keys: were it global, a member could
copy the id of somebody's transaction that it sees on its way, use it first, and so suppress the
transaction. An id is kept until its transaction has expired; then the expiry alone refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarm.ledger.state.table import Record, Table

IDS = "txids"
MAX_PER_SENDER = 20_000


# Keys that expire at one height: those of a block, and behind them those of blocks before.
_Due = tuple["_Due | None", tuple[str, ...]]


def _key(fingerprint: str, tx_id: bytes) -> str:
    return f"{fingerprint}/{tx_id.hex()}"


class IdBook:
    """Immutable set of used ids."""

    __slots__ = ("_counts", "_due", "used")

    def __init__(
        self,
        used: Table | None = None,
        due: Mapping[int, _Due] | None = None,
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
        for expires, keys in _by_expiry(fresh).items():
            due[expires] = (due.get(expires), keys)
        for key in fresh:
            _count(counts, key, 1)
        # Those of earlier heights went with the blocks of those heights.
        over = due.pop(height, None)
        while over is not None:
            over, keys = over
            for key in keys:
                changes[key] = None
                _count(counts, key, -1)
        return IdBook(self.used.updated(changes), due, counts)

    @classmethod
    def of(cls, used: Table) -> IdBook:
        """The book of a stored table."""
        expiries = {key: record["expires"] for key, record in used.items()}
        due: dict[int, _Due] = {e: (None, keys) for e, keys in _by_expiry(expiries).items()}
        counts: dict[str, int] = {}
        for key in expiries:
            _count(counts, key, 1)
        return cls(used, due, counts)


def _by_expiry(expiries: Mapping[str, int]) -> dict[int, tuple[str, ...]]:
    """Keys by the height at which they expire."""
    found: dict[int, list[str]] = {}
    for key, expires in expiries.items():
        found.setdefault(expires, []).append(key)
    return {expires: tuple(keys) for expires, keys in found.items()}


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
