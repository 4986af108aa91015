"""The learner's listener: the door, and what is behind it.

A connection passes three doors before anything is done for it: the TLS handshake (a certificate of
a trusted CA), the role SL, and, with its HELLO, the ledger: the uid that it claims must be a member
of the contract with exactly this key. Then it may

- `merge`: bring its part of the exchange that is registered here,
- `fetch`: read a decided vector that is kept here,
- `leaves`: read the leaf digests of our result of an attempt (see `compare`).

A connection may hold one conversation after the other. Everything is bounded: connections (see
`guests`), time until the HELLO, sizes of frames. What goes wrong at the door is logged, once a
minute for each address and member.
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
from swarm.guests import Guest, Guests, shut
from swarm.identity import Identity, Peer, Role, check_peer
from swarm.identity.tls import Contexts, presented_chain
from swarm.merge.dial import HANDSHAKE, prepare_accepted
from swarm.merge.exchange import Exchange, Key
from swarm.merge.fetch import Decided, serve_fetch
from swarm.merge.seal import agree
from swarm.merge.sending import FOREIGN, UNWELCOME
from swarm.merge.wire import PROTOCOL, Channel, ConnectionGone, Kind, WireError

log = logging.getLogger("swarm.merge")

CONNECTIONS = 320  # at a time; a roster has 256 members at most
STRANGERS = 64  # of them that have not shown a certificate yet
IDLE = 600.0  # seconds that a connection may stay without a conversation
JOIN = 3.0  # seconds that an early member is kept waiting for our own start of an attempt
QUIET = 60.0  # seconds between two log lines about one address or member

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
        self._guests = Guests(CONNECTIONS, STRANGERS)
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
            self._changed.notify_all()
        if self._listener:
            # Closing alone does not wake a thread that sits in accept().
            shut(self._listener)
            self._listener.close()
        self._guests.close()

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
            guest, leaving = self._guests.enter(sock, address[0])
            if leaving is not None:
                self._tell(leaving.name, "it has made room for others")
            if guest is None:
                sock.close()
                continue
            threading.Thread(
                target=self._connection, args=(guest,), name="from", daemon=True
            ).start()

    def _connection(self, guest: Guest) -> None:
        silent = True
        try:
            secure = prepare_accepted(guest.sock, self._contexts.current)
            guest.sock = secure
            if guest.gone:  # a moment ago, when neither socket could be shut
                return
            secure.do_handshake()
            channel = Channel(secure, agree(secure, dialled=False))
            peer = self._admit(channel, guest)
            if peer is None:
                return
            while True:
                hello = channel.expect_json(Kind.HELLO)
                silent = False
                if not self._converse(channel, hello, peer, guest):
                    return
                secure.settimeout(IDLE)
        except ConnectionGone as fault:
            if silent and not guest.gone:
                self._tell(guest.name, f"it said nothing: {fault.cause}")
        except RemoteError as fault:
            self._tell(guest.name, str(fault))
        except (OSError, ValueError) as error:
            if not guest.gone:
                self._tell(guest.name, f"no TLS connection: {error}")
        finally:
            self._guests.leave(guest)
            guest.sock.close()

    def _admit(self, channel: Channel, guest: Guest) -> Peer | None:
        """Let somebody in whose certificate is good; the others hear what is wrong with it."""
        assert isinstance(channel.sock, ssl.SSLSocket), "TLS was set up"
        chain = presented_chain(channel.sock)
        try:
            peer = check_peer(chain, self._identity.trust, {Role.SL})
        except RemoteError as fault:
            self._tell(guest.name, str(fault))
            channel.expect_json(Kind.HELLO)  # it does not listen before it has said that
            refuse(channel, UNWELCOME, fault.cause)
            return None
        self._guests.known(guest, chain, peer.holder, peer.common_name)
        return peer

    def audit(self) -> None:
        """End the connections of those whose certificate is no longer good: revoked, expired, its
        key barred."""
        for guest in self._guests.all():
            if not guest.chain:
                continue  # it is just being checked
            try:
                check_peer(guest.chain, self._identity.trust, {Role.SL})
            except RemoteError as fault:
                log.warning("the connection from %s is closed: %s", guest.name, fault.cause)
                guest.send_away()

    def _tell(self, name: str, text: str) -> None:
        now = time.monotonic()
        with self._changed:
            if now - self._told.get(name, -QUIET) < QUIET or self._closed:
                return
            if len(self._told) > 1000:
                self._told.clear()
            self._told[name] = now
        log.warning("turned away a connection from %s: %s", name, text)

    # ---------------------------------------------------------- conversations

    def _converse(self, channel: Channel, hello: dict[str, Any], peer: Peer, guest: Guest) -> bool:
        """Hold the conversation that `hello` asks for; False when there can be no other."""
        channel.sock.settimeout(HANDSHAKE)
        contract, uid = hello.get("contract"), hello.get("uid")
        if hello.get("protocol") != PROTOCOL:
            refuse(channel, FOREIGN, f"this learner speaks protocol {PROTOCOL}")
            return False
        if not isinstance(contract, str) or not isinstance(uid, str):
            raise WireError("HELLO without contract or uid")
        if self._door(contract, uid) != peer.fingerprint:
            refuse(channel, "not-a-member", f"{uid[:64]} is no member with this key here")
            return True
        want = hello.get("want")
        if want not in ("merge", "fetch", "leaves"):
            raise WireError("HELLO wants nothing that is known here")
        with self._guests.talking(guest, f"{want} {contract} {uid}"):
            if want == "merge":
                self._merge(channel, _key_of(hello, contract), uid, peer.public_key_der)
            elif want == "fetch":
                self._fetch(channel, hello, contract, uid)
            else:
                self._show_leaves(channel, hello, contract)
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
