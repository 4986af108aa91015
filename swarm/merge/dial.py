"""Connections from one learner to another: made, checked at both ends, and kept for next time.

A connection goes to a *member*: address and fingerprint of the key as the ledger has them. After
the handshake the listener's certificate is checked like that of anybody who knocks here, and its
key must be the member's, so weights reach nobody else.

Idle connections are kept between rounds, since a handshake costs more than a small model's bytes.
They are used again only while young: a firewall may have forgotten an old one without a word.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from swarm.address import asked_name
from swarm.errors import RemoteError
from swarm.identity import Identity, Role, check_peer
from swarm.identity.tls import Contexts, presented_chain
from swarm.merge.seal import agree
from swarm.merge.wire import Channel

log = logging.getLogger("swarm.merge")

CONNECT = 3.0  # seconds for a TCP connection
HANDSHAKE = 10.0  # seconds for TLS, and for each answer at its start
FRESH = 60.0  # seconds for which an idle connection is trusted to be there


class Unreachable(RemoteError):
    """A member cannot be connected to: SW6103."""

    def __init__(self, cause: str) -> None:
        super().__init__("SW6103", cause)


@dataclass(frozen=True)
class Member:
    """A roster member, or a holder of a model, as the ledger knows it."""

    uid: str
    name: str
    host: str
    port: int
    fingerprint: str
    weight: int = 0
    root: bytes = b""

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{self.host}:{self.port}"


class Dialler:
    """Makes connections with this node's identity, and keeps idle ones. Safe to share."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._contexts = Contexts(identity, server=False)
        self._lock = threading.Lock()
        self._idle: dict[Member, tuple[Channel, float]] = {}
        self._made: WeakKeyDictionary[Channel, list[bytes]] = WeakKeyDictionary()

    def kept(self, member: Member) -> Channel | None:
        """An idle connection to `member`, if a fresh one is there."""
        with self._lock:
            channel, since = self._idle.pop(_address_of(member), (None, 0.0))
        if channel is None:
            return None
        if time.monotonic() - since > FRESH:
            channel.close()
            return None
        return channel

    def keep(self, member: Member, channel: Channel) -> None:
        """Take an idle connection back."""
        if channel.worn:
            channel.close()
            return
        with self._lock:
            old = self._idle.pop(_address_of(member), None)
            self._idle[_address_of(member)] = (channel, time.monotonic())
        if old:
            old[0].close()

    def dial(self, member: Member) -> Channel:
        """Connect to `member`. Raises Unreachable, or RemoteError SW6104 for a stranger."""
        try:
            plain = socket.create_connection((member.host, member.port), timeout=CONNECT)
        except OSError as error:
            raise Unreachable(f"{member.address}: {error.strerror or error}") from None
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.settimeout(HANDSHAKE)
            sock = self._contexts.current.wrap_socket(
                plain, server_hostname=asked_name(member.host)
            )
        except (OSError, ValueError) as error:
            plain.close()
            raise Unreachable(f"{member.address}: no TLS connection: {error}") from None
        try:
            peer = check_peer(sock, self._identity.trust, {Role.SL})
            if peer.fingerprint != member.fingerprint:
                raise RemoteError(
                    "SW6104", f"{member.address} shows another key than {member.name}'s"
                )
            channel = Channel(sock, agree(sock, dialled=True))
        except (OSError, ValueError) as error:
            sock.close()
            raise Unreachable(f"{member.address}: no connection: {error}") from None
        except BaseException:
            sock.close()
            raise
        with self._lock:
            self._made[channel] = presented_chain(sock)
        return channel

    def sign(self, data: bytes) -> bytes:
        """Sign with this node's key."""
        return self._identity.sign(data)

    def audit(self) -> None:
        """End the connections to those whose certificate is no longer good."""
        with self._lock:
            made = list(self._made.items())
        for channel, chain in made:
            try:
                check_peer(chain, self._identity.trust, {Role.SL})
            except RemoteError as fault:
                log.warning("a connection is closed: %s", fault.cause)
                channel.abort()
                with self._lock:
                    self._made.pop(channel, None)

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for channel, _ in idle.values():
            channel.close()


def prepare_accepted(sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Set up the listener's half of a connection, up to its `do_handshake`. Raises OSError."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.settimeout(HANDSHAKE)
    return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def _address_of(member: Member) -> Member:
    """`member` without what changes from round to round: the key of an idle connection."""
    return Member(member.uid, "", member.host, member.port, member.fingerprint)
