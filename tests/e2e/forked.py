"""Network nodes that start in a moment: forked from a process that has imported all of them.

    with ForkedProcesses(tmp_path) as run: ...    # as Processes

Importing takes a node two seconds of processor time, its own start a tenth. A test that starts
nodes a hundred times would measure the former. Each node has a parent of its own, which does
nothing but import, fork and wait; the node itself is a process like any other, with its own pid,
disk, sockets and end.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import re
import signal
import subprocess
import sys
import threading
import traceback
from typing import IO

from tests.processes import Daemon, Processes

FORKED, ENDED = "forked", "ended"  # what the parent prints, with the pid of the node


class ForkedDaemon(Daemon):
    """A node below its parent (`process`)."""

    _pid = 0

    def start(self) -> None:
        """Fork the node; the parent is started before the first time."""
        self._start_index = len(self.lines)
        self._ended = False
        if not self._pid:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.forked"],
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self._commands.write(b"start\n")
        self._commands.flush()
        self._pid = int(self.wait_for(rf"^{FORKED} \d+$", 120).split()[1])

    def wait_for(self, pattern: str, timeout: float = 30.0, *, plain: bool = False) -> str:
        """As `Daemon.wait_for`: the parent lives on, and tells of the node's end."""
        wanted = re.escape(pattern) if plain else pattern
        line = super().wait_for(f"(?:{wanted})|^{ENDED} {self._pid} ", timeout)
        assert re.search(wanted, line), f"{self.name} ended: log {pattern!r}\n{self.tail()}"
        return line

    @property
    def _commands(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def pid(self) -> int:
        return self._pid

    def kill(self) -> None:
        """SIGKILL, and wait."""
        with contextlib.suppress(ProcessLookupError):  # it may have ended already
            self.signal(signal.SIGKILL)
        self.wait_end()

    def terminate(self, timeout: float = 10.0) -> int:
        """SIGTERM, and return the exit status."""
        self.signal(signal.SIGTERM)
        self.wait_end(timeout)
        return int(self.lines[-1].split()[2])

    def wait_end(self, timeout: float = 30.0) -> None:
        """Wait until the node has ended, and everything that it printed has been read."""
        self.wait_for(rf"^{ENDED} {self._pid} ", timeout)

    def alive(self) -> bool:
        ended = re.compile(rf"^{ENDED} {self._pid} ")
        return not any(ended.match(line) for line in self.lines[self._start_index :])

    def close(self) -> None:
        """End the parent."""
        self._commands.close()
        self.process.wait(30)


class ForkedProcesses(Processes):
    """Processes whose network nodes are forked."""

    made = ForkedDaemon


def main() -> None:
    """The parent: for each line of the input, fork a node and wait for its end."""
    import pydantic.v1  # noqa: F401 - FastAPI imports it with the first route

    import sentinel.node  # noqa: F401
    import swarm.mesh.mesh  # noqa: F401
    from sentinel.__main__ import main as node

    gc.freeze()  # a collection would touch, and so copy, every page of the fork
    # Threads would not survive a fork.
    assert threading.active_count() == 1
    for _ in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if not pid:
            random.seed()  # or all of them would draw the same numbers
            os.close(0)
            os.open(os.devnull, os.O_RDONLY)
            print(FORKED, os.getpid(), flush=True)
            status = 1
            try:
                status = node()
            except BaseException:  # the fork must end here, whatever happens
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)
        _, status = os.waitpid(pid, 0)
        print(ENDED, pid, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
