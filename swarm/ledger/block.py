"""Blocks, their certificates, and the bytes that validators sign.

A block's id is the SHA-256 of its header; the header holds the id of the block before and Merkle
roots over the transactions. Validators execute a block before they vote for it, so the header also
says what comes of it: the state afterwards, the verdict on each transaction, and who votes on the
next block. A certificate is a quorum of precommit signatures over one id. So whoever knows the
genesis can follow headers and certificates alone, from each set of validators to the next, and
check a single transaction, verdict or record with a short proof and without the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from swarm.errors import RemoteError
from swarm.ledger import codec, merkle
from swarm.ledger.transaction import MAX_TRANSACTION

if TYPE_CHECKING:  # the state machine reads signed consensus messages, so it imports this module
    from swarm.ledger.state.verdict import Validator, Verdict

CODE = "SW3004"
HEADER_TAG = "swarm-header-1"
BLOCK_TAG = "swarm-block-1"
VALIDATORS_TAG = "swarm-validators-1"
VOTE_TAG = "swarm-vote-1"
PROPOSAL_TAG = "swarm-proposal-1"
CERTIFICATE_TAG = "swarm-certificate-1"

# A proposal is one message of the mesh, which carries at most 1 MiB with everything around it.
MAX_BLOCK = 900 * 1024
MAX_BLOCK_TRANSACTIONS = 500
MAX_VALIDATORS = 25
MAX_SIGNATURE = 1024  # RSA-8192; P-256 takes 72
MAX_CERTIFICATE = MAX_VALIDATORS * (MAX_SIGNATURE + 128) + 256
MAX_UID = 64
MAX_ROUND = 1 << 31

NIL = b""  # the id that a vote for "no block" carries
PREVOTE = 1
PRECOMMIT = 2

Verify = Callable[[bytes, bytes, bytes], bool]  # public key (SPKI DER), data, signature


class Effect(NamedTuple):
    """What comes of a block, in three hashes of 32 bytes."""

    state: bytes  # digest of the state after the block
    results: bytes  # Merkle root over the verdicts, see `verdict_leaf`
    next_validators: bytes  # who votes on the next block, see `validators_hash`


@dataclass(frozen=True)
class BlockHeader:
    """What the validators vote on. `time_ms` is the proposer's claim and good for display only."""

    chain: bytes
    height: int
    previous: bytes
    time_ms: int
    proposer: str
    count: int  # of the transactions; the roots alone do not say it
    root: bytes  # Merkle root over the encoded signed transactions
    effect: Effect

    def encode(self) -> bytes:
        """Canonical bytes; their SHA-256 is the block id."""
        parts = [self.chain, self.height, self.previous, self.time_ms, self.proposer]
        return codec.encode([HEADER_TAG, *parts, self.count, self.root, *self.effect])

    @property
    def state(self) -> bytes:
        """Digest of the state after the block."""
        return self.effect.state

    @property
    def id(self) -> bytes:
        """The block id: what votes and certificates name."""
        return hashlib.sha256(self.encode()).digest()

    @classmethod
    def decode(cls, raw: bytes) -> BlockHeader:
        """Parse and check form. Raises RemoteError SW3004."""
        value = codec.decode(raw, limit=1024, what="header", code=CODE)
        kinds = (bytes, int, bytes, int, str, int, bytes, bytes, bytes, bytes)
        parts = codec.fields(value, HEADER_TAG, kinds, "header", CODE)
        chain, height, previous, time_ms, proposer, count, root, *effect = parts
        header = cls(chain, height, previous, time_ms, proposer, count, root, Effect(*effect))
        hashes = (header.chain, header.previous, header.root, *header.effect)
        codec.require(all(len(h) == 32 for h in hashes), "a hash has not 32 bytes", CODE)
        codec.require(header.height > 0 and header.time_ms >= 0, "negative height or time", CODE)
        codec.require(0 < header.count <= MAX_BLOCK_TRANSACTIONS, "count out of range", CODE)
        codec.require(len(header.proposer) <= MAX_UID, "proposer's name too long", CODE)
        return header


