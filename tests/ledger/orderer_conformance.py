"""What every orderer must do: the same tests for all implementations.

A test module imports these with `*` and defines the fixture `world`: a function that runs an async
test with a `tests.ledger.net.Swarm` whose sites have the orderer in question.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from swarm.errors import RemoteError
from swarm.identity import Role
from swarm.ledger.orderer import CommittedBlock
from swarm.ledger.state import State
from tests import pki
from tests.ledger.net import Site, Swarm, genesis_for, sign

World = Callable[[Callable[[Swarm], Awaitable[None]]], None]


def log_of(site: Site) -> list[tuple[bytes, ...]]:
    """All transactions of a site, block by block."""
    blocks = []
    for height in range(1, site.replica.state.height + 1):
        found = site.replica.block(height)
        assert found is not None
        assert found.block.height == height
        assert len(found.verdicts) == len(found.block.transactions)
        blocks.append(found.block.transactions)
    return blocks


def same(swarm: Swarm) -> None:
    """All sites have the same blocks and the same state."""
    assert len({site.replica.state.digest() for site in swarm.sites}) == 1
    assert len({tuple(log_of(site)) for site in swarm.sites}) == 1
    last = {site.replica.block(site.replica.state.height).block.id for site in swarm.sites}
    assert len(last) == 1


def test_a_transaction_is_answered_with_height_and_verdict(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        before = site.replica.state.height
        height, verdict = await site.replica.submit(swarm.new_task("one"))
        assert (height, verdict.ok) == (before + 1, True)
        assert site.replica.state.height == height
        assert site.replica.state.get("tasks", "one") is not None
        assert site.replica.waiting() == ""

    world(test)


def test_a_refusal_of_the_state_machine_is_an_answer(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        await site.replica.submit(swarm.new_task("one"))
        height, verdict = await site.replica.submit(swarm.new_task("one"))
        assert not verdict.ok
        assert verdict.code.startswith("SW4")
        assert site.replica.block(height).verdicts == (verdict,)

    world(test)


def test_what_is_submitted_twice_is_included_once(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        a, b = await swarm.grow(2)
        tx = swarm.new_task("twice")
        answers: list[Any] = []

        async def submit(site: Site) -> None:
            answers.append(await site.replica.submit(tx))

        async with trio.open_nursery() as nursery:
            for site in (a, b, a, b):
                nursery.start_soon(submit, site)
        await submit(a)
        await swarm.at(answers[0][0])
        await submit(b)
        assert answers == [answers[0]] * 6
        await swarm.at(max(site.replica.state.height for site in swarm.sites))
        assert sum(tx in block for block in log_of(a)) == 1
        same(swarm)

    world(test)


def test_all_nodes_see_one_order(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(3)

        async def some(site: Site) -> None:
            for _ in range(5):
                await site.task()

        async with trio.open_nursery() as nursery:
            for site in sites:
                nursery.start_soon(some, site)
        await swarm.at(max(site.replica.state.height for site in sites))
        same(swarm)
        assert sum(map(len, log_of(sites[0]))) == 15 + 2  # and two of them enrolled

    world(test)


def test_callbacks_come_in_order_and_after_the_fact(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        seen: list[int] = []

        def note(committed: CommittedBlock, state: State) -> None:
            assert state.height == committed.block.height == site.replica.state.height
            assert site.replica.block(state.height) == committed
            seen.append(state.height)

        first = site.replica.state.height
        site.replica.on_commit(note)
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(site.task)
        assert seen == list(range(first + 1, site.replica.state.height + 1))

    world(test)


def test_waiting_for_a_height(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        a, b = await swarm.grow(2)
        height = a.replica.state.height
        await b.replica.wait_for(height)
        assert b.replica.block(height + 1) is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.replica.wait_for, height + 1)
            assert await a.task() == height + 1
        assert b.replica.state.height == height + 1

    world(test)


def test_a_restart_goes_on_where_it_was(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        a, b = await swarm.grow(2)
        tx = swarm.new_task("kept")
        answer = await a.replica.submit(tx)
        await swarm.at(answer[0])
        digest, log = b.replica.state.digest(), log_of(b)
        await b.kill()
        await b.start()
        assert (b.replica.state.digest(), log_of(b)) == (digest, log)
        await b.replica.synced.wait()
        assert await b.replica.submit(tx) == answer
        await swarm.at(await b.task())
        same(swarm)

    world(test)


def test_a_newcomer_gets_everything(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        (first,) = await swarm.grow(1)
        for _ in range(5):
            await first.task()
        late = swarm.site()
        await late.start()
        await late.replica.synced.wait()
        await swarm.at(first.replica.state.height)
        same(swarm)

    world(test)


def test_what_cannot_be_included_is_refused_with_its_code(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        stranger = pki.identity(swarm.tmp / "x", Role.SWCI, pki.authority(swarm.tmp / "x", 9))
        args = {"name": "t", "type": "RUN_SWARM", "author": "A", "prereq": "ROOTTASK",
                "outcome": "o"}  # fmt: skip
        make = partial(sign, op="task.create", args=args)
        height = site.replica.state.height
        good = make(swarm.operator, swarm.genesis, expires=height + 9)
        other = genesis_for(pki.identity(swarm.tmp / "y", Role.SN, swarm.ca))
        for tx, code in (
            (b"", "SW3001"),
            (good[:-1], "SW3001"),
            (good[:-1] + bytes([good[-1] ^ 1]), "SW3002"),
            (make(stranger, swarm.genesis, expires=height + 9), "SW1205"),
            (make(swarm.operator, other, expires=height + 9), "SW3006"),
            (make(swarm.operator, swarm.genesis, expires=height), "SW3006"),
            (make(swarm.operator, swarm.genesis, expires=height + 10**6), "SW3006"),
        ):
            with pytest.raises(RemoteError) as caught:
                await site.replica.submit(tx)
            assert caught.value.code == code, caught.value
        assert site.replica.state.height == height
        assert (await site.replica.submit(good))[1].ok

    world(test)


def test_a_cancelled_client_leaves_its_transaction(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        tx = swarm.new_task("left")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.replica.submit, tx)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert (await site.replica.submit(tx))[1].ok
        assert sum(tx in block for block in log_of(site)) == 1

    world(test)


def test_large_transactions(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        height = site.replica.state.height
        txs = []
        for number in range(6):
            args = {"task": "none", "index": 1, "lines": [f"{number}" + "x" * 1000] * 55}
            txs.append(sign(swarm.operator, swarm.genesis, "task.append", args, height + 500))
        assert 55_000 < len(txs[0]) < 64 * 1024
        async with trio.open_nursery() as nursery:
            for tx in txs:
                nursery.start_soon(site.replica.submit, tx)
        assert sorted(tx for block in log_of(site) for tx in block) == sorted(txs)

    world(test)


def test_a_node_that_stops_says_so(world: World) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        codes: list[str] = []

        async def submit() -> None:
            try:
                await site.replica.submit(swarm.new_task("late"))
            except RemoteError as error:
                codes.append(error.code)

        await site.kill()
        await submit()
        assert codes == ["SW3008"]
        assert "stopped" in site.replica.waiting()

    world(test)
