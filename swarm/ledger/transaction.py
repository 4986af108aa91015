"""Signed transactions: what members write to the ledger.

The body is the canonical form of `["swarm-tx-1", chain, id, expires, op, args]`. `chain` keeps a
transaction of one swarm out of another; `id` with `expires` (a block height) makes a replay
recognisable for as long as it could be included, and forgettable afterwards.

Beside the body travel the sender's certificate chain and the signature, so any member can check a
transaction long after its sender is gone. Signed is `["swarm-signed-1", hash of the chain, body]`.
The tag separates it from votes and proposals, which the same keys sign. The chain is covered
because it says for which organisation and in which role the sender acts, while any CA can issue a
certificate for somebody else's public key: without it, one admitted CA could pass another member's
acts off as those of its own organisation.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarm.errors import RemoteError
from swarm.identity import verify_chain, verify_signature
from swarm.ledger import codec

if TYPE_CHECKING:
    from swarm.identity import Identity, Peer

BODY_TAG = "swarm-tx-1"
SIGNED_TAG = "swarm-signed-1"
MAX_TRANSACTION = 64 * 1024  # bytes, with certificates; larger things do not belong on a ledger
MAX_CHAIN = 5  # certificates: leaf and at most four authorities
_OPERATION = re.compile(r"[a-z]+(\.[a-z]+)*")
_MAX_OPERATION = 48


@dataclass(frozen=True)
class Transaction:
    """One request to the state machine.

    `chain` is the chain id (32 bytes), `id` 16 random bytes, `expires` the last height at which it
    may be included.
    """

    chain: bytes
    id: bytes
    expires: int
    op: str
    args: dict[str, Any]

    @classmethod
    def new(cls, chain: bytes, expires: int, op: str, args: Mapping[str, Any]) -> Transaction:
        """Return a transaction with a fresh random id."""
        return cls(chain, os.urandom(16), expires, op, dict(args))

    def body(self) -> bytes:
        """The bytes of the request itself; `signed_bytes` covers them."""
        return codec.encode([BODY_TAG, self.chain, self.id, self.expires, self.op, self.args])

    @classmethod
    def from_body(cls, body: bytes) -> Transaction:
        """Parse a body. Raises RemoteError SW3001."""
        value = codec.decode(body, limit=MAX_TRANSACTION, what="transaction body")
        kinds = (bytes, bytes, int, str, dict)
        chain, tx_id, expires, op, args = codec.fields(value, BODY_TAG, kinds, "transaction body")
        codec.require(len(chain) == 32, "chain id has not 32 bytes")
        codec.require(len(tx_id) == 16, "transaction id has not 16 bytes")
        codec.require(expires >= 0, "negative expiry height")
        codec.require(
            len(op) <= _MAX_OPERATION and _OPERATION.fullmatch(op) is not None,
            "operation name is malformed",
        )
        return cls(chain, tx_id, expires, op, args)


@dataclass(frozen=True)
class SignedTransaction:
    """A transaction as it travels: body, certificate chain (leaf first, DER) and signature."""

    transaction: Transaction
    body: bytes
    chain_der: tuple[bytes, ...]
    signature: bytes

    def encode(self) -> bytes:
        """The bytes that travel; `transaction_hash` of them names the transaction in logs."""
        return codec.encode([self.body, list(self.chain_der), self.signature])

    @classmethod
    def decode(cls, data: bytes) -> SignedTransaction:
        """Parse at most 64 KiB. Raises RemoteError SW3001; checks no signature."""
        value = codec.decode(data, limit=MAX_TRANSACTION, what="transaction")
        codec.require(type(value) is list and len(value) == 3, "transaction has not 3 parts")
        body, chain, signature = value
        codec.require(type(body) is bytes and type(signature) is bytes, "transaction: wrong types")
        codec.list_of(chain, bytes, "certificate chain", most=MAX_CHAIN)
        codec.require(bool(chain), "certificate chain is empty")
        return cls(Transaction.from_body(body), body, tuple(chain), signature)

    @classmethod
    def sign(cls, identity: Identity, transaction: Transaction) -> SignedTransaction:
        """Sign `transaction` with the key of `identity`.

        Raises RemoteError SW3001 when the result would be refused by everybody, for its size say.
        """
        body, chain = transaction.body(), identity.chain_der
        signed = cls(transaction, body, chain, identity.sign(signed_bytes(body, chain)))
        cls.decode(signed.encode())
        return signed

    def sender(self, cas: Mapping[str, bytes]) -> Peer:
        """Return whom the signature belongs to, according to the authorities `cas`.

        `cas` maps fingerprints to DER certificates, as the ledger state holds them. Depends on
        nothing but its arguments: no clock, no revocation list. Raises RemoteError: of the identity
        range when the chain leads to no authority, SW3002 when the signature does not fit.
        """
        peer = verify_chain(self.chain_der, cas)
        self.check_signature(peer)
        return peer

    def check_signature(self, peer: Peer) -> None:
        """Raise RemoteError SW3002 unless `peer`, whom the chain belongs to, signed both."""
        data = signed_bytes(self.body, self.chain_der)
        if not verify_signature(peer.public_key_der, data, self.signature):
            raise RemoteError("SW3002", f"signature of {peer.common_name} does not fit its bytes")


def signed_bytes(body: bytes, chain_der: Sequence[bytes]) -> bytes:
    """What the sender signs: the body, and the certificates (leaf first) that it is sent with."""
    chain = hashlib.sha256(codec.encode(list(chain_der))).digest()
    return codec.encode([SIGNED_TAG, chain, body])


def transaction_hash(data: bytes) -> bytes:
    """SHA-256 of the encoded signed transaction (32 bytes)."""
    return hashlib.sha256(data).digest()
