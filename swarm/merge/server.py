"""The learner's listener: the door, and what is behind it.

A connection passes three doors before anything is done for it: the TLS handshake (a certificate of
a trusted CA), the role SL, and, with its HELLO, the ledger: the uid that it claims must be a member
of the contract with exactly this key. Then it may

- `merge`: bring its part of the exchange that is registered here,
- `fetch`: read a decided vector that is kept here,
- `leaves`: read the leaf digests of our result of an attempt (see `compare`).

A connection may hold one conversation after the other. Everything is bounded: connections, time
until the HELLO, sizes of frames. What strangers do is logged once for each address and minute.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, Peer, Role, check_peer
from swarm.identity.tls import Contexts, presented_chain
from swarm.merge.dial import HANDSHAKE, prepare_accepted
from swarm.merge.exchange import Exchange, Key
from swarm.merge.fetch import Decided, serve_fetch
from swarm.merge.seal import agree
from swarm.merge.sending import UNWELCOME
from swarm.merge.wire import PROTOCOL, Channel, ConnectionGone, Kind, WireError

log = logging.getLogger("swarm.merge")

CONNECTIONS = 128  # at a time, strangers included
IDLE = 600.0  # seconds that a connection may stay without a conversation
JOIN = 3.0  # seconds that an early member is kept waiting for our own start of an attempt
QUIET = 60.0  # seconds between two log lines about one address

# (contract, uid) -> the fingerprint of the member's key on the ledger, None when it is no member.
Door = Callable[[str, str], "str | None"]


class Server:
    """Listens for other learners. `start`, then `offer` exchanges and `keep` decided vectors."""

    def __init__(self, identity: Identity, door: Door) -> None:
        self._identity = identity
        self._contexts = Contexts(identity, server=True)
        self._door = door
        self._changed = threading.Condition()
        self._exchange: Exchange | None = None
        self._decided: Decided | None = None
        self._open: set[socket.socket] = set()
        self._admitted: dict[socket.socket, tuple[str, list[bytes]]] = {}
        self._told: dict[str, float] = {}
        self._listener: socket.socket | None = None
        self._closed = False
        self.fetched_by: set[str] = set()  # uids that got the decided vector from here
        self.serving = 0  # how many are fetching it now

    def start(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises LocalError SW6001."""
        try:
            self._listener = socket.create_server((host, port), backlog=64)
        except OSError as error:
            raise LocalError("SW6001", f"{host}:{port}: {error.strerror}") from None
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        bound: int = self._listener.getsockname()[1]
        return bound

    def close(self) -> None:
        """Stop listening and drop all connections."""
        with self._changed:
            self._closed = True
            connections = list(self._open)
            self._changed.notify_all()
        if self._listener:
            # Closing alone does not wake a thread that sits in accept().
            _shut(self._listener)
            self._listener.close()
        for sock in connections:
            _shut(sock)

    def offer(self, exchange: Exchange | None) -> None:
        """From now on members are let into `exchange`, and into no other."""
        with self._changed:
            self._exchange = exchange
            self._changed.notify_all()

    def keep(self, decided: Decided | None) -> None:
        """From now on `fetch` is answered from `decided`."""
        with self._changed:
            self._decided = decided

    # ------------------------------------------------------------ connections

    def _accept(self) -> None:
        assert self._listener
        while not self._closed:
            try:
                sock, address = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                log.warning("accept failed: %s", error)
                time.sleep(0.1)  # out of file descriptors: give others the time to return some
                continue
            with self._changed:
                full = len(self._open) >= CONNECTIONS or self._closed
                if not full:
                    self._open.add(sock)
            if full:
                sock.close()
                continue
            threading.Thread(
                target=self._connection, args=(sock, address[0]), name="from", daemon=True
            ).start()

    def _connection(self, plain: socket.socket, address: str) -> None:
        sock: socket.socket = plain
        try:
            secure = prepare_accepted(plain, self._contexts.current)
            with self._changed:
                self._open.discard(plain)
                self._open.add(secure)
                sock = secure
                if self._closed:
                    return
            channel = Channel(secure, agree(secure, dialled=False))
            peer = self._admit(channel, address)
            if peer is None:
                return
            while self._converse(channel, peer):
                secure.settimeout(IDLE)
        except ConnectionGone as fault:
            log.debug("%s: %s", address, fault.cause)
        except RemoteError as fault:
            self._tell(address, str(fault))
        except (OSError, ValueError) as error:
            self._tell(address, f"no TLS connection: {error}")
        finally:
            with self._changed:
                self._admitted.pop(sock, None)
                self._open.discard(sock)
                self._open.discard(plain)
            sock.close()

    def _admit(self, channel: Channel, address: str) -> Peer | None:
        """Let somebody in whose certificate is good; the others hear what is wrong with it."""
        assert isinstance(channel.sock, ssl.SSLSocket), "TLS was set up"
        chain = presented_chain(channel.sock)
        with self._changed:
            self._admitted[channel.sock] = (address, chain)
        try:
            return check_peer(chain, self._identity.trust, {Role.SL})
        except RemoteError as fault:
            self._tell(address, str(fault))
            channel.expect_json(Kind.HELLO)  # it does not listen before it has said that
            refuse(channel, UNWELCOME, fault.cause)
            return None

    def audit(self) -> None:
        """End the connections of those whose certificate is no longer good: revoked, expired, its
        key barred."""
        with self._changed:
            admitted = list(self._admitted.items())
        for sock, (address, chain) in admitted:
            try:
                check_peer(chain, self._identity.trust, {Role.SL})
            except RemoteError as fault:
                log.warning("the connection from %s is closed: %s", address, fault.cause)
                _shut(sock)

    def _tell(self, address: str, text: str) -> None:
        now = time.monotonic()
        with self._changed:
            if now - self._told.get(address, -QUIET) < QUIET or self._closed:
                return
            if len(self._told) > 1000:
                self._told.clear()
            self._told[address] = now
        log.warning("turned away a connection from %s: %s", address, text)

    # ---------------------------------------------------------- conversations

    def _converse(self, channel: Channel, peer: Peer) -> bool:
        """Hold one conversation; False when the peer closed instead of starting one."""
        hello = channel.expect_json(Kind.HELLO)
        channel.sock.settimeout(HANDSHAKE)
        contract, uid = hello.get("contract"), hello.get("uid")
        if hello.get("protocol") != PROTOCOL:
            refuse(channel, "protocol", f"this learner speaks protocol {PROTOCOL}")
            return False
        if not isinstance(contract, str) or not isinstance(uid, str):
            raise WireError("HELLO without contract or uid")
        if self._door(contract, uid) != peer.fingerprint:
            refuse(channel, "not-a-member", f"{uid[:64]} is no member with this key here")
            return True
        if hello.get("want") == "merge":
            self._merge(channel, _key_of(hello, contract), uid, peer.public_key_der)
        elif hello.get("want") == "fetch":
            self._fetch(channel, hello, contract, uid)
        elif hello.get("want") == "leaves":
            self._show_leaves(channel, hello, contract)
        else:
            raise WireError("HELLO wants nothing that is known here")
        return True

    def _merge(self, channel: Channel, key: Key, uid: str, public_key: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._reached(key), JOIN)
            exchange = self._exchange
        if exchange is None or exchange.key < key:
            refuse(channel, "not-yet", "this learner has not seen the start of that attempt")
        elif exchange.key != key:
            refuse(channel, "superseded", f"this learner is at {tuple(exchange.key)}")
        else:
            exchange.serve(channel, uid, public_key)

    def _show_leaves(self, channel: Channel, hello: dict[str, Any], contract: str) -> None:
        with self._changed:
            exchange = self._exchange
        leaves = exchange.result_leaves() if exchange else None
        if exchange is None or exchange.key != _key_of(hello, contract) or leaves is None:
            refuse(channel, "not-here", "this learner has no result of that attempt")
            return
        channel.send_json(Kind.ANSWER, {"ok": True})
        channel.send(Kind.DIGESTS, b"".join(leaves))

    def _reached(self, key: Key) -> bool:
        return self._exchange is not None and self._exchange.key >= key

    def _fetch(self, channel: Channel, hello: dict[str, Any], contract: str, uid: str) -> None:
        with self._changed:
            decided = self._decided
        if decided is None or (contract, decided.digest.hex()) != (
            decided.contract,
            hello.get("digest"),
        ):
            refuse(channel, "not-here", "this learner does not hold that model")
            return
        with self._changed:
            self.serving += 1
        try:
            serve_fetch(channel, decided, lambda: self._decided is decided)
        finally:
            with self._changed:
                self.serving -= 1
        self.fetched_by.add(uid)


def _key_of(hello: dict[str, Any], contract: str) -> Key:
    number, attempt = hello.get("round"), hello.get("attempt")
    if not isinstance(number, int) or not isinstance(attempt, int):
        raise WireError("HELLO without round or attempt")
    return Key(contract, number, attempt)


def refuse(channel: Channel, reason: str, text: str) -> None:
    """Answer a HELLO with no."""
    channel.send_json(Kind.ANSWER, {"ok": False, "reason": reason, "text": text})


def _shut(sock: socket.socket) -> None:
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # not connected any more
