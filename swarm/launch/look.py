"""The `swarm` command: what runs on this host as local processes, and its logs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from swarm.errors import LocalError
from swarm.launch import docker_backend, nodes
from swarm.launch.arguments import UsageError
from swarm.launch.docker_backend import Docker
from swarm.launch.plan import version

USAGE = """Usage: swarm logs [<name>]   the log of a node; without a name, the nodes of this host
       swarm version         the installed version"""


def main(argv: Sequence[str]) -> int:
    """Execute `swarm`; the exit status. Raises UsageError, LocalError."""
    match list(argv):
        case ["version"] | ["--version"]:
            print(version())
        case ["logs"]:
            for node in nodes.known():
                state = "running" if node.process() is not None else "ended"
                print(f"{node.name:<24} {node.component:<6} {state}")
        case ["logs", name]:
            return logs(name)
        case [] | ["--help"] | ["help"]:
            print(USAGE)
        case [command, *_]:
            raise UsageError(f"{command}: unknown command\n{USAGE}")
    return 0


def logs(name: str) -> int:
    """Print a node's log: of the local process of that name, else of the container."""
    log = nodes.directory(name) / "log"
    if log.is_file():
        with log.open(errors="replace") as file:
            shutil.copyfileobj(file, sys.stdout)
        return 0
    if nodes.read(name) is not None:
        raise UsageError(f"{name} runs in the foreground; its output is on its own terminal")
    if docker_backend.client() is not None:
        docker = Docker.find()
        if docker.follow("container", "logs", name) == 0:
            return 0
    raise LocalError("SW9006", f"there is no node {name} on this host")
