"""A wire in memory, with a session on one end and a test's script on the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from swarm.errors import RemoteError
from swarm.mesh import codec, frames
from swarm.mesh.port import PeerInfo
from swarm.mesh.session import Session

INFO = PeerInfo("peer", "uid", "fp", "org", "SN-peer")


class Pipe:
    """Bytes in one direction; a full one makes the writer wait."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.data = bytearray()
        self.closed = False
        self._changed = trio.Event()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while data:
            if self.closed:
                raise trio.BrokenResourceError
            room = self._capacity - len(self.data)
            if room <= 0:
                await self._changed.wait()
                continue
            self.data += data[:room]
            data = data[room:]
            self._notify()

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.data:
            if self.closed:
                raise trio.EndOfChannel
            await self._changed.wait()
        taken = bytes(self.data[:65536])
        del self.data[:65536]
        self._notify()
        return taken

    def close(self) -> None:
        self.closed = True
        self._notify()


class MemoryWire:
    """`session.Wire` over two pipes."""

    peer_id = "peer"
    dialled = False

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self.closed = False

    async def read(self) -> bytes:
        return await self._incoming.read()

    async def write(self, data: bytes) -> None:
        await self._outgoing.write(data)

    async def close(self) -> None:
        self.closed = True
        self._incoming.close()
        self._outgoing.close()


class Recorder:
    """`session.Owner` that accepts everybody and notes everything."""

    def __init__(self) -> None:
        self.casts: list[tuple[str, Any]] = []
        self.beats: list[Any] = []
        self.over: list[Session] = []
        self.slow = 0
        self.handlers: dict[str, Callable[[Any], Any]] = {}
        self.payload: Callable[[], bytes] = lambda: b""

    def hello(self) -> dict[str, Any]:
        return {"v": 1}

    def greeted(self, session: Session, hello: Any) -> None:
        if hello == "refuse me":
            raise RemoteError("SW2011", "another ledger")
        session.info = INFO

    def ended(self, session: Session) -> None:
        self.over.append(session)

    async def serve(self, peer: PeerInfo, method: str, arg: Any) -> Any:
        if method not in self.handlers:
            raise RemoteError("SW2006", method)
        return await self.handlers[method](arg)

    def deliver(self, peer: PeerInfo, method: str, arg: Any) -> None:
        self.casts.append((method, arg))

    def beat(self) -> bytes:
        return self.payload()

    def slowed(self, session: Session) -> None:
        self.slow += 1

    def felt(self, peer: PeerInfo, value: Any) -> None:
        self.beats.append(value)

    def told(self, peer: PeerInfo, others: Any) -> None: ...


class Script:
    """The test's end: sends what it likes, and reads frames."""

    def __init__(self, to_session: Pipe, from_session: Pipe) -> None:
        self.pipe = to_session
        self.incoming = from_session
        self._reader = frames.FrameReader()
        self._frames: list[tuple[int, int, bytes]] = []

    async def send(self, kind: int, value: Any = None, number: int = 0) -> None:
        await self.raw(frames.frame(kind, number, codec.encode(value)))

    async def raw(self, data: bytes) -> None:
        await self.pipe.write(data)

    async def hello(self) -> None:
        await self.send(frames.HELLO, {"v": 1})
        assert (await self.receive())[0] == frames.HELLO

    async def receive(self, *, beats: bool = False) -> tuple[int, int, Any]:
        """The next frame; signs of life are skipped unless asked for."""
        while True:
            while not self._frames:
                self._frames.extend(self._reader.feed(await self.incoming.read()))
            kind, number, body = self._frames.pop(0)
            if beats or kind != frames.BEAT:
                return kind, number, codec.decode(body) if body else None


@asynccontextmanager
async def session(
    capacity: int = 1 << 20,
) -> AsyncIterator[tuple[Session, Script, Recorder]]:
    """A running session, the other end of its wire, and its owner."""
    there, back = Pipe(capacity), Pipe(capacity)
    owner = Recorder()
    made = Session(MemoryWire(there, back), owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made, Script(there, back), owner
        nursery.cancel_scope.cancel()
