"""SLs and MLs that operators of this host run as local processes, and the logs that they left.

What an operator keeps below its data directory (written by its PROCESS runtime):

    <operation>/<pair>/<role>/program.json   what was started: {name, role, …}
    <operation>/<pair>/<role>/lock           held as long as it runs
    <operation>/<pair>/<role>/exit.json      how it ended
    logs/<name>.log                          its output, also when the rest has been removed
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swarm.launch import nodes
from swarm.launch.plan import SWOP

_OPERATION = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Started:
    """A program with a log; `place` is None when only the log is left."""

    name: str
    role: str  # "sl", "ml"; "" when only the log is left
    log: Path
    place: Path | None

    def is_over(self) -> bool:
        """Whether nothing is to be written any more. One that is being started is not over."""
        place = self.place
        if place is None or not (place / "program.json").exists():
            return True
        if (place / "exit.json").exists():
            return True
        return (place / "keeper.json").exists() and not _is_held(place / "lock")

    @property
    def state(self) -> str:
        if self.place is None:
            return "removed"
        return "ended" if self.is_over() else "running"


def known() -> Iterator[Started]:
    """All of them: those that exist first, then those of which only the log is left."""
    for node in nodes.known():
        if node.component == SWOP.name:
            yield from below(nodes.directory(node.name) / "data")


def below(data: Path) -> Iterator[Started]:
    """The same, of the operator with this data directory."""
    named = set()
    for path in sorted(data.glob("*/*/*/program.json")):
        if not _OPERATION.fullmatch(path.parts[-4]):
            continue  # programs write what they like into volumes
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            name, role = str(value["name"]), str(value["role"]).lower()
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it was removed meanwhile
        named.add(name)
        yield Started(name, role, data / "logs" / f"{name}.log", path.parent)
    for log in sorted((data / "logs").glob("*.log")):
        if log.stem not in named:
            yield Started(log.stem, "", log, None)


def _is_held(lock: Path) -> bool:
    try:
        file = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
