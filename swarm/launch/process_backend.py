"""Nodes as plain local processes: no container engine, no root.

A node in the foreground replaces the command that started it, so that signals, terminal and exit
status are its own. One in the background gets a session of its own and a log file.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from swarm.errors import LocalError
from swarm.launch import arguments, nodes
from swarm.launch.arguments import UsageError
from swarm.launch.plan import ML, SL, DockerArguments, Launch, Program

FIRST_LINE_SECONDS = 10.0  # how long `-d` waits for a sign of life
POLL_SECONDS = 0.05
ENDING_SECONDS = 5.0  # how long a node that logged an error at once may take to end
TAIL_LINES = 10

# Docker's options that mean something without containers, or whose absence nobody would miss.
_HONOURED = {"name", "env", "env-file", "rm", "workdir"}
_SILENT = {"hostname", "network", "label", "interactive", "tty", "user"}


def start(launch: Launch) -> int:
    """Start a launch as local processes. Returns the exit status; in the foreground, never."""
    name = launch.name or f"{launch.component.name}-{secrets.token_hex(3)}"
    _mention_what_has_no_effect(launch)
    command = [sys.executable, "-m", launch.component.module, *launch.arguments]
    with nodes.claim(name) as place:
        env = environment(launch, name, place)
        if launch.program is not None:
            _start_program(launch.program, name, place, launch.remove)
        if not launch.detach:
            nodes.register(name, launch.component.name, os.getpid(), launch.remove)
            _become(command, env)
        return _background(command, env, name, launch, place)


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


def _background(
    command: Sequence[str], env: Mapping[str, str], name: str, launch: Launch, place: Path
) -> int:
    log = place / "log"
    process = _spawn(command, env, log, None)
    nodes.register(name, launch.component.name, process.pid, launch.remove)
    deadline = time.monotonic() + FIRST_LINE_SECONDS
    while time.monotonic() < deadline and not log.stat().st_size:
        if process.poll() is not None:
            break
        time.sleep(POLL_SECONDS)
    # A node that refuses its settings says so and ends; give it the moment between the two.
    patience = ENDING_SECONDS if " : ERROR : " in last_lines(log, TAIL_LINES) else 0.0
    if status := _ended(process, patience):
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
    command: Sequence[str], env: Mapping[str, str], log: Path, directory: Path | None
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        log.chmod(0o600)
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _start_program(program: Program, learner: str, place: Path, remove: bool) -> None:
    """Start the user's program of run-sl, always in the background: the learner is the main one."""
    name = program.name or f"{learner}-ml"
    entrypoint = program.entrypoint or (sys.executable,)
    directory = arguments.last(program.docker, "workdir")
    if directory is not None and not Path(directory).is_dir():
        raise UsageError(f"--ml-workdir: {directory}: bad directory")
    env = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "SWARM_LINK": str(place / "link"),
        **given_environment(program.docker),
    }
    with nodes.claim(name) as own:
        try:
            process = _spawn(
                [*entrypoint, *program.command],
                env,
                own / "log",
                Path(directory) if directory else None,
            )
        except OSError as error:
            raise UsageError(f"--ml-entrypoint: {entrypoint[0]}: {error.strerror}") from error
        nodes.register(name, ML.name, process.pid, remove)


def last_lines(log: Path, count: int) -> str:
    """The end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _mention_what_has_no_effect(launch: Launch) -> None:
    given = {name for name, _ in launch.docker} - _HONOURED - _SILENT
    if launch.image:
        given.add("image")
    if given:
        listed = ", ".join(f"--{name}" for name in sorted(given))
        print(
            f"run-{launch.component.name}: without effect on a local process: {listed}",
            file=sys.stderr,
        )
