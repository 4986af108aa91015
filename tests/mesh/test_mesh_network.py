"""Whole networks of real meshes in virtual time: they find, lose and find each other again."""

from __future__ import annotations

import functools
import json
import stat
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from swarm.errors import LocalError, RemoteError
from swarm.mesh import keeper
from swarm.mesh.keys import peer_id_of
from swarm.mesh.mesh import Mesh
from swarm.mesh.port import SILENCE, PeerInfo
from tests.mesh.harness import RealStage, identity, run_memory, run_tcp
from tests.mesh.watch import Log, Peers

Scene = Callable[[RealStage], Awaitable[None]]


def scene(function: Scene) -> Any:
    """A test with real meshes over wires in memory, under a clock that jumps."""

    @functools.wraps(function)
    def test(tmp_path: Path) -> None:
        run_memory(function, tmp_path)

    del test.__wrapped__  # type: ignore[attr-defined]  # pytest would look for its arguments
    return test


async def echo(_peer: PeerInfo, arg: Any) -> Any:
    return arg


async def full(*meshes: Mesh) -> None:
    """Wait until everybody has a session with everybody."""
    for mesh in meshes:
        await Peers(mesh).up(*(m.peer_id for m in meshes if m is not mesh), timeout=300)


def connections(*meshes: Mesh) -> list[int]:
    return [len(mesh._host.swarm.get_connections()) for mesh in meshes]


