"""Nodes as plain local processes: no container engine, no root.

A node in the foreground replaces the command that started it, so that signals, terminal and exit
status are its own. One in the background gets a session of its own, a log file, and a keeper that
writes down how it ended.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import psutil

from swarm.errors import LocalError
from swarm.launch import arguments, keeper, nodes
from swarm.launch.arguments import UsageError
from swarm.launch.plan import ML, SL, DockerArguments, Launch, Sidecar

FIRST_LINE_SECONDS = 10.0  # how long `-d` waits for a sign of life
POLL_SECONDS = 0.05
ENDING_SECONDS = 5.0  # how long a node that logged an error at once may take to end
TAIL_LINES = 10

# Docker's options that mean something without containers, or whose absence nobody would miss.
_HONOURED = {"name", "env", "env-file", "rm", "workdir"}
_SILENT = {"hostname", "network", "label", "interactive", "tty", "attach"}


def start(launch: Launch) -> int:
    """Start a launch as local processes. Returns the exit status; in the foreground, never."""
    name = launch.name or f"{launch.component.name}-{secrets.token_hex(3)}"
    _mention_what_has_no_effect(launch)
    command = [sys.executable, "-m", launch.component.module, *launch.arguments]
    beside: list[str] = []
    try:
        with nodes.claim(name) as place:
            env = environment(launch, name, place)
            for sidecar in launch.sidecars:
                beside.append(_start_sidecar(sidecar, name, launch, place))
            if launch.detach:
                kept, pid = _spawn(command, env, place, launch.remove)
            else:
                pid = os.getpid()
            nodes.register(name, launch.component.name, pid, launch.remove)
        if launch.detach:
            return _looked_after(kept, name, place / "log")
    except (UsageError, LocalError):
        _end(beside)
        raise
    for other in beside:
        print(f"{other} runs beside it; its output: swarm logs {other}", file=sys.stderr)
    return _become(command, env)


def _become(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process by the node's."""
    sys.stdout.flush()
    os.execve(command[0], list(command), dict(env))  # noqa: S606 - no shell is wanted


def environment(launch: Launch, name: str, place: Path) -> dict[str, str]:
    """All variables of the node: ours, what the launch says, what the user said last."""
    env = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "SWARM_NODE_NAME": name,
        "SWARM_DATA_DIR": str(place / "data"),
        **launch.env,
        **launch.process_env,
    }
    if launch.component is SL:
        link = place / "link"
        link.mkdir(mode=0o700, exist_ok=True)
        env["SWARM_LINK"] = str(link)
    env.update(given_environment(launch.docker))
    return env


def given_environment(options: DockerArguments) -> dict[str, str]:
    """Variables of --env and --env-file, as docker reads them."""
    found: dict[str, str] = {}
    for name, value in options:
        if name == "env-file" and value is not None:
            try:
                lines = Path(value).read_text().splitlines()
            except OSError as error:
                raise UsageError(f"--env-file: {value}: {error.strerror}") from error
        elif name == "env" and value is not None:
            lines = [value]
        else:
            continue
        for line in lines:
            variable, equals, content = line.partition("=")
            if equals and variable and not variable.startswith("#"):
                found[variable] = content
    return found


def _looked_after(kept: subprocess.Popen[bytes], name: str, log: Path) -> int:
    """Wait for a sign of life of a node in the background. Raises LocalError SW9005."""
    deadline = time.monotonic() + FIRST_LINE_SECONDS
    while time.monotonic() < deadline and not log.stat().st_size:
        if kept.poll() is not None:
            break
        time.sleep(POLL_SECONDS)
    # A node that refuses its settings says so and ends; give it the moment between the two.
    patience = ENDING_SECONDS if " : ERROR : " in last_lines(log, TAIL_LINES) else 0.0
    if status := _ended(kept, patience):
        print(last_lines(log, TAIL_LINES), file=sys.stderr)
        raise LocalError("SW9005", f"{name} ended with status {status}")
    print(name)
    return 0


def _ended(process: subprocess.Popen[bytes], patience: float) -> int | None:
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        return None


def _spawn(
    command: Sequence[str],
    env: Mapping[str, str],
    place: Path,
    remove: bool,
    directory: Path | None = None,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command under a keeper; the keeper, and the command's process id.

    Raises LocalError SW9010 when there is no such program.
    """
    ours, theirs = os.pipe()
    keeping = [sys.executable, "-I", "-S", keeper.__file__, str(place), str(theirs)]
    log = place / "log"
    with log.open("wb") as output, os.fdopen(ours, encoding="utf-8") as answers:
        log.chmod(0o600)
        try:
            process = subprocess.Popen(
                [*keeping, "remove" if remove else "keep", *command],
                env=dict(env),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(theirs,),
            )
        finally:
            os.close(theirs)
        kind, _, text = answers.readline().strip().partition(" ")
    if kind != "pid":
        raise LocalError("SW9010", f"{command[0]}: {text or 'cannot be started'}")
    return process, int(text)


def _start_sidecar(sidecar: Sidecar, main: str, launch: Launch, place: Path) -> str:
    """Start a program beside the node, always in the background: the node is the main one."""
    name = sidecar.name or f"{main}-{sidecar.kind}"
    entrypoint = sidecar.entrypoint or (sys.executable,)
    directory = arguments.last(sidecar.docker, "workdir")
    if directory is not None and not Path(directory).is_dir():
        raise UsageError(f"--{sidecar.kind}-workdir: {directory}: bad directory")
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if sidecar.kind == ML.name:
        env["SWARM_LINK"] = str(place / "link")
    env.update(given_environment(sidecar.docker))
    with nodes.claim(name) as own:
        _, pid = _spawn(
            [*entrypoint, *sidecar.command],
            env,
            own,
            launch.remove,
            Path(directory) if directory else None,
        )
        nodes.register(name, sidecar.kind, pid, launch.remove, launch.component.name)
    return name


def _end(names: Sequence[str]) -> None:
    """End what was started for a node that does not run; the logs stay."""
    for name in names:
        node = nodes.read(name)
        if node is not None and (process := node.process()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()


def last_lines(log: Path, count: int) -> str:
    """The end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _mention_what_has_no_effect(launch: Launch) -> None:
    ours = f"{os.getuid()}:{os.getgid()}"
    given = {f"--{name}" for name, _ in launch.docker if name not in _HONOURED | _SILENT}
    if launch.image:
        given.add("--image")
    for sidecar in launch.sidecars:
        given |= {
            f"--{sidecar.kind}-{name}"
            for name, value in sidecar.docker
            if name not in _HONOURED | _SILENT and (name, value) != ("user", ours)
        }
        if sidecar.image:
            given.add(f"--{sidecar.kind}-image")
    if given:
        listed = ", ".join(sorted(given))
        print(
            f"run-{launch.component.name}: without effect on a local process: {listed}",
            file=sys.stderr,
        )
