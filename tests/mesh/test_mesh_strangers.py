"""Uninvited guests at the peer-to-peer port: the node stays up, and others get in meanwhile."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from swarm.mesh import door, transport
from swarm.mesh.mesh import Mesh
from swarm.mesh.port import PeerInfo
from swarm.mesh.transport import PROTOCOL
from tests.mesh.harness import RealStage, run_tcp
from tests.mesh.stranger import MULTISTREAM, Stranger, line

ELSEWHERE = "127.0.0.2"  # another source address than the one of the good peers


async def echo(_peer: PeerInfo, arg: Any) -> Any:
    return arg


async def connect(mesh: Mesh) -> Stranger:
    """From another address than the good peers'."""
    port = int(mesh.addresses[0].rpartition("/")[2])
    return Stranger(await trio.open_tcp_stream("127.0.0.1", port, local_address=ELSEWHERE))


async def fares_well(a: Mesh, b: Mesh) -> None:
    """The session between the two is up and nothing is left at the door."""
    b.handle("echo", echo)
    assert await a.call(b.peer_id, "echo", "well", timeout=30) == "well"
    with trio.fail_after(30):
        while b._host.door.waiting:
            await trio.sleep(0.02)  # a stranger's end is noticed when its socket is looked at
    assert len(b._host.swarm.get_connections()) == 1


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS hello without a word before": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    + b"x" * 300,
    "an endless length": b"\xff" * 20,
    "a huge length": b"\xff\xff\xff\xff\x7f" + b"x" * 1000,
    "a length of zero": b"\x00" * 100,
    "no text": line(MULTISTREAM) + b"\x05\xff\xfe\xfd\xfc\n",
    "many proposals": line(MULTISTREAM) + line("/x") * 5000,
    "half a handshake": line(MULTISTREAM) + line(PROTOCOL) + b"\x16\x03\x01\x02\x00\x01\x00",
    "a handshake of garbage": line(MULTISTREAM) + line(PROTOCOL) + bytes(range(256)) * 20,
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage(tmp_path: Path, kind: str) -> None:
    async def main(stage: RealStage) -> None:
        a, b = await stage.join("a"), await stage.join("b")
        for _ in range(10):
            stranger = await connect(b)
            try:
                await stranger.stream.send_all(GARBAGE[kind])
                await stranger.stream.send_eof()
            except trio.BrokenResourceError:
                pass  # it has seen enough
            with trio.fail_after(30):
                answer = await stranger.closed_by_peer()
            assert len(answer) < 50_000
            await stranger.stream.aclose()
        await fares_well(a, b)

    run_tcp(main, tmp_path)


def test_random_bytes_at_every_stage(tmp_path: Path) -> None:
    rng = random.Random(7)

    async def one(b: Mesh) -> None:
        stranger = await connect(b)
        start = rng.choice([b"", line(MULTISTREAM), line(MULTISTREAM) + line(PROTOCOL)])
        try:
            await stranger.stream.send_all(start + rng.randbytes(rng.randrange(2000)))
            await stranger.stream.send_eof()
        except trio.BrokenResourceError:
            pass  # it has seen enough
        await stranger.closed_by_peer()
        await stranger.stream.aclose()

    async def main(stage: RealStage) -> None:
        a, b = await stage.join("a"), await stage.join("b")
        with trio.fail_after(60):
            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    for _ in range(15):
                        nursery.start_soon(one, b)
        await fares_well(a, b)

    run_tcp(main, tmp_path)


def test_a_flood_before_authentication_is_cut_off(tmp_path: Path) -> None:
    async def main(stage: RealStage) -> None:
        a, b = await stage.join("a"), await stage.join("b")
        stranger = await connect(b)
        sent = 0
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await stranger.stream.send_all(b"\xff\xff\xff\xff\x7f")
            for _ in range(1000):
                await stranger.stream.send_all(bytes(65536))
                sent += 65536
        # What the buffers of both sockets hold, and our budget.
        assert sent < 32 << 20
        await stranger.stream.aclose()
        await fares_well(a, b)

    run_tcp(main, tmp_path)


def slow_stages() -> dict[str, Callable[[Stranger], Awaitable[None]]]:
    async def silent(_: Stranger) -> None: ...

    async def agreed(stranger: Stranger) -> None:
        await stranger.stream.send_all(line(MULTISTREAM) + line(PROTOCOL))

    async def dripping(stranger: Stranger) -> None:
        try:
            for byte in line(MULTISTREAM) * 100:
                await stranger.stream.send_all(bytes([byte]))
                await trio.sleep(0.05)
        except trio.BrokenResourceError:
            pass  # it lost patience

    return {"silent": silent, "agreed": agreed, "dripping": dripping}


@pytest.mark.parametrize("stage_name", ["silent", "agreed", "dripping"])
def test_slow_strangers_hold_few_places_and_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage_name: str
) -> None:
    """A new peer gets in while one address holds all the places that it can get."""
    monkeypatch.setattr(transport, "HANDSHAKE_TIMEOUT", 2.0)
    act = slow_stages()[stage_name]

    async def main(stage: RealStage) -> None:
        a, b = await stage.join("a"), await stage.join("b")
        b._host.swarm.connection_config.inbound_upgrade_timeout = 2.0
        strangers = [await connect(b) for _ in range(2 * door.WAITING_PER_ADDRESS)]
        async with trio.open_nursery() as nursery:
            for stranger in strangers:
                nursery.start_soon(act, stranger)
            with trio.fail_after(20):
                while b._host.door.turned_away < door.WAITING_PER_ADDRESS:
                    await trio.sleep(0.02)  # it accepts them one after the other
            assert b._host.door.waiting[ELSEWHERE] <= door.WAITING_PER_ADDRESS
            c = await stage.join("c")
            assert len(c.peers()) == 2
            with trio.fail_after(30):
                for stranger in strangers:
                    await stranger.closed_by_peer()
            nursery.cancel_scope.cancel()
        await stage.leave("c")
        for stranger in strangers:
            await stranger.stream.aclose()
        with trio.fail_after(10):
            while len(b.peers()) > 1 or len(b._host.swarm.get_connections()) > 1:
                await trio.sleep(0.02)  # until the last farewell of `c` is through
        await fares_well(a, b)

    run_tcp(main, tmp_path)
