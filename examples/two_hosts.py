"""An example on two hosts, driven with the product's own commands.

The demonstration and the end-to-end tests share this: what the README's two-host guide does by hand
is done here step by step. A host is a directory, an address and a set of ports; its commands may be
wrapped (`prefix`), so that a host can be a network namespace, too.

An example is a directory of `examples` with `model`, `swop`, `swci` and a private directory for
each host. Its `data.py` writes one node's data: `data.py --node 1 --of 2 DIRECTORY`; one without
takes MNIST's.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "examples"
RUNNER = "defaulttaskbb.taskdb.sml.hpe"
CONTRACT = "defaultbb.cqdb.sml.hpe"
READY = "swarm.blCnt : INFO : Starting SWARM-API-SERVER on port: {port}"


class StepFailed(Exception):
    """A command failed; the text holds the command and what it printed."""


@dataclass
class Host:
    """One organisation's host."""

    index: int  # 1 or 2: names certificates, profile and user directory
    address: str
    directory: Path
    p2p_port: int
    api_port: int
    learner_port: int
    network: str = "none"  # a Docker network; plain processes have none
    prefix: list[str] = field(default_factory=list)
    example: str = "mnist"

    @property
    def workspace(self) -> Path:
        return self.directory / "workspace" / self.example

    @property
    def capath(self) -> Path:
        return self.workspace / "cert" / "ca" / "capath"

    @property
    def user(self) -> Path:
        """The private directory of this host's ML program: data in, model and results out."""
        return self.workspace / f"user{self.index}"

    def identity(self, component: str) -> list[str]:
        """The identity flags of one component, for any of the run-* commands."""
        cert = self.workspace / "cert"
        return [
            f"--key={cert / f'{component}-{self.index}-key.pem'}",
            f"--cert={cert / f'{component}-{self.index}-cert.pem'}",
            f"--capath={self.capath}",
        ]


