"""A stream muxer for one stream, which is all that the mesh needs.

libp2p wants a muxer on each connection. Its yamux costs four times the processor time of what is
below it, lets a peer open streams and send beyond its window without limit, gives up a stream whose
reader pauses for five seconds, and cannot be closed while the peer reads nothing. With a single
stream there is nothing to multiplex: the bytes of the stream are the bytes of the secure
connection, TCP does the flow control, and the end of one is the end of the other.

It is negotiated under a protocol id of its own. Whoever adds circuit relays, which do need several
streams on the connection to the relay, offers yamux beside it, bounded first.
"""

from __future__ import annotations

import logging
from typing import Any

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.custom_types import TProtocol
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from swarm.mesh.transport import SecureConnection

PROTOCOL = TProtocol("/swarm-stream/1.0.0")

log = logging.getLogger("swarm.mesh")


class SingleStream(IMuxedConn):  # type: ignore[misc]  # libp2p is untyped for us
    """A connection with one stream, opened by who dialled."""

    def __init__(self, conn: Any, peer_id: Any) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.event_closed = trio.Event()
        self.event_shutting_down = self.event_closed
        self.on_close: Any = None  # set by SwarmConn, which wants to be told
        self._given = False
        if isinstance(conn, SecureConnection):
            conn.admit()

    @property
    def is_initiator(self) -> bool:
        return bool(self.secured_conn.is_initiator)

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self.event_closed.is_set()

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    async def start(self) -> None:
        """Nothing runs here: the stream's user reads the connection."""
        self.event_started.set()

    async def close(self) -> None:
        """Close the connection. Never raises: an exception would reach libp2p's nursery."""
        if self.event_closed.is_set():
            return
        self.event_closed.set()
        try:
            await self.secured_conn.close()
        except Exception as error:
            log.debug("closing failed: %r", error)
        if self.on_close is not None:
            await self.on_close()

    async def open_stream(self) -> Stream:
        """The stream, for who dialled, once. Raises MuxedStreamError."""
        if self._given or not self.is_initiator:
            raise MuxedStreamError("there is only one stream, and who dialled opens it")
        self._given = True
        return Stream(self)

    async def accept_stream(self) -> Stream:
        """The stream, for who was dialled, once. Raises MuxedConnUnavailable at the end."""
        await trio.lowlevel.checkpoint()
        if self._given or self.is_initiator:
            await self.event_closed.wait()
        if self.event_closed.is_set():
            raise MuxedConnUnavailable("Connection closed")
        self._given = True
        return Stream(self)

    def get_transport_addresses(self) -> list[Any]:
        return list(self.secured_conn.get_transport_addresses())

    def get_connection_type(self) -> Any:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> Any:
        return self.secured_conn.get_remote_address()


class Stream(IMuxedStream):  # type: ignore[misc]
    """The stream: the connection's own bytes."""

    def __init__(self, connection: SingleStream) -> None:
        self.muxed_conn = connection

    async def read(self, n: int | None = None) -> bytes:
        """At most n bytes, or what is there. Raises ConnectionClosedError at the end."""
        data: bytes = await self.muxed_conn.secured_conn.read(n)
        return data

    async def write(self, data: bytes) -> None:
        await self.muxed_conn.secured_conn.write(data)

    async def close(self) -> None:
        await self.muxed_conn.close()

    async def reset(self) -> None:
        await self.muxed_conn.close()

    def set_deadline(self, ttl: int) -> bool:
        return False  # callers bound their waits themselves

    def get_remote_address(self) -> Any:
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()
