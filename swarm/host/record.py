"""What `swarm up` started, so that `swarm down` stops that and nothing else.

    $SWARM_HOME/.up/<host>/host.json   the nodes, each with its handle and the settings it took
    $SWARM_HOME/.up/<host>/usr/profile.yaml   the profile that the file's learners stand for

A handle names one run of a node, as its name alone may be somebody else's by now. A node is written
down before it is started, without a handle, so that an `up` that is cut off leaves no orphan.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from swarm.errors import LocalError
from swarm.launch import nodes

PARENT = ".up"  # no node's directory can have that name


@dataclass(frozen=True)
class Started:
    """One node that `swarm up` started."""

    component: str
    name: str
    handle: str  # "" while it is being started
    settings: dict[str, str]
    volume: str = ""


@dataclass(frozen=True)
class Record:
    """All of one host, in the order of their start."""

    host: str
    runtime: str
    file: str
    nodes: tuple[Started, ...] = ()

    def find(self, name: str) -> Started | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def with_node(self, node: Started) -> Record:
        """With this node in the place of the one of its name, else at the end."""
        if self.find(node.name) is None:
            return replace(self, nodes=(*self.nodes, node))
        kept = tuple(node if other.name == node.name else other for other in self.nodes)
        return replace(self, nodes=kept)

    def without(self, name: str) -> Record:
        """Without the node of that name."""
        return replace(self, nodes=tuple(node for node in self.nodes if node.name != name))


def directory(host: str) -> Path:
    """Where a host's record and its generated profile are."""
    return nodes.home() / PARENT / host


def recorded() -> list[str]:
    """Names of all hosts of which something is written down."""
    parent = nodes.home() / PARENT
    return sorted(path.parent.name for path in parent.glob("*/host.json"))


@contextlib.contextmanager
def exclusive(host: str) -> Iterator[Path]:
    """The host's directory; no other `up` or `down` of this host runs meanwhile.

    Raises LocalError SW9036 when one does.
    """
    place = directory(host)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(
                "SW9036", f"another `swarm up` or `swarm down` of {host} is under way"
            ) from None
        yield place


def read(host: str) -> Record | None:
    """What is written down, None when nothing is. Raises LocalError SW9037."""
    file = directory(host) / "host.json"
    try:
        value = json.loads(file.read_text())
        started = tuple(Started(**node) for node in value.pop("nodes"))
        return Record(**value, nodes=started)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LocalError("SW9037", f"{file}: {error}") from error


def write(record: Record) -> None:
    """Write it down in one step, for the owner's eyes."""
    file = directory(record.host) / "host.json"
    draft = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(asdict(record), stream)
    draft.replace(file)


def forget(host: str) -> None:
    """Remove what is written down, and what was generated."""
    shutil.rmtree(directory(host), ignore_errors=True)