@pytest.mark.parametrize("seed", range(5))
def test_all_dial_all_at_once_and_one_session_per_pair_remains(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LAST_COMES_AFTER", (0.0, 0.02))  # no polite waiting here

    async def main(stage: RealStage) -> None:
        assert stage.wires is not None
        meshes = [await stage.start(f"n{i}") for i in range(5)]
        watches = [Peers(mesh) for mesh in meshes]
        for mesh in meshes:
            for other in meshes:
                mesh.add(other.peer_id, other.addresses)
        await full(*meshes)
        for mesh in meshes:
            mesh.handle("echo", echo)
        for _ in range(20):  # calls go through while the superfluous sessions retire
            for mesh in meshes:
                for other in meshes:
                    if other is not mesh:
                        assert await mesh.call(other.peer_id, "echo", 1, timeout=5) == 1
        await trio.sleep(20)
        assert sum(mesh.counters["dials"] for mesh in meshes) > 10, "nobody dialled at once"
        assert connections(*meshes) == [4] * 5
        assert len(stage.wires.ends) == 5 * 4
        for mesh, watch in zip(meshes, watches, strict=True):
            assert len(mesh._running) == 4
            assert watch.alternates()
            ours = {p: s.wire.dialled for p, s in mesh._sessions.items()}
            for peer_id, dialled in ours.items():
                other = next(m for m in meshes if m.peer_id == peer_id)
                assert other._sessions[mesh.peer_id].wire.dialled != dialled

    run_memory(main, tmp_path, seed=seed)


@scene
async def test_knowing_one_is_knowing_all(stage: RealStage) -> None:
    sentinel = await stage.start("sentinel")
    others = [await stage.start(f"n{i}") for i in range(4)]
    for other in others:
        other.add(sentinel.peer_id, sentinel.addresses)
    await full(sentinel, *others)
    await trio.sleep(20)
    assert connections(sentinel, *others) == [4] * 5


@scene
async def test_who_vanishes_without_a_word_and_returns_is_reconnected(stage: RealStage) -> None:
    assert stage.wires is not None
    a, b = await stage.join("a"), await stage.join("b")
    watch = Peers(a)
    for _ in range(3):
        stage.wires.cut(stage.host("a"), stage.host("b"))  # no FIN gets through
        await stage.leave("b")
        before = trio.current_time()
        await watch.down(b.peer_id)
        assert trio.current_time() - before <= 20
        stage.wires.heal()
        await trio.sleep(300)  # long gone
        await stage.start("b")
        await watch.up(b.peer_id)
    assert watch.alternates()


@scene
async def test_a_quick_restart_does_not_wait_for_the_silence(stage: RealStage) -> None:
    """The other side still believes in the old session when the new run appears."""
    assert stage.wires is not None
    a, b = await stage.join("a"), await stage.join("b")
    watch = Peers(a)
    stage.wires.cut(stage.host("a"), stage.host("b"))
    await stage.leave("b")
    stage.wires.heal()
    for end in stage.wires.ends:
        end.twin.closed = False  # nor does its FIN arrive afterwards,
        end._arriving.clear()  # nor what it said before
    before = trio.current_time()
    again = await stage.start("b")
    again.handle("echo", echo)
    await Peers(again).up(a.peer_id)
    await watch.events.length(3)
    assert watch.events[1:] == [
        (b.peer_id, False, "the peer was started again"),
        (b.peer_id, True, ""),
    ]
    assert await a.call(b.peer_id, "echo", 7) == 7
    assert trio.current_time() - before < SILENCE
    assert watch.alternates()


@scene
async def test_a_frozen_peer_is_noticed_within_20_s_and_welcome_afterwards(
    stage: RealStage,
) -> None:
    assert stage.wires is not None
    a, b, c = await stage.join("a"), await stage.join("b"), await stage.join("c")
    watch = Peers(a)
    before = trio.current_time()
    stage.wires.freeze(stage.host("b"))
    for n in range(5000):
        a.cast("noise", [n, b"x" * 1000])  # more than any buffer on the way holds
    why = await watch.down(b.peer_id)
    assert trio.current_time() - before <= 20
    assert "silent" in why or "read nothing" in why
    assert [peer.peer_id for peer in a.peers()] == [c.peer_id]
    assert a.counters["casts_dropped"] > 0
    stage.wires.heal()
    await watch.up(b.peer_id, timeout=120)
    await trio.sleep(60)
    assert connections(a, b, c) == [2, 2, 2]


@scene
async def test_a_partition_heals(stage: RealStage) -> None:
    assert stage.wires is not None
    meshes = [await stage.join(f"n{i}") for i in range(4)]
    for left in (0, 1):
        for right in (2, 3):
            stage.wires.cut(stage.host(f"n{left}"), stage.host(f"n{right}"))
    for mesh, gone in zip(meshes, (2, 2, 0, 0), strict=True):
        await Peers(mesh).down(meshes[gone].peer_id) if len(mesh.peers()) == 3 else None
    await trio.sleep(600)
    assert [len(mesh.peers()) for mesh in meshes] == [1] * 4
    stage.wires.heal()
    before = trio.current_time()
    await full(*meshes)
    assert trio.current_time() - before <= keeper.MAX_PAUSE * 1.3 + 15
    await trio.sleep(60)
    assert connections(*meshes) == [3] * 4


@scene
async def test_another_ledger_is_refused_on_both_sides(stage: RealStage) -> None:
    a, b = await stage.start("a"), await stage.start("b", chain=b"d" * 32)
    watch = Peers(a)
    a.add(b.peer_id, b.addresses)
    b.add(a.peer_id, a.addresses)
    await trio.sleep(120)
    assert watch.events == []
    assert a.peers() == b.peers() == []
    for mesh, other in ((a, b), (b, a)):
        reasons = [mesh.unreachable().get(other.peer_id, ""), *mesh._refusals.values()]
        assert any("ledger" in reason for reason in reasons), reasons
    await trio.sleep(60)
    assert max(connections(a, b)) <= 1  # the present attempt at most


@scene
async def test_another_protocol_is_refused(stage: RealStage) -> None:
    a, b = await stage.start("a"), await stage.start("b")
    hello = b.hello
    b.hello = lambda: {**hello(), "v": 99}  # type: ignore[method-assign]
    a.add(b.peer_id, b.addresses)
    await trio.sleep(30)
    assert "protocol 99" in a.unreachable()[b.peer_id]
    assert a.peers() == []


@scene
async def test_a_barred_key_is_put_out_at_once_and_stays_out(stage: RealStage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    watch, other = Peers(a), Peers(b)
    trust = identity("a").trust
    trust.bar({identity("b").fingerprint: "evicted at height 7"})
    try:
        before = trio.current_time()
        a.reload()
        assert "evicted at height 7" in await watch.down(b.peer_id)
        assert "evicted at height 7" in await other.down(a.peer_id)
        assert trio.current_time() - before < 5
        b.add(a.peer_id, a.addresses)
        await trio.sleep(120)
        assert watch.state(b.peer_id) is False
        assert b.peers() == []
        dials = a.counters["dials"]
        await trio.sleep(120)
        assert a.counters["dials"] == dials, "who is barred is not dialled"
        assert "evicted at height 7" in b.unreachable()[a.peer_id]
    finally:
        trust.bar({})


@scene
async def test_an_expired_certificate_ends_a_session_that_is_up(stage: RealStage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    watch = Peers(a)
    trust = identity("a").trust
    verify = trust.verify

    def later(chain: Any, *, at: datetime, **kwargs: Any) -> Any:
        return verify(chain, at=at + timedelta(days=9999), **kwargs)

    trust.verify = later  # type: ignore[method-assign]
    try:
        before = trio.current_time()
        assert "expired on" in await watch.down(b.peer_id)
        assert trio.current_time() - before < 5
    finally:
        trust.verify = verify  # type: ignore[method-assign]


@scene
async def test_a_revocation_closes_the_session(stage: RealStage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    watch = Peers(a)
    trust = identity("a").trust
    verify = trust.verify

    def revoked(*_: Any, **__: Any) -> Any:
        raise RemoteError("SW1206", "SN-b was revoked by its CA")

    trust.verify = revoked  # type: ignore[method-assign]
    try:
        a.reload()
        assert "revoked" in await watch.down(b.peer_id)
        await trio.sleep(60)
        assert watch.state(b.peer_id) is False
    finally:
        trust.verify = verify  # type: ignore[method-assign]
    a.reload()
    await watch.up(b.peer_id, timeout=120)


@scene
async def test_addresses_are_kept_over_a_restart(stage: RealStage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    await stage.leave("b")
    path = stage._directory / "b.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["peers"][a.peer_id]["addresses"] == list(a.addresses)
    again = await stage.start("b")  # nobody tells it anything
    await Peers(again).up(a.peer_id)
    assert b.peer_id == again.peer_id


@scene
async def test_what_is_announced_is_what_peers_learn(stage: RealStage) -> None:
    a = await stage.start("a", announce=["/dns4/sn1.example/tcp/30303", "/ip4/192.0.2.1/udp/1"])
    b = await stage.start("b")
    b.add(a.peer_id, [f"/ip4/{stage.host('a')}/tcp/{a._listen[1]}"])
    await Peers(b).up(a.peer_id)
    assert b.peers()[0].addresses == ("/dns4/sn1.example/tcp/30303",)


@scene
async def test_gossip_cannot_make_a_peer_unreachable(stage: RealStage) -> None:
    a, b, c = await stage.join("a"), await stage.join("b"), await stage.join("c")
    lies = [f"/ip4/192.0.2.{n}/tcp/1" for n in range(10)]
    a.told(c.peers()[0], {b.peer_id: lies, "x": lies, c.peer_id: "no list", a.peer_id: lies})
    a.told(c.peers()[0], "nonsense")
    a.told(c.peers()[0], {f"{n:052d}".replace("0", "Q"): lies for n in range(1000)})
    assert set(b.addresses) <= set(a._book[b.peer_id].addresses)
    assert len(a._book) <= 256
    watch = Peers(a)
    await stage.leave("b")
    await watch.down(b.peer_id)
    await stage.start("b")
    await watch.up(b.peer_id, timeout=60)


@scene
async def test_hearsay_is_forgotten_and_what_is_wanted_is_not(stage: RealStage) -> None:
    a = await stage.start("a")
    rumour, wanted = identity("rumour"), identity("wanted")
    rumour_id, wanted_id = (peer_id_of(i.public_key_der) for i in (rumour, wanted))
    a._learn_all({rumour_id: ["/ip4/192.0.2.1/tcp/1"]})
    a.add(wanted_id, ["/ip4/192.0.2.2/tcp/1"])
    await trio.sleep(20)
    assert set(a.unreachable()) == {rumour_id, wanted_id}
    await trio.sleep(keeper.FORGET + 60)
    assert rumour_id not in a._book
    assert wanted_id in a._book
    assert set(a.unreachable()) == {wanted_id}


@scene
async def test_a_failure_of_libp2p_as_a_whole_is_survived(stage: RealStage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    watch = Peers(b)

    async def fail() -> None:
        raise RuntimeError("on purpose")

    a._host.swarm.manager.run_task(fail)
    await watch.down(a.peer_id, timeout=60)
    await watch.up(a.peer_id, timeout=120)
    assert a.counters["restarts"] == 1
    a.handle("echo", echo)
    assert await b.call(a.peer_id, "echo", 1) == 1


@scene
async def test_a_peer_of_an_own_make_that_connects_without_end(stage: RealStage) -> None:
    """A certified peer that opens connections and says nothing, or no HELLO, or too much."""
    a, b = await stage.join("a"), await stage.join("b")
    rogue = await stage.start("rogue")
    held: list[Any] = []
    for _ in range(50):
        try:
            wire = await rogue._host.dial(a.peer_id, a.addresses[0])
        except RemoteError:
            continue  # it was refused, which is fine
        held.append(wire)
        await wire.write(b"\x00\x00\x00\x01\x05")
    assert len(a._host.swarm.get_connections()) <= 1 + 5
    await trio.sleep(60)
    assert connections(a) == [1]
    assert [peer.peer_id for peer in a.peers()] == [b.peer_id]
    a.handle("echo", echo)
    assert await b.call(a.peer_id, "echo", 1) == 1


def test_a_port_in_use_is_a_mistake_of_this_side(tmp_path: Path) -> None:
    """libp2p's listener would share it."""

    async def main(stage: RealStage) -> None:
        a = await stage.start("a")
        with pytest.raises(LocalError) as caught:
            await stage.start("b", listen=("127.0.0.1", a._listen[1]))
        assert caught.value.code == "SW2020"
        assert str(a._listen[1]) in caught.value.cause
        with pytest.raises(LocalError) as caught:
            await stage.start("b", listen=("192.0.2.1", 30303))
        assert caught.value.code == "SW2020"

    run_tcp(main, tmp_path)


@scene
async def test_casts_during_reconnects_neither_fail_nor_pile_up(stage: RealStage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    got: Log[Any] = Log()
    b.on_cast("n", lambda _peer, n: got.append(n))
    for round_ in range(5):
        for n in range(100):
            a.cast("n", [round_, n])
            if n == 50:
                a._sessions[b.peer_id].stop("SW2015", "on purpose")
        await Peers(a).up(b.peer_id)
        await Peers(b).up(a.peer_id)
        await trio.sleep(5)
    assert got == sorted(got)
    assert a.counters["casts_dropped"] + len(got) <= 500
