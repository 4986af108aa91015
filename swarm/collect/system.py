"""What the host itself is: system, engine, graphics cards, versions."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

from swarm.collect.redact import ENGINE, Redactor
from swarm.errors import LocalError
from swarm.launch import nodes
from swarm.launch.docker_backend import Docker
from swarm.launch.plan import version

SECONDS = 20  # for one command
PS = "table {{.Names}}\t{{.Image}}\t{{.Status}}\t{{.Ports}}"  # without the command lines


def described(docker: Docker | None, redactor: Redactor) -> str:
    """Everything, as `$ command` and what it says."""
    return "\n".join(f"$ {title}\n{text.rstrip()}\n" for title, text in _parts(docker, redactor))


def versions() -> str:
    """This product's version, Python's, and those of all installed packages."""
    packages = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    told = {
        "swarm": version(),
        "python": sys.version,
        "packages": dict(sorted(packages.items(), key=lambda item: str(item[0]).lower())),
    }
    return json.dumps(told, indent=2) + "\n"


def _parts(docker: Docker | None, redactor: Redactor) -> Iterator[tuple[str, str]]:
    yield "date", _command("date")
    yield "id", _command("id")
    yield "uname", " ".join(platform.uname())
    release = Path("/etc/os-release")
    yield str(release), release.read_text() if release.is_file() else "[none]"
    memory = psutil.virtual_memory()
    yield "memory", f"{memory.total} bytes, {memory.available} available, {os.cpu_count()} cores"
    for path in {nodes.home(), Path.cwd(), Path("/var/lib/docker")}:
        if path.exists():
            usage = shutil.disk_usage(path)
            yield f"disk of {path}", f"{usage.total} bytes, {usage.free} free"
    if docker is None:
        yield "docker", "[not installed]"
    else:
        yield "docker version", _docker(docker, "version")
        yield "docker info", _info(docker, redactor)
        yield "docker ps -a", _docker(docker, "ps", "--all", "--format", PS)
        yield "docker images swarm-node", _docker(docker, "images", "swarm-node")
    if shutil.which("nvidia-smi"):
        yield "nvidia-smi", _command("nvidia-smi")


def _info(docker: Docker, redactor: Redactor) -> str:
    text = _docker(docker, "info", "--format", "{{json .}}")
    try:
        return json.dumps(redactor.shaped(json.loads(text), ENGINE), indent=2)
    except ValueError:
        return "[the engine does not tell]"


def _docker(docker: Docker, *words: str) -> str:
    try:
        return docker.run(*words)
    except LocalError as fault:
        return f"[{fault.cause}]"


def _command(*words: str) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        return f"[{fault}]"
    return done.stdout or done.stderr
