"""A key-value application: the smallest thing that a ledger can order for.

A transaction is `["kv", sender, id, expires, op, key, value]` with a made-up signature. Operations:
`put` a value, `join` and `leave` (the key is a validator's uid). Signatures are hashes that anybody
could make; tests forge on purpose only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from swarm.errors import RemoteError
from swarm.ledger import codec
from swarm.ledger.application import Application, Outcome, Row, Ticket
from swarm.ledger.state.verdict import Header, Validator, Verdict

FAR = 2000  # heights that an expiry may lie ahead


def key_of(uid: str) -> bytes:
    """The public key of a made-up identity; it is its private key too."""
    return b"key of " + uid.encode()


def sign(key: bytes, data: bytes) -> bytes:
    """A stand-in for a signature."""
    return hashlib.blake2b(data, key=key, digest_size=16).digest()


def verify(key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether `sign` made it."""
    return sign(key, data) == signature


def transaction(
    sender: str, number: int, op: str, key: str, value: str = "", expires: int = 1000
) -> bytes:
    """A signed transaction; `number` makes its id."""
    body = codec.encode(["kv", sender, number.to_bytes(16, "big"), expires, op, key, value])
    return codec.encode([body, sign(key_of(sender), body)])


@dataclass(frozen=True)
class KV:
    """The state: entries, validators in order, ids that are still remembered."""

    height: int = 0
    fault_model: str = "byzantine"
    uids: tuple[str, ...] = ()
    entries: Mapping[str, str] = field(default_factory=dict)
    used: Mapping[bytes, int] = field(default_factory=dict)

    def digest(self) -> bytes:
        used = [[tx_id, expires] for tx_id, expires in sorted(self.used.items())]
        state = [self.height, list(self.uids), dict(self.entries), used]
        return hashlib.sha256(codec.encode(state)).digest()

    def validators(self) -> tuple[Validator, ...]:
        return tuple(Validator(uid, key_of(uid)) for uid in self.uids)

    def _parse(self, tx: bytes) -> tuple[str, bytes, int, str, str, str]:
        outer = codec.decode(tx, limit=1 << 16, what="kv")
        codec.require(type(outer) is list, "not a transaction")
        body, signature = codec.fields(["", *outer], "", (bytes, bytes), "kv")
        value = codec.decode(body, limit=1 << 16, what="kv")
        kinds = (str, bytes, int, str, str, str)
        sender, tx_id, expires, op, key, text = codec.fields(value, "kv", kinds, "kv")
        if not verify(key_of(sender), body, signature):
            raise RemoteError("SW3002", "forged")
        return sender, tx_id, expires, op, key, text

    def identify(self, tx: bytes) -> Ticket:
        sender, tx_id, *_ = self._parse(tx)
        return Ticket(tx_id, sender)

    def check(self, tx: bytes) -> Ticket:
        sender, tx_id, expires, *_ = self._parse(tx)
        if not self.height < expires <= self.height + FAR:
            raise RemoteError("SW3006", "expired")
        if tx_id in self.used:
            raise RemoteError("SW3006", "replayed")
        return Ticket(tx_id, sender)

    def apply(self, header: Header, txs: tuple[bytes, ...]) -> tuple[Application, Outcome]:
        assert header.height == self.height + 1, "blocks are applied in order"
        entries, uids = dict(self.entries), list(self.uids)
        used = {tx_id: end for tx_id, end in self.used.items() if end >= header.height}
        verdicts = []
        changed = set()
        for tx in txs:
            _, tx_id, expires, op, key, text = self._parse(tx)
            used[tx_id] = expires
            ok = op == "put" or (op == "join") == (key not in uids)
            if not ok or (op == "leave" and len(uids) == 1):
                verdicts.append(Verdict(False, "SW1001", "no change"))
                continue
            if op == "put":
                entries[key] = text
            elif op == "join":
                uids = sorted([*uids, key])
            else:
                uids.remove(key)
            changed.add(f"entries/{key}")
            verdicts.append(Verdict(True, "", "", {"height": header.height}))
        after = replace(self, height=header.height, uids=tuple(uids), entries=entries, used=used)
        return after, Outcome(tuple(verdicts), frozenset(changed))

    def rows(self, before: Application | None) -> Iterable[Row]:
        old = before if isinstance(before, KV) else KV()
        for key in sorted({*self.entries, *old.entries}):
            if self.entries.get(key) != old.entries.get(key) or before is None:
                value = self.entries.get(key)
                yield Row("entries", key, None if value is None else codec.encode(value))
        for tx_id in sorted({*self.used, *old.used}):
            if self.used.get(tx_id) != old.used.get(tx_id):
                end = self.used.get(tx_id)
                yield Row("used", tx_id.hex(), None if end is None else codec.encode(end))
        if self.uids != old.uids or before is None:
            yield Row("meta", "uids", codec.encode([self.fault_model, list(self.uids)]))

    @classmethod
    def restore(cls, height: int, rows: Iterable[Row]) -> KV:
        """Build the state back from its rows."""
        entries: dict[str, str] = {}
        used: dict[bytes, int] = {}
        model, uids = "byzantine", []
        for table, key, raw in rows:
            assert raw is not None
            value = codec.decode(raw, limit=1 << 16, what="row")
            if table == "entries":
                entries[key] = value
            elif table == "used":
                used[bytes.fromhex(key)] = value
            else:
                model, uids = value
        return cls(height, model, tuple(uids), entries, used)
