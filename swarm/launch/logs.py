"""`swarm logs`: the log of anything that ran on this host, wherever it is kept.

Looked at in this order: nodes that run-* started as local processes; SLs and MLs of operators that
run as local processes; containers; and what an operator keeps of containers that it has removed.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from swarm import logfile
from swarm.errors import LocalError
from swarm.launch import docker_backend, nodes, programs
from swarm.launch.arguments import UsageError
from swarm.launch.docker_backend import Docker
from swarm.launch.plan import OPERATOR_DIRECTORY, SWOP

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_CHUNK = 64 * 1024


def main(argv: Sequence[str]) -> int:
    """Execute `swarm logs`; the exit status. Raises UsageError, LocalError."""
    name, follow, tail = "", False, None
    words = list(argv)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if word in ("-f", "--follow"):
            follow = True
        elif option in ("--tail", "-n"):
            value = value if equals else (words.pop(0) if words else "")
            if not value.isdigit() or len(value) > 9:
                raise UsageError(f"{option}: a number of lines expected, found {value!r}")
            tail = int(value)
        elif word.startswith("-") or name:
            raise UsageError(f"logs: {word}: not understood; see swarm --help")
        else:
            name = word
    if not name:
        return listing()
    if not _NAME.fullmatch(name):
        raise UsageError(f"logs: {name}: not the name of a node")
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        return show(name, follow, tail)
    return 0


def listing() -> int:
    """What has a log on this host, containers excepted."""
    rows = [(node.name, node.component, node.state()) for node in nodes.known()]
    rows += [(found.name, found.role or "-", found.state) for found in programs.known()]
    width = max([24, *(len(name) for name, _, _ in rows)])
    for name, kind, state in rows:
        print(f"{name:<{width}} {kind:<6} {state}")
    return 0


def show(name: str, follow: bool, tail: int | None) -> int:
    """Print a log; the exit status."""
    if nodes.is_name(name) and (node := nodes.read(name)) is not None:
        return _node(node, follow, tail)
    found = [program for program in programs.known() if program.name == name]
    for program in found:
        if program.place is not None:
            return _print(program.log, follow, tail, program.is_over)
    if docker_backend.client() is not None and (code := _container(name, follow, tail)) is not None:
        return code
    for program in found:
        return _print(program.log, False, tail, program.is_over)
    if docker_backend.client() is not None and _kept_in_a_container(name, tail):
        return 0
    raise LocalError("SW9006", f"there is no log of {name} on this host")


def _node(node: nodes.Node, follow: bool, tail: int | None) -> int:
    log = nodes.directory(node.name) / "log"
    if not log.is_file():
        raise UsageError(f"{node.name} runs in the foreground; its output is on its own terminal")
    return _print(log, follow, tail, lambda: node.process() is None)


def _print(log: Path, follow: bool, tail: int | None, is_over: Callable[[], bool]) -> int:
    """Print a file; with `follow` until nobody writes it any more."""
    out = sys.stdout.buffer  # as it was written
    for chunk in logfile.follow(log, is_over if follow else lambda: True, lines=tail):
        out.write(chunk)
        out.flush()
    return 0


def _container(name: str, follow: bool, tail: int | None) -> int | None:
    """Print a container's log; None when the engine does not know it."""
    docker = Docker.find()
    try:
        docker.run("container", "inspect", "--format", "{{.Id}}", name)
    except LocalError:
        return None
    words = ["--follow"] if follow else []
    words += [f"--tail={tail}"] if tail is not None else []
    return docker.follow("container", "logs", *words, name)


def _kept_in_a_container(name: str, tail: int | None) -> bool:
    """Print what an operator in a container keeps of a program that it has removed."""
    docker = Docker.find()
    try:
        operators = docker_backend.containers(docker, SWOP, running=False)
    except LocalError:
        return False  # no engine answers: nothing is to be had from it
    for operator in operators:
        source = f"{operator}:{OPERATOR_DIRECTORY}/logs/{name}.log"
        with tempfile.TemporaryFile() as copy:
            command = [*docker.command, "container", "cp", source, "-"]
            done = subprocess.run(command, stdout=copy, stderr=subprocess.DEVNULL, check=False)
            copy.seek(0)
            if done.returncode == 0 and _unpack(copy, tail):
                return True
    return False


def _unpack(archive: BinaryIO, tail: int | None) -> bool:
    """Print the only file of an archive, as the engine's client copies it."""
    with tarfile.open(fileobj=archive) as content, tempfile.TemporaryFile() as log:
        member = content.next()
        file = content.extractfile(member) if member is not None and member.isreg() else None
        if file is None:
            return False
        while chunk := file.read(_CHUNK):
            log.write(chunk)
        log.seek(0 if tail is None else logfile.tail_offset(log, tail))
        while chunk := log.read(_CHUNK):
            sys.stdout.buffer.write(chunk)
    return True
