"""An in-memory mesh under trio's clock: the same promises as the real one, and switches for harm.

    async with fake.network(seed=7) as net:
        a, b = net.join("sn-1"), net.join("sn-2")     # FakeMesh, a MeshPort each
        await net.connected()
        net.partition({"sn-1"}, {"sn-2"})             # silent, as a pulled cable
        net.heal()
        net.crash("sn-2"); b = net.join("sn-2")       # a new object, the same peer id

With `trio.testing.MockClock(autojump_threshold=0)` hours pass in no time. Randomness (delay, loss,
back-off) comes from the seed alone; trio's scheduler may still order tasks that are due at the same
instant either way.

Delays are per message and keep the order of a link, as TCP does. `loss` drops casts only: in a
session over TCP only a full queue loses messages, and only casts are dropped for that. A cut link
holds what is under way; it arrives after healing, unless the silence was longer than SILENCE, which
ends the session on both sides.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import combinations, count
from typing import Any

import trio

from swarm.errors import RemoteError
from swarm.mesh import codec, faults
from swarm.mesh.port import (
    BEAT,
    MAX_METHOD,
    SILENCE,
    BeatHandler,
    CastHandler,
    Handler,
    PeerCallback,
    PeerInfo,
)

CALLS = 32  # requests of one peer that are served at a time


@asynccontextmanager
async def network(
    seed: int = 0,
    delay: tuple[float, float] = (0.001, 0.005),
    loss: float = 0.0,
    reconnect: tuple[float, float] = (0.2, 1.5),
) -> AsyncIterator[FakeNet]:
    """A network in which everybody connects to everybody. Times in seconds."""
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery, random.Random(seed), delay, loss, reconnect)
        try:
            yield net
        finally:
            nursery.cancel_scope.cancel()


def info(name: str) -> PeerInfo:
    """What everybody knows of the node `name`; the same in every run."""
    fingerprint = hashlib.sha256(f"certificate of {name}".encode()).hexdigest()
    return PeerInfo(
        peer_id=f"peer-{name}",
        uid=hashlib.sha256(f"{fingerprint}|".encode()).hexdigest()[:32],
        fingerprint=fingerprint,
        organisation=hashlib.sha256(b"the only CA").hexdigest(),
        common_name=name,
        addresses=(f"/memory/{name}",),
    )


class FakeNet:
    """The wires, and who is at them."""

    def __init__(
        self,
        nursery: trio.Nursery,
        rng: random.Random,
        delay: tuple[float, float],
        loss: float,
        reconnect: tuple[float, float],
    ) -> None:
        self.nursery = nursery
        self.rng = rng
        self.delay = delay
        self.loss = loss
        self.reconnect = reconnect
        self.nodes: dict[str, FakeMesh] = {}
        self._cut: set[frozenset[str]] = set()
        self._changed = trio.Event()  # a link was cut or healed, a session began or ended

    def join(self, name: str, identity: PeerInfo | None = None) -> FakeMesh:
        """A node enters, or returns under the name of one that was crashed.

        `identity` replaces the made-up one, where other parts need the uid of a certificate.
        """
        assert name not in self.nodes, f"{name} is up already"
        node = FakeMesh(self, name, identity or info(name))
        self.nodes[name] = node
        self.nursery.start_soon(node._run)
        self._connect_later(name)
        return node

    def crash(self, name: str) -> None:
        """The process is gone: its peers notice at once, unless they cannot be reached."""
        self.nodes.pop(name)._stop()

    def cut(self, a: str, b: str) -> None:
        """Nothing gets through between these two, and neither is told."""
        self._cut.add(frozenset((a, b)))
        self._notify()

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut every link between different groups; links inside a group stay as they are."""
        for left, right in combinations([set(group) for group in groups], 2):
            for a in left:
                for b in right:
                    self._cut.add(frozenset((a, b)))
        self._notify()

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Mend one link (`a`, `b`), or all."""
        if a is not None and b is not None:
            self._cut.discard(frozenset((a, b)))
        else:
            self._cut.clear()
        self._notify()
        for name in list(self.nodes):
            self._connect_later(name)

    def is_cut(self, a: str, b: str) -> bool:
        return frozenset((a, b)) in self._cut

    async def connected(self) -> None:
        """Wait until every pair that is not cut has a session."""
        while not all(
            b in self.nodes[a]._sessions or self.is_cut(a, b)
            for a in self.nodes
            for b in self.nodes
            if a != b
        ):
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _connect_later(self, name: str) -> None:
        for other in list(self.nodes):
            if other != name:
                self.nursery.start_soon(self._dial, name, other)

    async def _dial(self, a: str, b: str) -> None:
        await trio.sleep(self.rng.uniform(*self.reconnect))
        one, two = self.nodes.get(a), self.nodes.get(b)
        if one is None or two is None or self.is_cut(a, b):
            return
        if b in one._sessions or a in two._sessions:
            # One side has not noticed yet that the old session is dead, or all is well.
            if not (b in one._sessions and a in two._sessions):
                self.nursery.start_soon(self._dial, a, b)
            return
        left, right = _Session(one, two), _Session(two, one)
        left.twin, right.twin = right, left
        one._up(left)
        two._up(right)
        self._notify()


class _Session:
    """One node's end of a connection to another."""

    twin: _Session

    def __init__(self, owner: FakeMesh, peer: FakeMesh) -> None:
        self.owner = owner
        self.peer = peer
        self.heard = trio.current_time()
        self.closed = False
        self.ids = count(1)
        self.waiting: dict[int, tuple[trio.Event, list[Any]]] = {}
        self.serving = 0
        self.outgoing: deque[tuple[float, str, int, str, bytes]] = deque()
        self.wake = trio.Event()

    def send(self, kind: str, number: int, method: str, data: bytes) -> None:
        net = self.owner._net
        at = trio.current_time() + net.rng.uniform(*net.delay)
        if self.outgoing:
            at = max(at, self.outgoing[-1][0])
        self.outgoing.append((at, kind, number, method, data))
        self.wake.set()

    async def carry(self) -> None:
        """Move frames to the twin, in order, each at its time, none across a cut."""
        net = self.owner._net
        while not self.closed:
            if not self.outgoing:
                self.wake = trio.Event()
                await self.wake.wait()
                continue
            await trio.sleep_until(self.outgoing[0][0])
            while net.is_cut(self.owner.name, self.peer.name) and not self.closed:
                await net._changed.wait()
            if self.closed:
                break
            _, kind, number, method, data = self.outgoing.popleft()
            if kind == "close":
                self.twin.owner._down(self.twin, "the peer closed the session")
            elif not self.twin.closed:
                self.twin.owner._receive(self.twin, kind, number, method, data)


