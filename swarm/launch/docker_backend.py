"""Nodes as containers, through the engine's command line client.

The client is used, not the engine's API: every option that it knows works here, and so do its
contexts, its configuration and an engine that is reached in some way of its own.
"""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import LocalError
from swarm.launch import arguments
from swarm.launch.arguments import UsageError
from swarm.launch.plan import (
    LABEL,
    LINK_DIRECTORY,
    Component,
    DockerArguments,
    Launch,
    Program,
    default_image,
)

INFO_FILE = "/tmp/container_info_file"  # noqa: S108 - a name inside the container, known to SWOP


@dataclass(frozen=True)
class Docker:
    """The engine's client: the words with which each of its commands begins."""

    command: tuple[str, ...]

    @classmethod
    def find(cls, sudo: bool = False) -> Docker:
        """The client on the PATH, through sudo when asked or needed. LocalError SW9002."""
        path = client()
        if path is None:
            raise LocalError("SW9002", "there is no docker command on the PATH")
        return cls(("sudo", path) if sudo or _needs_sudo() else (path,))

    def run(self, *words: str) -> str:
        """Execute a command; what it printed. Raises LocalError SW9003 with what it complained."""
        done = subprocess.run([*self.command, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            complaint = done.stderr.strip() or f"status {done.returncode}"
            raise LocalError("SW9003", f"docker {words[0]} {words[1]}: {complaint}")
        return done.stdout.strip()

    def follow(self, *words: str) -> int:
        """Execute a command on this terminal; its exit status."""
        process = subprocess.Popen([*self.command, *words])
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The client has got it, too, and hands it to the container; it decides.
                continue


def client() -> str | None:
    """Path of the docker command, None when there is none."""
    return shutil.which("docker")


def start(launch: Launch, docker: Docker) -> int:
    """Create and start the containers of a launch; the exit status for the command."""
    image = launch.image or default_image()
    main = docker.run("container", "create", *create_arguments(launch, image))
    created = [main]
    try:
        if launch.program is not None:
            words = program_arguments(launch.program, main, launch.remove)
            created.append(docker.run("container", "create", *words))
        _write_info(docker, main, image)
        for other in created[1:]:
            docker.run("container", "start", other)
        if not launch.detach:
            return docker.follow("container", "start", "--attach", "--interactive", main)
        docker.run("container", "start", main)
    except LocalError:
        docker.run("container", "rm", "--force", *created)
        raise
    for container in created:
        print(container)
    return 0


def create_arguments(launch: Launch, image: str) -> list[str]:
    """What follows `docker container create` for the node's own container."""
    given = launch.docker
    words = [f"--label={LABEL}={launch.component.name}"]
    words += _defaults(given)
    if launch.name and not arguments.has(given, "hostname"):
        words.append(f"--hostname={launch.name}")
    env = {**launch.env, **launch.container_env}
    if launch.name:
        env["SWARM_NODE_NAME"] = launch.name
    words += [f"--env={name}={value}" for name, value in env.items()]
    for mount in launch.mounts:
        mode = ":ro" if mount.read_only else ""
        words.append(f"--volume={mount.source}:{mount.target}{mode}")
    words += [f"--publish={outside}:{inside}" for outside, inside in launch.ports]
    if launch.program is not None:
        words.append(f"--volume={LINK_DIRECTORY}")
    if launch.remove and not arguments.has(given, "rm"):
        words.append("--rm=true")
    words += _pass_through(given)
    return [*words, image, "python3", "-m", launch.component.module, *launch.arguments]


def program_arguments(program: Program, learner: str, remove: bool) -> list[str]:
    """What follows `docker container create` for the user's program beside container `learner`."""
    words = [
        f"--label={LABEL}=ml",
        f"--volumes-from={learner}",
        f"--env=SWARM_LINK={LINK_DIRECTORY}",
    ]
    if program.name:
        words.append(f"--name={program.name}")
        if not arguments.has(program.docker, "hostname"):
            words.append(f"--hostname={program.name}")
    if remove and not arguments.has(program.docker, "rm"):
        words.append("--rm=true")
    words += _pass_through(program.docker)
    command = program.command
    if program.entrypoint:
        # The engine takes one word; what follows it goes in front of the command.
        words.append(f"--entrypoint={program.entrypoint[0]}")
        command = (*program.entrypoint[1:], *command)
    return [*words, program.image, *command]


def find_network_node(docker: Docker, name: str, image: str) -> str:
    """Address of a local network node's container: the one called `name`, else the first found."""
    if not name:
        what = f"ancestor={image}" if image else f"label={LABEL}=sn"
        found = docker.run("container", "ls", "--quiet", "--filter", what).split()
        if not found:
            raise UsageError("cannot contact a local network node, and --sn-ip is missing")
        name = found[0]
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    try:
        addresses = docker.run("container", "inspect", "--format", template, name).split()
    except LocalError:
        addresses = []
    if not addresses:
        raise UsageError(f"cannot contact {name}")
    return addresses[0]


def containers(docker: Docker, component: Component, running: bool) -> list[str]:
    """Ids of this component's containers: those of the run-* commands, and an operator's learners.

    With `running` only those that run; otherwise all.
    """
    filters = [f"label={LABEL}={component.name}"]
    if component.name == "sl":
        filters.append("label=swarm.role=SL")
    every = () if running else ("--all",)
    found: list[str] = []
    for condition in filters:
        listed = docker.run("container", "ls", "--quiet", *every, "--filter", condition)
        found += [line for line in listed.split() if line not in found]
    return found


def _pass_through(options: DockerArguments) -> list[str]:
    return [f"--{name}" if value is None else f"--{name}={value}" for name, value in options]


def _defaults(given: DockerArguments) -> Sequence[str]:
    words = []
    if not arguments.has(given, "interactive"):
        words.append("--interactive=true")
    if not arguments.has(given, "tty") and sys.stdin.isatty() and sys.stdout.isatty():
        words.append("--tty=true")
    if not arguments.has(given, "init"):
        # A first process ignores signals that it does not handle yet: `docker stop` of a node that
        # is still starting would wait out its patience.
        words.append("--init=true")
    return words


def _write_info(docker: Docker, container: str, image: str) -> None:
    """Tell the container who it is: an operator starts learners from its own image."""
    image_id = docker.run("container", "inspect", "--format", "{{.Image}}", container)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "container_info_file"
        file.write_text(f"{container}\n{image}\n{image_id}\n")
        file.chmod(0o644)
        docker.run("container", "cp", str(file), f"{container}:{INFO_FILE}")


def _needs_sudo() -> bool:
    """Is the engine's socket closed to this user, and sudo there to open it?"""
    if os.getuid() == 0 or os.environ.get("DOCKER_HOST") or shutil.which("sudo") is None:
        return False
    names = set()
    for group in os.getgroups():
        try:
            names.add(grp.getgrgid(group).gr_name)
        except KeyError:
            continue
    return not names & {"docker", "root"} and Path("/var/run/docker.sock").exists()
