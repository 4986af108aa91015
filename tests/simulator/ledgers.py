"""What the simulated replicas order for: the product's state machine, or the small double.

Both say who the members are and make their transactions. Validators' signatures are made up in both
(`World.sign`); transactions of the real ledger carry real ones.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from swarm.identity import Identity, Role, node_uid
from swarm.ledger import codec
from swarm.ledger.application import Application, LedgerApplication, Outcome
from swarm.ledger.genesis import Founder, Genesis
from swarm.ledger.state import Header, Validator
from swarm.ledger.transaction import SignedTransaction, Transaction
from tests import pki
from tests.ledger import kv

FAR = 1500  # heights; further than any simulated chain
OUTSIDERS = 6


class Ledger(Protocol):
    """Members, the state they begin with, and what they ask for."""

    chain: bytes
    genesis: Application
    validators: list[str]

    def outsider(self, number: int) -> str:
        """Uid of a node that is no validator yet."""

    def key(self, uid: str) -> bytes:
        """Its public key."""

    def put(self, number: int) -> bytes:
        """Some operation; a different one for each number."""

    def join(self, uid: str) -> bytes:
        """A node becomes a validator."""

    def leave(self, uid: str) -> bytes:
        """It is one no longer."""

    def evict(self, uid: str) -> list[bytes]:
        """Others put it out: the votes that it takes, if nobody else joins."""


# ---------------------------------------------------------------------- the double


_keys = lru_cache(kv.key_of)


@dataclass(frozen=True)
class Double(kv.KV):
    """The key-value double with the last block's time in its state; parses and hashes once."""

    time_ms: int = 0

    def digest(self) -> bytes:
        found: bytes | None = self.__dict__.get("_digest")
        if found is None:
            used = [[tx_id, expires] for tx_id, expires in sorted(self.used.items())]
            parts = [self.height, self.time_ms, list(self.uids), dict(self.entries), used]
            found = hashlib.sha256(codec.encode(parts)).digest()
            self.__dict__["_digest"] = found
        return found

    def validators(self) -> tuple[Validator, ...]:
        return _validators(self.uids)

    def _parse(self, tx: bytes) -> tuple[str, bytes, int, str, str, str]:
        return _parsed(tx)

    def apply(self, header: Header, txs: tuple[bytes, ...]) -> tuple[Application, Outcome]:
        after, outcome = super().apply(header, txs)
        assert isinstance(after, Double)
        return replace(after, time_ms=header.time_ms), outcome


@lru_cache
def _validators(uids: tuple[str, ...]) -> tuple[Validator, ...]:
    return tuple(Validator(uid, _keys(uid)) for uid in uids)


@lru_cache(1 << 14)
def _parsed(tx: bytes) -> tuple[str, bytes, int, str, str, str]:
    return kv.KV()._parse(tx)


@lru_cache(1 << 12)
def _put(number: int) -> bytes:
    return kv.transaction("client", number, "put", f"k{number % 5}", str(number))


class KvLedger:
    """The double: cheap, so that many seeds fit a minute."""

    chain = b"simulated chain".ljust(32, b".")

    def __init__(
        self, count: int, model: str, application: Callable[..., Application] = Double
    ) -> None:
        self.validators = [f"n{number:02d}" for number in range(count)]
        self.genesis = application(fault_model=model, uids=tuple(self.validators))

    def outsider(self, number: int) -> str:
        return f"o{number:02d}"

    def key(self, uid: str) -> bytes:
        return _keys(uid)

    def put(self, number: int) -> bytes:
        return _put(number)

    def join(self, uid: str) -> bytes:
        return kv.transaction(uid, 800 + int(uid[1:]), "join", uid)

    def leave(self, uid: str) -> bytes:
        return kv.transaction(uid, 900, "leave", uid)

    def evict(self, uid: str) -> list[bytes]:
        return [kv.transaction("operator", 901, "leave", uid)]


