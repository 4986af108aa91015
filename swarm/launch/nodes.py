"""Local processes that the run-* commands started: one directory each, below $SWARM_HOME.

    <name>/node.json   what was started, its process id and that process's start time
    <name>/exit.json   the status with which it ended, when it ran in the background
    <name>/log         its output, when it runs in the background
    <name>/data        its ledger or state
    <name>/link        what a learner shares with its program

A process id alone proves nothing, as the system gives it to another process later; with the start
time it does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from swarm.errors import LocalError
from swarm.launch.arguments import UsageError
from swarm.launch.keeper import KEPT_BETWEEN_STARTS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_CLOCK_ERROR = 0.05  # seconds; start times have the resolution of the kernel's ticks


@dataclass(frozen=True)
class Node:
    """What node.json holds."""

    name: str
    component: str
    pid: int
    started: float  # of the process, seconds since the epoch
    remove: bool  # --rm: its data go with it
    beside: str = ""  # of a sidecar: the component that it belongs to

    def process(self) -> psutil.Process | None:
        """The node's process while it runs."""
        try:
            process = psutil.Process(self.pid)
            alive = (
                process.is_running()
                and process.status() != psutil.STATUS_ZOMBIE
                and abs(process.create_time() - self.started) < _CLOCK_ERROR
            )
        except psutil.Error:
            return None
        return process if alive else None

    def state(self) -> str:
        """In words: running, or how it ended."""
        if self.process() is not None:
            return "running"
        try:
            status = json.loads((directory(self.name) / "exit.json").read_text())["status"]
        except (OSError, ValueError, TypeError, KeyError):
            return "ended"  # it ran in the foreground, where its status went to whoever started it
        return f"ended with status {status}"


def home(env: Mapping[str, str] = os.environ) -> Path:
    """Directory of all local nodes: $SWARM_HOME, or ~/.swarm."""
    return Path(env.get("SWARM_HOME") or Path.home() / ".swarm").absolute()


def is_name(name: str) -> bool:
    """Could a local node have this name?"""
    return _NAME.fullmatch(name) is not None


def directory(name: str) -> Path:
    """A node's directory. Raises UsageError when the name cannot be one."""
    if not is_name(name):
        raise UsageError(f"--name: {name}: use letters, digits, and . _ - between them")
    return home() / name


def read(name: str) -> Node | None:
    """The node of that name, running or not; None when there is none."""
    try:
        values = json.loads((directory(name) / "node.json").read_text())
        return Node(**values)
    except (OSError, ValueError, TypeError):
        return None


def known() -> list[Node]:
    """All nodes, in the order in which they were started."""
    if not home().is_dir():
        return []
    names = [place.name for place in home().iterdir() if _NAME.fullmatch(place.name)]
    found = [node for name in names if (node := read(name)) is not None]
    return sorted(found, key=lambda node: node.started)


@contextlib.contextmanager
def claim(name: str) -> Iterator[Path]:
    """Prepare a node's directory; nobody else starts one of that name meanwhile.

    What a predecessor with --rm left is removed. Raises LocalError SW9004 while one runs.
    """
    place = directory(name)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        earlier = read(name)
        if earlier is not None:
            if earlier.process() is not None:
                raise LocalError("SW9004", f"{name} runs already, as process {earlier.pid}")
            if earlier.remove:
                remove_data(name)
        (place / "exit.json").unlink(missing_ok=True)
        try:
            yield place
        except BaseException:
            if read(name) is None and not (place / "data").exists():
                shutil.rmtree(place, ignore_errors=True)  # nothing has ever run under this name
            raise


def register(name: str, component: str, pid: int, remove: bool, beside: str = "") -> None:
    """Write down what runs under `name`; a process that has ended already, as such."""
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        started = 0.0
    record = Node(name, component, pid, started, remove, beside)
    draft = directory(name) / f"node.json.{os.getpid()}"
    draft.write_text(json.dumps(asdict(record)))
    draft.replace(directory(name) / "node.json")


def forget(node: Node) -> None:
    """Remove a stopped node: all that it had."""
    shutil.rmtree(directory(node.name), ignore_errors=True)


def remove_data(name: str) -> None:
    """Remove what a node keeps between two starts."""
    for part in KEPT_BETWEEN_STARTS:
        shutil.rmtree(directory(name) / part, ignore_errors=True)
