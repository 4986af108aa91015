"""Podman's service, which answers like a Docker engine, on a socket of the test's own.

Everything it has is below one directory, and its networks are in a namespace of their own: it
neither sees nor touches what else is on the machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import netns
from tests.engine import images
from tests.machine import install

# What Debian's podman only recommends, and its service needs: an init, networks, names in them.
NEEDED = {
    "podman": "podman",
    "catatonit": "catatonit",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
}
START_SECONDS = 30.0
# Of its network for all, when something is on it: what listens at all addresses is there, too.
GATEWAY = "10.88.0.1"

CONTAINERS_CONF = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{directory}/oci"
[network]
network_backend = "netavark"
network_config_dir = "{directory}/networks"
"""
# It asks for TLS of registries on loopback as well, unless told otherwise.
REGISTRIES_CONF = """\
[[registry]]
location = "127.0.0.1"
insecure = true
"""
STORAGE_CONF = """\
[storage]
driver = "{driver}"
graphroot = "{directory}/storage"
runroot = "{directory}/run"
"""
# Podman asks for limits above its own, which a machine that is a container itself refuses.
OCI_RUNTIME = """\
#!/usr/bin/env python3
import json, os, sys
words = sys.argv[1:]
for place, word in enumerate(words[:-1]):
    if word in ("--bundle", "-b"):
        path = os.path.join(words[place + 1], "config.json")
        with open(path) as file:
            config = json.load(file)
        config["process"].pop("rlimits", None)
        with open(path, "w") as file:
            json.dump(config, file)
os.execv({runtime!r}, [{runtime!r}, *words])
"""

NODE = f"""\
FROM localhost/{images.BASE}
COPY . /build
RUN python3 -c "import shutil, site; shutil.copytree('/build', site.getsitepackages()[0])"
"""
LISTENER = """\
import socket, sys
made = socket.create_server(("", 0))
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"."], [made.fileno()])
"""


@dataclass(frozen=True)
class PodmanService:
    """A running service."""

    directory: Path
    namespace: str

    @property
    def url(self) -> str:
        return f"unix://{self.directory}/podman.sock"

    @property
    def environment(self) -> dict[str, str]:
        """For podman's own command to work on the same things."""
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.directory / "registries.conf"),
        }

    @property
    def inside(self) -> list[str]:
        """What to put before a command that is to run in its network namespace."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]

    def listener(self) -> socket.socket:
        """A socket of this process that listens in the service's namespace, at all addresses."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [*self.inside, sys.executable, "-c", LISTENER, str(theirs.fileno())]
            subprocess.run(command, pass_fds=[theirs.fileno()], check=True)
            _, [found], _, _ = socket.recv_fds(ours, 1, 1)
        return socket.socket(fileno=found)

    def podman(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            ["podman", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout


def unavailable() -> str:
    """Why this machine cannot have it, or an empty string when it can: installed when missing."""
    if os.geteuid() != 0:
        return "no Podman: its service needs root here"
    reason = install(NEEDED)
    return f"no Podman: {reason}" if reason else netns.unavailable()


@contextlib.contextmanager
def service() -> Iterator[PodmanService]:
    """Podman's service with the base image of the tests; gone afterwards, with all that it had."""
    directory = Path(tempfile.mkdtemp(prefix="swp-"))  # sockets have short paths
    made = PodmanService(directory, f"swpod{os.getpid()}")
    _configure(made.directory)
    subprocess.run(["ip", "netns", "add", made.namespace], check=True)
    subprocess.run(["ip", "-n", made.namespace, "link", "set", "lo", "up"], check=True)
    process = None
    try:
        _take_base(made)
        with (made.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [*made.inside, "podman", "system", "service", "--time=0", made.url],
                env=made.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _await(made, process)
        yield made
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
        made.podman("rm", "--all", "--force", "--time=0", check=False)
        made.podman("rmi", "--all", "--force", check=False)
        subprocess.run(["ip", "netns", "del", made.namespace], check=True)
        mounted = made.directory / "storage" / "overlay"
        if mounted.is_mount():
            subprocess.run(["umount", str(mounted)], check=True)
        shutil.rmtree(made.directory)


def _configure(directory: Path) -> None:
    runtime = shutil.which("crun") or shutil.which("runc")
    assert runtime is not None, "podman comes with one of them"
    (directory / "containers.conf").write_text(CONTAINERS_CONF.format(directory=directory))
    driver = "overlay" if _has_overlay(directory) else "vfs"
    (directory / "storage.conf").write_text(STORAGE_CONF.format(directory=directory, driver=driver))
    (directory / "registries.conf").write_text(REGISTRIES_CONF)
    (directory / "oci").write_text(OCI_RUNTIME.format(runtime=runtime))
    (directory / "oci").chmod(0o755)


def _has_overlay(directory: Path) -> bool:
    """Can an overlay be mounted on this file system?"""
    layers = [directory / "probe" / name for name in ("lower", "upper", "work", "merged")]
    for layer in layers:
        layer.mkdir(parents=True)
    lower, upper, work, merged = map(str, layers)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, merged]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", merged], check=True)
    return True


def _take_base(made: PodmanService) -> None:
    """Copy the base image from the machine's engine."""
    archive = made.directory / "base.tar"
    subprocess.run(["docker", "save", "--output", str(archive), images.BASE], check=True)
    made.podman("load", "--input", str(archive))
    archive.unlink()
    _make_node(made)


def _make_node(made: PodmanService) -> None:
    """An image with as much of the nodes as tests run of it: what fills volumes."""
    context = made.directory / "node"
    for package in ("swarm", "swop"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(images.REPOSITORY / package, context / package, ignore=ignored)
    (context / "Containerfile").write_text(NODE)
    made.podman("build", "--network=none", f"--tag=localhost/{images.NODE}", str(context))
    shutil.rmtree(context)


def _await(made: PodmanService, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    command = ["docker", "--host", made.url, "version"]
    while subprocess.run(command, capture_output=True, check=False).returncode:
        assert process.poll() is None, (made.directory / "log").read_text()[-3000:]
        assert time.monotonic() < deadline, "Podman's service does not answer"
        time.sleep(0.1)
