"""What a commit costs in figures without noise: messages, signatures, writes, virtual time.

Four replicas with real certificates and disks in one process. Wall-clock figures are
`benchmarks/bench_ledger.py`'s; these here are the same on every machine, so they may not grow.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from swarm.ledger import codec, transaction
from swarm.ledger.consensus import effects as fx
from swarm.ledger.mempool import ACTIVE
from swarm.ledger.replica import Replica
from swarm.ledger.store import Store
from tests.ledger.net import Swarm, swarm

Test = Callable[[Swarm], Awaitable[None]]
COMMITS = 20


def run(tmp_path: Path, test: Test, **options: Any) -> None:
    async def main() -> None:
        with trio.fail_after(3600):
            async with swarm(tmp_path, **options) as made:
                await test(made)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def virtual_latencies(tmp_path: Path, one_way: float, count: int) -> list[float]:
    """Milliseconds of virtual time from a submission to its verdict, at each of 4 nodes in turn.

    `one_way`: seconds that each message takes. Processors take no time here.
    """
    spent: list[float] = []

    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        for number in range(count):
            began = trio.current_time()
            await sites[number % 4].task()
            spent.append((trio.current_time() - began) * 1000)

    run(tmp_path, test, delay=(one_way, one_way))
    return spent


@pytest.mark.parametrize(("one_way", "p50", "worst"), [(0.0005, 3.0, 4.0), (0.03, 160.0, 250.0)])
def test_a_commit_takes_few_message_delays(
    tmp_path: Path, one_way: float, p50: float, worst: float
) -> None:
    spent = virtual_latencies(tmp_path, one_way, 12)
    print(f"{one_way * 1000} ms one way: p50 {statistics.median(spent)}, worst {max(spent)}")
    assert statistics.median(spent) <= p50
    assert max(spent) <= worst


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What all replicas of this process do."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str, label: str, size: Callable[..., int] = lambda *_: 1) -> None:
        real = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            counted[label] += size(*args)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    def durable(_: Store, effects: list[fx.Effect]) -> int:
        return any(isinstance(effect, fx.DURABLE) for effect in effects)

    count(Replica, "_cast", "casts")
    count(Replica, "_cast", "messages", lambda _, to, messages: len(messages))
    count(Store, "write", "writes", durable)
    count(codec, "encode", "encodings")
    count(transaction, "verify_signature", "transaction signatures")
    monkeypatch.setattr(
        "swarm.ledger.replica.verify_signature",
        _counting(counted, "votes verified"),
    )
    return counted


def _counting(counted: Counter[str], label: str) -> Callable[..., bool]:
    from swarm.identity import verify_signature

    def verify(*args: Any) -> bool:
        counted[label] += 1
        return verify_signature(*args)

    return verify


def test_what_one_commit_costs(tmp_path: Path, counts: Counter[str]) -> None:
    """For each transaction in a block of its own, of 4 nodes together."""

    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        await trio.sleep(1)
        counts.clear()
        for number in range(COMMITS):
            await swarm.at(await sites[number % 4].task())
        each = {label: number / COMMITS for label, number in counts.items()}
        print(each)
        # The proposal by 3 others; 4 prevotes and 4 precommits by 3 others each. Late ones are not.
        assert each["votes verified"] <= 3 * (1 + 4 + 4)
        assert each["transaction signatures"] <= 1  # they share a memory here
        # Gossip, the proposal with the proposer's prevote, three prevotes, four precommits.
        assert each["casts"] <= 10
        assert each["messages"] <= 12
        # Prevote, lock with precommit, commit, on each of 4.
        assert each["writes"] <= 12.5
        assert each["encodings"] <= 100

    run(tmp_path, test)


def test_transactions_that_come_together_share_blocks_messages_and_writes(
    tmp_path: Path, counts: Counter[str]
) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        for _ in range(ACTIVE):  # the nodes' own enrollments are no competition any more
            await sites[0].task()
        await trio.sleep(1)
        counts.clear()
        before = sites[0].replica.state.height
        made = [swarm.new_task(f"t-{number}") for number in range(60)]
        async with trio.open_nursery() as nursery:
            for number, tx in enumerate(made):
                nursery.start_soon(sites[number % 4].replica.submit, tx)
        blocks = sites[0].replica.state.height - before
        each = {label: number / len(made) for label, number in counts.items()}
        print(blocks, each)
        assert blocks <= 3
        assert each["casts"] <= 0.5
        assert each["writes"] <= 0.6
        assert each["votes verified"] <= 3 * (1 + 4 + 4) * 3 / 60
        assert each["encodings"] <= 60
        assert each["transaction signatures"] <= 1

    run(tmp_path, test)


@pytest.mark.parametrize("validators", [1, 4])
def test_a_node_checks_each_signature_once(
    tmp_path: Path, counts: Counter[str], validators: int
) -> None:
    """From the client to the block, whoever proposes it: the memory is one for all nodes here."""

    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(validators)
        counts.clear()
        await sites[-1].task()
        await swarm.at(max(site.replica.state.height for site in sites))
        assert counts["transaction signatures"] == 1

    run(tmp_path, test)


def test_creating_a_task_does_not_read_the_others(tmp_path: Path) -> None:
    """`task.create` counts what its organisation has created without going through all tasks."""
    from swarm.ledger.state import table

    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        for _ in range(30):
            await site.task()
        with pytest.MonkeyPatch.context() as patch:
            read: list[object] = []
            patch.setattr(table.Table, "__iter__", partial(_noted, read))
            await site.task()
        assert read == []

    run(tmp_path, test)


def _noted(read: list[object], *args: Any) -> Any:
    read.append(args)
    return iter(())
