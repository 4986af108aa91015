"""Stays beside a local process in the background, and writes down how it ended.

    python -I -S keeper.py DIRECTORY ANSWER REMOVE COMMAND…

The command that started the process is long gone by then, and nobody else learns a status. Needs
the standard library only, as one of these stays resident beside each process. Over the descriptor
ANSWER goes one line, `pid <number>` or `error <text>`; in DIRECTORY appears `exit.json`,
{"status": n}, with 128 + n when signal n ended the process. When REMOVE is `remove`, the node's
data go then, as `--rm` promises.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CANNOT_START = 127  # as a shell reports it
KEPT_BETWEEN_STARTS = ("data", "link")  # what --rm removes; the log stays for people to read


def main(directory: Path, answer: int, remove: bool, command: list[str]) -> int:
    """Run `command` to its end; its status."""
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        os.write(answer, f"error {error.strerror}\n".encode())
        return CANNOT_START

    def pass_on(number: int, _frame: object) -> None:
        child.send_signal(number)

    # Whoever asks the keeper to end means its child.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    os.write(answer, f"pid {child.pid}\n".encode())
    os.close(answer)
    code = child.wait()
    status = 128 - code if code < 0 else code
    _write_down(directory, child.pid, status, remove)
    return status


def _write_down(directory: Path, pid: int, status: int, remove: bool) -> None:
    """Note the status, unless the name is another process's by now, or nobody's."""
    with contextlib.suppress(FileNotFoundError), (directory / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as whoever starts a node of this name has it
        if json.loads((directory / "node.json").read_text())["pid"] != pid:
            return
        draft = directory / "exit.draft"
        draft.write_text(json.dumps({"status": status}))
        draft.replace(directory / "exit.json")
        if remove:
            for part in KEPT_BETWEEN_STARTS:
                shutil.rmtree(directory / part, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "remove", sys.argv[4:]))
