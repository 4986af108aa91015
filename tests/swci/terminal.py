"""A program at a terminal: what is typed goes in, what is shown comes out."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType

# A process between us and the program holds the terminal: forking this one, with its threads, for
# that would be a risk.
HOLDER = """\
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, "-m", *sys.argv[1:]])))
"""
# What a terminal would carry out, and not show.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """`python -m …` with a terminal of its own, ended at the end of the block."""

    def __init__(self, module: str, env: Mapping[str, str]) -> None:
        self._shown = ""
        self._at = 0
        self._holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, module],
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._holder.kill()  # and with it goes the terminal, so that the program gets SIGHUP
        self._holder.communicate()

    def type(self, keys: str) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.write(keys.encode())
        self._holder.stdin.flush()

    def shows(self, text: str, timeout: float = 60.0) -> str:
        """Wait until this is shown, after what was waited for before; all that came till then."""
        end = time.monotonic() + timeout
        while (place := self._shown.find(text, self._at)) < 0:
            assert self._read(end - time.monotonic()), f"not shown: {text!r}\n{self._shown}"
        before, self._at = self._at, place + len(text)
        return self._shown[before : self._at]

    def ends(self, timeout: float = 60.0) -> int:
        """Wait until the program has ended; its exit status."""
        return self._holder.wait(timeout)

    def _read(self, timeout: float) -> bool:
        """Take in what is there; False at the end of the program, or of the time."""
        assert self._holder.stdout is not None
        if not select.select([self._holder.stdout], [], [], max(0.0, timeout))[0]:
            return False
        data = os.read(self._holder.stdout.fileno(), 65536)
        self._shown += ESCAPES.sub("", data.decode("utf-8", "replace"))
        return bool(data)
