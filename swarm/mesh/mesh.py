"""The mesh of network nodes: `MeshPort` over libp2p.

`Mesh` ties together what the other modules do: `host` makes authenticated wires, `session` talks
over one, `keeper` makes sure there is one with each known peer, `book` remembers addresses.

Two sessions with the same peer come about when both sides dial at once, or when a peer returns
before the end of its old session was noticed. Both sides settle it by the same rule, without a
message (`_newer_wins`): another run of the peer wins over its former one; of two sessions dialled
by the same side the newer wins; else the one that the smaller peer id dialled.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, Role, check_peer, node_uid
from swarm.identity.live import AUDIT_EVERY
from swarm.identity.trust import BARRED
from swarm.mesh import codec, faults, frames
from swarm.mesh.book import AddressBook, clean
from swarm.mesh.host import Host, StreamWire
from swarm.mesh.keeper import Keeper
from swarm.mesh.port import (
    MAX_MESSAGE,
    BeatHandler,
    CastHandler,
    Handler,
    PeerCallback,
    PeerInfo,
)
from swarm.mesh.session import Session, cast_frame

log = logging.getLogger("swarm.mesh")

PROTOCOL_VERSION = 1
MAX_BEAT = 16 * 1024  # bytes
MAX_TOLD = 128  # peers that are taken from one frame
MAX_TOLD_BYTES = 32 * 1024  # of peers in a HELLO, which has a limit of its own
SUM_UP_EVERY = 60.0  # seconds between log lines about refusals that were not logged one by one
SAVE_EVERY = 5.0  # seconds
RESTART_AFTER = 1.0  # seconds
_MAX_REFUSALS_LOGGED = 20  # in one SUM_UP_EVERY, so that a port scan does not fill the disk


class Mesh:
    """Authenticated sessions with all network nodes of one ledger. See `swarm.mesh.port`."""

    def __init__(
        self,
        identity: Identity,
        *,
        listen: tuple[str, int],
        announce: Sequence[str],
        book: Path,
        version: str,
        chain: bytes,
        transport: Any = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing is opened before `run`.

        `listen`: address and port, 0 for any free one. `announce`: multiaddrs to be reached at;
        those listened on when empty. `book`: file of the address book. `chain`: id of the ledger;
        peers of another one are refused. `transport` replaces TCP, and `rng` the source of jitter,
        in tests. Raises `LocalError` SW2021 for a key that libp2p cannot use.
        """
        self.counters: Counter[str] = Counter()  # for metrics: what happened how often
        self.addresses: tuple[str, ...] = clean(announce)
        self._announce = tuple(announce)
        self._identity = identity
        self._listen = listen
        self._version = version
        self._chain = chain
        self._transport = transport
        self._boot = os.urandom(8)
        self._book = AddressBook(book)
        self._host = self._new_host()
        self.peer_id = self._host.peer_id
        jitter = rng or random.Random()  # noqa: S311  # nothing secret depends on it
        self._keeper = Keeper(self.peer_id, self._book, self._connect, jitter)
        self._sessions: dict[str, Session] = {}
        self._running: set[Session] = set()
        self._dialling: dict[str, trio.CancelScope] = {}
        self._seen: OrderedDict[str, float] = OrderedDict()  # uid -> when, of those who are gone
        self._refusals: OrderedDict[str, str] = OrderedDict()  # peer id -> why, to log it once
        self._handlers: dict[str, Handler] = {}
        self._casts: dict[str, CastHandler] = {}
        self._callbacks: list[PeerCallback] = []
        self._beat_handlers: list[BeatHandler] = []
        self._make_beat: Callable[[], Any] | None = None
        self._nursery: trio.Nursery | None = None
        self._refusals_logged = 0
        self._slowed: dict[str, float] = {}  # uid -> when it was logged

    # Life.

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and keep sessions until cancelled; `started()` when listening.

        Raises `LocalError` SW2020 when the port cannot be opened at the start. Later nothing ends
        it: should libp2p fail as a whole, it is started again.
        """
        started = False

        def on_start() -> None:
            nonlocal started
            if not started:
                started = True
                task_status.started()

        while True:
            try:
                await self._run_host(on_start)
            except LocalError:
                if not started:
                    raise
                log.exception("the mesh cannot be opened again yet")
            except Exception:
                self.counters["restarts"] += 1
                log.exception("libp2p failed; the mesh is opened again")
            await trio.sleep(RESTART_AFTER)
            self._host = self._new_host()

    def _new_host(self) -> Host:
        return Host(self._identity, self._accepted, self._refused, self._transport)

    async def _run_host(self, on_start: Callable[[], None]) -> None:
        async with self._host.running(self._listen) as listening:
            self._listen = (self._listen[0], int(listening[0].rpartition("/")[2]))
            self.addresses = clean(self._announce) or clean(listening)
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._keeper.run)
                    nursery.start_soon(self._audit_often)
                    nursery.start_soon(self._sum_up_often)
                    nursery.start_soon(self._save_often)
                    log.info("%s listens on %s", self.peer_id, ", ".join(listening))
                    on_start()
                    await trio.sleep_forever()
            finally:
                self._nursery = None
                self._save()
                # Sessions of accepted connections run in libp2p's tasks; they end here with ours.
                for session in tuple(self._running):
                    session.stop("SW2015", "this node is closing")
                with trio.CancelScope(shield=True), trio.move_on_after(3):
                    for session in tuple(self._running):
                        await session.closed.wait()

    def reload(self) -> None:
        """Own certificate, trusted CAs, revocations or barred keys are others now: judge those who
        are connected by them, and all who come."""
        self._host.security.reload()
        self._audit()

    def add(self, peer_id: str, addresses: Sequence[str]) -> None:
        """Keep a session with that peer for ever."""
        self._learn(peer_id, addresses, hearsay=False, wanted=True)

    # The port.

    def peers(self) -> list[PeerInfo]:
        """Peers whose session is up."""
        return [session.info for session in self._sessions.values() if session.info is not None]

    def last_seen(self, uid: str) -> float | None:
        """Seconds since anything was heard from the node `uid`; None if never in this run."""
        heard = [
            session.heard
            for session in self._sessions.values()
            if session.info is not None and session.info.uid == uid
        ]
        if uid in self._seen:
            heard.append(self._seen[uid])
        return trio.current_time() - max(heard) if heard else None

    async def call(self, peer_id: str, method: str, arg: Any = None, timeout: float = 10.0) -> Any:
        """Ask one peer; see `MeshPort.call` for what is raised."""
        session = self._sessions.get(peer_id)
        if session is None:
            codec.encode(arg)  # a wrong argument is an error whoever is connected
            raise RemoteError("SW2001", f"{peer_id} is not connected")
        return await session.call(method, arg, timeout)

    async def call_all(
        self, method: str, arg: Any = None, timeout: float = 10.0
    ) -> dict[str, Any | RemoteError]:
        """Ask all peers at once; peer id -> answer or error."""
        answers: dict[str, Any | RemoteError] = {}

        async def one(peer_id: str) -> None:
            try:
                answers[peer_id] = await self.call(peer_id, method, arg, timeout)
            except RemoteError as error:
                answers[peer_id] = error

        async with trio.open_nursery() as nursery:
            for peer_id in tuple(self._sessions):
                nursery.start_soon(one, peer_id)
        return answers

    def cast(self, method: str, arg: Any, *, to: str | None = None) -> None:
        """One frame to one or all peers, encoded once; dropped where there is no room."""
        data = cast_frame(method, arg)
        if to is None:
            targets = list(self._sessions.values())
        else:
            targets = [self._sessions[to]] if to in self._sessions else []
            self.counters["casts_dropped"] += not targets
        for session in targets:
            if not session.send(data):
                self.counters["casts_dropped"] += 1

    def handle(self, method: str, handler: Handler) -> None:
        """Answer calls of `method`."""
        self._handlers[method] = handler

    def on_cast(self, method: str, handler: CastHandler) -> None:
        """Receive casts of `method`."""
        self._casts[method] = handler

    def on_peer(self, callback: PeerCallback) -> None:
        """Learn of peers that come and go."""
        self._callbacks.append(callback)

    def set_beat(self, make: Callable[[], Any]) -> None:
        """Put `make()` on each sign of life."""
        self._make_beat = make

    def on_beat(self, handler: BeatHandler) -> None:
        """Receive those of the peers."""
        self._beat_handlers.append(handler)

    def unreachable(self) -> Mapping[str, str]:
        """Why the last attempt to reach a peer failed, per peer id, for the status."""
        return self._keeper.failures()

    # Wires and sessions.

    async def _connect(self, peer_id: str, address: str) -> None:
        """For the keeper: a session by way of this address. Raises `RemoteError`."""
        self.counters["dials"] += 1
        wire: StreamWire | None = None
        with trio.CancelScope() as scope:
            self._dialling[peer_id] = scope  # cancelled when the peer's own dial is faster
            try:
                wire = await self._host.dial(peer_id, address)
            finally:
                del self._dialling[peer_id]
        if wire is None:
            return
        if self._nursery is None:
            await wire.close()
            return
        session = Session(wire, self)
        self._nursery.start_soon(self._converse, session, wire)
        await session.settled.wait()
        if session.info is None:
            raise RemoteError(session.code or "SW2015", f"{address}: {session.why}")

    async def _accepted(self, wire: StreamWire) -> None:
        await self._converse(Session(wire, self), wire)

    async def _converse(self, session: Session, wire: StreamWire) -> None:
        self._running.add(session)
        try:
            await session.run()
        finally:
            self._running.discard(session)

    def _refused(self, side: str, who: str, why: str) -> None:
        """A handshake failed. Dialled peers are reported by the keeper, once per reason."""
        self.counters[f"refused_{side}"] += 1
        if side == "inbound":
            self._refusals_logged += 1
            if self._refusals_logged <= _MAX_REFUSALS_LOGGED:
                log.warning("connection from %s refused: %s", who, why)

    def _log_refusal(self, peer_id: str, why: str) -> None:
        """Each reason once per peer: it comes again and again."""
        if peer_id in self._sessions:
            return  # one of two connections that crossed
        if self._refusals.get(peer_id) != why:
            log.warning("no session with %s: %s", peer_id, why)
        self._refusals[peer_id] = why
        while len(self._refusals) > 256:
            self._refusals.popitem(last=False)

    def _remember(self, uid: str, at: float) -> None:
        self._seen[uid] = at
        self._seen.move_to_end(uid)
        while len(self._seen) > 1024:
            self._seen.popitem(last=False)

    def _announce_peer(self, info: PeerInfo, up: bool, why: str) -> None:
        if up:
            log.info("%s (%s) is connected", info.common_name, info.peer_id)
        else:
            log.info("%s (%s) is gone: %s", info.common_name, info.peer_id, why)
        for callback in self._callbacks:
            try:
                callback(info, up, why)
            except Exception:
                log.exception("a callback for peers failed")

    # What sessions ask (session.Owner).

    def hello(self) -> dict[str, Any]:
        """Content of our HELLO."""
        return {
            "v": PROTOCOL_VERSION,
            "chain": self._chain,
            "version": self._version,
            "boot": self._boot,
            "addresses": list(self.addresses),
            "peers": self._book.known(MAX_TOLD_BYTES),
        }

    def greeted(self, session: Session, hello: Any) -> None:
        """Accept a peer, or raise `RemoteError`; settle which session counts."""
        addresses, boot, peers = self._check_hello(hello)
        wire = session.wire
        assert isinstance(wire, StreamWire), "all our wires come from the host"
        peer = wire.peer
        info = PeerInfo(
            wire.peer_id, node_uid(peer.fingerprint), peer.fingerprint, peer.organisation,
            peer.common_name, addresses,
        )  # fmt: skip
        session.boot, session.info = boot, info
        self._refusals.pop(info.peer_id, None)
        old = self._sessions.get(info.peer_id)
        if old is None:
            self._begin(session)
        elif not self._newer_wins(old, session):
            session.retire()
        elif old.boot != boot:
            old.stop("SW2015", "the peer was started again")
            self.ended(old)
            self._begin(session)
        else:
            self._sessions[info.peer_id] = session
            old.retire()
        self._book.mark_seen(info.peer_id)
        self._learn_all(peers)

    def _check_hello(self, hello: Any) -> tuple[tuple[str, ...], bytes, Any]:
        if not isinstance(hello, dict):
            raise RemoteError("SW2010", "HELLO is not a map")
        if hello.get("v") != PROTOCOL_VERSION:
            theirs = faults.printable(str(hello.get("v")))[:20]
            text = f"it speaks protocol {theirs}, and this node {PROTOCOL_VERSION}"
            raise RemoteError("SW2012", text)
        boot, addresses = hello.get("boot"), hello.get("addresses")
        if not isinstance(boot, bytes) or len(boot) != 8 or not isinstance(addresses, list):
            raise RemoteError("SW2010", "HELLO lacks a field")
        chain = hello.get("chain")
        if chain != self._chain:
            theirs = chain.hex()[:16] if isinstance(chain, bytes) else "none"
            raise RemoteError("SW2011", f"ledger {theirs}, and {self._chain.hex()[:16]} here")
        return clean(addresses), boot, hello.get("peers")

    def _newer_wins(self, old: Session, new: Session) -> bool:
        if old.boot != new.boot or old.wire.dialled == new.wire.dialled:
            return True
        we_are_smaller = self.peer_id < new.wire.peer_id
        return new.wire.dialled == we_are_smaller

    def _begin(self, session: Session) -> None:
        info = session.info
        assert info is not None, "set by greeted"
        others = frames.frame(frames.PEERS, 0, codec.encode({info.peer_id: list(info.addresses)}))
        for other in self._sessions.values():
            other.send(others)
        self._sessions[info.peer_id] = session
        self.counters["sessions"] += 1
        if info.peer_id in self._dialling:
            self._dialling[info.peer_id].cancel()
        self._learn(info.peer_id, info.addresses, hearsay=False)
        self._keeper.report(info.peer_id, True)
        self._announce_peer(info, True, "")

    def ended(self, session: Session) -> None:
        """Take note that a session is over, unless another one has taken its place."""
        info = session.info
        if info is None:
            self._log_refusal(session.wire.peer_id, session.why or "closed")
        elif self._sessions.get(info.peer_id) is session:
            del self._sessions[info.peer_id]
            self._remember(info.uid, session.heard)
            self._keeper.report(info.peer_id, False)
            self._announce_peer(info, False, session.why or "closed")

    async def serve(self, peer: PeerInfo, method: str, arg: Any) -> Any:
        """Run the handler of a call."""
        handler = self._handlers.get(method)
        if handler is None:
            raise RemoteError("SW2006", f"no method {faults.printable(method)!r}")
        return await handler(peer, arg)

    def deliver(self, peer: PeerInfo, method: str, arg: Any) -> None:
        """Run the handler of a cast."""
        handler = self._casts.get(method)
        if handler is None:
            self.counters["casts_unknown"] += 1
        else:
            handler(peer, arg)

    def beat(self) -> bytes:
        """Body of the next BEAT; without content when that cannot be made."""
        if self._make_beat is None:
            return b""
        try:
            return codec.encode(self._make_beat(), MAX_BEAT)
        except Exception:
            log.exception("the sign of life goes without content")
            return b""

    def slowed(self, session: Session) -> None:
        """The peer sends more than its share."""
        self.counters["slowed"] += 1
        info = session.info
        now = trio.current_time()
        if info is not None and now - self._slowed.get(info.uid, -AUDIT_EVERY) >= AUDIT_EVERY:
            self._slowed[info.uid] = now
            log.warning("%s sends more than its share and is read slowly", info.common_name)
            while len(self._slowed) > 256:
                del self._slowed[next(iter(self._slowed))]

    def felt(self, peer: PeerInfo, value: Any) -> None:
        """Hand on what a BEAT carried."""
        for handler in self._beat_handlers:
            try:
                handler(peer, value)
            except Exception:
                log.exception("a handler of signs of life failed")

    def told(self, peer: PeerInfo, others: Any) -> None:
        """A peer tells of others: addresses to try, nothing more."""
        self._learn_all(others)

    def _learn_all(self, peers: Any) -> None:
        if isinstance(peers, dict):
            for peer_id, addresses in list(peers.items())[:MAX_TOLD]:
                if isinstance(addresses, list):
                    self._learn(peer_id, addresses, hearsay=True)

    def _learn(
        self, peer_id: str, addresses: Sequence[Any], *, hearsay: bool, wanted: bool = False
    ) -> None:
        if peer_id != self.peer_id and self._book.learn(
            peer_id, addresses, hearsay=hearsay, wanted=wanted
        ):
            self._keeper.watch(peer_id)

    # Now and then.

    async def _audit_often(self) -> None:
        while True:
            await trio.sleep(AUDIT_EVERY)
            self._audit()

    async def _sum_up_often(self) -> None:
        while True:
            await trio.sleep(SUM_UP_EVERY)
            hidden = self._refusals_logged - _MAX_REFUSALS_LOGGED
            if hidden > 0:
                log.warning("%d more connections were refused", hidden)
            self._refusals_logged = 0

    def _audit(self) -> None:
        """Close sessions whose certificate is no longer good: expired, revoked, its key barred, its
        CA removed."""
        for session in tuple(self._running):
            assert isinstance(session.wire, StreamWire), "all our wires come from the host"
            try:
                check_peer(session.wire.chain, self._identity.trust, {Role.SN})
            except RemoteError as error:
                session.stop("SW2013", error.cause)
                if error.code == BARRED:
                    self._keeper.ban(session.wire.peer_id)  # for ever

    async def _save_often(self) -> None:
        while True:
            await trio.sleep(SAVE_EVERY)
            self._save()

    def _save(self) -> None:
        try:
            self._book.save()
        except LocalError as error:
            log.warning("%s", error)


assert MAX_BEAT < MAX_MESSAGE
