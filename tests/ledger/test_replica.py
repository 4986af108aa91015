"""Replicas with real certificates, disks and a simulated mesh, in virtual time."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from swarm.errors import LocalError, RemoteError
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.messages import MAX_BLOCKS
from swarm.ledger.replica import Replica
from tests.ledger.net import Swarm, sign, swarm

Test = Callable[[Swarm], Awaitable[None]]


def run(tmp_path: Path, test: Test, **options: Any) -> None:
    """Run `test` with a swarm; an hour of virtual time takes no time."""

    async def main() -> None:
        with trio.fail_after(3600):
            async with swarm(tmp_path, **options) as made:
                await test(made)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_one_node_commits_alone_and_resumes(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        heights = [await site.task() for _ in range(5)]
        assert heights == [1, 2, 3, 4, 5]
        digest = site.replica.state.digest()
        await site.kill()
        replica = await site.start()
        assert (replica.state.height, replica.state.digest()) == (5, digest)
        assert await site.task() == 6
        assert replica.waiting() == ""

    run(tmp_path, test)


def test_four_nodes_agree_and_survive_the_sentinel(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        async with trio.open_nursery() as nursery:
            for site in sites:
                for _ in range(3):
                    nursery.start_soon(site.task)
        await swarm.at(max(site.replica.state.height for site in sites))
        assert len({site.replica.state.digest() for site in sites}) == 1
        await sites[0].kill()
        for site in sites[1:]:
            await site.task()
        fifth = swarm.site()
        await fifth.start()
        await fifth.replica.synced.wait()
        assert (await fifth.enroll()).ok
        assert len(fifth.replica.state.validators()) == 5

    run(tmp_path, test)


def test_killed_under_load_and_restarted_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        acknowledged: list[str] = []

        async def load(number: int) -> None:
            for turn in range(15):
                site = sites[number]
                name = f"t-{number}-{turn}"
                _, verdict = await site.replica.submit(swarm.new_task(name))
                assert verdict.ok
                acknowledged.append(name)

        async with trio.open_nursery() as nursery:
            for number in (0, 1, 2):
                nursery.start_soon(load, number)
            for _ in range(3):
                await trio.sleep(0.1)
                await sites[3].kill()
                await trio.sleep(0.2)
                await sites[3].start()
        await swarm.at(max(site.replica.state.height for site in sites))
        for site in sites:
            assert set(acknowledged) <= set(site.replica.state.keys("tasks"))
        assert len({site.replica.state.digest() for site in sites}) == 1

    run(tmp_path, test)


def test_the_same_bytes_are_answered_again_here_and_elsewhere(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(2)
        tx = swarm.new_task("once")
        first = await sites[0].replica.submit(tx)
        await swarm.at(first[0])
        assert await sites[0].replica.submit(tx) == first
        assert await sites[1].replica.submit(tx) == first
        await sites[1].kill()
        await sites[1].start()
        assert await sites[1].replica.submit(tx) == first

    run(tmp_path, test)


def test_what_cannot_be_included_is_refused_at_once(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)
        await site.task()
        late = site.transaction("task.create", {}, expires=1)
        early = site.transaction("task.create", {}, expires=1_000_000)
        for tx, code in ((late, "SW3006"), (early, "SW3006"), (b"\x00", "SW3001")):
            with pytest.raises(RemoteError) as caught:
                await site.replica.submit(tx)
            assert caught.value.code == code
        good = bytearray(site.transaction("task.create", {}))
        good[-1] ^= 1
        with pytest.raises(RemoteError) as caught:
            await site.replica.submit(bytes(good))
        assert caught.value.code in ("SW3002", "SW3001")

    run(tmp_path, test)


def test_waiting_names_the_missing_validator(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(2)
        await sites[1].kill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sites[0].task)
            await trio.sleep(30)
            sentence = sites[0].replica.waiting()
            assert "1 more of 2 validators: sn-2 has not been seen for" in sentence
            await sites[1].start()
        assert sites[0].replica.waiting() == ""

    run(tmp_path, test)


def test_a_partitioned_minority_commits_nothing_and_joins_again(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        names = [site.name for site in sites]
        swarm.net.partition(names[:3], names[3:])
        before = sites[3].replica.state.height
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sites[3].task)
            for site in sites[:3]:
                await site.task()
            assert sites[3].replica.state.height == before
            swarm.net.heal()
        top = max(site.replica.state.height for site in sites)
        await swarm.at(top)
        assert len({site.replica.state.digest() for site in sites}) == 1

    run(tmp_path, test)


def test_a_lost_disk_does_not_vote_until_it_has_caught_up(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        await sites[3].kill()
        for path in sites[3].directory.iterdir():
            path.unlink()
        sites[3].directory.rmdir()
        Replica.create(sites[3].directory, swarm.genesis)
        await sites[3].start()
        assert not sites[3].replica.synced.is_set()
        await sites[3].replica.synced.wait()
        assert sites[3].replica.state.height == sites[0].replica.state.height
        assert not sites[3].replica._core.may_vote
        await sites[0].task()
        await sites[0].task()
        await sites[2].kill()  # from here on the returned one is needed
        await sites[0].task()

    run(tmp_path, test)


def test_leaving_in_order_shrinks_the_validators_down_to_one(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(4)
        for site in sites[:0:-1]:
            height, verdict = await site.do("node.leave", {"uid": site.uid})
            assert verdict.ok
            await swarm.at(height)  # else the others may lack the last vote of the one that left
            await site.kill()
            await sites[0].task()
        assert [v.uid for v in sites[0].replica.state.validators()] == [sites[0].uid]

    run(tmp_path, test)


def test_hostile_casts_change_nothing(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(2)
        evil = swarm.net.nodes["sn-2"]
        for arg in (None, 7, b"x", [b"\xff"], [b""], [1], [b"\x81" * 1000], [b"\x81\x60"] * 3000):
            evil.cast("ledger", arg)
        await trio.sleep(1)
        assert await sites[0].task() == sites[0].replica.state.height

    run(tmp_path, test)


def test_a_disk_that_cannot_be_written_stops_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(swarm: Swarm) -> None:
        (site,) = await swarm.grow(1)

        def full(effects: Any) -> None:
            raise LocalError("SW3012", "no space left")

        monkeypatch.setattr(site.replica._store, "write", full)
        with pytest.raises(RemoteError) as caught:
            await site.task()
        assert caught.value.code == "SW3008"
        await site.ended.wait()
        assert isinstance(site.error, LocalError)
        assert site.error.code == "SW3012"
        assert "no space left" in site.replica.waiting()

    run(tmp_path, test)


def test_a_directory_serves_one_process_and_one_swarm(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        sites = await swarm.grow(2)
        a, b = sites
        with pytest.raises(LocalError) as caught:
            Replica(a.directory, swarm.genesis, a.identity, swarm.net.nodes["sn-1"])
        assert caught.value.code == "SW3015"
        with pytest.raises(LocalError) as caught:
            Replica.create(b.directory, swarm.genesis)
        assert caught.value.code == "SW3010"
        assert Replica.genesis_of(tmp_path) is None
        assert Replica.genesis_of(a.directory) == swarm.genesis

    run(tmp_path, test)


def test_a_double_vote_stops_a_node_under_the_crash_rule(tmp_path: Path) -> None:
    """The other node's key signs two values: its certificate runs twice."""

    async def test(swarm: Swarm) -> None:
        a, b = await swarm.grow(2)
        core = b.replica._core
        bare = [msg.Vote(1, core.height + 1, 0, bytes([n]) * 32, b.uid, b"") for n in (1, 2)]
        votes = [
            dataclasses.replace(v, signature=b.identity.sign(v.signed_bytes(core.config.chain)))
            for v in bare
        ]
        swarm.net.nodes["sn-2"].cast("ledger", [msg.encode(vote) for vote in votes])
        await a.ended.wait()
        assert isinstance(a.error, LocalError)
        assert a.error.code == "SW3014"
        with pytest.raises(RemoteError):
            await a.replica.submit(swarm.new_task("late"))

    run(tmp_path, test, model="crash")


