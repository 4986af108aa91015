"""One peer: calls, casts and signs of life over one long-lived stream.

Rules that the code relies on:

- Only the writer task touches the stream's sending side, so a caller that is cancelled or times out
  cannot cut a frame in two. Everything else puts frames into the outbox.
- What waits for a slow peer is bounded: casts and beats never wait (a cast is dropped, a beat
  replaces the one before), calls and their answers wait for room, at most `CALLS` each way.
- A session ends once, for one reason, `why`; all tasks of it end then, all calls fail, and the
  stream is closed. Nothing that a peer sends, and nothing that a handler raises, goes further.
- Received bytes of any kind count as a sign of life; a peer that takes no bytes is as dead as one
  that sends none.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Protocol

import trio

from swarm.bucket import Bucket
from swarm.errors import RemoteError
from swarm.mesh import codec, faults, frames, port
from swarm.mesh.port import MAX_METHOD, PeerInfo

log = logging.getLogger("swarm.mesh")

CALLS = 32  # under way at a time, in each direction
HELLO_TIMEOUT = 10.0  # seconds
RETIRE_MIN, RETIRE_MAX = 1.0, 5.0  # seconds that a superseded session stays for what is under way
LAST_WRITE = 1.0  # seconds for what is being written when the session ends, and for the farewell
# What a peer may send, far above what the ledger needs under full load. Beyond, it is read slowly,
# and casts that find no room at its own end are dropped there.
FRAMES, FRAMES_BURST = 1000.0, 4000.0  # a second, and at once
BYTES, BYTES_BURST = 64e6, 128e6
PAUSE = 1.0  # seconds; shorter than a sign of life is awaited
_YIELD_EVERY = 64  # frames handled before other tasks get their turn


class Wire(Protocol):
    """An authenticated stream of bytes to and from one peer."""

    peer_id: str
    dialled: bool  # by this side

    async def read(self) -> bytes:
        """Some bytes, at least one. Raises an exception of any type at the end."""

    async def write(self, data: bytes) -> None:
        """Raises an exception of any type when the peer is gone."""

    async def close(self) -> None:
        """End it, and the connection beneath. Raises nothing; may be repeated."""


class Owner(Protocol):
    """What a session asks of the mesh it belongs to. Whatever it raises stays in the session."""

    def hello(self) -> dict[str, Any]:
        """Content of the HELLO to send."""

    def greeted(self, session: Session, hello: Any) -> None:
        """Judge the peer's HELLO and set `session.info`. Raises `RemoteError` to refuse it."""

    def ended(self, session: Session) -> None:
        """It is over; must not raise."""

    async def serve(self, peer: PeerInfo, method: str, arg: Any) -> Any:
        """Answer a call."""

    def deliver(self, peer: PeerInfo, method: str, arg: Any) -> None:
        """Take a cast."""

    def beat(self) -> bytes:
        """Body of the next BEAT."""

    def slowed(self, session: Session) -> None:
        """The peer sends more than its share and is read slowly; must not raise."""

    def felt(self, peer: PeerInfo, value: Any) -> None:
        """Take what a BEAT carried."""

    def told(self, peer: PeerInfo, others: Any) -> None:
        """Take a PEERS frame."""


