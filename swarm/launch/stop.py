"""stop-swarm: ends the nodes of this host, containers and local processes, and removes them.

Those that depend on others go first, so that an operator can still say on the ledger that it leaves
and clear up what it started. User programs in containers are not touched.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import psutil

from swarm.errors import LocalError
from swarm.launch import docker_backend, nodes
from swarm.launch.arguments import UsageError
from swarm.launch.docker_backend import Docker
from swarm.launch.plan import SL, SN, SWCI, SWOP, Component

ORDER = (SWCI, SWOP, SL, SN)
GRACE = 30.0  # seconds from the request to stop until the end is enforced
KILLED = 5.0  # seconds until an enforced end must be seen

USAGE = """Usage: stop-swarm [--all] [--sn] [--sl] [--swop] [--swci] [--keep] [--sudo]
                  [--runtime docker|process] [--help]
Stops and removes the nodes of this host; without --sn, --sl, --swop, --swci all of them. Those that
depend on others go first: command interfaces, operators, learners, network nodes.
  --keep     stop, but do not remove: logs and data stay, `swarm logs NAME` shows them
  --sudo     call docker through sudo
  --runtime  only containers, or only local processes (default: both)
User programs in containers are left alone; local ones end before their learner.

Examples:
  stop-swarm                       everything of this host
  stop-swarm --swop --swci --keep  network nodes and learners go on; what ended can be looked at"""


def main(argv: Sequence[str]) -> int:
    """Execute stop-swarm; the exit status. Raises UsageError, LocalError."""
    wanted: set[str] = set()
    keep = sudo = False
    runtime = ""
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, _, value = word.lower().partition("=")
        if flag == "--help":
            print(USAGE)
            return 0
        if flag == "--keep":
            keep = True
        elif flag == "--sudo":
            sudo = True
        elif flag == "--all":
            wanted |= {component.name for component in ORDER}
        elif flag == "--runtime":
            runtime = value or (words.pop(0).lower() if words else "")
            if runtime not in ("docker", "process"):
                raise UsageError("--runtime: docker or process expected")
        elif flag.removeprefix("--") in {component.name for component in ORDER} and not value:
            wanted.add(flag.removeprefix("--"))
        else:
            print(f"Invalid flag: {word}\n{USAGE}", file=sys.stderr)
            return 1
    chosen = [component for component in ORDER if not wanted or component.name in wanted]
    if runtime != "docker":
        stop_processes(chosen, keep)
    if runtime == "docker" or (not runtime and docker_backend.client() is not None):
        stop_containers(Docker.find(sudo), chosen, keep, needed=runtime == "docker")
    return 0


def stop_containers(
    docker: Docker, components: Sequence[Component], keep: bool, needed: bool
) -> None:
    """Stop and remove containers. Without an engine that is an error only when `needed`."""
    try:
        docker.run("container", "ls", "--quiet")
    except LocalError as error:
        if needed:
            raise
        print(f"Containers are left alone: {error.cause.splitlines()[0]}", file=sys.stderr)
        return
    for component in components:
        running = docker_backend.containers(docker, component, running=True)
        if running:
            print(f"Stopping all running {component.title} containers")
            _tolerantly(docker, "container", "stop", f"--time={int(GRACE)}", *running)
        else:
            print(f"No running {component.title} containers found")
        if keep:
            continue
        left = docker_backend.containers(docker, component, running=False)
        if left:
            print(f"Removing all {component.title} containers")
            _tolerantly(docker, "container", "rm", "--volumes", *left)


def _tolerantly(docker: Docker, *words: str) -> None:
    """A container that was started with --rm may be gone before its turn comes."""
    try:
        docker.run(*words)
    except LocalError as error:
        gone = "No such container", "is already in progress"
        lines = error.cause.splitlines()
        if not all(any(sign in line for sign in gone) for line in lines):
            raise


def stop_processes(components: Sequence[Component], keep: bool) -> None:
    """Stop and remove local processes: what stands beside a node first, then those started last."""
    everything = nodes.known()
    for component in components:
        mine = [n for n in reversed(everything) if component.name in (n.component, n.beside)]
        for node in sorted(mine, key=lambda n: not n.beside):
            if (process := node.process()) is not None:
                print(f"Stopping {component.title} process {node.name}")
                end(process)
            end_descendants(node)
            if not keep:
                nodes.forget(node)


def end(process: psutil.Process) -> None:
    """Ask a process to end, and make it when it does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(GRACE)
        except psutil.TimeoutExpired:
            print(f"Process {process.pid} does not end; killing it", file=sys.stderr)
            process.kill()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(KILLED)


def end_descendants(node: nodes.Node) -> None:
    """End what a killed operator could not clear up: programs that run below its data directory."""
    below = f"{nodes.directory(node.name) / 'data'}/"
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(word.startswith(below) for word in process.cmdline()):
                process.terminate()
                left.append(process)
    _, alive = psutil.wait_procs(left, timeout=GRACE)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=KILLED)