def test_a_joiner_fetches_a_long_chain_in_batches(tmp_path: Path) -> None:
    async def test(swarm: Swarm) -> None:
        (first,) = await swarm.grow(1)
        await first.task()
        for number in range(2 * MAX_BLOCKS + 50):
            args = {"task": "sn-1-1", "index": 1, "lines": [str(number)]}
            tx = sign(swarm.operator, swarm.genesis, "task.append", args, number + 500)
            await first.replica.submit(tx)
        joiner = swarm.site()
        await joiner.start()
        await joiner.replica.synced.wait()
        assert joiner.replica.state.height == first.replica.state.height
        assert joiner.replica.state.digest() == first.replica.state.digest()
        await joiner.kill()
        await joiner.start()
        assert joiner.replica.state.digest() == first.replica.state.digest()

    run(tmp_path, test)


def test_nodes_join_at_the_same_time(tmp_path: Path) -> None:
    """Two newcomers raise the quorum together; neither may wait for the other's right to vote."""

    async def test(swarm: Swarm) -> None:
        await swarm.grow(1)
        fresh = [swarm.site(), swarm.site(), swarm.site()]
        for site in fresh:
            await site.start()
        async with trio.open_nursery() as nursery:

            async def join(site: Any) -> None:
                await site.replica.synced.wait()
                await site.enroll()

            for site in fresh:
                nursery.start_soon(partial(join, site))
        await swarm.at(max(site.replica.state.height for site in swarm.sites))
        assert len(fresh[0].replica.state.validators()) == 4
        await fresh[0].task()

    run(tmp_path, test)
