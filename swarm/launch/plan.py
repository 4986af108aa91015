"""What shall be started, before it is decided how: as a container, or as a local process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

LABEL = "swarm.component"  # on every container that a run-* command makes
USER_DIRECTORY = "/platform/swarm/usr"  # where a container sees --usr-dir
LINK_DIRECTORY = "/tmp/hpe-swarm"  # noqa: S108 - what a learner's container shares with its program

# Where an operator in a container keeps the logs of programs that it has removed.
OPERATOR_DIRECTORY = "/platform/swarm/SMLNODE"

DockerArguments = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Component:
    """A kind of node."""

    name: str  # as in run-<name> and in labels
    title: str  # for people
    module: str  # python3 -m <module>


SN = Component("sn", "Swarm Network", "sentinel")
SL = Component("sl", "Swarm Learning", "swarm.learner")
SWOP = Component("swop", "Swarm Operator", "swop")
SWCI = Component("swci", "Swarm Command Interface", "swci")
ML = Component("ml", "Machine Learning", "")


@dataclass(frozen=True)
class Mount:
    """A path of this host, seen at `target` by a container."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Sidecar:
    """A second program beside the node: the user's (`ml`), or any other with --sidecar."""

    kind: str  # `ml`, or the name that --sidecar gave
    name: str  # of its container or process; "": whoever starts it chooses one
    image: str
    entrypoint: tuple[str, ...]  # empty: the image's own
    command: tuple[str, ...]
    docker: DockerArguments = ()
    pid_main: bool = False  # sees the node's processes
    volumes_from_main: bool = False  # sees all of the node's mounts, its private key among them


@dataclass(frozen=True)
class Launch:
    """One node."""

    component: Component
    name: str  # "": whoever starts it chooses one
    env: Mapping[str, str]  # the same in both forms
    container_env: Mapping[str, str] = field(default_factory=dict)
    process_env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()  # (of this host, inside)
    labels: Mapping[str, str] = field(default_factory=dict)  # of a container
    docker: DockerArguments = ()
    arguments: tuple[str, ...] = ()  # for the node's program
    image: str = ""
    detach: bool = False
    remove: bool = False
    sidecars: tuple[Sidecar, ...] = ()


def default_image() -> str:
    """The image of all nodes, of the version that is installed here."""
    return f"swarm-node:{version()}"


def version() -> str:
    """Version of this distribution."""
    return metadata.version("swarmlearning")
