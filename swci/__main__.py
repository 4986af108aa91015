"""`python -m swci [--output text|json]`: the command interface, configured by environment
variables.

First the start-up script, then commands from standard input: with a prompt when that is a terminal.
In web mode commands come by HTTPS instead, until SIGTERM. The exit status is 0, or 1 when a command
failed under EXIT ON FAILURE or the session could not begin, or 130 when a script was interrupted.

    SWCI_MODE             CLI (default) or WEB
    SWCI_WEB_PORT         port of web mode (default: 30306), on the address SWARM_LISTEN
    SWCI_STARTUP_SCRIPT   script in the user directory; `swci-init` is taken if it is there
    USR_DIR               user directory (default: /platform/swarm/usr)
    SWARM_ID_*            identity
    SWCI_RUN_TASK_MAX_WAIT_TIME, SWCI_GENERIC_TASK_MAX_WAIT_TIME    minutes, default 120
    SWCI_OUTPUT           text (default), or json: one document a command, as --output
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn
from weakref import WeakSet

from swarm.api.client import ApiClient
from swarm.errors import LocalError
from swarm.identity import Identity, Role
from swarm.identity.live import follow
from swarm.log import configure
from swci.commands import language
from swci.directory import USER_DIRECTORY
from swci.json_lines import run_json, tell_error
from swci.ports import Client
from swci.prompt import run_prompt
from swci.script import BANNER, Run, run_lines
from swci.session import Outcome, Session

DEFAULT_SCRIPT = "swci-init"
OUTPUTS = ("text", "json")


def main(env: Mapping[str, str] | None = None, argv: Sequence[str] = ()) -> int:
    """Run a session; the exit status."""
    env = os.environ if env is None else env
    asked = _arguments(argv).output
    output = "text"
    try:
        output = _output(env, asked)
        level = "INFO" if env.get("SWCI_MODE", "").upper() == "WEB" else "WARNING"
        configure(env.get("SWCI_LOG_LEVEL") or env.get("SWARM_LOG_LEVEL") or level, sys.stderr)
        port = _web_port(env)
        user_directory = Path(env.get("USR_DIR") or USER_DIRECTORY)
        script = _script(env, user_directory)
        identity = Identity.from_env(env, Role.SWCI, _history(env, user_directory).parent)
    except LocalError as fault:
        print(f"ERROR : {fault}", file=sys.stderr)
        if output == "json":
            tell_error(fault.code, fault.cause, sys.stdout)
        return 1

    clients = Clients(identity)
    session = Session(
        language(),
        clients.connect,
        user_directory=user_directory,
        env=env,
        confined=port is not None,
    )
    signal.signal(signal.SIGTERM, _terminate)  # as process 1 of a container, it would be ignored
    with contextlib.closing(session):
        try:
            if port is not None:
                address = (env.get("SWARM_LISTEN") or "0.0.0.0", port)  # noqa: S104 - as all nodes
                return _serve(session, script, identity, clients, address)
            follow(identity, clients.audit)
            history = _history(env, user_directory)
            return _run(session, script, history, run_json if output == "json" else None)
        except LocalError as fault:
            print(f"ERROR : {fault}", file=sys.stderr)
            return 1


class Clients:
    """The connections to network nodes, as long as somebody uses them."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._lock = threading.Lock()
        self._made: WeakSet[ApiClient] = WeakSet()

    def connect(self, host: str, port: int) -> Client:
        """A client of one network node."""
        client = ApiClient(self._identity, [(host, port)])
        with self._lock:
            self._made.add(client)
        return client

    def audit(self) -> None:
        """End what leads to nodes whose certificate is no longer good."""
        with self._lock:
            clients = list(self._made)
        for client in clients:
            client.audit()


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m swci", description="The command interface; settings are in the environment."
    )
    parser.add_argument(
        "--output", choices=OUTPUTS, help="text for people (default), or json for programs"
    )
    return parser.parse_args(argv)


def _output(env: Mapping[str, str], asked: str | None) -> str:
    """Whether people or programs read along. Raises LocalError SW8002."""
    output = asked or env.get("SWCI_OUTPUT") or "text"
    if output not in OUTPUTS:
        raise LocalError("SW8002", f"SWCI_OUTPUT is {output!r}, not text or json")
    return output


def _history(env: Mapping[str, str], user_directory: Path) -> Path:
    """Where the lines of a prompt are kept.

    Of a container, the user directory is all that outlives it.
    """
    home = env.get("SWARM_HOME")
    if not home and user_directory == Path(USER_DIRECTORY):
        return user_directory / ".swci_history"
    return Path(home or Path.home() / ".swarm") / "swci_history"


def _run(session: Session, script: list[str], history: Path, run: Run | None) -> int:
    """`run` executes a line where that is not done for people."""
    if run is None:
        print(BANNER, flush=True)
    try:
        outcome = run_lines(session, script, sys.stdout, run)
        if not outcome.leave:
            outcome = _interact(session, history, run)
    except KeyboardInterrupt:
        if run is None:
            print("\nINTERRUPTED : what the network has begun goes on", flush=True)
        return 130
    return 0 if outcome.ok else 1


def _serve(
    session: Session,
    script: list[str],
    identity: Identity,
    clients: Clients,
    address: tuple[str, int],
) -> int:
    """Web mode: the script, and then whatever clients send, until a signal.

    Raises LocalError SW8040 when the port cannot be opened.
    """
    from swci.web.server import Server  # imported here: a script needs none of it
    from swci.web.sessions import Sessions

    print(BANNER, flush=True)
    try:
        outcome = run_lines(session, script, sys.stdout)
        if outcome.leave:
            return 0 if outcome.ok else 1
    except KeyboardInterrupt:
        return 130
    with contextlib.closing(Sessions(session)) as sessions:
        server = Server(identity, sessions)
        follow(identity, clients.audit, server.audit)
        with contextlib.closing(server):
            print(f"SWCI WEB SERVER IS UP ON PORT : {server.start(*address)}", flush=True)
            with contextlib.suppress(KeyboardInterrupt, SystemExit):  # SIGINT and SIGTERM
                while True:
                    session.clock.pause(3600)
    return 0


def _interact(session: Session, history: Path, run: Run | None) -> Outcome:
    """Commands from standard input; failures that did not end the session do not count."""
    if sys.stdin is not None and sys.stdin.isatty():
        outcome = run_prompt(session, history, sys.stdout, run)
    else:
        outcome = run_lines(session, sys.stdin or (), sys.stdout, run)
    return outcome if outcome.leave else Outcome(ok=True)


def _web_port(env: Mapping[str, str]) -> int | None:
    """The port of web mode; None in the other mode. Raises LocalError SW8002."""
    mode = (env.get("SWCI_MODE") or "CLI").upper()
    if mode not in ("CLI", "WEB"):
        raise LocalError("SW8002", f"SWCI_MODE={mode}: CLI or WEB expected")
    if mode == "CLI":
        return None
    text = env.get("SWCI_WEB_PORT") or "30306"
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536):
        raise LocalError("SW8002", f"SWCI_WEB_PORT={text}: a port expected")
    return int(text)


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
    sys.exit(main(argv=sys.argv[1:]))