class FakeMesh:
    """A `MeshPort` in memory; made by `FakeNet.join`."""

    def __init__(self, net: FakeNet, name: str, identity: PeerInfo) -> None:
        self.name = name
        self.info = identity
        self.dropped = 0  # casts that found no session or were lost
        self._net = net
        self._sessions: dict[str, _Session] = {}
        self._seen: dict[str, float] = {}
        self._handlers: dict[str, Handler] = {}
        self._casts: dict[str, CastHandler] = {}
        self._callbacks: list[PeerCallback] = []
        self._beat_handlers: list[BeatHandler] = []
        self._make_beat: Callable[[], Any] | None = None
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._ready = trio.Event()

    # The port.

    @property
    def peer_id(self) -> str:
        return self.info.peer_id

    def peers(self) -> list[PeerInfo]:
        return [session.peer.info for session in self._sessions.values()]

    def last_seen(self, uid: str) -> float | None:
        at = self._seen.get(uid)
        return None if at is None else trio.current_time() - at

    async def call(self, peer_id: str, method: str, arg: Any = None, timeout: float = 10.0) -> Any:
        data = codec.encode(arg)
        session = self._session(peer_id)
        if session is None:
            raise RemoteError("SW2001", f"{peer_id} is not connected")
        number, answer = next(session.ids), (trio.Event(), list[Any]())
        session.waiting[number] = answer
        session.send("call", number, method[:MAX_METHOD], data)
        try:
            with trio.move_on_after(timeout):
                await answer[0].wait()
        finally:
            session.waiting.pop(number, None)
        if not answer[1]:
            if session.closed:
                raise RemoteError("SW2003", f"{method}: the connection was lost")
            raise RemoteError("SW2002", f"{method}: no answer in {timeout:g} s")
        kind, body = answer[1]
        if kind == "error":
            raise faults.from_wire(codec.decode(body))
        return codec.decode(body)

    async def call_all(
        self, method: str, arg: Any = None, timeout: float = 10.0
    ) -> dict[str, Any | RemoteError]:
        answers: dict[str, Any | RemoteError] = {}

        async def one(peer_id: str) -> None:
            try:
                answers[peer_id] = await self.call(peer_id, method, arg, timeout)
            except RemoteError as error:
                answers[peer_id] = error

        async with trio.open_nursery() as nursery:
            for peer in self.peers():
                nursery.start_soon(one, peer.peer_id)
        return answers

    def cast(self, method: str, arg: Any, *, to: str | None = None) -> None:
        data = codec.encode(arg)
        for session in list(self._sessions.values()):
            if to not in (None, session.peer.peer_id):
                continue
            if self._net.loss and self._net.rng.random() < self._net.loss:
                self.dropped += 1
            else:
                session.send("cast", 0, method, data)
        if to is not None and self._session(to) is None:
            self.dropped += 1

    def handle(self, method: str, handler: Handler) -> None:
        self._handlers[method] = handler

    def on_cast(self, method: str, handler: CastHandler) -> None:
        self._casts[method] = handler

    def on_peer(self, callback: PeerCallback) -> None:
        self._callbacks.append(callback)

    def set_beat(self, make: Callable[[], Any]) -> None:
        self._make_beat = make

    def on_beat(self, handler: BeatHandler) -> None:
        self._beat_handlers.append(handler)

    # Inside.

    def _session(self, peer_id: str) -> _Session | None:
        return next((s for s in self._sessions.values() if s.peer.peer_id == peer_id), None)

    async def _run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for session in self._sessions.values():
                    nursery.start_soon(session.carry)
                while True:
                    await trio.sleep(BEAT)
                    self._beat()
        self._nursery = None

    def _stop(self) -> None:
        for session in list(self._sessions.values()):
            session.send("close", 0, "", b"")
            # The frame outlives this node: the network carries it.
            self._net.nursery.start_soon(self._last_words, session)
        self._sessions.clear()
        self._scope.cancel()

    async def _last_words(self, session: _Session) -> None:
        with trio.move_on_after(SILENCE):
            while session.outgoing:
                if self._net.is_cut(self.name, session.peer.name):
                    await self._net._changed.wait()
                    continue
                await trio.sleep_until(session.outgoing[0][0])
                if session.outgoing.popleft()[1] == "close":
                    session.twin.owner._down(session.twin, "the peer closed the session")
        session.closed = True

    def _beat(self) -> None:
        now = trio.current_time()
        payload = codec.encode(self._make_beat() if self._make_beat else None)
        for session in list(self._sessions.values()):
            if now - session.heard >= SILENCE:
                self._down(session, f"silent for {now - session.heard:.0f} s")
            else:
                session.send("beat", 0, "", payload)

    def _up(self, session: _Session) -> None:
        self._sessions[session.peer.name] = session
        self._seen[session.peer.info.uid] = trio.current_time()
        if self._nursery is not None:
            self._nursery.start_soon(session.carry)
        self._tell_callbacks(session.peer.info, True, "")

    def _down(self, session: _Session, why: str) -> None:
        if session.closed or self._sessions.get(session.peer.name) is not session:
            return
        session.closed = True
        session.wake.set()
        del self._sessions[session.peer.name]
        for event, _ in session.waiting.values():
            event.set()
        if not session.twin.closed and self._nursery is not None:
            self._nursery.start_soon(self._tell, session.twin)
        self._tell_callbacks(session.peer.info, False, why)
        self._net._notify()
        self._net._connect_later(self.name)

    def _tell_callbacks(self, peer: PeerInfo, up: bool, why: str) -> None:
        for callback in self._callbacks:
            try:
                callback(peer, up, why)
            except Exception as error:
                faults.log.error("a peer callback failed", exc_info=error)

    async def _tell(self, twin: _Session) -> None:
        await trio.sleep(self._net.rng.uniform(*self._net.delay))
        if not self._net.is_cut(self.name, twin.owner.name):
            twin.owner._down(twin, "the peer closed the session")

    def _receive(self, session: _Session, kind: str, number: int, method: str, data: bytes) -> None:
        if self._scope.cancel_called or session.closed or self._nursery is None:
            return
        session.heard = self._seen[session.peer.info.uid] = trio.current_time()
        if kind == "call":
            if session.serving >= CALLS:
                busy = codec.encode(["SW2007", f"{CALLS} requests under way"])
                session.send("error", number, "", busy)
            else:
                session.serving += 1
                self._nursery.start_soon(self._serve, session, number, method, data)
        elif kind in ("result", "error"):
            answer = session.waiting.pop(number, None)
            if answer is not None:
                answer[1].extend((kind, data))
                answer[0].set()
        elif kind == "cast":
            handler = self._casts.get(method)
            if handler is not None:
                self._guarded(handler, session.peer.info, codec.decode(data))
        elif kind == "beat":
            for handler in self._beat_handlers:
                self._guarded(handler, session.peer.info, codec.decode(data))

    @staticmethod
    def _guarded(handler: CastHandler, peer: PeerInfo, value: Any) -> None:
        try:
            handler(peer, value)
        except Exception as error:
            faults.log.error("a cast handler failed", exc_info=error)

    async def _serve(self, session: _Session, number: int, method: str, data: bytes) -> None:
        try:
            handler = self._handlers.get(method)
            if handler is None:
                raise RemoteError("SW2006", f"no method {method!r}")
            result = codec.encode(await handler(session.peer.info, codec.decode(data)))
            session.send("result", number, "", result)
        except Exception as error:
            session.send("error", number, "", codec.encode(faults.to_wire(method, error)))
        finally:
            session.serving -= 1
