"""A persistent table: name to record, with a digest that costs only what has changed.

Records are spread over 256 buckets by the first byte of the SHA-256 of their name. A changed table
shares all untouched buckets with the one that it was made from, so old states stay valid at no cost
and one more record in a table of a million is still cheap. The table's digest is the Merkle root
(`swarm.ledger.merkle`) over the digests of its buckets, so that one record can be proven with what
else is in its bucket and eight hashes (`proof.py`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from swarm.ledger import codec, merkle

Record = dict[str, Any]
BUCKETS = 256
RECENT = 2048  # records whose canonical form is kept,
RECENT_BYTES = 4 << 20  # and bytes of these forms


class _Encodings:
    """Canonical forms of the records that came last: each is needed for its digest, and a moment
    later for the disk, and encoding a contract costs more than a signature."""

    def __init__(self) -> None:
        self._items: OrderedDict[int, tuple[Record, bytes]] = OrderedDict()
        self._size = 0

    def of(self, record: Record) -> bytes:
        found = self._items.get(id(record))
        if found is not None and found[0] is record:  # it is held here, so its id is no other's
            return found[1]
        encoded = codec.encode(record)
        self._items[id(record)] = (record, encoded)
        self._size += len(encoded)
        while self._size > RECENT_BYTES or len(self._items) > RECENT:
            self._size -= len(self._items.popitem(last=False)[1][1])
        return encoded


encoded = _Encodings().of  # canonical bytes of a record that a table holds


class _Entry(NamedTuple):
    record: Record
    digest: bytes  # SHA-256 of the record's canonical form


class _Bucket(NamedTuple):
    entries: dict[str, _Entry]
    digest: bytes


def bucket_of(key: str) -> int:
    """Number of the bucket that a name belongs to."""
    # Not hash(): it differs between processes, and the layout is part of the digest.
    return hashlib.sha256(key.encode()).digest()[0]


def bucket_digest(entries: Mapping[str, bytes]) -> bytes:
    """SHA-256 over names and the digests of their records, in the order of names."""
    summary = hashlib.sha256()
    for key in sorted(entries):
        name = key.encode()
        summary.update(len(name).to_bytes(4, "big") + name + entries[key])
    return summary.digest()


def _sealed(entries: dict[str, _Entry]) -> _Bucket:
    return _Bucket(entries, bucket_digest({key: e.digest for key, e in entries.items()}))


_EMPTY = _sealed({})


def _rehashed(tree: bytes, digests: Mapping[int, bytes]) -> bytes:
    """A Merkle tree with the leaves of some buckets exchanged.

    Nodes lie as in a heap: the root at 1, the children of `n` at `2n` and `2n + 1`, the leaves from
    BUCKETS on. Of 256 leaves that is the tree of RFC 6962.
    """
    fresh = bytearray(tree)
    for number, digest in digests.items():
        at = 32 * (BUCKETS + number)
        fresh[at : at + 32] = merkle.leaf(digest)
    dirty = {(BUCKETS + number) // 2 for number in digests}
    while dirty != {0}:
        for n in dirty:
            left, right = (
                bytes(fresh[64 * n : 64 * n + 32]),
                bytes(fresh[64 * n + 32 : 64 * n + 64]),
            )
            fresh[32 * n : 32 * n + 32] = merkle.node(left, right)
        dirty = {n // 2 for n in dirty}
    return bytes(fresh)


_EMPTY_TREE = _rehashed(bytes(64 * BUCKETS), dict.fromkeys(range(BUCKETS), _EMPTY.digest))


def _count(counts: dict[str, int], record: Record, by: int) -> None:
    organisation = record.get("organisation")
    if type(organisation) is str:
        counts[organisation] = counts.get(organisation, 0) + by
        if not counts[organisation]:
            del counts[organisation]


class Table(Mapping[str, Record]):
    """An immutable mapping. Its records are shared with other tables: never change one in place."""

    __slots__ = ("_buckets", "_organisations", "_size", "_tree", "digest")

    digest: bytes  # SHA-256; equal for equal contents, however they came about

    def __init__(self) -> None:
        self._buckets: tuple[_Bucket, ...] = (_EMPTY,) * BUCKETS
        self._tree = _EMPTY_TREE
        self._size = 0
        self._organisations: Mapping[str, int] = {}  # records of each; follows from the records
        self.digest = self._tree[32:64]

    def __getitem__(self, key: str) -> Record:
        return self._buckets[bucket_of(key)].entries[key].record

    def __contains__(self, key: object) -> bool:
        return type(key) is str and key in self._buckets[bucket_of(key)].entries

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        """Names in order, so that no caller depends on the history of a table."""
        return iter(sorted(key for bucket in self._buckets for key in bucket.entries))

    def of_organisation(self, name: str) -> int:
        """How many records say that they belong to this organisation."""
        return self._organisations.get(name, 0)

    def updated(self, changes: Mapping[str, Record | None]) -> Table:
        """Return this table with `changes` made; None deletes a record."""
        if not changes:
            return self
        touched: dict[int, dict[str, _Entry]] = {}
        size = self._size
        counts = dict(self._organisations)
        for key, record in changes.items():
            number = bucket_of(key)
            if number not in touched:
                touched[number] = dict(self._buckets[number].entries)
            entries = touched[number]
            before = entries.pop(key, None)
            if before is not None:
                size -= 1
                _count(counts, before.record, -1)
            if record is not None:
                _count(counts, record, 1)
                entries[key] = _Entry(record, hashlib.sha256(encoded(record)).digest())
                size += 1
        buckets = list(self._buckets)
        for number, entries in touched.items():
            buckets[number] = _sealed(entries)
        table = Table.__new__(Table)
        table._buckets, table._size, table._organisations = tuple(buckets), size, counts
        table._tree = _rehashed(self._tree, {n: buckets[n].digest for n in touched})
        table.digest = table._tree[32:64]
        return table

    def beside(self, key: str) -> tuple[dict[str, bytes], list[bytes]]:
        """What proves a record: digests of all records in its bucket, and the bucket's way up."""
        number = bucket_of(key)
        entries = {name: entry.digest for name, entry in self._buckets[number].entries.items()}
        place, path = BUCKETS + number, []
        while place > 1:
            path.append(self._tree[32 * (place ^ 1) : 32 * (place ^ 1) + 32])
            place //= 2
        return entries, path

    def difference(self, before: Table | None) -> Iterator[tuple[str, Record | None]]:
        """Yield what differs from `before`, None for a deleted record; everything for None."""
        if before is self:
            return
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
