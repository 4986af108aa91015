"""--socket-path: the socket of a SPIFFE agent, in its three forms.

    /run/spire/sockets/agent.sock    a socket file of this host
    spire-volume:agent.sock          a volume, and where the socket is in it
    spire-volume, spire-agent        a volume, or the container that serves it, which is looked into

A container gets the directory or volume and not the socket itself: an agent that starts again makes
a new file, which a mount of the old one would never show.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from swarm.launch.arguments import UsageError

DIRECTORY = "/tmp/spire-agent"  # noqa: S108 - where containers see it
VARIABLE = "SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH"
LABEL = "swarm-node-type"  # by which agents may tell the kinds of nodes apart
USUAL_NAMES = frozenset({"agent.sock", "api.sock", "spire-agent.sock"})


class Place(NamedTuple):
    """A socket: a directory of this host or a volume, and the path in it."""

    source: str
    inside: str

    @property
    def in_container(self) -> str:
        return f"{DIRECTORY}/{self.inside}"

    @property
    def on_host(self) -> str:
        return f"{self.source}/{self.inside}"


def place_of(value: str, *, container: bool) -> Place:
    """Where the socket is that `value` names in one of the first two forms. Raises UsageError."""
    path = Path(value)
    if path.is_socket():
        return Place(str(path.absolute().parent), path.name)
    source, colon, inside = value.partition(":")
    if not (container and source and colon) or ("/" in source and not Path(source).is_dir()):
        raise UsageError(f"--socket-path: {value}: bad socket file")
    parts = PurePosixPath(inside).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise UsageError(f"--socket-path: {value}: no path inside a volume")
    return Place(source, str(PurePosixPath(inside)))


def is_name(value: str) -> bool:
    """Whether it is the third form, which the engine has to be asked about."""
    return "/" not in value and ":" not in value and not Path(value).is_socket()


def only_one(name: str, found: Sequence[Place]) -> Place:
    """The agent's among the sockets of a volume or container. Raises UsageError."""
    usual = [place for place in found if PurePosixPath(place.inside).name in USUAL_NAMES]
    if len(found) == 1:
        return found[0]
    if len(usual) == 1:
        return usual[0]
    if not found:
        raise UsageError(f"--socket-path: {name}: no socket, nor a volume or container of one")
    several = ", ".join(f"{place.source}:{place.inside}" for place in found[:8])
    raise UsageError(f"--socket-path: {name}: holds several sockets, give one of {several}")
