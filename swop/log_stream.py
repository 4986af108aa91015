"""The output of SLs and MLs in the operator's own log, line by line, where that was asked for.

Each line bears its program's name. What a program can do to the log is bounded: the length of a
line, and lines a second; what is beyond is counted and told. Secrets are masked (`mask.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from swarm.bucket import Bucket
from swarm.errors import LocalError
from swop.mask import Mask
from swop.plan import Program
from swop.runtime import Output, RunState, Runtime
from swop.status_text import one_line

log = logging.getLogger("swop")

LONGEST = 2000  # characters of a line
PER_SECOND, AT_ONCE = 50.0, 500.0  # lines of one program
PAUSE_SECONDS = 2.0  # before an output is followed again, after the engine went away
JOIN_SECONDS = 2.0


class Lines:
    """Bytes in, lines out; a line that was overwritten (progress bars) counts by its last form."""

    def __init__(self) -> None:
        self._rest = b""
        self._cut = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that this chunk ends."""
        *ended, rest = (self._rest + chunk).split(b"\n")
        for line in ended:
            yield self._text(line)
        self._rest = rest.rpartition(b"\r")[2] if not rest.endswith(b"\r") else rest[-4 * LONGEST :]
        if len(self._rest) > 4 * LONGEST:  # a character has up to four bytes
            self._rest, self._cut = self._rest[: 4 * LONGEST], True

    def end(self) -> Iterator[str]:
        """The last line, where its end is missing."""
        if self._rest:
            yield self._text(self._rest)
            self._rest = b""

    def _text(self, line: bytes) -> str:
        text = one_line(line.decode("utf-8", "replace"))
        cut, self._cut = self._cut or len(text) > LONGEST, False
        return text[: LONGEST - 1] + "…" if cut else text


class Limited:
    """Says lines as far as the rate allows, and how many it left out."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._bucket = Bucket(PER_SECOND, AT_ONCE, clock())
        self._left_out = 0

    def line(self, text: str) -> None:
        if not self._bucket.take(1, self._clock()):
            self._left_out += 1
            return
        self.account()
        self._say(text)

    def account(self) -> None:
        """Tell what was left out so far."""
        if self._left_out:
            self._say(f"… {self._left_out} lines left out")
            self._left_out = 0


class LogStreams:
    """Follows programs, each in a thread that ends with its program."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float] = time.monotonic) -> None:
        self._runtime = runtime
        self._clock = clock
        self._outputs: dict[str, Output] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._closed = threading.Event()

    def begin(self, program: Program, *, lines: int | None = None) -> None:
        """Follow a program that has been started, unless it is followed already.

        `lines`: how many of the last that it has said are told; None for all.
        """
        thread = self._threads.get(program.name)
        if self._closed.is_set() or (thread is not None and thread.is_alive()):
            return
        thread = threading.Thread(
            target=self._follow, args=(program, lines), name=f"log of {program.name}", daemon=True
        )
        self._threads = {n: t for n, t in self._threads.items() if t.is_alive()}
        self._threads[program.name] = thread
        thread.start()

    def close(self) -> None:
        """Stop following."""
        self._closed.set()
        for output in list(self._outputs.values()):
            output.close()
        for thread in self._threads.values():
            thread.join(JOIN_SECONDS)

    def _follow(self, program: Program, lines: int | None) -> None:
        def say(text: str) -> None:
            log.info("%s | %s", program.name, text)

        mask, limited = Mask(program.environment), Limited(say, self._clock)
        complaint = ""
        while not self._closed.is_set():
            cut = Lines()
            try:
                output = self._outputs[program.name] = self._runtime.follow(program.name, lines)
                for chunk in output:
                    for text in cut.feed(chunk):
                        limited.line(mask.line(text))
                for text in cut.end():
                    limited.line(mask.line(text))
                limited.account()
                if self._runtime.status(program.name).state is not RunState.RUNNING:
                    return
            except LocalError as fault:
                if fault.cause != complaint:
                    say(f"(cannot be followed at present: {fault.cause})")
                complaint = fault.cause
            finally:
                self._outputs.pop(program.name, None)
            lines = 0  # the engine went away in between: what was said has been told
            self._closed.wait(PAUSE_SECONDS)
