"""A persistent table: name to record, with a digest that costs only what has changed.

Records are spread over 256 buckets by the first byte of the SHA-256 of their name. A changed table
shares all untouched buckets, and their digests, with the one that it was made from, so old states
stay valid at no cost and one more record in a table of a million is still cheap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from swarm.ledger import codec

Record = dict[str, Any]
BUCKETS = 256


class _Entry(NamedTuple):
    record: Record
    digest: bytes  # SHA-256 of the record's canonical form


class _Bucket(NamedTuple):
    entries: dict[str, _Entry]
    digest: bytes


def _bucket_of(key: str) -> int:
    # Not hash(): it differs between processes, and the layout is part of the digest.
    return hashlib.sha256(key.encode()).digest()[0]


def _sealed(entries: dict[str, _Entry]) -> _Bucket:
    summary = hashlib.sha256()
    for key in sorted(entries):
        name = key.encode()
        summary.update(len(name).to_bytes(4, "big") + name + entries[key].digest)
    return _Bucket(entries, summary.digest())


_EMPTY = _sealed({})


class Table(Mapping[str, Record]):
    """An immutable mapping. Its records are shared with other tables: never change one in place."""

    __slots__ = ("_buckets", "_digests", "_size", "digest")

    digest: bytes  # SHA-256; equal for equal contents, however they came about

    def __init__(self) -> None:
        self._buckets: tuple[_Bucket, ...] = (_EMPTY,) * BUCKETS
        self._digests = _EMPTY.digest * BUCKETS  # of all buckets, in one piece
        self._size = 0
        self.digest = hashlib.sha256(self._digests).digest()

    def __getitem__(self, key: str) -> Record:
        return self._buckets[_bucket_of(key)].entries[key].record

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        """Names in order, so that no caller depends on the history of a table."""
        return iter(sorted(key for bucket in self._buckets for key in bucket.entries))

    def updated(self, changes: Mapping[str, Record | None]) -> Table:
        """Return this table with `changes` made; None deletes a record."""
        if not changes:
            return self
        touched: dict[int, dict[str, _Entry]] = {}
        size = self._size
        for key, record in changes.items():
            number = _bucket_of(key)
            if number not in touched:
                touched[number] = dict(self._buckets[number].entries)
            entries = touched[number]
            size -= entries.pop(key, None) is not None
            if record is not None:
                entries[key] = _Entry(record, hashlib.sha256(codec.encode(record)).digest())
                size += 1
        buckets, digests = list(self._buckets), bytearray(self._digests)
        for number, entries in touched.items():
            buckets[number] = _sealed(entries)
            digests[32 * number : 32 * number + 32] = buckets[number].digest
        table = Table.__new__(Table)
        table._buckets, table._digests, table._size = tuple(buckets), bytes(digests), size
        table.digest = hashlib.sha256(digests).digest()
        return table

    def difference(self, before: Table | None) -> Iterator[tuple[str, Record | None]]:
        """Yield what differs from `before`, None for a deleted record; everything for None."""
        old_buckets = before._buckets if before is not None else (_EMPTY,) * BUCKETS
        for new, old in zip(self._buckets, old_buckets, strict=True):
            if new is old:
                continue
            for key in sorted({*new.entries, *old.entries}):
                now, then = new.entries.get(key), old.entries.get(key)
                if now is None:
                    yield key, None
                elif then is None or now.digest != then.digest:
                    yield key, now.record
