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
from swarm.launch.components import DOCKER_SOCKET
from swarm.launch.plan import (
    LABEL,
    LINK_DIRECTORY,
    ML,
    Component,
    DockerArguments,
    Launch,
    Sidecar,
    default_image,
)
from swarm.launch.spiffe import DIRECTORY, Place

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
            raise LocalError("SW9002", "there is neither a docker nor a podman command on the PATH")
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
    """Path of the docker command, or podman's where that is what is there; None without both."""
    return shutil.which("docker") or shutil.which("podman")


def default_socket(docker: Docker) -> str:
    """Where the engine listens for programs: podman says it, docker has a fixed place."""
    if Path(docker.command[-1]).name != "podman":
        return DOCKER_SOCKET
    path = docker.run("info", "--format", "{{.Host.RemoteSocket.Path}}")
    return path.removeprefix("unix://")


def start(launch: Launch, docker: Docker) -> int:
    """Create and start the containers of a launch; the exit status for the command."""
    image = launch.image or default_image()
    main = docker.run("container", "create", *create_arguments(launch, image))
    created = [main]
    try:
        for sidecar in launch.sidecars:
            link = _link_volume(docker, main) if sidecar.kind == ML.name else ""
            words = sidecar_arguments(sidecar, main, link, launch.remove)
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
    words += [f"--label={name}={value}" for name, value in launch.labels.items()]
    words += [f"--publish={outside}:{inside}" for outside, inside in launch.ports]
    mounted = [value.split(":")[1:2] for name, value in given if name == "volume" and value]
    with_program = any(sidecar.kind == ML.name for sidecar in launch.sidecars)
    if with_program and [LINK_DIRECTORY] not in mounted:
        words.append(f"--volume={LINK_DIRECTORY}")
    if launch.remove and not arguments.has(given, "rm"):
        words.append("--rm=true")
    words += _user(launch)
    words += _pass_through(given)
    return [*words, image, "python3", "-m", launch.component.module, *launch.arguments]


def sidecar_arguments(sidecar: Sidecar, main: str, link: str, remove: bool) -> list[str]:
    """What follows `docker container create` for a container beside `main`.

    The user's program gets the volume `link` and not --volumes-from, as the node's private key is
    among the node's mounts.
    """
    given = sidecar.docker
    words = [f"--label={LABEL}={ML.name if sidecar.kind == ML.name else 'sidecar'}"]
    if link:
        words += [f"--volume={link}:{LINK_DIRECTORY}", f"--env=SWARM_LINK={LINK_DIRECTORY}"]
    if sidecar.volumes_from_main:
        words.append(f"--volumes-from={main}")
    if sidecar.pid_main:
        words.append(f"--pid=container:{main}")
    if sidecar.name:
        words.append(f"--name={sidecar.name}")
        if not arguments.has(given, "hostname"):
            words.append(f"--hostname={sidecar.name}")
    if remove and not arguments.has(given, "rm"):
        words.append("--rm=true")
    words += _pass_through(given)
    command = sidecar.command
    if sidecar.entrypoint:
        # The engine takes one word; what follows it goes in front of the command.
        words.append(f"--entrypoint={sidecar.entrypoint[0]}")
        command = (*sidecar.entrypoint[1:], *command)
    return [*words, sidecar.image, *command]


def _link_volume(docker: Docker, learner: str) -> str:
    """What a learner's container shares with its program: a volume, or a path of the host."""
    shared = "{{if .Name}}{{.Name}}{{else}}{{.Source}}{{end}}"
    at_link = f'{{{{if eq .Destination "{LINK_DIRECTORY}"}}}}{shared}{{{{end}}}}'
    template = f"{{{{range .Mounts}}}}{at_link}{{{{end}}}}"
    return docker.run("container", "inspect", "--format", template, learner)


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


# Executed in the node's image: sockets below its argument, not too deep, one on each line.
_LIST_SOCKETS = """
import os, stat, sys
top = sys.argv[1]
for place, directories, files in os.walk(top):
    if place.count("/") - top.count("/") > 3:
        directories.clear()
    for name in files:
        path = os.path.join(place, name)
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            print(os.path.relpath(path, top))
"""


def find_sockets(docker: Docker, name: str, image: str) -> list[Place]:
    """Sockets in the volume of that name, else in what the container of that name has mounted."""
    try:
        sources = [docker.run("volume", "inspect", "--format", "{{.Name}}", name)]
    except LocalError:
        shown = "{{if .Name}}{{.Name}}{{else}}{{.Source}}{{end}}"
        template = f'{{{{range .Mounts}}}}{shown}{{{{"\\n"}}}}{{{{end}}}}'
        try:
            sources = docker.run("container", "inspect", "--format", template, name).splitlines()
        except LocalError:
            return []
    found = []
    for source in dict.fromkeys(one.strip() for one in sources if one.strip()):
        if Path(source).is_absolute() and not Path(source).is_dir():
            continue  # a single file of the host, the engine's own socket for instance
        listed = docker.run(
            "container", "run", "--rm", "--network=none", "--user=0",
            f"--volume={source}:{DIRECTORY}:ro", "--entrypoint=python3", image,
            "-c", _LIST_SOCKETS, DIRECTORY,
        )  # fmt: skip
        found += [Place(source, line) for line in listed.splitlines() if line]
    return found


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


def _user(launch: Launch) -> list[str]:
    """The node's user: the owner of its private key, which nobody else may read; or as given.

    An operator is of the group that may use the engine's socket besides.
    """
    words = []
    key = launch.env.get("SWARM_ID_KEY")
    if key is not None and not arguments.has(launch.docker, "user"):
        owner = Path(key).stat()
        words.append(f"--user={owner.st_uid}:{owner.st_gid}")
    if group := launch.container_env.get("SWOP_DOCKER_GID"):
        words.append(f"--group-add={group}")
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
    """Is the engine's socket closed to this user, and sudo there to open it?

    Podman needs none: its engine is the user's own.
    """
    if os.getuid() == 0 or os.environ.get("DOCKER_HOST") or shutil.which("sudo") is None:
        return False
    if shutil.which("docker") is None or shutil.which("podman") is not None:
        return False
    names = set()
    for group in os.getgroups():
        try:
            names.add(grp.getgrgid(group).gr_name)
        except KeyError:
            continue
    return not names & {"docker", "root"} and Path(DOCKER_SOCKET).exists()
