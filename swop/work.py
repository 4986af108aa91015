"""One long piece of work for a task: its voice, its time limit, and the word to give it up.

Whoever does the work blocks: on an engine, a server, a child process. So giving it up means to act
from another thread: each blocking place says, by `on_give_up`, what makes it return (a connection
that is closed, a process that is killed), and then asks `check`, which raises the reason.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from swarm.errors import LocalError

log = logging.getLogger("swop")

DAY = 24 * 3600
Act = Callable[[], None]


def _nowhere(_text: str) -> None:
    """Where nobody listens."""


class Work:
    """`progress` is told to the members as the task's status; `say` is for the log alone."""

    def __init__(
        self,
        progress: Callable[[str], None] = _nowhere,
        say: Callable[[str], None] = _nowhere,
        seconds: float | None = None,
    ) -> None:
        self.progress = progress
        self.say = say
        self._seconds = seconds
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._acts: list[Act] = []
        self._given_up = threading.Event()
        self._reason = ""

    def __enter__(self) -> Work:
        if self._seconds is not None:
            reason = f"not done within {self._seconds:.0f} s (SWOP_TASK_MAX_SECONDS)"
            self._timer = threading.Timer(self._seconds, self.give_up, (reason,))
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def ends_at(self) -> int:
        """When it is over for sure, in seconds since 1970: for locks that others see."""
        return int(time.time() + (DAY if self._seconds is None else self._seconds) + 60)

    def give_up(self, reason: str) -> None:
        """End it; the first reason counts. Never blocks: what there is to do gets a thread."""
        with self._lock:
            if self._given_up.is_set():
                return
            self._reason = reason
            self._given_up.set()
            acts, self._acts = self._acts, []
        if acts:
            threading.Thread(target=_do_all, args=(acts,), name="give-up", daemon=True).start()

    def check(self) -> None:
        """Raises LocalError SW7020 once the work was given up."""
        if self._given_up.is_set():
            raise LocalError("SW7020", self._reason)

    def pause(self, seconds: float) -> None:
        """Wait, unless the work is given up. LocalError SW7020."""
        self._given_up.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def on_give_up(self, act: Act) -> Iterator[None]:
        """Within, giving up does `act`. What fails because of it is not the reason: SW7020 is."""
        with self._lock:
            self.check()
            self._acts.append(act)
        try:
            yield
        except BaseException:
            self.check()
            raise
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._acts.remove(act)
        self.check()


def _do_all(acts: list[Act]) -> None:
    for act in acts:
        try:
            act()
        except Exception as error:  # whatever a library says of what it has to let go
            log.debug("while giving up: %r", error)
