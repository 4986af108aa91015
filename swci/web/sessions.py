"""The sessions of those who send commands.

Each certificate's key has a session: its own active context, directory and EXIT ON FAILURE, which
begin as the start-up script has left them. So two people do not change what the other one acts on,
and a program that comes back goes on where it was. Within a session one command runs after the
other. Those that only wait run beside them, on a copy: a wait of two hours keeps nobody from asking
for a status. Everything is bounded: sessions, commands that queue, waits, and time in the queue.

A wait ends when its client has gone, or when the program ends; other commands are carried through.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from swarm.errors import RemoteError
from swci.command import CommandError
from swci.output import Output
from swci.ports import SLICE, Clock
from swci.result import Result
from swci.session import Outcome, Session

log = logging.getLogger("swci")

MAX_SESSIONS = 64  # the one that was used least recently is forgotten for a new one
MAX_QUEUED = 8  # commands of one session that wait for their turn or run
MAX_WAITS = 8  # waits of one session
ENDED = "the session has ended meanwhile, by EXIT"
QUEUE = 60.0  # seconds that a command waits for its turn: longer than any other one should take


class Abandoned(KeyboardInterrupt):
    """Nobody waits for this any more. Like Ctrl-C at a prompt, it passes through the command."""


class Busy(RemoteError):
    """The client asks for more than its share: SW8043."""

    def __init__(self, cause: str) -> None:
        super().__init__("SW8043", cause)


@dataclass
class _Seat:
    """One client's session, and what it does now."""

    session: Session
    turn: threading.Lock = field(default_factory=threading.Lock)
    queued: int = 0
    waits: int = 0
    ended: bool = False

    @property
    def idle(self) -> bool:
        return not self.queued and not self.waits


class Sessions:
    """All sessions. Safe to share between threads."""

    def __init__(self, base: Session) -> None:
        self._base = base
        self._lock = threading.Lock()
        self._seats: OrderedDict[str, _Seat] = OrderedDict()

    def execute(self, key: str, line: str, out: Output, abandoned: Callable[[], bool]) -> bool:
        """Carry out a command for a client; did it succeed?

        `abandoned` is asked now and then while the command waits. Raises Busy, Abandoned.
        """
        if self._only_waits(line):
            with self._waiting(key) as seat:
                return self._after(key, _wait(seat, line, out, abandoned))
        with self.in_turn(key) as session:
            return self._after(key, session.execute(line, out))

    def close(self) -> None:
        """Close all connections; the base session is the caller's."""
        with self._lock:
            seats, self._seats = list(self._seats.values()), OrderedDict()
        for seat in seats:
            seat.ended = True
            seat.session.close()

    def _only_waits(self, line: str) -> bool:
        try:
            parsed = self._base.parse(line)
        except CommandError:
            return False
        return parsed is not None and parsed.command.waits

    @contextmanager
    def in_turn(self, key: str) -> Iterator[Session]:
        """The client's session, when nothing else runs in it. Raises Busy."""
        with self._lock:
            seat = self._seat(key)
            if seat.queued >= MAX_QUEUED:
                raise Busy(f"{MAX_QUEUED} commands of this certificate are under way already")
            seat.queued += 1
        try:
            if not seat.turn.acquire(timeout=QUEUE):
                raise Busy(f"an earlier command of this certificate takes more than {QUEUE:g} s")
            try:
                if seat.ended:
                    raise Busy(ENDED)
                yield seat.session
            finally:
                seat.turn.release()
        finally:
            with self._lock:
                seat.queued -= 1

    @contextmanager
    def _waiting(self, key: str) -> Iterator[_Seat]:
        with self._lock:
            seat = self._seat(key)
            if seat.waits >= MAX_WAITS:
                raise Busy(f"{MAX_WAITS} commands of this certificate wait already")
            seat.waits += 1
        try:
            yield seat
        finally:
            with self._lock:
                seat.waits -= 1

    def _seat(self, key: str) -> _Seat:
        """The client's; the lock is held."""
        seat = self._seats.get(key)
        if seat is None:
            for other in [k for k, s in self._seats.items() if s.idle]:
                if len(self._seats) < MAX_SESSIONS:
                    break
                self._seats.pop(other).session.close()
            if len(self._seats) >= MAX_SESSIONS:
                raise Busy(f"{MAX_SESSIONS} other certificates have commands under way")
            seat = self._seats[key] = _Seat(self._base.fork())
        self._seats.move_to_end(key)
        return seat

    def _after(self, key: str, outcome: Outcome) -> bool:
        """EXIT, or a failure under EXIT ON FAILURE: the next command begins a new session."""
        if outcome.leave:
            with self._lock:
                seat = self._seats.pop(key, None)
            if seat is not None:
                seat.ended = True
                seat.session.close()
        return outcome.ok


def _wait(seat: _Seat, line: str, out: Output, abandoned: Callable[[], bool]) -> Outcome:
    """Carry out what only waits, on a copy of the session, as long as that lasts."""

    def over() -> bool:
        return seat.ended or abandoned()

    session = seat.session.fork()
    session.clock = _Watchful(session.clock, over)
    try:
        return session.execute(line, _Listener(out, over))
    except Abandoned:
        if abandoned():
            raise
        raise Busy(ENDED) from None


class _Listener(Output):
    """Hands on what is said as long as there is somebody to get it."""

    def __init__(self, out: Output, abandoned: Callable[[], bool]) -> None:
        self._out = out
        self._abandoned = abandoned

    def line(self, text: str) -> None:
        self.mark()
        self._out.line(text)

    def mark(self) -> None:
        if self._abandoned():
            raise Abandoned

    def result(self, result: Result) -> None:
        self._out.result(result)

    def error(self, code: str, causes: Sequence[str], shown: Sequence[str] = ()) -> None:
        self._out.error(code, causes, shown)


class _Watchful(Clock):
    """A clock whose pauses end with the client."""

    def __init__(self, clock: Clock, abandoned: Callable[[], bool]) -> None:
        self._clock = clock
        self._abandoned = abandoned

    def now_s(self) -> float:
        return self._clock.now_s()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def pause(self, seconds: float) -> None:
        end = self.monotonic() + seconds
        while (rest := end - self.monotonic()) > 0:
            if self._abandoned():
                raise Abandoned
            self._clock.pause(min(rest, SLICE))