@dataclass(frozen=True)
class Block:
    """A header with its transactions, and the bytes it came from."""

    header: BlockHeader
    transactions: tuple[bytes, ...]
    id: bytes
    encoded: bytes

    @property
    def chain(self) -> bytes:
        return self.header.chain

    @property
    def height(self) -> int:
        return self.header.height

    @classmethod
    def make(
        cls,
        *,
        chain: bytes,
        height: int,
        previous: bytes,
        time_ms: int,
        proposer: str,
        transactions: Sequence[bytes],
        effect: Effect,
    ) -> Block:
        """Build a block of our own; `application.execute` says what comes of it."""
        count, root = len(transactions), merkle.root(transactions)
        header = BlockHeader(chain, height, previous, time_ms, proposer, count, root, effect)
        raw = header.encode()
        encoded = codec.encode([BLOCK_TAG, raw, list(transactions)])
        return cls(header, tuple(transactions), hashlib.sha256(raw).digest(), encoded)

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """Parse and check form and hashes, not meaning. Raises RemoteError SW3004."""
        what = "block"
        value = codec.decode(data, limit=MAX_BLOCK, what=what, code=CODE)
        raw, transactions = codec.fields(value, BLOCK_TAG, (bytes, list), what, CODE)
        codec.list_of(transactions, bytes, what, most=MAX_BLOCK_TRANSACTIONS, code=CODE)
        codec.require(bool(transactions), "a block without transactions", CODE)
        codec.require(
            all(len(tx) <= MAX_TRANSACTION for tx in transactions), "transaction too large", CODE
        )
        header = BlockHeader.decode(raw)
        codec.require(
            header.count == len(transactions) and header.root == merkle.root(transactions),
            "transactions do not fit header",
            CODE,
        )
        return cls(header, tuple(transactions), hashlib.sha256(raw).digest(), data)


def verdict_leaf(verdict: Verdict) -> bytes:
    """What stands for a verdict below `Effect.results`: whether it was accepted, and the code.

    Not the text: it may be worded anew without the ledger splitting over it.
    """
    return codec.encode([verdict.ok, verdict.code])


def validators_hash(validators: Iterable[Validator]) -> bytes:
    """SHA-256 over uids and public keys, in the order that all agree on."""
    pairs = [[validator.uid, validator.public_key_der] for validator in validators]
    return hashlib.sha256(codec.encode([VALIDATORS_TAG, pairs])).digest()


@lru_cache(256)  # the same for all who vote for one block in one step
def vote_bytes(chain: bytes, kind: int, height: int, round_: int, block_id: bytes) -> bytes:
    """What a validator signs to prevote or precommit."""
    return codec.encode([VOTE_TAG, chain, kind, height, round_, block_id])


@lru_cache(16)
def proposal_bytes(
    chain: bytes, height: int, round_: int, valid_round: int, block_id: bytes
) -> bytes:
    """What a proposer signs."""
    return codec.encode([PROPOSAL_TAG, chain, height, round_, valid_round, block_id])


@dataclass(frozen=True)
class Certificate:
    """Precommits of a quorum for one block, sorted by signer."""

    height: int
    round: int
    block_id: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def encode(self) -> bytes:
        pairs = [[uid, signature] for uid, signature in self.signatures]
        return codec.encode([CERTIFICATE_TAG, self.height, self.round, self.block_id, pairs])

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Parse. Raises RemoteError SW3004 also when a signer comes twice or out of order."""
        what = "certificate"
        value = codec.decode(data, limit=MAX_CERTIFICATE, what=what, code=CODE)
        kinds = (int, int, bytes, list)
        height, round_, block_id, pairs = codec.fields(value, CERTIFICATE_TAG, kinds, what, CODE)
        codec.list_of(pairs, list, what, most=MAX_VALIDATORS, code=CODE)
        signatures = tuple(
            tuple(codec.fields(["", *pair], "", (str, bytes), "signature", CODE)) for pair in pairs
        )
        names = [uid for uid, _ in signatures]
        codec.require(sorted(set(names)) == names, "signers repeated or out of order", CODE)
        codec.require(
            height > 0 and 0 <= round_ < MAX_ROUND and len(block_id) == 32, "out of range", CODE
        )
        codec.require(all(len(s) <= MAX_SIGNATURE for _, s in signatures), "oversized", CODE)
        return cls(height, round_, block_id, signatures)

    def check(
        self, block: Block | BlockHeader, keys: Mapping[str, bytes], quorum: int, verify: Verify
    ) -> None:
        """Raise RemoteError SW3004 unless this certifies `block`.

        `keys` maps the validators *of that height* to their public keys; every signature must be of
        one of them and fit, and there must be at least `quorum`.
        """
        codec.require(
            self.height == block.height and self.block_id == block.id,
            "certificate is for another block",
            CODE,
        )
        if len(self.signatures) < quorum:
            count = len(self.signatures)
            raise RemoteError(CODE, f"{count} signatures where {quorum} are needed")
        data = vote_bytes(block.chain, PRECOMMIT, self.height, self.round, self.block_id)
        for uid, signature in self.signatures:
            key = keys.get(uid)
            if key is None:
                raise RemoteError(CODE, f"{uid} was no validator at height {self.height}")
            if not verify(key, data, signature):
                raise RemoteError(CODE, f"signature of {uid} does not fit")