class TwoHosts:
    """The steps of the guide, in order. `stop` undoes whatever the others began."""

    def __init__(
        self,
        hosts: Sequence[Host],
        *,
        runtime: str = "process",
        tag: str = "",
        say: Callable[[str], None] = print,
    ) -> None:
        self.hosts = list(hosts)
        self.runtime = runtime
        self.say = say
        self.tag = tag  # sets this swarm's node names apart from others on the same machine
        self.first = self.hosts[0]
        self.ledger_flags: Callable[[Host], list[str]] = lambda host: []  # of each network node

    # ---------------------------------------------------------------- running commands

    def start(self, host: Host, command: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one of the product's commands on a host; its output is read from `.stdout`."""
        return subprocess.Popen(
            [*host.prefix, str(Path(sys.executable).parent / command), *arguments],
            cwd=host.directory,
            env={**os.environ, "SWARM_HOME": str(host.directory / "nodes")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A signal of the terminal must not reach the nodes before they are stopped in order.
            start_new_session=True,
        )

    def run(self, host: Host, command: str, *arguments: str) -> str:
        process = self.start(host, command, *arguments)
        try:
            output, _ = process.communicate()
        except BaseException:
            stop_process(process)  # an interrupted step is not left running
            raise
        if process.returncode:
            raise StepFailed(f"{command} {' '.join(arguments)}\n{output}")
        return output

    def name(self, component: str, host: Host) -> str:
        return f"{self.tag}{component}{host.index}"

    # ---------------------------------------------------------------- steps

    def prepare(self) -> None:
        """Workspaces, each host's data, certificates, shared CA certificates, placeholders."""
        for host in self.hosts:
            shutil.copytree(
                EXAMPLES / host.example,
                host.workspace,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
            self._fetch_data(host)
            self.run(host, "gen-cert", "-e", host.example, "-i", str(host.index))
        for host in self.hosts:
            for other in self.hosts:
                if other is not host:
                    shutil.copy(other.capath / f"ca-{other.index}-cert.pem", host.capath)
            self._fill_placeholders(host)

    def _fetch_data(self, host: Host) -> None:
        """On this machine rather than on the host, which may have no way to anywhere else."""
        share = ["--node", str(host.index), "--of", str(len(self.hosts))]
        own = EXAMPLES / host.example / "data.py"
        script = own if own.exists() else EXAMPLES / "mnist" / "data.py"
        command = [sys.executable, str(script), *share, str(host.user)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StepFailed(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        self.say(done.stdout.strip().splitlines()[-1])

    def _fill_placeholders(self, host: Host) -> None:
        profile = host.workspace / "swop" / f"swop{host.index}_profile.yaml"
        replace(
            profile,
            {
                "<PROJECT-CERTS>": str(host.workspace / "cert"),
                "<PROJECT-CACERTS>": str(host.capath),
                "<PROJECT>": str(host.workspace),
                "<SWARM-NETWORK>": host.network,
                "<HOST_ADDRESS>": host.address,
                "<LICENSE-SERVER-ADDRESS>": self.first.address,
                "30304": str(host.api_port),
                "16000": str(host.learner_port),
                "18000": str(host.learner_port),
            },
        )
        for task in (host.workspace / "swci" / "taskdefs").glob("*.yaml"):
            replace(task, {"<PROJECT-MODEL>": str(self.first.workspace / "model")})
        replace(
            host.workspace / "swci" / "swci-init",
            {"172.1.1.1": f"{self.first.address} {self.first.api_port}"},
        )

    def network_node(self, host: Host) -> None:
        """Start a network node; the first one is the sentinel, the others join it."""
        role = (
            ["--sentinel"]
            if host is self.first
            else [
                f"--sentinel-ip={self.first.address}",
                f"--sentinel-api-port={self.first.api_port}",
            ]
        )
        self.run(
            host,
            "run-sn",
            *self._common("sn", host),
            *role,
            f"--host-ip={host.address}",
            f"--sn-p2p-port={host.p2p_port}",
            f"--sn-api-port={host.api_port}",
            *self.ledger_flags(host),
        )

    def operator(self, host: Host) -> None:
        self.run(
            host,
            "run-swop",
            *self._common("swop", host),
            f"--sn-ip={host.address}",
            f"--sn-api-port={host.api_port}",
            f"--usr-dir={host.workspace / 'swop'}",
            f"--profile-file-name=swop{host.index}_profile.yaml",
        )

    def command_interface(self) -> subprocess.Popen[str]:
        """Start the example's script on the first host; the caller reads its output."""
        host = self.first
        return self.start(
            host,
            "run-swci",
            *[flag for flag in self._common("swci", host) if flag != "-d"],
            f"--usr-dir={host.workspace / 'swci'}",
            "--init-script-name=swci-init",
        )

    def _common(self, component: str, host: Host) -> list[str]:
        where = (
            ["--runtime=process"] if self.runtime == "process" else [f"--network={host.network}"]
        )
        return [
            "-d",
            f"--name={self.name(component, host)}",
            *where,
            *host.identity(component),
            f"--apls-ip={self.first.address}",
        ]

    def stop(self) -> None:
        """End every node of these hosts, in order, and keep the logs. Safe at any time."""
        if self.runtime == "process":
            for host in self.hosts:
                if host.directory.exists():
                    self.run(host, "stop-swarm", "--runtime=process", "--keep")
            return
        # By name: `stop-swarm` would end all swarm containers of this engine.
        for component in ("swci", "swop", "sn"):
            names = [self.name(component, host) for host in self.hosts]
            subprocess.run(["docker", "stop", "-t", "20", *names], capture_output=True, check=False)
            for host, name in zip(self.hosts, names, strict=True):
                _save_log(name, host.directory / f"{name}.log")
            subprocess.run(["docker", "rm", "-f", *names], capture_output=True, check=False)


def _save_log(container: str, path: Path) -> None:
    done = subprocess.run(
        ["docker", "logs", container],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode == 0:
        path.write_bytes(done.stdout)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def replace(path: Path, values: dict[str, str]) -> None:
    """Replace every key by its value in a text file."""
    text = path.read_text()
    for old, new in values.items():
        text = text.replace(old, new)
    path.write_text(text)


def stop_process(process: subprocess.Popen[str]) -> None:
    """End a command and everything it started: politely, then for certain."""
    for sig, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, sig)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def follow(process: subprocess.Popen[str], on_line: Callable[[str], None]) -> int:
    """Hand every line a command prints to `on_line`; its exit status when it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        on_line(line.rstrip("\n"))
    return process.wait()
