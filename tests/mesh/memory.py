"""libp2p transport in memory: the real mesh, TLS included, under trio's mock clock.

Addresses are ordinary multiaddrs; the IPv4 address names the node. A cut link holds its bytes; a
frozen node neither reads nor writes, as a stopped process, while its peers see nothing but silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.abc import IListener, ITransport
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

CAPACITY = 256 * 1024  # bytes under way in one direction before a writer must wait


class Wires:
    """The network: who listens, what is cut, who stands still."""

    def __init__(self, latency: float = 0.01) -> None:
        self.latency = latency
        self.listeners: dict[tuple[str, int], Listener] = {}
        self.ends: set[End] = set()  # open sockets
        self._cut: set[frozenset[str]] = set()
        self._frozen: set[str] = set()
        self._changed = trio.Event()
        self._next_port = 20000

    def port(self) -> int:
        self._next_port += 1
        return self._next_port

    def cut(self, a: str, b: str) -> None:
        self._cut.add(frozenset((a, b)))
        self.notify()

    def freeze(self, node: str) -> None:
        self._frozen.add(node)
        self.notify()

    def heal(self) -> None:
        self._cut.clear()
        self._frozen.clear()
        self.notify()

    def notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def change(self) -> None:
        await self._changed.wait()

    def stopped(self, node: str) -> bool:
        return node in self._frozen

    def passes(self, a: str, b: str) -> bool:
        return frozenset((a, b)) not in self._cut


class End(ReadWriteCloser):  # type: ignore[misc]
    """One end of a connection."""

    twin: End

    def __init__(self, wires: Wires, here: str, there: tuple[str, int]) -> None:
        self._wires = wires
        self._here, self._there = here, there
        self._arriving: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self.closed = False
        wires.ends.add(self)

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while not self.closed and (self._wires.stopped(self._here) or self.twin._size >= CAPACITY):
            if self.twin.closed and self._wires.passes(self._here, self._there[0]):
                break
            await self._wires.change()
        if self.closed or (self.twin.closed and self._wires.passes(self._here, self._there[0])):
            raise ConnectionClosedError("closed", transport="memory")
        self.twin._arriving.append((trio.current_time() + self._wires.latency, bytes(data)))
        self.twin._size += len(data)
        self._wires.notify()

    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.closed:
                return b""
            if self._wires.stopped(self._here) or not self._wires.passes(
                self._here, self._there[0]
            ):
                await self._wires.change()
            elif self._arriving:
                at, data = self._arriving[0]
                if at > trio.current_time():
                    await trio.sleep_until(at)
                    continue
                self._arriving.popleft()
                piece, rest = (data, b"") if n is None else (data[:n], data[n:])
                if rest:
                    self._arriving.appendleft((at, rest))
                self._size -= len(piece)
                self._wires.notify()
                return piece
            elif self.twin.closed:
                return b""
            else:
                await self._wires.change()

    async def close(self) -> None:
        self.closed = True
        self._wires.ends.discard(self)
        self._wires.notify()
        await trio.lowlevel.checkpoint()

    def get_remote_address(self) -> tuple[str, int]:
        return self._there


class Listener(IListener):  # type: ignore[misc]
    """A listening port."""

    def __init__(self, wires: Wires, handler: Callable[[Any], Awaitable[None]]) -> None:
        self._wires, self._handler = wires, handler
        self._at: tuple[str, int] | None = None
        self._scopes: set[trio.CancelScope] = set()

    async def listen(self, maddr: Any) -> None:
        host, port = _split(maddr)
        self._at = (host, port or self._wires.port())
        self._wires.listeners[self._at] = self

    def accept(self, end: End) -> None:
        async def run() -> None:
            with trio.CancelScope() as scope:
                self._scopes.add(scope)
                try:
                    await self._handler(end)
                finally:
                    self._scopes.discard(scope)

        trio.lowlevel.spawn_system_task(run)

    def get_addrs(self) -> tuple[Any, ...]:
        assert self._at is not None
        return (Multiaddr(f"/ip4/{self._at[0]}/tcp/{self._at[1]}"),)

    async def close(self) -> None:
        if self._at is not None:
            self._wires.listeners.pop(self._at, None)
        for scope in tuple(self._scopes):
            scope.cancel()


class MemoryTransport(ITransport):  # type: ignore[misc]
    """What `Mesh(transport=…)` of the node `here` takes."""

    def __init__(self, wires: Wires, here: str) -> None:
        self._wires, self._here = wires, here

    async def dial(self, maddr: Any) -> Any:
        at = _split(maddr)
        await trio.sleep(self._wires.latency)
        while not self._wires.passes(self._here, at[0]) or self._wires.stopped(self._here):
            await self._wires.change()  # no answer at all; the caller sets the limit
        listener = self._wires.listeners.get(at)
        if listener is None:
            raise OpenConnectionError(f"{maddr} refused")
        mine, theirs = End(self._wires, self._here, at), End(self._wires, at[0], (self._here, 1))
        mine.twin, theirs.twin = theirs, mine
        listener.accept(theirs)
        return RawConnection(mine, True)

    def create_listener(self, handler_function: Callable[[Any], Awaitable[None]]) -> Listener:
        return Listener(self._wires, handler_function)

    def can_dial(self, maddr: Any) -> bool:
        return any(protocol.name == "tcp" for protocol in maddr.protocols())

    can_listen = can_dial

    def protocols(self) -> list[str]:
        return ["tcp"]


def _split(maddr: Any) -> tuple[str, int]:
    return maddr.value_for_protocol("ip4"), int(maddr.value_for_protocol("tcp"))
