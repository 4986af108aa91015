"""Work-arounds for libp2p 0.8.1, all in one place, each with a test in tests/mesh/test_fixes.py.

They reach into private names, so the version is pinned, and the tests assert it: a new release is
taken over by running them. What is worked around elsewhere by not using a part at all: GossipSub
(one malformed message ends the host), bootstrap and auto-connector (they forget or flood), the
persistent peer store (it writes the private key), identify (nothing of it is needed; so the mesh
uses libp2p's Swarm without a host), QUIC (it bypasses the security transport), and `dial_peer`
(250 ms for each success, 60 s of refusing after each failure, one address per transport).
"""

from __future__ import annotations

import logging
import socket
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import IOException
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.stream_muxer.yamux import yamux

from swarm.errors import LocalError
from swarm.mesh.transport import SecureConnection

VERSION = "0.8.1"

log = logging.getLogger("swarm.mesh")

# A protocol id of our own makes libp2p use the muxer class that we give it; for yamux's id it takes
# its own class whatever was registered (muxer_multistream.py, `new_conn`).
MUXER = TProtocol("/swarm-yamux/1.0.0")
MAX_STREAMS = 4  # per connection; one is used
MAX_BUFFERED = 4 << 20  # bytes per connection that were received and not read yet
WINDOW = 1 << 20  # bytes a peer may have under way on a stream
NEGOTIATION_TIMEOUT = 5
SETUP_TIMEOUT = 10.0  # seconds from authentication to the one stream that is expected

yamux.MAX_WINDOW_SIZE = WINDOW  # also the largest frame that is accepted; 16 MiB otherwise


class BoundedYamux(yamux.Yamux):  # type: ignore[misc]  # libp2p is untyped for us
    """Yamux that holds a peer to what it was granted.

    libp2p only warns when a peer sends beyond the window, and sets no limit to the streams that it
    opens, so a certified peer could fill the memory. Raising TooSlowError is the way to make
    `handle_incoming` close the connection. An exception that leaves `start` would end the whole
    swarm, so none does.
    """

    def __init__(self, secured_conn: Any, peer_id: Any) -> None:
        super().__init__(secured_conn, peer_id, is_initiator=secured_conn.is_initiator)
        if isinstance(secured_conn, SecureConnection):
            secured_conn.admit()

    async def start(self) -> None:
        try:
            await super().start()
        except Exception as error:
            log.warning("connection with %s ended: %r", self.peer_id, error)
            self.event_shutting_down.set()
            await self.secured_conn.close()
        finally:
            # Whoever waits for the start or the end must not wait for ever.
            self.event_started.set()
            self.event_closed.set()

    async def _read_data_body(self, length: int) -> bytes:
        if sum(map(len, self.stream_buffers.values())) + length > MAX_BUFFERED:
            log.warning("%s sends more than it was granted", self.peer_id)
            raise trio.TooSlowError
        body: bytes = await super()._read_data_body(length)
        return body

    async def _write_frame(self, data: bytes) -> None:
        # Each stream that a peer opens is acknowledged: the one place to count them.
        kind, flags = data[1], data[3]
        if kind == yamux.TYPE_WINDOW_UPDATE and flags & yamux.FLAG_ACK:
            theirs = sum(1 for number in self.streams if number % 2 != self.next_stream_id % 2)
            if theirs > MAX_STREAMS:
                log.warning("%s opens too many streams", self.peer_id)
                raise trio.TooSlowError
        async with self._write_lock:
            await self.secured_conn.write(data)


def tame(swarm: Any) -> None:
    """Apply what concerns a Swarm. To be called before it runs."""
    # The default resource manager queues streams instead of refusing them, never checks memory,
    # and counts connections that are long gone. The limits are in Door and BoundedYamux.
    swarm.set_resource_manager(None)

    # The handler of an accepted connection waits for the end of the whole swarm, and keeps its
    # slot: after 300 accepted connections, reconnects included, nobody can connect any more.
    async def handle(stream: Any, maddr: Any, _event: Any) -> None:
        raw = RawConnection(stream, False)
        try:
            muxed = await swarm.upgrade_inbound_raw_conn(raw, maddr)
            await muxed.event_closed.wait()
        except Exception as error:
            log.debug("accepted connection ended: %r", error)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await raw.close()

    swarm._do_handle_inbound_connection = handle


def guard(handler: Any) -> Any:
    """A stream handler from which no exception escapes: one would cancel the whole swarm."""

    async def guarded(stream: Any) -> None:
        try:
            await handler(stream)
        except Exception as error:
            log.debug("stream of %s ended: %r", stream.muxed_conn.peer_id, error)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                try:
                    await stream.reset()
                except Exception as error:
                    log.debug("reset failed: %r", error)

    return guarded


class _Bounded:
    """A stream for the length of a negotiation; libp2p would read names of any announced length."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        if n is None or n > 1024:
            raise IOException("a protocol name of that length")
        data: bytes = await self._stream.read(n)
        return data

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)


async def propose(stream: Any, protocol: str) -> None:
    """Agree with the other side on what a stream that we opened is for. Raises libp2p's errors."""
    communicator = MultiselectCommunicator(_Bounded(stream))
    await MultiselectClient().select_one_of(
        [TProtocol(protocol)], communicator, NEGOTIATION_TIMEOUT
    )


async def agree(stream: Any, protocol: str) -> None:
    """The same for a stream that the other side opened. Raises libp2p's errors."""
    offered = Multiselect({TProtocol(protocol): None})
    await offered.negotiate(MultiselectCommunicator(_Bounded(stream)), NEGOTIATION_TIMEOUT)


def check_port(host: str, port: int) -> None:
    """Raise `LocalError` SW2020 when somebody listens there already.

    libp2p listens with SO_REUSEPORT, so a second node on the same port would start without a word
    and take away half of the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LocalError("SW2020", f"{host} port {port}: {error.strerror}") from error


def quiet() -> None:
    """Let the mesh, not libp2p, report what happens.

    Importing it sets its logger to print raw lines on stderr, past the handlers of the program; and
    each refused or unreachable peer is an error there. It speaks again when the root logs at DEBUG.
    """
    logger = logging.getLogger("libp2p")
    logger.propagate = True
    debugging = logging.getLogger().isEnabledFor(logging.DEBUG)
    logger.setLevel(logging.DEBUG if debugging else logging.CRITICAL)
