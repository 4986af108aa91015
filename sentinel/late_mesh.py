"""A mesh that is plugged in while the node already serves.

Loading libp2p takes more than a second. The first node of a network needs no peers in order to
answer its clients, and a restarted one can serve what it has on disk; so the ledger starts with
this, and `plug` connects the real mesh when it is there. Until then there are no peers.

It also lets two parts of the node share the small value on each sign of life: every `view` has a
name, and the values travel in one map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarm.errors import RemoteError
from swarm.mesh.port import BeatHandler, CastHandler, Handler, MeshPort, PeerCallback, PeerInfo


class LateMesh:
    """Remembers what is registered, and hands it to the real mesh."""

    def __init__(self) -> None:
        self._real: MeshPort | None = None
        self._handlers: dict[str, Handler] = {}
        self._casts: dict[str, CastHandler] = {}
        self._callbacks: list[PeerCallback] = []
        self._beats: dict[str, Callable[[], Any]] = {}
        self._beat_handlers: list[tuple[str, BeatHandler]] = []

    def plug(self, real: MeshPort) -> None:
        """Use `real` from now on; before it runs, so that no event is missed."""
        self._real = real
        for method, handler in self._handlers.items():
            real.handle(method, handler)
        for method, cast in self._casts.items():
            real.on_cast(method, cast)
        for callback in self._callbacks:
            real.on_peer(callback)
        real.set_beat(lambda: {name: make() for name, make in self._beats.items()})
        real.on_beat(self._heard)

    def view(self, name: str) -> View:
        """Return a `MeshPort` whose signs of life are its own."""
        return View(self, name)

    @property
    def peer_id(self) -> str:
        return self._real.peer_id if self._real else ""

    def peers(self) -> list[PeerInfo]:
        return self._real.peers() if self._real else []

    def last_seen(self, uid: str) -> float | None:
        return self._real.last_seen(uid) if self._real else None

    async def call(self, peer_id: str, method: str, arg: Any = None, timeout: float = 10.0) -> Any:
        if self._real is None:
            raise RemoteError("SW2001", f"{peer_id}: the mesh is still starting")
        return await self._real.call(peer_id, method, arg, timeout)

    async def call_all(
        self, method: str, arg: Any = None, timeout: float = 10.0
    ) -> Mapping[str, Any]:
        return await self._real.call_all(method, arg, timeout) if self._real else {}

    def cast(self, method: str, arg: Any, *, to: str | None = None) -> None:
        if self._real is not None:
            self._real.cast(method, arg, to=to)

    def handle(self, method: str, handler: Handler) -> None:
        self._handlers[method] = handler
        if self._real is not None:
            self._real.handle(method, handler)

    def on_cast(self, method: str, handler: CastHandler) -> None:
        self._casts[method] = handler
        if self._real is not None:
            self._real.on_cast(method, handler)

    def on_peer(self, callback: PeerCallback) -> None:
        self._callbacks.append(callback)
        if self._real is not None:
            self._real.on_peer(callback)

    def set_beat_of(self, name: str, make: Callable[[], Any]) -> None:
        """Let `make()` travel under `name`."""
        self._beats[name] = make

    def on_beat_of(self, name: str, handler: BeatHandler) -> None:
        """Receive what the peers send under `name`."""
        self._beat_handlers.append((name, handler))

    def _heard(self, peer: PeerInfo, payload: Any) -> None:
        if not isinstance(payload, Mapping):
            return
        for name, handler in self._beat_handlers:
            if name in payload:
                handler(peer, payload[name])


class View:
    """One part's `MeshPort`: the shared mesh, with signs of life of its own."""

    def __init__(self, mesh: LateMesh, name: str) -> None:
        self._mesh = mesh
        self._name = name
        self.peers = mesh.peers
        self.last_seen = mesh.last_seen
        self.call = mesh.call
        self.call_all = mesh.call_all
        self.cast = mesh.cast
        self.handle = mesh.handle
        self.on_cast = mesh.on_cast
        self.on_peer = mesh.on_peer

    @property
    def peer_id(self) -> str:
        return self._mesh.peer_id

    def set_beat(self, make: Callable[[], Any]) -> None:
        self._mesh.set_beat_of(self._name, make)

    def on_beat(self, handler: BeatHandler) -> None:
        self._mesh.on_beat_of(self._name, handler)
