"""The libp2p side of the mesh: one listener, dialling, and one stream per connection.

A `Host` turns connections into wires (`session.Wire`): authenticated byte streams to one peer.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p import new_swarm
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity
from swarm.mesh import fixes, keys, mux
from swarm.mesh.door import DoorTransport
from swarm.mesh.transport import (
    PROTOCOL,
    AuthenticationFailed,
    Refused,
    SecureConnection,
    X509Transport,
)

log = logging.getLogger("swarm.mesh")

SESSION_PROTOCOL = "/swarm-mesh/1.0.0"
DIAL_TIMEOUT = 10.0  # seconds for one address, authentication and negotiation included
MAX_CONNECTIONS = 512
CONNECTIONS_PER_PEER = 4  # an old one that is not noticed to be dead, two that cross, a spare


class StreamWire:
    """A wire that is the single stream of a libp2p connection.

    It goes past libp2p's stream object, whose locks cost as much as the encryption.
    """

    def __init__(self, connection: Any, dialled: bool) -> None:
        secured = connection.muxed_conn.secured_conn
        assert isinstance(secured, SecureConnection), "only our security transport is offered"
        self.peer = secured.peer
        self.chain = secured.chain
        self.peer_id = str(connection.muxed_conn.peer_id)
        self.dialled = dialled
        self._secured = secured
        self._connection = connection

    async def read(self) -> bytes:
        data: bytes = await self._secured.read()
        return data

    async def write(self, data: bytes) -> None:
        await self._secured.write(data)

    async def close(self) -> None:
        await close_connection(self._connection)


async def close_connection(connection: Any) -> None:
    """Close a libp2p connection, whatever state it is in. Takes 0.2 s of libp2p's own pauses.

    libp2p wants to say goodbye first, and waits for that when the peer reads nothing; a `close`
    that is cancelled then can never be repeated. So the rest is done here.
    """
    with trio.CancelScope(shield=True):
        with trio.move_on_after(2):
            try:
                await connection.close()
            except Exception as error:
                log.debug("closing failed: %r", error)
        connection.swarm.remove_conn(connection)
        await connection.muxed_conn.secured_conn.conn.conn.close()


class Host:
    """One libp2p node. Made anew for each run."""

    def __init__(
        self,
        identity: Identity,
        on_wire: Callable[[StreamWire], Awaitable[None]],
        on_refused: Refused,
        transport: Any = None,
    ) -> None:
        """`on_wire` is run for each wire that a peer opened, for as long as the wire is of use.

        `transport` replaces TCP in tests. Raises `LocalError` SW2021 for an unsuitable key.
        """
        fixes.quiet()
        self.security = X509Transport(identity, on_refused)
        self.door = DoorTransport(transport or TCP())
        self._on_wire = on_wire
        self._real = transport is None
        self.swarm = new_swarm(
            key_pair=self.security.key_pair,
            sec_opt={PROTOCOL: self.security},
            muxer_opt={mux.PROTOCOL: mux.SingleStream},
            transports=[self.door],
            retry_config=RetryConfig(max_retries=0),
            connection_config=ConnectionConfig(
                max_connections=MAX_CONNECTIONS,
                min_connections=0,
                low_watermark=0,
                high_watermark=MAX_CONNECTIONS,
                # Superfluous connections are closed by the mesh, which knows which one to keep.
                max_connections_per_peer=MAX_CONNECTIONS,
            ),
        )
        fixes.tame(self.swarm)
        self.swarm.set_stream_handler(fixes.guard(self._accept))
        self.peer_id = str(self.swarm.get_peer_id())

    @asynccontextmanager
    async def running(self, listen: tuple[str, int]) -> AsyncIterator[list[str]]:
        """Listen; yields the multiaddrs. Raises `LocalError` SW2020 when that is not possible."""
        host, port = listen
        if port and self._real:
            fixes.check_port(host, port)
        address = Multiaddr(f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}")
        listening = False
        async with background_trio_service(self.swarm):
            try:
                listening = await self.swarm.listen(address)
                if listening:
                    listener = next(iter(self.swarm.listeners.values()))
                    yield [str(a) for a in listener.get_addrs()]
            finally:
                await self._close()
        if not listening:  # raised out here, since a nursery would wrap it
            raise LocalError("SW2020", f"{host} port {port}")

    async def _close(self) -> None:
        # libp2p leaves the listener open, and closes connections one after the other.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            async with trio.open_nursery() as nursery:
                for connection in self.swarm.get_connections():
                    nursery.start_soon(close_connection, connection)
            await self.swarm.close()

    async def dial(self, peer_id: str, address: str) -> StreamWire:
        """Connect, authenticate, and open the one stream.

        Raises `RemoteError` SW2013 (refused by either side) or SW2016 (not reachable).
        """
        try:
            with trio.fail_after(DIAL_TIMEOUT):
                return await self._dial(keys.parse_peer_id(peer_id), address)
        except trio.TooSlowError as error:
            raise RemoteError("SW2016", f"{address}: no answer in {DIAL_TIMEOUT:g} s") from error
        except RemoteError:
            raise
        except Exception as error:
            code, why = _reason(error)
            raise RemoteError(code, f"{address}: {why}") from error

    async def _dial(self, peer_id: Any, address: str) -> StreamWire:
        failure: Exception | None = None
        for resolved in await resolve(address):
            try:
                connection = await self.swarm.dial_addr(Multiaddr(resolved), peer_id)
                break
            except Exception as error:
                failure = error
        else:
            raise failure or RemoteError("SW2016", f"{address}: no such host")
        try:
            stream = await connection.new_stream()
            await fixes.propose(stream, SESSION_PROTOCOL)
        except BaseException:
            await close_connection(connection)
            raise
        return StreamWire(connection, dialled=True)

    async def _accept(self, stream: Any) -> None:
        connection = stream.swarm_conn
        peer_id = connection.muxed_conn.peer_id
        try:
            if len(self.swarm.get_connections(peer_id)) > CONNECTIONS_PER_PEER:
                log.warning("%s connects too often", peer_id)
                return
            await fixes.agree(stream, SESSION_PROTOCOL)
            await self._on_wire(StreamWire(connection, dialled=False))
        finally:
            await close_connection(connection)


async def resolve(address: str) -> Sequence[str]:
    """The numeric forms of a multiaddr; itself when it is numeric.

    libp2p would ask name servers only, and so miss the names in /etc/hosts. Raises OSError.
    """
    parts = address.split("/")
    if len(parts) < 5 or parts[1] not in ("dns", "dns4", "dns6"):
        return [address]
    found = await trio.socket.getaddrinfo(parts[2], int(parts[4]), type=trio.socket.SOCK_STREAM)
    wanted = {"dns4": [trio.socket.AF_INET], "dns6": [trio.socket.AF_INET6]}.get(
        parts[1], [trio.socket.AF_INET, trio.socket.AF_INET6]
    )
    return [
        f"/ip{6 if family == trio.socket.AF_INET6 else 4}/{at[0]}/" + "/".join(parts[3:])
        for family, _, _, _, at in found
        if family in wanted
    ][:4]


def _reason(error: BaseException) -> tuple[str, str]:
    """The root of what libp2p wrapped in general sentences."""
    seen: BaseException | None = error
    last: tuple[str, str] = ("SW2016", str(error) or type(error).__name__)
    while seen is not None:
        if isinstance(seen, AuthenticationFailed):
            return "SW2013", str(seen)
        if isinstance(seen, OSError):
            last = ("SW2016", seen.strerror or str(seen))
        several: Sequence[BaseException] = getattr(seen, "exceptions", ())
        seen = several[0] if several else seen.__cause__ or seen.__context__
    return last
