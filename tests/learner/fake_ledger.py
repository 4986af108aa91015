"""The ledger without consensus: the real state machine behind a lock, and clients of it.

`Client` has the face of `swarm.api.client.ApiClient` as far as a learner uses it, with hex strings
in place of bytes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from swarm.api.models import Verdict, VerdictError
from swarm.errors import RemoteError
from swarm.identity import Identity, Peer, node_uid
from swarm.ledger import codec
from swarm.ledger.genesis import Founder, Genesis
from swarm.ledger.state import Header, State
from swarm.ledger.transaction import Transaction


def plain(value: Any) -> Any:
    """A record as the API gives it out: byte strings are hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def peer_of(identity: Identity) -> Peer:
    return Peer(
        identity.fingerprint,
        identity.role,
        identity.organisation,
        identity.common_name,
        identity.public_key_der,
    )


class Ledger:
    """All network nodes of a swarm in one object. `sn` is the identity of the only one."""

    def __init__(self, sn: Identity) -> None:
        self.sn = sn
        self.uid = node_uid(sn.fingerprint)
        founder = Founder(
            uid=self.uid,
            fingerprint=sn.fingerprint,
            organisation=sn.organisation,
            public_key=sn.public_key_der,
            name="sn-1",
            host="127.0.0.1",
            port=1,
            p2p=(),
            peer_id="",
        )
        genesis = Genesis("test", "byzantine", dict(sn.trust.ca_ders), founder, 0, os.urandom(16))
        self.state = State.genesis(genesis)
        self.changed = threading.Condition()
        self.watches: list[Watch] = []
        self.log: list[tuple[str, dict[str, Any], bool, str]] = []
        self.down = ""  # why submits fail now
        self.refuse: Callable[[str, Mapping[str, Any]], bool] = lambda op, args: False

    def submit(self, identity: Identity, op: str, args: Mapping[str, Any]) -> Verdict:
        """One block with one transaction, and what the API would answer."""
        copy = codec.decode(codec.encode(dict(args)), limit=1 << 20, what="arguments")
        with self.changed:
            transaction = Transaction.new(self.state.chain, self.state.height + 1000, op, copy)
            header = Header(self.state.height + 1, 1000 * self.state.height, self.uid)
            self.state, (verdict,), keys = self.state.apply(
                header, [(transaction, peer_of(identity))]
            )
            self.log.append((op, copy, verdict.ok, verdict.code + verdict.text))
            answer = Verdict(
                verdict.ok, verdict.code, verdict.text, plain(verdict.result), self.state.height
            )
            watches = list(self.watches)
            height = self.state.height
            records = {key: plain(self.state.get(*key.split("/", 1))) for key in keys}
            # Within the lock, so that everybody sees all changes in order.
            for watch in watches:
                watch.apply(height, records)
            self.changed.notify_all()
        return answer

    def record(self, table: str, key: str) -> Any:
        with self.changed:
            return plain(self.state.get(table, key))

    def contract(self, name: str = "defaultbb.cqdb.sml.hpe") -> Any:
        return self.record("contracts", name)

    def wait(self, predicate: Callable[[Any], bool], bound: float = 60.0) -> Any:
        """Wait until the default contract's record satisfies `predicate`, and return it."""
        with self.changed:
            if not self.changed.wait_for(lambda: predicate(self.contract()), bound):
                raise AssertionError(f"in vain: {self.contract()}")
            return self.contract()

    def lost(self, uid: str) -> None:
        """What an SN does when a learner gives no sign of life."""
        args = {"contract": "defaultbb.cqdb.sml.hpe", "uid": uid, "reason": "no sign of life"}
        self.submit(self.sn, "round.lost", args)


class Watch:
    """Follows records, as `swarm.api.watch.Watch` does."""

    def __init__(self, ledger: Ledger, keys: list[str]) -> None:
        self.keys = keys
        self.connected, self.error = True, ""
        self.callbacks: list[Callable[[Any], None]] = []
        with ledger.changed:
            self.records = {key: ledger.record(*key.split("/", 1)) for key in keys}
            self.height = ledger.state.height
            ledger.watches.append(self)
        self._ledger = ledger

    def apply(self, height: int, records: Mapping[str, Any]) -> None:
        if any(key in records for key in self.keys):
            self.height = height
            self.records = {key: records.get(key, old) for key, old in self.records.items()}
            for callback in self.callbacks:
                callback(self)

    def on_change(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    def close(self) -> None:
        with self._ledger.changed:
            if self in self._ledger.watches:
                self._ledger.watches.remove(self)


class Client:
    """One learner's client."""

    def __init__(self, ledger: Ledger, identity: Identity) -> None:
        self._ledger = ledger
        self._identity = identity

    def status(self) -> Mapping[str, Any]:
        return {"uid": self._ledger.uid, "height": self._ledger.state.height}

    def record(self, table: str, key: str, *, min_height: int = 0) -> Any:
        return self._ledger.record(table, key)

    def submit(self, op: str, args: Mapping[str, Any], *, patience: float = 60) -> Verdict:
        if self._ledger.down:
            raise RemoteError("SW5001", self._ledger.down)
        verdict = self._ledger.submit(self._identity, op, args)
        if not verdict.ok:
            raise VerdictError(op, verdict)
        return verdict

    def watch(self, keys: list[str], *, uid: str = "") -> Watch:
        return Watch(self._ledger, keys)

    def close(self) -> None:
        """Nothing is open."""
