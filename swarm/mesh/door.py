"""What a stranger may use up before it is authenticated: little, and not for long.

libp2p reads length prefixes of any size from anybody, allocates what they announce, and lets each
idle connection hold one of its slots. So every raw connection, dialled or accepted, goes through a
`Door`: until it is opened, reads are small and their sum is bounded. `DoorTransport` puts one in
front of each connection of the transport it wraps, and limits how many accepted connections may be
waiting, per source address and in all, so that one host of strangers cannot lock the others out.
How long they may wait is the business of `transport` and of libp2p's `inbound_upgrade_timeout`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from libp2p.abc import ITransport
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import IOException
from libp2p.network.connection.raw_connection import RawConnection

BUDGET = 256 * 1024  # bytes before the door opens; two certificate chains take a tenth of it
READ = 65536
READS = 256  # before the door opens: what is proposed byte by byte costs time, not bytes
WAITING_PER_ADDRESS = 32
WAITING_IN_ALL = 256


class Door(ReadWriteCloser):  # type: ignore[misc]  # libp2p is untyped for us
    """A raw stream that gives little until `open` is called."""

    def __init__(self, stream: Any, on_settled: Callable[[], None] | None = None) -> None:
        self._stream = stream
        self._left: int | None = BUDGET
        self._reads = READS
        self._on_settled = on_settled

    def open(self) -> None:
        """The other side is known and the connection set up."""
        self._left = None
        self._settle()

    def _settle(self) -> None:
        callback, self._on_settled = self._on_settled, None
        if callback is not None:
            callback()

    async def read(self, n: int | None = None) -> bytes:
        # Also once open: whoever asks for more gets it in pieces, and nothing is allocated ahead.
        data: bytes = await self._stream.read(READ if n is None else min(n, READ))
        if self._left is not None:
            self._left -= len(data)
            self._reads -= 1
            if self._left < 0 or self._reads < 0:
                raise IOException("too much was sent before authentication")
        return data

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def close(self) -> None:
        self._settle()
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        address: tuple[str, int] | None = self._stream.get_remote_address()
        return address


class DoorTransport(ITransport):  # type: ignore[misc]
    """Another transport, with a door in front of each connection."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.waiting: Counter[str] = Counter()  # accepted, not yet open, by source address
        self.turned_away = 0

    async def dial(self, maddr: Any) -> Any:
        raw = await self._inner.dial(maddr)
        return RawConnection(Door(raw.stream), True)

    def create_listener(self, handler_function: Callable[[Any], Awaitable[None]]) -> Any:
        async def behind_a_door(stream: Any) -> None:
            source = _source(stream)
            if (
                self.waiting[source] >= WAITING_PER_ADDRESS
                or self.waiting.total() >= WAITING_IN_ALL
            ):
                self.turned_away += 1
                await stream.close()
                return
            self.waiting[source] += 1
            door = Door(stream, lambda: self._leave(source))
            try:
                await handler_function(door)
            finally:
                await door.close()

        return self._inner.create_listener(behind_a_door)

    def _leave(self, source: str) -> None:
        self.waiting[source] -= 1
        if not self.waiting[source]:
            del self.waiting[source]

    def can_dial(self, maddr: Any) -> bool:
        return bool(self._inner.can_dial(maddr))

    def can_listen(self, maddr: Any) -> bool:
        return bool(self._inner.can_listen(maddr))

    def protocols(self) -> list[str]:
        return list(self._inner.protocols())


def _source(stream: Any) -> str:
    """The other side's address without the port. libp2p knows it for IPv4 only."""
    socket = getattr(getattr(stream, "stream", None), "socket", None)
    if socket is not None:
        try:
            return str(socket.getpeername()[0])
        except OSError:
            return "gone"  # it hung up before we looked
    address = stream.get_remote_address()
    return str(address[0]) if address else "unknown"
