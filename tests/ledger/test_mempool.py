"""Turns in the mempool: who floods waits for itself."""

from __future__ import annotations

from collections import Counter

import pytest

from swarm.errors import RemoteError
from swarm.ledger import mempool
from swarm.ledger.application import Ticket
from swarm.ledger.mempool import ALONE, LEAST, MAX_ALL, MAX_SENDER, TOGETHER, Mempool
from tests.ledger import kv

MANY = 500
SIZE = 900_000


class Pool:
    """A mempool and the tickets of what is in it."""

    def __init__(self) -> None:
        self.pool = Mempool()
        self.tickets: dict[bytes, Ticket] = {}
        self._number = 0

    def add(self, sender: str, count: int = 1, *, of: str = "org", size: int = 1) -> None:
        for _ in range(count):
            self._number += 1
            tx = kv.transaction(sender, self._number, "put", "k", "v" * size)
            ticket = kv.KV().identify(tx)._replace(organisation=of)
            self.pool.add(tx, ticket)
            self.tickets[tx] = ticket

    def block(self, *, size: int = SIZE) -> list[str]:
        """Senders of the next block, in order; it is committed."""
        chosen, _ = self.pool.pick(kv.KV(), count=MANY, size=size)
        tickets = [self.tickets[tx] for tx in chosen]
        self.pool.committed(tickets)
        return [ticket.sender for ticket in tickets]


def test_a_sender_that_is_alone_gets_large_blocks() -> None:
    pool = Pool()
    pool.add("flooder", MAX_SENDER)
    assert len(pool.block()) == ALONE


def test_a_flood_leaves_each_other_sender_its_place_in_the_next_block() -> None:
    pool = Pool()
    pool.add("flooder", MAX_SENDER)
    pool.add("quiet")
    block = Counter(pool.block())
    assert block["quiet"] == 1
    assert block["flooder"] <= TOGETHER // 2
    for _ in range(5):
        pool.add("quiet")
        assert "quiet" in pool.block()


def test_the_flooder_gets_all_again_when_nobody_else_is_active() -> None:
    pool = Pool()
    pool.add("flooder", MAX_SENDER)
    pool.add("quiet")
    for _ in range(mempool.ACTIVE + 1):
        pool.add("flooder", pool.block().count("flooder"))
    assert len(pool.block()) == ALONE


def test_senders_take_turns_and_each_ones_own_keep_their_order() -> None:
    pool = Pool()
    for sender in "aabbc":
        pool.add(sender)
    assert pool.block() == ["a", "b", "c", "a", "b"]


def test_organisations_take_turns_first() -> None:
    pool = Pool()
    for number in range(10):
        pool.add(f"a{number}", 3, of="many")
    pool.add("b", 3, of="one")
    assert pool.block()[:6] == ["a0", "b", "a1", "b", "a2", "b"]


def test_who_found_no_room_is_first_in_the_next_block() -> None:
    pool = Pool()
    for sender in "abcd":
        pool.add(sender, 2, size=1000)
    assert pool.block(size=2500) == ["a", "b"]
    assert pool.block(size=2500) == ["c", "d"]
    assert pool.block(size=2500) == ["a", "b"]


def test_many_senders_get_a_least_share_each() -> None:
    pool = Pool()
    for number in range(40):
        pool.add(f"s{number}", LEAST + 5)
    assert Counter(pool.block()) == {f"s{number}": LEAST for number in range(40)}


def test_one_organisation_cannot_fill_it() -> None:
    pool = Pool()
    with pytest.raises(RemoteError, match="of this organisation"):
        for number in range(100):
            pool.add(f"s{number}", MAX_SENDER, of="many")
    assert len(pool.pool) == MAX_ALL // 2
    pool.add("other", of="one")


def test_nothing_is_left_behind_of_what_left() -> None:
    pool = Pool()
    for sender in "abc":
        pool.add(sender, 20, size=100)
    while len(pool.pool):
        pool.block()
    inner = pool.pool
    assert not inner._shares and not inner._held and not inner._hashes
    assert not inner._counts and not inner._sizes
    assert list(inner.oldest(10, 10**6)) == []
