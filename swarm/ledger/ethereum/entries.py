"""Transactions into entries of the contract's log, and final entries into blocks. Pure.

An entry is the canonical form of `["swarm-entry-1", [transaction, …]]`. Blocks follow from the log
by these rules, and from nothing else, so that all nodes come to the same ones:

1. Each block of the network that holds entries with something includable in them becomes one block
   of the ledger, or more where a limit of blocks would be passed. All others become nothing.
2. Its transactions are taken in the order of the log. What is no entry of ours, no transaction, or
   could not be in the next block (replayed, expired, of a stranger, of another swarm) is left out.
3. A block's time is the network block's. In the place of a proposer stands where it came from.

A block made so has no certificate: that the network ordered it is the proof, and the way back is in
its header.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from swarm.errors import RemoteError
from swarm.ledger import codec
from swarm.ledger.application import LedgerApplication, execute
from swarm.ledger.block import MAX_BLOCK, MAX_BLOCK_TRANSACTIONS, Block, Certificate
from swarm.ledger.consensus.effects import Commit
from swarm.ledger.ethereum.contract import MAX_ENTRY, Entry
from swarm.ledger.state import Header
from swarm.ledger.transaction import MAX_TRANSACTION

TAG = "swarm-entry-1"
OVERHEAD = 32  # bytes of an entry beside its transactions and their heads
HEAD = 5  # bytes before each transaction, at most
BLOCK_ROOM = MAX_BLOCK - 2048  # for transactions; the rest is for the header
HASH_DIGITS = 48  # of the network block's hash in a header: 192 bits


class ChainBlock(NamedTuple):
    """A block of the network, as far as it concerns the ledger."""

    number: int
    hash: bytes
    time: int  # seconds
    entries: tuple[Entry, ...]


def pack(waiting: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
    """Put (id, transaction) pairs into as few entries as hold them; yields ids and data of each."""
    ids: list[bytes] = []
    chosen: list[bytes] = []
    room = MAX_ENTRY - OVERHEAD
    for tx_id, tx in waiting:
        if chosen and (len(tx) + HEAD > room or len(chosen) == MAX_BLOCK_TRANSACTIONS):
            yield tuple(ids), codec.encode([TAG, chosen])
            ids, chosen, room = [], [], MAX_ENTRY - OVERHEAD
        ids.append(tx_id)
        chosen.append(tx)
        room -= len(tx) + HEAD
    if chosen:
        yield tuple(ids), codec.encode([TAG, chosen])


def unpack(data: bytes) -> tuple[bytes, ...]:
    """The transactions of an entry; none when it is no entry of ours."""
    try:
        value = codec.decode(data, limit=MAX_ENTRY, what="entry")
        (transactions,) = codec.fields(value, TAG, (list,), "entry")
        codec.list_of(transactions, bytes, "entry", most=MAX_BLOCK_TRANSACTIONS)
    except RemoteError:
        return ()
    return tuple(tx for tx in transactions if len(tx) <= MAX_TRANSACTION)


def commits(
    app: LedgerApplication, chain: bytes, previous: bytes, source: ChainBlock
) -> list[Commit]:
    """The blocks that a block of the network becomes, in order; often none.

    `previous` is the id of the last block. They belong together: store all of them or none.
    """
    found: list[Commit] = []
    waiting: Sequence[bytes] = [tx for entry in source.entries for tx in unpack(entry.data)]
    while waiting:
        ids, chosen, waiting = _choose(app, waiting)
        if not chosen:
            break
        commit = _commit(app, chain, previous, source, ids, chosen)
        found.append(commit)
        app, previous = _applied(commit), commit.block.id
    return found


def _choose(
    app: LedgerApplication, waiting: Sequence[bytes]
) -> tuple[list[bytes], list[bytes], Sequence[bytes]]:
    """Ids and transactions of the next block, and what is left for the one after it."""
    ids: list[bytes] = []
    chosen: list[bytes] = []
    known: set[bytes] = set()
    room = BLOCK_ROOM
    for place, tx in enumerate(waiting):
        try:
            ticket = app.check(tx)
        except RemoteError:
            continue
        if ticket.id in known:
            continue
        if len(chosen) == MAX_BLOCK_TRANSACTIONS or len(tx) + HEAD > room:
            return ids, chosen, waiting[place:]
        known.add(ticket.id)
        ids.append(ticket.id)
        chosen.append(tx)
        room -= len(tx) + HEAD
    return ids, chosen, ()


def _commit(
    app: LedgerApplication,
    chain: bytes,
    previous: bytes,
    source: ChainBlock,
    ids: list[bytes],
    chosen: list[bytes],
) -> Commit:
    header = Header(app.height + 1, source.time * 1000, origin_of(source))
    after, outcome, effect = execute(app, header, tuple(chosen))
    block = Block.make(
        chain=chain,
        height=header.height,
        previous=previous,
        time_ms=header.time_ms,
        proposer=header.proposer,
        transactions=chosen,
        effect=effect,
    )
    certificate = Certificate(header.height, 0, block.id, ())
    return Commit(block, certificate, tuple(ids), app, after, outcome)


def _applied(commit: Commit) -> LedgerApplication:
    after = commit.application
    assert isinstance(after, LedgerApplication), "made from one"
    return after


def origin_of(source: ChainBlock) -> str:
    """What stands in the place of a proposer: number and hash of the network's block."""
    return f"{source.number}:{source.hash.hex()[:HASH_DIGITS]}"
