"""The switches of the in-memory mesh do what they say."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from swarm.mesh.port import SILENCE, MeshPort, PeerInfo
from tests.mesh import fake
from tests.mesh.watch import Log, Peers


def port_of(mesh: fake.FakeMesh) -> MeshPort:
    return mesh  # the type checker proves the protocol


def virtual(main: Any) -> None:
    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_partition_is_silent_and_ends_sessions_after_the_silence() -> None:
    async def main() -> None:
        async with fake.network(seed=1) as net:
            a, b, c = (net.join(f"sn-{i}") for i in range(3))
            await net.connected()
            watch = Peers(port_of(a))
            cut_at = trio.current_time()
            net.partition({"sn-0"}, {"sn-1", "sn-2"})
            assert len(a.peers()) == 2
            assert "silent" in await watch.down(b.peer_id)
            assert SILENCE <= trio.current_time() - cut_at <= 20
            await watch.down(c.peer_id)
            assert [peer.peer_id for peer in b.peers()] == [c.peer_id]
            net.heal()
            await watch.up(b.peer_id, c.peer_id)
            assert watch.alternates()

    virtual(main)


def test_a_short_cut_delays_and_loses_nothing() -> None:
    async def main() -> None:
        async with fake.network(seed=2) as net:
            a, b = net.join("a"), net.join("b")
            await net.connected()
            got: Log[int] = Log()
            b.on_cast("n", lambda _, value: got.append(value))
            net.cut("a", "b")
            for n in range(10):
                a.cast("n", n)
            await trio.sleep(5)
            assert got == []
            net.heal("a", "b")
            await got.length(10)
            assert got == list(range(10))

    virtual(main)


def test_loss_drops_casts_and_counts_them() -> None:
    async def main() -> None:
        async with fake.network(seed=3, loss=0.5) as net:
            a, b = net.join("a"), net.join("b")
            await net.connected()
            got: Log[int] = Log()
            b.on_cast("n", lambda _, value: got.append(value))
            for n in range(1000):
                a.cast("n", n)
            await got.length(1000 - a.dropped)
            assert 350 < a.dropped < 650
            assert got == sorted(got)

    virtual(main)


def test_a_crash_is_noticed_at_once_and_the_name_can_return() -> None:
    async def main() -> None:
        async with fake.network(seed=4) as net:
            a, b = net.join("a"), net.join("b")
            await net.connected()
            watch, before = Peers(a), trio.current_time()
            net.crash("b")
            assert "closed" in await watch.down(b.peer_id)
            assert trio.current_time() - before < 1
            again = net.join("b")

            async def answer(peer: PeerInfo, arg: Any) -> Any:
                return [peer.common_name, arg]

            again.handle("who", answer)
            await watch.up(b.peer_id)
            assert await a.call(again.peer_id, "who", 1) == ["a", 1]
            assert watch.alternates()

    virtual(main)


def test_a_crash_during_a_partition_is_noticed_by_silence() -> None:
    async def main() -> None:
        async with fake.network(seed=5) as net:
            a, b = net.join("a"), net.join("b")
            await net.connected()
            watch = Peers(a)
            net.cut("a", "b")
            net.crash("b")
            assert "silent" in await watch.down(b.peer_id)

    virtual(main)


def test_the_same_seed_gives_the_same_delays() -> None:
    async def main() -> list[float]:
        arrivals: Log[float] = Log()
        async with fake.network(seed=6) as net:
            a, b = net.join("a"), net.join("b")
            await net.connected()
            b.on_cast("n", lambda _peer, _value: arrivals.append(trio.current_time()))
            start = trio.current_time()
            for n in range(20):
                a.cast("n", n)
            await arrivals.length(20)
            return [at - start for at in arrivals]

    runs = [trio.run(main, clock=MockClock(autojump_threshold=0)) for _ in range(2)]
    assert [round(t, 6) for t in runs[0]] == [round(t, 6) for t in runs[1]]
