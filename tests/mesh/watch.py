"""Wait for what a mesh reports, instead of sleeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from swarm.mesh.port import MeshPort, PeerInfo

T = TypeVar("T")


class Log(list[T]):
    """A list that can be waited on."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = trio.Event()

    def append(self, item: T) -> None:
        super().append(item)
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, done: Callable[[Log[T]], bool], timeout: float = 30.0) -> None:
        with trio.fail_after(timeout):
            while not done(self):
                await self._changed.wait()

    async def length(self, n: int, timeout: float = 30.0) -> None:
        await self.until(lambda log: len(log) >= n, timeout)


class Peers:
    """Comings and goings as one mesh reports them."""

    def __init__(self, mesh: MeshPort) -> None:
        self.mesh = mesh
        self.events: Log[tuple[str, bool, str]] = Log()
        for peer in mesh.peers():
            self.events.append((peer.peer_id, True, ""))
        mesh.on_peer(self._record)

    def _record(self, peer: PeerInfo, up: bool, why: str) -> None:
        self.events.append((peer.peer_id, up, why))

    def state(self, peer_id: str) -> bool | None:
        """The latest report of that peer; None if there was none."""
        return next((up for who, up, _ in reversed(self.events) if who == peer_id), None)

    async def up(self, *peer_ids: str, timeout: float = 30.0) -> None:
        await self.events.until(lambda _: all(self.state(p) is True for p in peer_ids), timeout)

    async def down(self, peer_id: str, timeout: float = 30.0) -> str:
        """Wait until that peer is reported gone; return why."""
        await self.events.until(lambda _: self.state(peer_id) is False, timeout)
        return next(why for who, _, why in reversed(self.events) if who == peer_id)

    def alternates(self) -> bool:
        """Whether up and down took turns for each peer, beginning with up."""
        last: dict[str, bool] = {}
        for who, up, _ in self.events:
            if last.get(who, False) == up:
                return False
            last[who] = up
        return True
