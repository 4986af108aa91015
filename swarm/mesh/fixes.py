"""Work-arounds for libp2p 0.8.1, all in one place, each with a test in tests/mesh/test_fixes.py.

They reach into private names, so the version is pinned, and the tests assert it: a new release is
taken over by running them. Other parts are worked around by not using them: GossipSub (one
malformed message ends the host), bootstrap and auto-connector (they forget, or flood), the
persistent peer store (it writes the private key), identify (nothing of it is needed, so the mesh
uses libp2p's Swarm without a host), QUIC (it bypasses the security transport), yamux (see `mux`),
and `dial_peer` (250 ms for each success, 60 s of refusal after each failure, one address tried).
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

from swarm.errors import LocalError

VERSION = "0.8.1"

log = logging.getLogger("swarm.mesh")

NEGOTIATION_TIMEOUT = 5


def tame(swarm: Any) -> None:
    """Apply what concerns a Swarm. To be called before it runs."""
    # The default resource manager queues instead of refusing, never checks memory, and counts
    # connections that are long gone. The limits are in `door`.
    swarm.set_resource_manager(None)

    # With both of its limits at 0 the auto-connector still means to make 256 connections.
    async def leave_it() -> None:
        return

    swarm.auto_connector.maybe_connect = leave_it

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
    level = logging.DEBUG if logging.getLogger().isEnabledFor(logging.DEBUG) else logging.CRITICAL
    logging.getLogger("libp2p").propagate = True
    for name in [n for n in logging.root.manager.loggerDict if n.partition(".")[0] == "libp2p"]:
        if name == "libp2p" or logging.getLogger(name).level != logging.NOTSET:
            logging.getLogger(name).setLevel(level)