# ---------------------------------------------------------------------- the product's


@lru_cache(maxsize=1)
def _members() -> tuple[tuple[Identity, ...], tuple[Identity, ...]]:
    """Nodes of two organisations and an operator of each; made once, as that takes seconds."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cas = [pki.authority(directory, index) for index in (1, 2)]
        nodes = [
            pki.identity(directory / str(number), Role.SN, cas[number % 2], name=str(number))
            for number in range(7 + OUTSIDERS)
        ]
        operators = tuple(pki.identity(directory / "operators", Role.SWCI, ca) for ca in cas)
    return tuple(sorted(nodes, key=lambda node: node_uid(node.fingerprint))), operators


class RealLedger:
    """The product's state machine and transactions, with real certificates."""

    def __init__(self, count: int, model: str) -> None:
        nodes, self._operators = _members()
        self._nodes = {node_uid(node.fingerprint): node for node in nodes}
        self._uids = list(self._nodes)
        self.validators = self._uids[:count]
        self._made: dict[tuple[str, int, str], bytes] = {}
        founder = self._nodes[self.validators[0]]
        genesis = Genesis(
            "simulated",
            model,
            dict(founder.trust.ca_ders),
            Founder(
                uid=self.validators[0],
                fingerprint=founder.fingerprint,
                organisation=founder.organisation,
                public_key=founder.public_key_der,
                name="founder",
                host="host",
                port=1,
                p2p=(),
                peer_id="",
            ),
            0,
            b"simulated nonce.",
        )
        self.chain = genesis.chain_id
        app: Application = LedgerApplication.genesis(genesis)
        if count > 1:  # all others joined before the story begins
            joins = tuple(self.join(uid) for uid in self.validators[1:])
            app, outcome = app.apply(Header(1, 0, self.validators[0]), joins)
            assert all(verdict.ok for verdict in outcome.verdicts), outcome.verdicts
        self.genesis = app

    def outsider(self, number: int) -> str:
        return self._uids[-1 - number]

    def key(self, uid: str) -> bytes:
        return self._nodes[uid].public_key_der

    def _sign(self, identity: Identity, number: int, op: str, args: dict[str, object]) -> bytes:
        key = (identity.fingerprint, number, str(args.get("uid", "")))
        made = self._made.get(key)
        if made is None:
            tx_id = number.to_bytes(16, "big")
            transaction = Transaction(self.chain, tx_id, FAR, op, args)
            made = self._made[key] = SignedTransaction.sign(identity, transaction).encode()
        return made

    def put(self, number: int) -> bytes:
        name = f"t-{number // 3}"
        create = {"name": name, "type": "RUN_SWARM", "author": "A", "prereq": "ROOTTASK"}
        op, args = (
            ("task.create", {**create, "outcome": "o"}),
            ("task.append", {"task": name, "index": 1, "lines": [str(number)]}),
            ("runner.create", {"name": f"r-{number // 3}"}),
        )[number % 3]
        return self._sign(self._operators[0], number, op, dict(args))

    def join(self, uid: str) -> bytes:
        return self._sign(
            self._nodes[uid],
            800,
            "node.enroll",
            {
                "uid_name": "", "type": "SN", "host": "host", "port": 1, "p2p": [], "peer_id": "",
                "parent": "", "validator": True, "runner": "", "pairs": 0, "contract": "",
                "version": "",
            },
        )  # fmt: skip

    def leave(self, uid: str) -> bytes:
        return self._sign(self._nodes[uid], 900, "node.leave", {"uid": uid})

    def evict(self, uid: str) -> list[bytes]:
        return [self._sign(one, 901, "node.evict", {"uid": uid}) for one in self._operators]


@lru_cache
def real_ledger(count: int, model: str) -> RealLedger:
    """The same ledger for all worlds of one size: making it takes longer than a seed."""
    return RealLedger(count, model)
