"""Anchors: ids of a ledger's blocks, written into an Ethereum-compatible network.

An anchor is an entry of the same contract, the canonical form of `["swarm-anchor-1", chain, height,
block id]`. Whoever reads it there knows that this block, and with it everything below it, existed
when the network's block was made, and that nobody has rewritten it since: not even all members of
the swarm together. It is written beside the ledger and never in the way of a commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from swarm.errors import RemoteError
from swarm.ledger import codec
from swarm.ledger.ethereum.account import keccak
from swarm.ledger.ethereum.client import Client, EndPoint, TooMuch
from swarm.ledger.ethereum.deploy import DEEP, born, check_contract, is_instant
from swarm.ledger.ethereum.entries import ChainBlock
from swarm.ledger.ethereum.follower import Follower, Page, Position

TAG = "swarm-anchor-1"
MAX_ANCHOR = 256  # bytes
CONTRADICTION = "SW3111"


class Anchor(NamedTuple):
    """A block's id, as somebody wrote it down."""

    chain: bytes
    height: int
    block_id: bytes
    author: str = ""  # account that wrote it
    time: int = 0  # of the network's block, in seconds; 0 before it is written
    number: int = 0  # of the network's block

    def encode(self) -> bytes:
        """The data of the entry."""
        return codec.encode([TAG, self.chain, self.height, self.block_id])


def parse(data: bytes) -> Anchor | None:
    """Read an entry; None when it is no anchor."""
    try:
        value = codec.decode(data, limit=MAX_ANCHOR, what="anchor")
        chain, height, block_id = codec.fields(value, TAG, (bytes, int, bytes), "anchor")
    except RemoteError:
        return None
    fits = len(chain) == len(block_id) == 32 and height > 0
    return Anchor(chain, height, block_id) if fits else None


def read(client: Client, contract: str, chain: bytes, of: Collection[str] = ()) -> list[Anchor]:
    """All final anchors of a ledger, in the order of heights; blocks.

    `of`: accounts whose anchors count; all writers' when empty. Raises LocalError SW3104, Changed,
    RemoteError SW3103, SW3109; SW3111 when two of them contradict each other.
    """
    found: dict[int, Anchor] = {}
    for block in _blocks(client, contract):
        for entry in block.entries:
            anchor = parse(entry.data)
            if anchor is None or anchor.chain != chain or (of and entry.author not in of):
                continue
            anchor = anchor._replace(author=entry.author, time=block.time, number=block.number)
            known = found.setdefault(anchor.height, anchor)
            if known.block_id != anchor.block_id:
                raise RemoteError(
                    CONTRADICTION,
                    f"height {anchor.height} was anchored as {known.block_id.hex()} by "
                    f"{known.author} and as {anchor.block_id.hex()} by {anchor.author}",
                )
    return [found[height] for height in sorted(found)]


def _blocks(client: Client, contract: str) -> Iterator[ChainBlock]:
    """Final blocks of the network that hold entries of the contract."""
    check_contract(client, contract)
    confirmations = 1 if client.run(is_instant) else DEEP
    follower = Follower(Position.before(born(client, contract)), confirmations, keccak)

    def read_page(point: EndPoint) -> Page | None:
        question = follower.question(point.newest())
        at = follower.position
        if question is None:
            return None
        return point.page(contract, *question, at.number if at.hash else -1, None)

    while True:
        try:
            page = client.run(read_page)
        except TooMuch:
            follower.too_much()
            continue
        if page is None:
            return
        follower.position, blocks = follower.take(page)
        yield from blocks
