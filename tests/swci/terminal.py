"""A program at a terminal: what is typed goes in, what is shown comes out."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Mapping
from types import TracebackType

# What a terminal would carry out, and not show.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """`python -m …` with a terminal of its own, ended at the end of the block."""

    def __init__(self, module: str, env: Mapping[str, str]) -> None:
        self._shown = ""
        self._at = 0
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execve(
                sys.executable,
                [sys.executable, "-m", module],
                {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **env},
            )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def shows(self, text: str, timeout: float = 60.0) -> str:
        """Wait until this is shown, after what was waited for before; all that came till then."""
        end = time.monotonic() + timeout
        while (place := self._shown.find(text, self._at)) < 0:
            left = end - time.monotonic()
            assert left > 0 and self._read(left), f"not shown: {text!r}\n{self._shown}"
        before, self._at = self._at, place + len(text)
        return self._shown[before : self._at]

    def ends(self, timeout: float = 60.0) -> int:
        """Wait until the program has ended; its exit status."""
        end = time.monotonic() + timeout
        while self._read(end - time.monotonic()):
            assert time.monotonic() < end, self._shown
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, timeout: float) -> bool:
        """Take in what is there; False at the end of the program, or of the time."""
        if not select.select([self._terminal], [], [], max(0.0, timeout))[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self._shown += ESCAPES.sub("", data.decode("utf-8", "replace"))
        return bool(data)