class Session:
    """A conversation with one peer. `run` does everything; the rest is used while it runs."""

    def __init__(self, wire: Wire, owner: Owner) -> None:
        self.wire = wire
        self.info: PeerInfo | None = None  # known once the peer was greeted
        self.boot = b""  # which run of the peer this is
        self.why: str | None = None  # of the end
        self.code = ""
        self.started = self.heard = trio.current_time()
        self.greeted = trio.Event()
        self.settled = trio.Event()  # greeted, or ended before that
        self.closed = trio.Event()  # and nothing is left of it
        self._owner = owner
        self._outbox = frames.Outbox()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._writing: trio.CancelScope | None = None
        self._dismissed = False  # the peer has said goodbye
        self._ids = count(1)
        self._slots = trio.Semaphore(CALLS)
        now = trio.current_time()
        self._frames = Bucket(FRAMES, FRAMES_BURST, now)
        self._bytes = Bucket(BYTES, BYTES_BURST, now)
        self._answers: dict[int, _Answer] = {}
        self._callers: set[trio.CancelScope] = set()
        self._serving = 0

    @property
    def backlog(self) -> tuple[int, int]:
        """Frames and bytes that wait to be written."""
        return len(self._outbox), self._outbox.size

    async def run(self) -> None:
        """Converse until the peer goes, misbehaves or falls silent, or `stop` is called."""
        self._outbox.offer(frames.frame(frames.HELLO, 0, codec.encode(self._owner.hello())))
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for task in (self._read, self._write, self._send_beats, self._watch):
                        nursery.start_soon(self._run_task, task)
        finally:
            self._nursery = None
            self.stop("SW2015", "this node is closing")
            self.settled.set()
            self._owner.ended(self)
            await self._farewell()
            self.closed.set()

    def stop(self, code: str, why: str) -> None:
        """End the session; the first reason counts. The peer is told it, if it still listens."""
        if self.why is None:
            self.code, self.why = code, why
        self._scope.cancel()
        if self._writing is not None:
            last = trio.current_time() + LAST_WRITE
            self._writing.deadline = min(self._writing.deadline, last)
        for caller in self._callers:
            caller.cancel()

    def retire(self) -> None:
        """Let what is under way come to its end, then close: another session took over."""
        if self._nursery is not None and self.why is None:
            self._nursery.start_soon(self._retire)

    async def call(self, method: str, arg: Any, timeout: float) -> Any:
        """As `MeshPort.call`."""
        body = _request(method, arg)
        number, answer = next(self._ids), _Answer()
        if self.why is not None:
            raise RemoteError("SW2003", f"{method}: {self.why}")
        with trio.move_on_after(timeout) as scope:
            self._callers.add(scope)
            try:
                async with self._slots:
                    self._answers[number] = answer
                    await self._outbox.put(frames.frame(frames.CALL, number, body))
                    await answer.arrived.wait()
            finally:
                self._callers.discard(scope)
                self._answers.pop(number, None)
        if answer.kind == frames.RESULT:
            return codec.decode(answer.body)
        if answer.kind == frames.ERROR:
            raise faults.from_wire(codec.decode(answer.body))
        if self.why is not None:
            raise RemoteError("SW2003", f"{method}: {self.why}")
        raise RemoteError("SW2002", f"{method}: no answer in {timeout:g} s")

    def send(self, data: bytes) -> bool:
        """Queue a finished frame without waiting; False when there is no room."""
        return self.why is None and self._outbox.offer(data)

    # Tasks.

    async def _run_task(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except RemoteError as error:
            self.stop(error.code, error.cause)
        except Exception as error:
            log.debug("session with %s ended: %r", self.wire.peer_id, error)
            self.stop("SW2015", "the connection was closed")

    async def _write(self) -> None:
        while True:
            data = await self._outbox.take()
            # Shielded, so that the end of the session cuts no frame; `stop` shortens the time.
            self._writing = trio.CancelScope(
                shield=True, deadline=trio.current_time() + port.SILENCE
            )
            with self._writing:
                await self.wire.write(data)
            if self._writing.cancelled_caught:
                raise RemoteError("SW2004", f"it read nothing for {port.SILENCE:g} s")
            self._writing = None

    async def _read(self) -> None:
        reader = frames.FrameReader()
        while True:
            data = await self.wire.read()
            self.heard = trio.current_time()
            handled = 0
            for handled, received in enumerate(reader.feed(data), 1):
                self._dispatch(*received)
                if handled % _YIELD_EVERY == 0:
                    await trio.lowlevel.checkpoint()
            await self._pace(handled, len(data))

    async def _pace(self, count: int, size: int) -> None:
        """Read no faster than is fair to the other peers; what is not read waits at the sender."""
        now = trio.current_time()
        debt = max(self._frames.spend(count, now), self._bytes.spend(size, now))
        if debt:
            self._owner.slowed(self)
        while debt > 0:
            await trio.sleep(min(debt, PAUSE))
            debt -= PAUSE
            self.heard = trio.current_time()  # it would be heard if it were listened to

    async def _send_beats(self) -> None:
        await self.greeted.wait()
        while True:
            self._outbox.beat(frames.frame(frames.BEAT, 0, self._owner.beat()))
            await trio.sleep(port.BEAT)

    async def _watch(self) -> None:
        """End the session when the peer says no HELLO, or later nothing at all, for too long."""
        with trio.move_on_after(HELLO_TIMEOUT):
            await self.greeted.wait()
        if not self.greeted.is_set():
            raise RemoteError("SW2015", f"it said no hello in {HELLO_TIMEOUT:g} s")
        while True:
            due = self.heard + port.SILENCE
            await trio.sleep_until(due)
            late = trio.current_time() - due
            if self.heard + port.SILENCE > due:
                continue
            if late > port.BEAT:
                # It was this process that stood still. What the peer sent meanwhile lies in the
                # socket; read that first.
                self.heard = trio.current_time() - port.SILENCE + port.BEAT
                continue
            raise RemoteError("SW2015", f"silent for {port.SILENCE:g} s")

    async def _retire(self) -> None:
        until = trio.current_time() + RETIRE_MAX
        await trio.sleep(RETIRE_MIN)
        while (self._answers or self._serving) and trio.current_time() < until:
            await trio.sleep(0.1)
        self.stop("SW2015", "superseded by another connection")

    async def _farewell(self) -> None:
        with trio.CancelScope(shield=True):
            # A frame that was cut lets nothing make sense behind it.
            if self._writing is None and not self._dismissed:
                with trio.move_on_after(LAST_WRITE):
                    try:
                        body = codec.encode([self.code, (self.why or "")[: faults.MAX_TEXT]])
                        await self.wire.write(frames.frame(frames.BYE, 0, body))
                    except Exception as error:
                        log.debug("no farewell to %s: %r", self.wire.peer_id, error)
            await self.wire.close()

    # Frames that arrive.

    def _dispatch(self, kind: int, number: int, body: bytes) -> None:
        if kind == frames.BYE:
            error = faults.from_wire(codec.decode(body))
            self._dismissed = True
            raise RemoteError("SW2015", f"the peer closed the session: {error.cause}")
        if self.info is None:
            if kind != frames.HELLO:
                raise RemoteError("SW2010", "a frame before HELLO")
            self._owner.greeted(self, codec.decode(body))
            assert self.info is not None, "greeted sets it or raises"
            self.greeted.set()
            self.settled.set()
        elif kind == frames.CAST:
            method, arg = _method(body)
            self._guarded(self._owner.deliver, self.info, method, arg)
        elif kind == frames.CALL:
            self._accept_call(number, body)
        elif kind in (frames.RESULT, frames.ERROR):
            answer = self._answers.pop(number, None)
            if answer is not None:  # else the caller has given up
                answer.kind, answer.body = kind, body
                answer.arrived.set()
        elif kind == frames.BEAT:
            if body:
                self._guarded(self._owner.felt, self.info, codec.decode(body))
        elif kind == frames.PEERS:
            self._guarded(self._owner.told, self.info, codec.decode(body))
        else:
            raise RemoteError("SW2010", f"a frame of kind {kind}")

    def _guarded(self, handler: Callable[..., None], *args: Any) -> None:
        try:
            handler(*args)
        except Exception as error:
            log.error("a handler failed on what %s sent", self.wire.peer_id, exc_info=error)

    def _accept_call(self, number: int, body: bytes) -> None:
        method, arg = _method(body)
        if self._serving >= CALLS:
            busy = codec.encode(["SW2007", f"{CALLS} requests under way"])
            self._outbox.offer(frames.frame(frames.ERROR, number, busy))
            return
        assert self._nursery is not None, "frames are read inside the nursery"
        self._serving += 1
        self._nursery.start_soon(self._serve, number, method, arg)

    async def _serve(self, number: int, method: str, arg: Any) -> None:
        assert self.info is not None, "calls come after HELLO"
        try:
            result = codec.encode(await self._owner.serve(self.info, method, arg))
            answer = frames.frame(frames.RESULT, number, result)
        except Exception as error:
            answer = frames.frame(frames.ERROR, number, codec.encode(faults.to_wire(method, error)))
        try:
            await self._outbox.put(answer)
        finally:
            self._serving -= 1


class _Answer:
    """Where the reader leaves what a caller waits for."""

    __slots__ = ("arrived", "body", "kind")

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.kind = 0
        self.body = b""


def cast_frame(method: str, arg: Any) -> bytes:
    """The frame of a cast, the same for all peers. Raises `LocalError` SW2014."""
    return frames.frame(frames.CAST, 0, _request(method, arg))


def _request(method: str, arg: Any) -> bytes:
    """[method, argument], the argument within its limit. Raises `LocalError` SW2014."""
    return b"\x82" + codec.encode(method, MAX_METHOD) + codec.encode(arg)


def _method(body: bytes) -> tuple[str, Any]:
    value = codec.decode(body)
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        raise RemoteError("SW2010", "not [method, argument]")
    return value[0], value[1]
