"""Real daemons as child processes: own environment, own log, bounded waits, ended by pid.

    with Processes(tmp_path) as run:
        sn1 = run.sn("sn1", ca)                      # sentinel, returns when it is ready
        sn2 = run.sn("sn2", ca, sentinel=sn1)
        sn2.kill()                                   # SIGKILL
        run.restart(sn2)
        client = run.client(ca, sn1, role=Role.SWCI)

Nothing here sleeps: a thread reads each process' output and wakes those that wait for a line. When
a test fails, the ends of all logs are printed.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType

from swarm.api.client import ApiClient
from swarm.identity import Identity, Role
from tests import pki

READY = "swarm.blCnt : INFO : Starting SWARM-API-SERVER on port: {port}"
TAIL = 60  # lines of each log that a failed test prints


LOWEST, HIGHEST = 20_000, 30_000
COUNTER = Path(tempfile.gettempdir()) / f"swarm-tests-port-{os.getuid()}"


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on, and that no other test gets until all others have been.

    They lie below those that the kernel gives to outgoing connections, and are counted in a file
    that the tests' processes share: a port from `bind(0)` is anybody's until it is bound again.
    """
    with COUNTER.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        last = int(counter.read() or LOWEST)
        for number in range(last + 1, last + 1 + HIGHEST - LOWEST):
            port = LOWEST + (number - LOWEST) % (HIGHEST - LOWEST)
            if _is_free(host, port):
                counter.truncate(0)
                counter.write(str(port))
                return port
    raise AssertionError(f"no free port from {LOWEST} to {HIGHEST}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True


def until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Wait for a condition that has no event to wait for (state behind an API); bounded."""
    end = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        pause.wait(0.05)


class Daemon:
    """One child process with its log."""

    def __init__(
        self,
        name: str,
        command: list[str],
        env: Mapping[str, str],
        log: Path,
        host: str = "",
        port: int = 0,
    ) -> None:
        self.name = name
        self.command = command
        self.env = dict(env)
        self.log_path = log
        self.host = host
        self.port = port
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = True
        self._start_index = 0
        self.start()

    def start(self) -> None:
        """Start it, again after an end; the log is continued."""
        self._start_index = len(self.lines)
        self.process = subprocess.Popen(
            self.command,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._ended = False
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything it has printed so far, over all its starts."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout: float = 30.0, *, plain: bool = False) -> str:
        """Wait for a line that contains `pattern` (a regular expression) since the last start.

        Fails when the process ends before, or after `timeout` seconds.
        """
        expression = re.compile(re.escape(pattern) if plain else pattern)
        end = time.monotonic() + timeout
        at = self._start_index
        with self._news:
            while True:
                for line in self.lines[at:]:
                    at += 1
                    if expression.search(line):
                        return line
                left = end - time.monotonic()
                if self._ended or left <= 0:
                    why = "ended" if self._ended else f"did not within {timeout:g} s"
                    raise AssertionError(f"{self.name} {why}: log {pattern!r}\n{self.tail()}")
                self._news.wait(left)

    def signal(self, number: int) -> None:
        """Send a signal to the process itself."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait(10)
        self.wait_end()

    def terminate(self, timeout: float = 10.0) -> int:
        """SIGTERM, and return the exit status."""
        self.process.terminate()
        code = self.process.wait(timeout)
        self.wait_end()
        return code

    def wait_end(self, timeout: float = 10.0) -> None:
        """Wait until everything that an ended process printed has been read."""
        with self._news:
            assert self._news.wait_for(lambda: self._ended, timeout), f"{self.name} still runs"

    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End what stays behind an ended process; for an ordinary one that is nothing."""

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tail(self, lines: int = TAIL) -> str:
        return f"--- {self.name} ---\n" + "\n".join(self.lines[-lines:])

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout, self.log_path.open("ab") as copy:
            for raw in process.stdout:
                copy.write(raw)
                copy.flush()
                with self._news:
                    self.lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
                    self._news.notify_all()
        process.wait()
        with self._news:
            if process is self.process:
                self._ended = True
            self._news.notify_all()


class Processes:
    """All processes of one test. Leaving the block ends them, whatever happened."""

    made: type[Daemon] = Daemon

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemons: list[Daemon] = []
        self._clients: list[ApiClient] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients:
            client.close()
        if kind is not None:
            for daemon in self.daemons:
                print(daemon.tail(), file=sys.stderr)
        for daemon in self.daemons:
            if daemon.alive():
                daemon.signal(signal.SIGCONT)
                daemon.kill()
            daemon.close()

    def start(
        self,
        name: str,
        module: str,
        env: Mapping[str, str],
        *,
        args: Iterable[str] = (),
        prefix: Iterable[str] = (),
        host: str = "",
        port: int = 0,
    ) -> Daemon:
        """Start `python -m module` with `env` on top of this process' environment.

        `prefix` comes before the command: what runs it on another host, for instance.
        """
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SWARM_", "SN_", "SL_"))}
        daemon = self.made(
            name,
            [*prefix, sys.executable, "-m", module, *args],
            {**clean, "PYTHONUNBUFFERED": "1", **env},
            self.directory / f"{name}.log",
            host,
            port,
        )
        self.daemons.append(daemon)
        return daemon

    def sn(
        self,
        name: str,
        ca: pki.Authority,
        *,
        sentinel: Daemon | None = None,
        fault_model: str = "",
        env: Mapping[str, str] | None = None,
        wait: float | None = 30.0,
    ) -> Daemon:
        """Start a network node; without `sentinel` it is the first one.

        Returns when it is ready; at once with `wait=None`.
        """
        port = free_port()
        settings = {
            **pki.environment(self.directory / "cert" / name, Role.SN, ca, name=name),
            "THIS_NODE_IP": "127.0.0.1",
            "SWARM_LISTEN": "127.0.0.1",
            "SN_API_SERVER_PORT": str(port),
            "SN_P2P_PORT": (p2p := str(free_port())),
            "SN_ETH_PORT_EXT": p2p,
            "SWARM_NODE_NAME": name,
            "SWARM_DATA_DIR": str(self.directory / "data" / name),
        }
        if fault_model:
            settings["SWARM_FAULT_MODEL"] = fault_model
        if sentinel is None:
            settings["SN_I_AM_SENTINEL"] = "1"
        else:
            settings["SENTINEL_NODE_IP"] = sentinel.host
            settings["SENTINEL_API_SERVER_PORT"] = str(sentinel.port)
        daemon = self.start(
            name, "sentinel", {**settings, **(env or {})}, host="127.0.0.1", port=port
        )
        if wait is not None:
            self.ready(daemon, wait)
        return daemon

    def ready(self, sn: Daemon, timeout: float = 30.0) -> None:
        """Wait for a network node's ready line."""
        sn.wait_for(READY.format(port=sn.port), timeout, plain=True)

    def restart(self, sn: Daemon, timeout: float = 30.0) -> None:
        """Start a network node again that has ended, on the same data, and wait for it."""
        sn.start()
        self.ready(sn, timeout)

    def identity(self, ca: pki.Authority, role: Role, name: str = "") -> Identity:
        """An identity in the test's directory."""
        label = f"{role}-{name}".lower()
        return pki.identity(self.directory / "cert" / label, role, ca, name=name)

    def client(
        self, ca: pki.Authority, *nodes: Daemon, role: Role = Role.SWCI, timeout: float = 10.0
    ) -> ApiClient:
        """A client of the given network nodes; closed at the end of the test."""
        identity = self.identity(ca, role, f"client{len(self._clients)}")
        return self.close_later(
            ApiClient(identity, [(n.host, n.port) for n in nodes], timeout=timeout)
        )

    def direct(self, ca: pki.Authority, sn: Daemon) -> ApiClient:
        """A client that talks to this node alone; closed at the end of the test."""
        identity = self.identity(ca, Role.SWCI, f"direct-{sn.name}")
        return self.close_later(ApiClient(identity, [(sn.host, sn.port)], learn=False))

    def close_later(self, client: ApiClient) -> ApiClient:
        """Close a client at the end of the test."""
        self._clients.append(client)
        return client
