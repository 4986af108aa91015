"""The share of one member in a node, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from sentinel import limits
from sentinel.limits import (
    BURST,
    HOLD,
    MAX_WAITING,
    RATE,
    READ,
    REFUSED,
    TRANSACTION,
    Addresses,
    Crowded,
    Limits,
    Member,
)
from swarm.identity import Peer


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


def peer(name: str) -> Peer:
    return cast(
        Peer,
        SimpleNamespace(fingerprint=f"key of {name}", holder=f"key of {name}", common_name=name),
    )


def member(name: str = "m") -> Member:
    return Limits(trio.current_time).member(peer(name))


@virtual
async def test_an_honest_load_of_300_a_second_never_waits() -> None:
    one = member()
    under_way = 0
    for _ in range(3000):
        before = trio.current_time()
        await one.enter(TRANSACTION)
        assert trio.current_time() == before
        under_way += 1
        if under_way == 75:  # a quarter of a second each
            one.leave(TRANSACTION, 200, 300)
            under_way -= 1
        await trio.sleep(1 / 300)


@virtual
async def test_a_flood_gets_its_rate_and_waits_for_the_rest() -> None:
    one = member()
    done = refused = 0
    began = trio.current_time()

    async def client() -> None:
        nonlocal done, refused
        while trio.current_time() - began < 20:
            try:
                await one.enter(TRANSACTION)
            except Crowded as fault:
                assert fault.retry_after >= 1 and fault.text
                refused += 1
                continue
            done += 1
            await trio.sleep(0.01)
            one.leave(TRANSACTION, 200, 300)

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_WAITING):
            nursery.start_soon(client)
    assert done <= BURST + 22 * RATE
    assert done >= 20 * RATE
    assert refused <= 22 / HOLD * MAX_WAITING, "each connection hears a refusal in HOLD seconds"


@virtual
async def test_what_is_wrong_costs_more() -> None:
    one = member()
    count = 0
    began = trio.current_time()
    while trio.current_time() - began < 10:
        await one.enter(TRANSACTION)
        one.leave(TRANSACTION, 400, 100)
        count += 1
    assert count <= (BURST + 10 * RATE) / REFUSED + 1


@virtual
async def test_large_answers_cost_more() -> None:
    one = member()
    count = 0
    began = trio.current_time()
    while trio.current_time() - began < 10:
        await one.enter(READ)
        one.leave(READ, 200, 1 << 20)
        count += 1
    assert count <= (BURST + 10 * RATE) / 64 + 1


@virtual
async def test_only_so_many_at_the_same_time_and_the_next_when_one_is_done() -> None:
    one = member()
    for _ in range(READ.most):
        await one.enter(READ)
    with pytest.raises(Crowded, match="16 reads under way"):
        await one.enter(READ)
    entered = trio.Event()

    async def next_one() -> None:
        await one.enter(READ)
        entered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(next_one)
        await trio.sleep(HOLD / 2)
        assert not entered.is_set()
        await one.enter(TRANSACTION)  # a kind of its own
        one.leave(READ, 200, 100)
        await entered.wait()
        assert trio.current_time() <= HOLD * 1.5 + 0.1


@virtual
async def test_members_do_not_wait_for_each_other() -> None:
    shares = Limits(trio.current_time)
    flooder, other = shares.member(peer("flooder")), shares.member(peer("other"))
    await flooder.pay(BURST + 10)
    before = trio.current_time()
    with trio.move_on_after(0.001):
        await flooder.pay(RATE)
    await other.enter(TRANSACTION)
    assert trio.current_time() - before <= 0.01


@virtual
async def test_more_that_wait_are_turned_away_at_once_and_for_good() -> None:
    one = member()
    for _ in range(READ.most):
        await one.enter(READ)

    async def wait() -> None:
        with pytest.raises(Crowded):
            await one.enter(READ)

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_WAITING):
            nursery.start_soon(wait)
        await trio.sleep(HOLD / 2)
        before = trio.current_time()
        with pytest.raises(Crowded) as caught:
            await one.enter(READ)
        assert caught.value.close and trio.current_time() == before


@virtual
async def test_the_memory_for_members_and_names_is_bounded() -> None:
    shares = Limits(trio.current_time)
    busy = shares.member(peer("busy"))
    await busy.enter(TRANSACTION)
    for number in range(limits.MAX_MEMBERS + 500):
        shares.member(peer(f"m{number}"))
        shares.refuse(f"m{number}", "rate")
    assert len(shares._members) <= limits.MAX_MEMBERS
    assert shares.member(peer("busy")) is busy
    assert len(shares.refused()) <= limits.MAX_NAMES + 1
    assert shares.by_member()["others"] > 500


@virtual
async def test_handshakes_of_an_address_are_paced_and_those_of_others_are_not() -> None:
    addresses = Addresses(trio.current_time)
    done = closed = 0

    async def connect(name: str) -> None:
        nonlocal done, closed
        try:
            async with addresses.turn(name):
                await trio.sleep(0.002)
                done += 1
        except Crowded:
            closed += 1

    async with trio.open_nursery() as nursery:
        for _ in range(400):
            nursery.start_soon(connect, "10.0.0.1")
            await trio.sleep(0.001)
        before = trio.current_time()
        async with addresses.turn("10.0.0.2"):
            assert trio.current_time() - before <= 0.01
    assert closed > 0 and done + closed == 400
    assert trio.current_time() >= (done - Addresses.BURST) / Addresses.RATE


def test_status_and_metrics_name_members_that_were_turned_away() -> None:
    shares: Any = Limits(lambda: 0.0)
    for _ in range(3):
        shares.refuse("SWCI-1", "rate")
    shares.refuse("SWCI-1", "mempool")
    assert shares.by_member() == {"SWCI-1": 4}
    assert shares.refused() == {("SWCI-1", "rate"): 3, ("SWCI-1", "mempool"): 1}
