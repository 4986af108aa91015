"""From final entries to blocks: the same ones on every node, whatever was appended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.identity import Identity, Role
from swarm.ledger import codec
from swarm.ledger.application import LedgerApplication
from swarm.ledger.block import MAX_BLOCK, MAX_BLOCK_TRANSACTIONS, Block
from swarm.ledger.ethereum import entries
from swarm.ledger.ethereum.contract import MAX_ENTRY, Entry
from swarm.ledger.ethereum.entries import ChainBlock
from swarm.ledger.genesis import Genesis
from swarm.ledger.transaction import MAX_TRANSACTION
from tests import pki
from tests.ledger.net import genesis_for, sign

AUTHOR = "0x" + "ab" * 20


class World:
    """A ledger without nodes."""

    def __init__(self, directory: Path) -> None:
        ca = pki.authority(directory)
        self.operator: Identity = pki.identity(directory / "o", Role.SWCI, ca)
        self.genesis: Genesis = genesis_for(pki.identity(directory / "sn", Role.SN, ca))
        self.app = LedgerApplication.genesis(self.genesis)

    def append(self, number: int, *, text: str = "x", expires: int = 500) -> bytes:
        args: dict[str, Any] = {"task": f"t{number}", "index": 1, "lines": [text]}
        return sign(self.operator, self.genesis, "task.append", args, expires)

    def commits(self, *data: bytes, number: int = 7) -> list[Any]:
        made = tuple(Entry(n, AUTHOR, bytes(32), one) for n, one in enumerate(data))
        block = ChainBlock(number, b"\7" * 32, 1234, made)
        return entries.commits(self.app, self.genesis.chain_id, self.genesis.chain_id, block)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def packed(*txs: bytes) -> list[bytes]:
    return [data for _, data in entries.pack((b"", tx) for tx in txs)]


@given(st.lists(st.binary(max_size=MAX_TRANSACTION // 8), max_size=40))
def test_what_is_packed_is_unpacked(txs: list[bytes]) -> None:
    found: list[bytes] = []
    names: list[bytes] = []
    for ids, data in entries.pack((b"%d" % n, tx) for n, tx in enumerate(txs)):
        assert len(data) <= MAX_ENTRY
        names += ids
        found += entries.unpack(data)
    assert found == txs
    assert names == [b"%d" % n for n in range(len(txs))]


def test_the_largest_transaction_fits() -> None:
    (data,) = packed(bytes(MAX_TRANSACTION))
    assert entries.unpack(data) == (bytes(MAX_TRANSACTION),)
    assert len(packed(*[bytes(MAX_TRANSACTION)] * 3)) == 3


@given(st.binary(max_size=200))
def test_what_is_no_entry_holds_nothing(data: bytes) -> None:
    assert entries.unpack(data) == ()
    assert entries.unpack(codec.encode([entries.TAG, data])) == ()
    assert entries.unpack(codec.encode([entries.TAG, [1]])) == ()


def test_a_block_of_the_network_becomes_one_block(world: World) -> None:
    one, two, three = (world.append(n) for n in range(3))
    (commit,) = world.commits(*packed(one, two), b"junk", *packed(three))
    header = commit.block.header
    assert commit.block.transactions == (one, two, three)
    assert (header.height, header.time_ms, header.proposer) == (1, 1_234_000, "7:" + "07" * 24)
    assert header.state == commit.application.digest()
    assert commit.certificate.signatures == ()
    assert Block.decode(commit.block.encoded) == commit.block


def test_what_cannot_be_included_is_left_out(world: World, tmp_path: Path) -> None:
    good = world.append(1)
    stranger = World(tmp_path / "other")
    bad = [
        b"", b"x" * MAX_TRANSACTION, good[:-1], good[:-1] + bytes([good[-1] ^ 1]),
        stranger.append(1), world.append(2, expires=0), world.append(3, expires=10**6),
    ]  # fmt: skip
    assert world.commits(*packed(*bad)) == []
    (commit,) = world.commits(*packed(*bad, good, good), *packed(good))
    assert commit.block.transactions == (good,)
    assert len(commit.ids) == 1


def test_a_replay_in_a_later_block_is_left_out(world: World) -> None:
    good = world.append(1)
    (commit,) = world.commits(*packed(good))
    world.app = commit.application
    assert world.commits(*packed(good)) == []


def test_too_much_for_one_block_becomes_several(world: World) -> None:
    many = [world.append(n) for n in range(MAX_BLOCK_TRANSACTIONS + 3)]
    first, second = world.commits(*packed(*many))
    assert first.block.transactions + second.block.transactions == tuple(many)
    assert second.block.header.previous == first.block.id
    assert (second.block.height, second.before.height) == (2, 1)


def test_blocks_stay_below_their_size(world: World) -> None:
    large = [world.append(n, text="y" * 1900) for n in range(600)]
    commits = world.commits(*packed(*large))
    assert len(commits) > 1
    for commit in commits:
        assert len(commit.block.encoded) <= MAX_BLOCK
        assert Block.decode(commit.block.encoded) == commit.block
    assert sum(len(commit.block.transactions) for commit in commits) == 600
