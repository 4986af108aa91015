"""Runs one local program to its end, and leaves nothing of it behind.

Started by the PROCESS runtime as `python -I keeper.py DIRECTORY`, with the standard library only:
it stays resident beside each program, so it is small. The directory holds, written by the runtime:

- `launch.json`: {argv, environment, workdir, log, user: [uid, gid] | null}

and, written by the keeper:

- `lock`: held (flock) as long as the keeper lives: so anybody can tell, pids reused or not
- `keeper.json`: {pid}
- `exit.json`: {code, note}, once the program ended; 128 + n when signal n ended it

The keeper leads a session of its own and, on Linux, adopts all orphans below it, so that children
that detach themselves are found too. The first SIGTERM is passed on to everything below; a second
one kills it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # prctl(2), Linux
CANNOT_START = 127  # as a shell reports it
LOCK_SECONDS = 2.0


def main(directory: Path) -> int:
    """Run the program of `directory`; returns 0 when an exit code was recorded."""
    lock = _take_lock(directory / "lock")
    if lock is None or (directory / "exit.json").exists():
        return 1  # another keeper has it, or it is over
    _adopt_orphans()
    signals = Signals()  # before anybody can know our pid
    _write(directory / "keeper.json", {"pid": os.getpid()})
    launch = json.loads((directory / "launch.json").read_text(encoding="utf-8"))
    code, note = _run(launch, signals)
    end_descendants()
    _write(directory / "exit.json", {"code": code, "note": note})
    return 0


class Signals:
    """SIGTERM: once asks the whole tree to end, twice ends it."""

    def __init__(self) -> None:
        self.count = 0
        signal.signal(signal.SIGTERM, self._arrived)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _arrived(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        how = signal.SIGTERM if self.count == 1 else signal.SIGKILL
        for pid in descendants(os.getpid()):
            _signal(pid, how)


def _run(launch: dict[str, Any], signals: Signals) -> tuple[int, str]:
    """Start the program and wait for its end; returns exit code and a note."""
    options: dict[str, Any] = {}
    if launch["user"] is not None:
        uid, gid = launch["user"]
        options = {"user": uid, "group": gid, "extra_groups": []}
    try:
        with open(launch["log"], "ab", opener=_private) as log:
            child = subprocess.Popen(
                launch["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=launch["workdir"],
                env=launch["environment"],
                **options,
            )
    except OSError as error:
        return CANNOT_START, f"cannot start {launch['argv'][0]}: {error}"
    if signals.count:  # it came between the handler and the child
        _signal(child.pid, signal.SIGTERM)
    code = child.wait()
    return (128 - code, signal.Signals(-code).name) if code < 0 else (code, "")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def descendants(root: int) -> list[int]:
    """All processes below `root`, deepest last; without /proc, its direct process group."""
    parents: dict[int, list[int]] = {}
    try:
        entries = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return []
    for name in entries:
        try:
            stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # pid (name, which may hold blanks and brackets) state parent …
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end_descendants() -> None:
    """Kill what the program left running, until nothing is there; new children included."""
    for _ in range(100):
        left = descendants(os.getpid())
        if not left:
            return
        for pid in left:
            _signal(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.01)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _take_lock(path: Path) -> int | None:
    """The lock's descriptor, kept open for life; None when another keeper holds it.

    Tried for a moment, as somebody who looks whether it is held holds it for an instant.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write as a whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
