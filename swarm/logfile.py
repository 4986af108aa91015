"""Log files that grow while they are read: their last lines, and following them to the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK = 64 * 1024  # bytes read at a time
POLL_SECONDS = 0.2
MOST_TAIL = 64 << 20  # bytes from the end in which last lines are looked for


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines of a file begin, a line without an end included."""
    end = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    at, seen, last = end, 0, b""
    while at > 0 and end - at < MOST_TAIL:
        size = min(CHUNK, at)
        at -= size
        file.seek(at)
        block = file.read(size)
        if not last:
            last = block[-1:]
        wanted = lines + (last == b"\n")  # the end of the last line begins no other
        here = block.count(b"\n")
        if seen + here >= wanted:
            for _ in range(wanted - seen):
                size = block.rindex(b"\n", 0, size)
            return at + size + 1
        seen += here
    return at


def follow(
    path: Path,
    is_over: Callable[[], bool],
    *,
    lines: int | None = None,
    closed: threading.Event | None = None,
) -> Iterator[bytes]:
    """Give what is in a log file and what comes, until `is_over` and all of it was given.

    The file may not be there yet: who writes it makes it some time after it was started. `lines`:
    begin with so many of the last lines; None for all. Ends early when `closed` is set.
    """
    closed = closed or threading.Event()
    while not closed.is_set():
        # Looked at first: what was written before the end is then in the file.
        over = is_over()
        try:
            file = path.open("rb")
        except FileNotFoundError:
            if over:
                return
            closed.wait(POLL_SECONDS)
            continue
        with file:
            file.seek(0 if lines is None else tail_offset(file, lines))
            yield from _to_the_end(file, is_over, closed)
        return


def _to_the_end(
    file: BinaryIO, is_over: Callable[[], bool], closed: threading.Event
) -> Iterator[bytes]:
    while not closed.is_set():
        over = is_over()
        while chunk := file.read(CHUNK):
            yield chunk
            if closed.is_set():
                return
        if over:
            return
        closed.wait(POLL_SECONDS)
