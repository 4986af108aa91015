"""Proof that a record is in a state, for those that know only the state's digest.

A proof names the digests of all tables, of which one holds the record; the way from the record's
bucket to that table's digest; and the digests of the records that share the bucket. Together they
hash to the digest that stands in a certified block header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.ledger import codec, merkle
from swarm.ledger.state.digest import state_digest
from swarm.ledger.state.table import BUCKETS, Record, Table, bucket_digest, bucket_of

CODE = "SW3004"
MAX_RECORD = 16 << 20  # bytes


@dataclass(frozen=True)
class RecordProof:
    """A record with what its state's digest is made of beside it."""

    table: str
    key: str
    record: bytes  # canonical
    bucket: Mapping[str, bytes]  # names in the bucket, this one among them, and record digests
    path: tuple[bytes, ...]
    tables: tuple[tuple[str, bytes], ...]  # all names and digests, in the digest's order

    def check(self, chain: bytes, height: int, digest: bytes) -> Record:
        """The record, if it was in the state with this digest. Raises RemoteError SW3004."""
        what = f"the proof of {self.table}/{self.key} at height {height}"
        own = hashlib.sha256(self.record).digest()
        _require(self.bucket.get(self.key) == own, f"{what} is for another record")
        found = dict(self.tables)
        _require(len(found) == len(self.tables), f"{what} names a table twice")
        place = bucket_of(self.key)
        _require(
            merkle.proves(
                found.get(self.table, b""), bucket_digest(self.bucket), place, BUCKETS, self.path
            ),
            f"{what} does not lead to its table",
        )
        _require(
            state_digest(chain, height, self.tables) == digest,
            f"{what} does not lead to the state that the block names",
        )
        record: Record = codec.decode(self.record, limit=MAX_RECORD, what=what, code=CODE)
        return record


def prove(table: Table, name: str, key: str, tables: tuple[tuple[str, bytes], ...]) -> RecordProof:
    """Prove a record of `table`, which is called `name`. KeyError when there is none."""
    bucket, path = table.beside(key)
    return RecordProof(name, key, codec.encode(table[key]), bucket, tuple(path), tables)


def _require(condition: bool, text: str) -> None:
    codec.require(condition, text, CODE)
