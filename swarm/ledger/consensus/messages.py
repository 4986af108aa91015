"""What replicas say to each other, and its bytes.

Proposals and votes are signed, so anybody may pass them on. The rest is hints between neighbours:
wrong ones cost a little work and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from swarm.errors import RemoteError
from swarm.ledger import codec
from swarm.ledger.block import (
    MAX_BLOCK,
    MAX_CERTIFICATE,
    MAX_ROUND,
    MAX_SIGNATURE,
    MAX_UID,
    NIL,
    PRECOMMIT,
    PREVOTE,
    Block,
    proposal_bytes,
    vote_bytes,
)
from swarm.ledger.transaction import MAX_TRANSACTION

CODE = "SW3005"
MAX_WIRE = 1_000_000  # bytes of one encoded message: below the mesh's 1 MiB
MAX_TRANSACTIONS = 100
MAX_BLOCKS = 200
BLOCKS_BYTES = 900 * 1024  # a batch stops growing here


class _Encodable:
    """Keeps its bytes: a message is written, sent and passed on with the same ones."""

    @cached_property
    def encoded(self) -> bytes:
        """Bytes for the wire and for the write-ahead log."""
        assert isinstance(self, Message), "all messages are listed there"
        return _encode(self)


@dataclass(frozen=True)
class Vote(_Encodable):
    """Prevote or precommit (`kind`) of `voter` for `block_id`, or for nothing (`NIL`)."""

    kind: int
    height: int
    round: int
    block_id: bytes
    voter: str
    signature: bytes

    def signed_bytes(self, chain: bytes) -> bytes:
        return vote_bytes(chain, self.kind, self.height, self.round, self.block_id)


@dataclass(frozen=True)
class Proposal(_Encodable):
    """`voter` proposes `block`; `valid_round` is where a quorum prevoted it before, or -1."""

    height: int
    round: int
    valid_round: int
    block: Block
    voter: str
    signature: bytes

    def signed_bytes(self, chain: bytes) -> bytes:
        return proposal_bytes(chain, self.height, self.round, self.valid_round, self.block.id)


@dataclass(frozen=True)
class Transactions(_Encodable):
    """Transactions that wait for inclusion."""

    items: tuple[bytes, ...]


@dataclass(frozen=True)
class Ask(_Encodable):
    """Where do you stand? I have committed `height` and am in `round` (-1: none) of the next.

    `wants_block`: I lack the proposal of that round; sent to one neighbour at a time, as proposals
    are large.
    """

    height: int
    round: int
    wants_block: bool


@dataclass(frozen=True)
class Answer(_Encodable):
    """I have committed `height`.

    `reach`: the last height in which I precommitted a block, or that I committed; -1 while I may
    not vote myself. `last_round`: the last round of height + 1 in which I signed anything or hold
    something that you signed; -1 for none. Both serve a node that lost its store (`amnesia.py`).
    """

    height: int
    reach: int
    last_round: int


@dataclass(frozen=True)
class Fetch(_Encodable):
    """Give me the blocks after `height`."""

    height: int


@dataclass(frozen=True)
class Blocks(_Encodable):
    """Encoded blocks and certificates, in order."""

    items: tuple[tuple[bytes, bytes], ...]


Message = Vote | Proposal | Transactions | Ask | Answer | Fetch | Blocks
Signed = Vote | Proposal


def transactions(items: Sequence[bytes], size: int) -> Iterator[Transactions]:
    """Messages that carry `items`, of about `size` bytes at most each."""
    part: list[bytes] = []
    left = size
    for tx in items:
        if part and (len(part) == MAX_TRANSACTIONS or len(tx) > left):
            yield Transactions(tuple(part))
            part, left = [], size
        part.append(tx)
        left -= len(tx)
    if part:
        yield Transactions(tuple(part))


def kind_of(message: Signed) -> int:
    """0 for a proposal, 1 for a prevote, 2 for a precommit."""
    return message.kind if isinstance(message, Vote) else 0


def encode(message: Message) -> bytes:
    """Bytes for the wire and for the write-ahead log."""
    return message.encoded


def _encode(m: Message) -> bytes:
    if isinstance(m, Vote):
        return codec.encode(["vote", m.kind, m.height, m.round, m.block_id, m.voter, m.signature])
    if isinstance(m, Proposal):
        head = ["proposal", m.height, m.round, m.valid_round]
        return codec.encode([*head, m.block.encoded, m.voter, m.signature])
    if isinstance(m, Transactions):
        return codec.encode(["transactions", list(m.items)])
    if isinstance(m, Ask):
        return codec.encode(["ask", m.height, m.round, m.wants_block])
    if isinstance(m, Answer):
        return codec.encode(["answer", m.height, m.reach, m.last_round])
    if isinstance(m, Fetch):
        return codec.encode(["fetch", m.height])
    return codec.encode(["blocks", [list(item) for item in m.items]])


_KINDS: dict[str, tuple[type, ...]] = {
    "vote": (int, int, int, bytes, str, bytes),
    "proposal": (int, int, int, bytes, str, bytes),
    "transactions": (list,),
    "ask": (int, int, bool),
    "answer": (int, int, int),
    "fetch": (int,),
    "blocks": (list,),
}


def decode(data: bytes) -> Message:
    """Parse what a peer sent. Raises RemoteError SW3004 or SW3005."""
    value = codec.decode(data, limit=MAX_WIRE, what="message", code=CODE)
    codec.require(type(value) is list and bool(value), "message is not a list", CODE)
    name = value[0]
    if type(name) is not str or name not in _KINDS:
        raise RemoteError(CODE, "unknown kind of message")
    parts = codec.fields(value, name, _KINDS[name], name, CODE)
    if name == "vote":
        return _vote(parts)
    if name == "proposal":
        return _proposal(parts)
    if name == "transactions":
        items = codec.list_of(parts[0], bytes, name, most=MAX_TRANSACTIONS, code=CODE)
        codec.require(all(len(tx) <= MAX_TRANSACTION for tx in items), "oversized", CODE)
        return Transactions(tuple(items))
    if name == "blocks":
        return _blocks(parts[0])
    _range(all(number >= -1 for number in parts))
    if name == "ask":
        return Ask(*parts)
    return Answer(*parts) if name == "answer" else Fetch(*parts)


def _range(condition: bool) -> None:
    codec.require(condition, "a number is out of range", CODE)


def _signer(height: int, round_: int, voter: str, signature: bytes) -> None:
    _range(height > 0 and 0 <= round_ < MAX_ROUND)
    codec.require(len(voter) <= MAX_UID and len(signature) <= MAX_SIGNATURE, "oversized", CODE)


def _vote(parts: list[codec.Value]) -> Vote:
    vote = Vote(*parts)
    _signer(vote.height, vote.round, vote.voter, vote.signature)
    _range(vote.kind in (PREVOTE, PRECOMMIT) and (vote.block_id == NIL or len(vote.block_id) == 32))
    return vote


def _proposal(parts: list[codec.Value]) -> Proposal:
    height, round_, valid_round, encoded, voter, signature = parts
    _signer(height, round_, voter, signature)
    _range(-1 <= valid_round < round_)
    codec.require(len(encoded) <= MAX_BLOCK, "block is too large", CODE)
    block = Block.decode(encoded)
    _range(block.height == height)
    return Proposal(height, round_, valid_round, block, voter, signature)


def _blocks(value: list[codec.Value]) -> Blocks:
    codec.list_of(value, list, "blocks", most=MAX_BLOCKS, code=CODE)
    items = []
    for pair in value:
        block, certificate = codec.fields(["", *pair], "", (bytes, bytes), "blocks", CODE)
        codec.require(
            len(block) <= MAX_BLOCK and len(certificate) <= MAX_CERTIFICATE, "oversized", CODE
        )
        items.append((block, certificate))
    return Blocks(tuple(items))
