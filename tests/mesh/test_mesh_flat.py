"""Reconnects cost nothing that stays: sockets, tasks, memory, libp2p's own tables."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from swarm.mesh import keeper
from swarm.mesh.mesh import Mesh
from tests.mesh.harness import RealStage, run_tcp
from tests.mesh.watch import Peers

CLIENTS = 5
ROUNDS = 100  # of all clients: 500 reconnects
WARM_UP = 8


def sockets() -> int:
    """File descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def figures(server: Mesh) -> dict[str, int]:
    """What must not grow."""
    swarm = server._host.swarm
    return {
        "sockets": sockets(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "inbound slots": swarm._inbound_limiter.borrowed_tokens,
        "connections": len(swarm.get_connections()),
        "service tasks": len(swarm.manager._root_tasks),
        "waiting at the door": server._host.door.waiting.total(),
        "sessions": len(server._running),
        "book": len(server._book),
        "kept": len(server._keeper._kept),
    }


def objects() -> int:
    """Objects that are alive."""
    gc.collect()
    return len(gc.get_objects())


def resident() -> int:
    """Resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def settled(read: Callable[[], dict[str, int]], want: dict[str, int]) -> dict[str, int]:
    """Figures, as soon as they are no more than wanted, or after 10 s."""
    with trio.move_on_after(10):
        while any(read()[key] > want[key] for key in want):
            await trio.sleep(0.05)  # libp2p ends its tasks a little later, and tells nobody
    return read()


async def reconnect(server: Mesh, client: Mesh, rounds: int) -> None:
    """End the session and wait for the next, from either side in turn."""
    watch, there = Peers(client), Peers(server)
    for n in range(rounds):
        ender, peer = (client, server) if n % 2 else (server, client)
        session = ender._sessions[peer.peer_id]
        session.stop("SW2015", "reconnect test")
        await session.closed.wait()
        await watch.up(server.peer_id)
        await there.up(client.peer_id)


def test_500_reconnects_leave_everything_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MAX_PAUSE", 0.05)
    monkeypatch.setattr(keeper, "LAST_COMES_AFTER", (5.0, 5.0))  # one side dials
    monkeypatch.setattr(Mesh, "_learn_all", lambda *_: None)  # no sessions among the clients

    async def main(stage: RealStage) -> None:
        server = await stage.start("server")
        clients = [await stage.start(f"client-{n}") for n in range(CLIENTS)]
        for client in clients:
            client.add(server.peer_id, server.addresses)
            await Peers(client).up(server.peer_id)

        async def rounds(n: int) -> None:
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(reconnect, server, client, n)

        await rounds(WARM_UP)
        idle = {**figures(server), "connections": CLIENTS, "inbound slots": CLIENTS}
        before = await settled(lambda: figures(server), idle)
        low, low_rss = objects(), resident()
        await rounds(ROUNDS)
        after = await settled(lambda: figures(server), before)
        assert all(after[key] <= before[key] for key in before), (before, after)
        # trio prunes the heap of cancelled deadlines only from a thousand on: up to three objects
        # each. A session that stays would count for fifty.
        assert objects() - low < 4000, f"{objects() - low} objects in {CLIENTS * ROUNDS} reconnects"
        assert resident() - low_rss < 8 << 20, f"{(resident() - low_rss) >> 10} KiB"

    run_tcp(main, tmp_path)


def test_a_clean_close_leaves_nothing(tmp_path: Path) -> None:
    async def main(stage: RealStage) -> None:
        for _ in range(3):  # the first run fills caches
            tasks = trio.lowlevel.current_statistics().tasks_living
            fds = sockets()
            meshes: list[Any] = [await stage.join(name) for name in ("a", "b", "c")]
            port = int(meshes[0].addresses[0].rpartition("/")[2])
            for name in ("a", "b", "c"):
                await stage.leave(name)
            with trio.fail_after(5):
                while trio.lowlevel.current_statistics().tasks_living > tasks:
                    await trio.sleep(0.02)  # as above
            assert sockets() <= fds
            with trio.socket.socket() as probe:  # nobody listens any more
                await probe.bind(("127.0.0.1", port))

    run_tcp(main, tmp_path)
