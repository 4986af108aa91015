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
from swarm.mesh.session import Session
from tests.mesh.harness import RealStage, run_tcp
from tests.mesh.watch import Peers

CLIENTS = 5
ROUNDS = 100  # of all clients: 500 reconnects
WARM_UP = 20  # rounds in which the allocators of Python and OpenSSL find their size


def sockets() -> int:
    """File descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def figures(server: Mesh) -> dict[str, int]:
    """What must not grow, whichever side has dialled."""
    swarm = server._host.swarm
    accepted, connections = swarm._inbound_limiter.borrowed_tokens, len(swarm.get_connections())
    return {
        "sockets": sockets(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "slots of none": max(0, accepted - connections),
        "connections": connections,
        "service tasks": len(swarm.manager._root_tasks) - connections,  # one for each of them
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
    """Figures, as soon as they are no more than wanted, or after 60 s: a connection that was given
    up half open keeps its place until the limit of the handshake."""
    with trio.move_on_after(60):
        while any(read()[key] > want[key] for key in want):
            await trio.sleep(0.05)  # libp2p ends its tasks a little later, and tells nobody
    return read()


async def replaced(mesh: Mesh, peer_id: str, old: Session) -> None:
    """Wait for another session with that peer. A new one may take the place of the old without a
    report that the peer was gone, so there is nothing but the table to look at."""
    with trio.fail_after(30):
        while mesh._sessions.get(peer_id) in (None, old):
            await trio.sleep(0.001)


async def reconnect(server: Mesh, client: Mesh, rounds: int) -> None:
    """End the session and wait for the next, from either side in turn."""
    for n in range(rounds):
        here, there = client._sessions[server.peer_id], server._sessions[client.peer_id]
        (here if n % 2 else there).stop("SW2015", "reconnect test")
        await replaced(client, server.peer_id, here)
        await replaced(server, client.peer_id, there)


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
            await Peers(server).up(client.peer_id)

        async def rounds(n: int) -> None:
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(reconnect, server, client, n)

        await rounds(WARM_UP)
        idle = {**figures(server), "connections": CLIENTS, "slots of none": 0}
        before = await settled(lambda: figures(server), idle)
        low, low_rss = objects(), resident()
        await rounds(ROUNDS)
        after = await settled(lambda: figures(server), before)
        grown = {key: (before[key], after[key]) for key in before if after[key] > before[key]}
        assert not grown
        # trio prunes the heap of cancelled deadlines only from a thousand on: up to three objects
        # each. A session that stays would count for fifty.
        assert objects() - low < 4000, f"{objects() - low} objects in {CLIENTS * ROUNDS} reconnects"
        # A session that stays holds more than 60 KiB, most of it of OpenSSL: 30 MB in all.
        assert resident() - low_rss < 16 << 20, f"{(resident() - low_rss) >> 10} KiB"

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
