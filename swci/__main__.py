"""`python -m swci`: the command interface, configured by environment variables.

First the start-up script, then commands from standard input: with a prompt when that is a terminal.
The exit status is 0, or 1 when a command failed under EXIT ON FAILURE or the session could not
begin, or 130 when a script was interrupted.

    SWCI_STARTUP_SCRIPT   script in the user directory; `swci-init` is taken if it is there
    USR_DIR               user directory (default: /platform/swarm/usr)
    SWARM_ID_*            identity
    SWCI_RUN_TASK_MAX_WAIT_TIME, SWCI_GENERIC_TASK_MAX_WAIT_TIME    minutes, default 120
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from swarm.api.client import ApiClient
from swarm.errors import LocalError
from swarm.identity import Identity, Role
from swarm.identity.live import follow
from swarm.log import configure
from swci.commands import language
from swci.directory import USER_DIRECTORY
from swci.ports import Client
from swci.prompt import run_prompt
from swci.script import BANNER, run_lines
from swci.session import Outcome, Session

DEFAULT_SCRIPT = "swci-init"


def main(env: Mapping[str, str] | None = None) -> int:
    """Run a session; the exit status."""
    env = os.environ if env is None else env
    try:
        configure(env.get("SWCI_LOG_LEVEL") or env.get("SWARM_LOG_LEVEL") or "WARNING", sys.stderr)
        mode = env.get("SWCI_MODE", "CLI").upper()
        if mode != "CLI":
            raise LocalError("SW8002", f"SWCI_MODE={mode} is not available yet, only CLI is")
        user_directory = Path(env.get("USR_DIR") or USER_DIRECTORY)
        script = _script(env, user_directory)
        identity = Identity.from_env(env, Role.SWCI)
    except LocalError as fault:
        print(f"ERROR : {fault}", file=sys.stderr)
        return 1

    clients: list[ApiClient] = []

    def audit() -> None:
        for client in tuple(clients):
            client.audit()

    def connect(host: str, port: int) -> Client:
        clients.append(ApiClient(identity, [(host, port)]))
        return clients[-1]

    follow(identity, audit)

    session = Session(language(), connect, user_directory=user_directory, env=env)
    with contextlib.closing(session):
        return _run(session, script, Path(env.get("SWARM_HOME") or Path.home() / ".swarm"))


def _run(session: Session, script: list[str], home: Path) -> int:
    signal.signal(signal.SIGTERM, _terminate)  # as process 1 of a container, it would be ignored
    print(BANNER, flush=True)
    try:
        outcome = run_lines(session, script, sys.stdout)
        if not outcome.leave:
            outcome = _interact(session, home)
    except KeyboardInterrupt:
        print("\nINTERRUPTED : what the network has begun goes on", flush=True)
        return 130
    return 0 if outcome.ok else 1


def _interact(session: Session, home: Path) -> Outcome:
    """Commands from standard input; failures that did not end the session do not count."""
    if sys.stdin is not None and sys.stdin.isatty():
        outcome = run_prompt(session, home / "swci_history", sys.stdout)
    else:
        outcome = run_lines(session, sys.stdin or (), sys.stdout)
    return outcome if outcome.leave else Outcome(ok=True)


def _script(env: Mapping[str, str], user_directory: Path) -> list[str]:
    """Lines of the start-up script. Raises LocalError SW8001 when the one asked for is absent."""
    asked_for = env.get("SWCI_STARTUP_SCRIPT")
    path = user_directory / (asked_for or DEFAULT_SCRIPT)
    if not asked_for and not path.exists():
        return []
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise LocalError("SW8001", f"cannot read {path} ({fault})") from fault


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
