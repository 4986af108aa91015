"""A Docker engine of the test's own, which may be killed: in a network namespace of its own.

Two engines in one namespace would take `docker0` and its rules from each other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.e2e import netns
from tests.engine import images

START_SECONDS = 60.0


def unavailable() -> str:
    """Why this machine cannot have one, or an empty string when it can."""
    return images.base() or netns.unavailable()


class OwnEngine:
    """One engine with its own data, socket, containerd and network."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self.directory = directory
        self.namespace = namespace
        self.socket = directory / "docker.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def _containerd(self) -> Path:
        return self.directory / "exec" / "containerd"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        shutil.rmtree(self._containerd, ignore_errors=True)  # a killed one's files are in the way
        (self.directory / "pid").unlink(missing_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{self.namespace}"),
                    *("dockerd", "--host", self.url, "--pidfile", str(self.directory / "pid")),
                    *("--data-root", str(self.directory / "data")),
                    *("--exec-root", str(self.directory / "exec")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.run("version", check=False):
            assert self.process.poll() is None, (self.directory / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the test's own engine does not answer"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL the engine and its containerd; containers may go on for a while."""
        containerd = int((self._containerd / "containerd.pid").read_text())
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.kill(containerd, signal.SIGKILL)

    def stop(self) -> None:
        """End it in order, if it runs; its containers end with it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def run(self, *words: str, check: bool = True, stdin: int | None = None) -> str:
        """Execute a command of its client."""
        done = subprocess.run(
            ["docker", "--host", self.url, *words],
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if done.returncode == 0 else ""

    def take(self, image: str) -> None:
        """Copy an image from the machine's engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as source:
            assert source.stdout is not None
            self.run("load", stdin=source.stdout.fileno())
        assert source.returncode == 0


@contextlib.contextmanager
def own_engine(directory: Path) -> Iterator[OwnEngine]:
    """A running engine with the base image; gone afterwards, with all that it had."""
    namespace = f"swdock{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    engine = OwnEngine(directory, namespace)
    try:
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        engine.start()
        engine.take(images.BASE)
        yield engine
    finally:
        for container in engine.run("ps", "--all", "--quiet", check=False).split():
            engine.run("rm", "--force", "--volumes", container, check=False)
        engine.stop()
        _end_remains(directory)
        subprocess.run(["ip", "netns", "del", namespace], check=True)
        shutil.rmtree(directory, ignore_errors=True)


def _end_remains(directory: Path) -> None:
    """End what this engine left when it was killed: shims with their containers, and mounts."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if words and "containerd-shim" in words[0] and _below(directory, words):
                for one in [*process.children(recursive=True), process]:
                    one.kill()
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in reversed([one for one in mounts if one.startswith(f"{directory}/")]):
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)


def _below(directory: Path, words: list[str]) -> bool:
    return any(word.startswith(f"{directory}/") for word in words)
