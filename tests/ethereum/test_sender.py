"""The pure sender, against a network that loses, refuses and forgets."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from swarm.ledger.ethereum.sender import (
    FUNDS,
    KNOWN,
    LOST,
    LOW,
    MAX_FLIGHTS,
    PAUSE,
    REPEAT,
    STUCK,
    UNDERPRICED,
    Fee,
    Job,
    Sender,
    Transmit,
)

QUOTE = Fee(200, 10)


def job(number: int) -> Job:
    return Job((bytes([number]),), b"call %d" % number, 100_000)


def ready(count: int) -> Sender:
    sender = Sender()
    for number in range(count):
        sender.add(job(number))
    return sender


def nonces(plan: list[Transmit]) -> list[int]:
    return [one.nonce for one in plan]


def test_jobs_leave_in_order_with_nonces_without_gaps() -> None:
    sender = ready(3)
    plan = sender.plan(0, used=5, pending=7, quote=QUOTE)
    assert [(one.nonce, one.job) for one in plan] == [(7, job(0)), (8, job(1)), (9, job(2))]
    assert sender.plan(1, 5, 7, QUOTE) == []


def test_not_too_many_are_under_way() -> None:
    sender = ready(MAX_FLIGHTS + 5)
    assert len(sender.plan(0, 0, 0, QUOTE)) == MAX_FLIGHTS
    assert sender.room < 0
    for nonce in range(3):
        sender.sent(nonce, f"0x{nonce}")
        sender.executed(job(nonce).data)
    assert nonces(sender.plan(1, 3, 3, QUOTE)) == [16, 17, 18]


def test_what_is_not_taken_up_is_repeated_and_then_paid_better() -> None:
    sender = ready(1)
    (first,) = sender.plan(0, 0, 0, QUOTE)
    sender.sent(0, "0xa")
    (again,) = sender.plan(REPEAT, 0, 1, QUOTE)
    assert again == first
    (dearer,) = sender.plan(STUCK, 0, 1, QUOTE)
    assert dearer.nonce == 0
    assert dearer.fee.most >= 1.125 * first.fee.most
    assert dearer.fee.tip is not None
    assert dearer.fee.tip >= 1.125 * 10


def test_a_fee_grows_to_a_limit() -> None:
    fee, now = QUOTE, 0.0
    for _ in range(100):
        fee = fee.raised(QUOTE)
        now += STUCK
    assert 3 * QUOTE.most < fee.most <= 4 * QUOTE.most
    assert Fee(0, None).raised(Fee(0, None)) == Fee(0, None)  # free stays free
    assert Fee(0, 0).raised(Fee(0, 0)) == Fee(0, 0)
    assert Fee(100, None).raised(Fee(400, None)) == Fee(400, None)


def test_a_refused_fee_is_raised_at_once() -> None:
    sender = ready(1)
    sender.plan(0, 0, 0, QUOTE)
    assert not sender.failed(0, UNDERPRICED, 1)
    (again,) = sender.plan(1, 0, 0, QUOTE)
    assert again.fee.most > QUOTE.most


def test_without_funds_nothing_is_lost_and_it_is_tried_again() -> None:
    sender = ready(3)
    sender.plan(0, 4, 4, QUOTE)
    assert not sender.failed(4, FUNDS, 1)
    assert sender.problem == FUNDS
    assert sender.plan(1 + PAUSE / 2, 4, 4, QUOTE) == []
    plan = sender.plan(1 + PAUSE, 4, 4, QUOTE)
    assert [(one.nonce, one.job) for one in plan] == [(4, job(0)), (5, job(1)), (6, job(2))]


def test_a_nonce_that_was_used_by_somebody_else_is_read_anew() -> None:
    sender = ready(1)
    sender.plan(0, 0, 0, QUOTE)
    assert not sender.failed(0, LOW, 1)
    assert sender.nonce is None
    assert nonces(sender.plan(1, 3, 3, QUOTE)) == [3]


def test_an_answer_that_was_lost_is_no_failure() -> None:
    sender = ready(1)
    sender.plan(0, 0, 0, QUOTE)
    assert not sender.failed(0, LOST, 1)
    assert nonces(sender.plan(1 + REPEAT, 0, 0, QUOTE)) == [0]
    assert sender.failed(0, KNOWN, 2)


def test_a_gap_below_our_nonces_is_filled() -> None:
    sender = ready(1)
    (ours,) = sender.plan(0, 2, 4, QUOTE)  # 2 and 3 wait in the node, and get lost there
    assert ours.nonce == 4
    assert [n for n in nonces(sender.plan(1, 2, 2, QUOTE)) if n != 4] == []
    plan = sender.plan(1 + STUCK, 2, 2, QUOTE)
    assert {2, 3} <= set(nonces(plan))
    assert all(not one.job.data for one in plan if one.nonce != 4)


def test_a_reverted_call_is_offered_again() -> None:
    sender = ready(1)
    sender.plan(0, 0, 0, QUOTE)
    sender.sent(0, "0xa")
    sender.plan(1, 1, 1, QUOTE)
    assert [flight.nonce for flight in sender.unproven()] == [0]
    sender.receipt(0, 77, False, 1)
    assert not sender.carries(b"\0")
    assert not sender.busy


def test_a_call_whose_block_was_read_is_over() -> None:
    sender = ready(1)
    sender.plan(0, 0, 0, QUOTE)
    sender.sent(0, "0xa")
    sender.plan(1, 1, 1, QUOTE)
    sender.receipt(0, 77, True, 1)
    sender.followed(76)
    assert sender.carries(b"\0")
    sender.followed(77)
    assert not sender.busy


def test_what_another_node_brought_to_the_ledger_is_not_sent() -> None:
    sender = ready(2)
    sender.settle([b"\0"])
    assert [one.job for one in sender.plan(0, 0, 0, QUOTE)] == [job(1)]


@dataclass
class Network:
    """A node with a pool; blocks take what fits; whatever can go wrong does, by chance."""

    rng: random.Random
    used: int = 0
    pool: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    executed: list[bytes] = field(default_factory=list)
    receipts: dict[str, int] = field(default_factory=dict)
    blocks: list[list[tuple[int, bytes, str]]] = field(default_factory=list)

    def send(self, one: Transmit, tx_hash: str) -> str:
        if one.nonce < self.used:
            return LOW
        if self.rng.random() < 0.1:
            return UNDERPRICED
        if self.rng.random() < 0.05:
            return FUNDS
        if self.rng.random() < 0.8:
            self.pool.setdefault(one.nonce, (one.job.data, tx_hash))
        return "" if self.rng.random() < 0.9 else LOST

    def block(self) -> None:
        if self.rng.random() < 0.1 and self.blocks:
            for nonce, data, tx_hash in self.blocks.pop():  # a reorganisation
                self.used = min(self.used, nonce)
                if data:
                    self.executed.remove(data)
                self.receipts.pop(tx_hash)
        if self.rng.random() < 0.1 and self.pool:
            self.pool.pop(self.rng.choice(list(self.pool)))  # forgotten
        made = []
        while self.used in self.pool and self.rng.random() < 0.8:
            data, tx_hash = self.pool.pop(self.used)
            made.append((self.used, data, tx_hash))
            self.receipts[tx_hash] = len(self.blocks)
            if data:
                self.executed.append(data)
            self.used += 1
        self.blocks.append(made)

    @property
    def pending(self) -> int:
        nonce = self.used
        while nonce in self.pool:
            nonce += 1
        return nonce


@pytest.mark.parametrize("seed", range(40))
def test_everything_gets_through_in_the_end(seed: int) -> None:
    rng = random.Random(seed)
    network, sender, now, made = Network(rng), Sender(), 0.0, 0
    if seed % 3 == 0:
        network.pool[1] = (b"", "0xforeign")  # and nonce 0 is nobody's
    wanted = [job(number) for number in range(30)]
    for one in wanted:
        sender.add(one)
    for _ in range(4000):
        now += 1.0
        if rng.random() < 0.5:
            network.block()
        for one in sender.plan(now, network.used, network.pending, QUOTE):
            made += 1
            tx_hash = f"0x{made}"
            kind = network.send(one, tx_hash)
            if kind:
                if not sender.failed(one.nonce, kind, now):
                    break
            else:
                sender.sent(one.nonce, tx_hash)
        for flight in sender.unproven():
            found = [network.receipts[h] for h in flight.hashes if h in network.receipts]
            if found:
                sender.receipt(flight.nonce, found[0], True, now)
            else:
                sender.no_receipt(flight.nonce, now)
        sender.followed(len(network.blocks) - 4)
        for one in wanted:  # as the orderer offers again what is not on the ledger
            if one.data not in network.executed and not sender.carries(one.ids[0]):
                sender.add(one)
        if not sender.busy and {one.data for one in wanted} <= set(network.executed):
            return
    raise AssertionError(f"seed {seed}: {len(set(network.executed))} of 30, {sender.flights}")
