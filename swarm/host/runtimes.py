"""Single nodes, started and stopped in either of their two forms; `swarm.launch` does the work."""

from __future__ import annotations

import contextlib
import io
import subprocess
from typing import Protocol

from swarm.errors import LocalError
from swarm.host.plan import Node
from swarm.host.record import Started
from swarm.launch import arguments, components, docker_backend, nodes, process_backend, stop
from swarm.launch.docker_backend import Docker
from swarm.launch.docker_options import known_options
from swarm.launch.plan import SN, Launch
from swarm.launch.stop import GRACE


class Runtime(Protocol):
    """One form of nodes."""

    def start(self, node: Node) -> str:
        """Start a node; its handle. Raises LocalError, UsageError."""

    def running(self, name: str) -> str:
        """Handle of the running node of that name, "" when there is none."""

    def has_data(self, node: Node) -> bool:
        """Whether an earlier run of this node left something to go on with."""

    def tail(self, name: str, lines: int) -> str:
        """The end of its log."""

    def stop(self, node: Started, remove: bool) -> None:
        """Stop a node, whether it still runs or not; with `remove` its data go, too."""


def launch_of(node: Node, docker: str | None) -> Launch:
    """What a node's command line means, to the run-* command of its component."""
    used = components.USED_BY[node.component.name]
    options = (*used, *components.COMMON, *components.LICENCE)
    parsed = arguments.parse(node.argv, options, known_options(docker))
    if node.component is SN:
        return components.sn(parsed)
    return components.swop(parsed, lambda: docker_backend.default_socket(Docker.find()))


class Processes:
    """Nodes as local processes."""

    def start(self, node: Node) -> str:
        # The name, which the caller knows, and the log's end, which the caller shows.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            process_backend.start(launch_of(node, None))
        return self.running(node.name)

    def running(self, name: str) -> str:
        node = nodes.read(name)
        if node is None or node.process() is None:
            return ""
        return f"{node.pid}@{node.started}"

    def has_data(self, node: Node) -> bool:
        return (nodes.directory(node.name) / "data").exists()

    def tail(self, name: str, lines: int) -> str:
        log = nodes.directory(name) / "log"
        return process_backend.last_lines(log, lines) if log.is_file() else ""

    def stop(self, node: Started, remove: bool) -> None:
        found = nodes.read(node.name)
        if found is None:
            return
        if (process := found.process()) is not None:
            stop.end(process)
        stop.end_descendants(found)
        if remove:
            nodes.forget(found)


class Containers:
    """Nodes as containers."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker

    def start(self, node: Node) -> str:
        with contextlib.redirect_stdout(io.StringIO()):  # the container's id
            docker_backend.start(launch_of(node, docker_backend.client()), self._docker)
        return self.running(node.name)

    def running(self, name: str) -> str:
        found = self._inspect(name).split()
        return found[0] if found[1:] == ["true"] else ""

    def has_data(self, node: Node) -> bool:
        if not node.volume:
            return False
        found = self._docker.run("volume", "ls", "--quiet", "--filter", f"name={node.volume}")
        return node.volume in found.split()

    def tail(self, name: str, lines: int) -> str:
        done = subprocess.run(
            [*self._docker.command, "container", "logs", f"--tail={lines}", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        return done.stdout.rstrip()

    def stop(self, node: Started, remove: bool) -> None:
        present = self._inspect(node.name).split()
        if present and node.handle in ("", present[0]):
            self._docker.run("container", "stop", f"--time={int(GRACE)}", present[0])
            self._docker.run("container", "rm", "--volumes", "--force", present[0])
        if remove and node.volume:
            self._docker.run("volume", "rm", "--force", node.volume)

    def _inspect(self, name: str) -> str:
        """Id and whether it runs, "" for no such container. Raises LocalError SW9003."""
        try:
            return self._docker.run(
                "container", "inspect", "--format", "{{.Id}} {{.State.Running}}", name
            )
        except LocalError as error:
            if "no such container" in error.cause.lower():
                return ""
            raise


def runtime_of(name: str) -> Runtime:
    """The runtime of that name: process or docker. Raises LocalError SW9002."""
    return Containers(Docker.find()) if name == "docker" else Processes()
