"""The launch commands with real nodes as local processes: what a user without Docker does.

One swarm, in the order of its life: operator, network nodes, commands, a training, the end.
"""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from swarm.identity import Role
from tests import pki
from tests.processes import READY, free_port, until
from tests.swop.test_profile import PROFILE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent
LICENCE_PORT = 5814

PROGRAM = """
import sys
import numpy as np
from swarmlearning.numpy import SwarmCallback
swarm = SwarmCallback(syncFrequency=2, minPeers=2, totalEpochs=1)
weights = swarm.on_train_begin({"w": np.full(3, float(sys.argv[1]))})
for _ in range(4):
    weights = swarm.on_batch_end(weights)
swarm.on_epoch_end(0)
weights = swarm.on_train_end(weights)
print("result", *weights["w"])
sys.exit(int(sys.argv[2]))
"""


class Host:
    """A directory, certificates, and the commands of this installation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.ca = pki.authority(root, 1)
        self.identities: dict[str, list[str]] = {}
        foreign = ("SWARM_", "SN_", "SL_", "SWOP_", "SWCI_")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        self.environment = {**clean, "SWARM_HOME": str(self.home)}

    def run(self, *words: str, status: int = 0, timeout: float = 60) -> str:
        """Execute a command to its end; what it printed, errors included."""
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def node(self, command: str, name: str, *words: str, detach: bool = True) -> list[str]:
        """The command line of a node, with a certificate of its own."""
        if name not in self.identities:
            role = Role[command.removeprefix("run-").upper()]
            files = pki.environment(self.root / "cert" / name, role, self.ca, name=name)
            given = {key: files[f"SWARM_ID_{key.upper()}"] for key in ("cert", "key", "capath")}
            self.identities[name] = [f"--{key}={path}" for key, path in given.items()]
        background = ["-d"] if detach else []
        return [
            command,
            "--runtime=process",
            *background,
            f"--name={name}",
            *self.identities[name],
            *words,
        ]

    def log(self, name: str) -> str:
        return self.run("swarm", "logs", name)

    def wait(self, name: str, text: str, timeout: float = 60) -> None:
        file = self.home / name / "log"
        try:
            until(lambda: text in file.read_text(), timeout, f"{name}: {text}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(name)[-4000:]}") from error

    def states(self) -> Mapping[str, str]:
        """Name of each node, and how it is."""
        lines = self.run("swarm", "logs").splitlines()
        return {line.split()[0]: line.split(maxsplit=2)[2] for line in lines}

    def commands(self, api: int, *lines: str, status: int = 0) -> str:
        """Execute a script of SWCI."""
        usr = self.root / "swci"
        usr.mkdir(exist_ok=True)
        head = ["EXIT ON FAILURE", f"create context c with ip 127.0.0.1 {api}", "switch context c"]
        (usr / "script").write_text("\n".join([*head, *lines, "EXIT"]))
        words = [f"--usr-dir={usr}", "--init-script-name=script"]
        return self.run(*self.node("run-swci", "swci1", *words, detach=False), status=status)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.run("stop-swarm", "--runtime=process", timeout=120)


@pytest.fixture
def licence_server() -> Iterator[socket.socket]:
    """Something that listens where HPE's licence server would."""
    with socket.create_server(("127.0.0.1", LICENCE_PORT)) as listener:
        yield listener


def test_the_life_of_a_swarm(host: Host, licence_server: socket.socket) -> None:
    api, api2, weights = free_port(), free_port(), [free_port(), free_port()]
    apls = ["--apls-ip=127.0.0.1", f"--apls-port={LICENCE_PORT}"]
    apls += ["-e", "SWARM_LICENSE_AUTOPASSJ_SERVER_PRIMARY_IP=127.0.0.1"]

    # An operator that is there before its network node waits for it.
    operator(host, api, *apls)
    host.wait("swop1", "Failed to connect to the API Server. Retrying 1 of 60")
    sn = ["--host-ip=127.0.0.1", *apls]
    first = [f"--sn-api-port={api}", f"--sn-p2p-port={free_port()}"]
    said = host.run(*host.node("run-sn", "sn1", "--sentinel", *sn, *first))
    assert "licence server options are ignored" in said
    host.wait("sn1", READY.format(port=api))
    assert "without effect here: SWARM_LICENSE_AUTOPASSJ_SERVER_PRIMARY_IP" in host.log("sn1")
    join = ["--sentinel-ip=127.0.0.1", f"--sentinel-api-port={api}", f"--sn-api-port={api2}"]
    host.run(*host.node("run-sn", "sn2", *sn, *join, f"--sn-p2p-port={free_port()}"))
    host.wait("sn2", READY.format(port=api2))
    host.wait("swop1", "API-Server is UP!")
    host.commands(api2, "CREATE CONTRACT kept")

    train(host, api, weights)

    nodes = host.commands(api, "LIST NODES")
    rows = {tuple(part.strip() for part in line.split(",")[:3]) for line in nodes.splitlines()}
    assert {("SENTINEL", "127.0.0.1", str(api)), ("SN", "127.0.0.1", str(api2))} <= rows, nodes

    # One leaves, and the others go on without it; the last one leaves quickly.
    host.run("stop-swarm", "--swop", "--runtime=process")
    assert seconds(host, "sn2") < 5
    host.commands(api, "CREATE CONTRACT alone")
    assert seconds(host, "sn1") < 5
    assert host.states()["sn1"] == "ended with status 0"

    # Its ledger is still there; --rm would have removed it.
    host.run(*host.node("run-sn", "sn1", *sn, "--sentinel", *first, "--rm"))
    host.wait("sn1", READY.format(port=api))
    listed = host.commands(api, "LIST CONTRACTS")
    assert "kept" in listed and "alone" in listed
    host.run("stop-swarm", "--sn", "--keep", "--runtime=process")
    until(lambda: not (host.home / "sn1" / "data").exists(), 10, "the data of --rm are gone")
    assert "Starting SWARM-API-SERVER" in host.log("sn1")
    host.run(*host.node("run-sn", "sn1", *sn, "--sentinel", *first))
    host.wait("sn1", READY.format(port=api))
    assert "kept" not in host.commands(api, "LIST CONTRACTS"), "a new ledger"

    assert select.select([licence_server], [], [], 0) == ([], [], []), "port 5814 was contacted"


def operator(host: Host, api: int, *more: str) -> None:
    usr = host.root / "swop"
    usr.mkdir()
    files = pki.environment(host.root / "cert" / "sl0", Role.SL, host.ca, name="sl0")
    text = PROFILE.replace("/certs/sl-1-key.pem", files["SWARM_ID_KEY"])
    text = text.replace("/certs/sl-1-cert.pem", files["SWARM_ID_CERT"])
    text = text.replace("/certs/ca/capath", files["SWARM_ID_CAPATH"])
    text = text.replace("/data/user1", str(usr)).replace(
        "slhostip: 172.1.1.1", "slhostip: 127.0.0.1"
    )
    text = text.replace("host: 172.1.1.1\n        port: 30304", "host: null\n        port: null")
    (usr / "p.yaml").write_text(text)
    words = [f"--usr-dir={usr}", "--profile-file-name=p.yaml", "--sn-ip=127.0.0.1"]
    host.run(*host.node("run-swop", "swop1", *words, f"--sn-api-port={api}", *more))


def train(host: Host, api: int, ports: list[int]) -> None:
    """One command for each learner with its program: one in the background, one not."""
    (host.root / "program.py").write_text(PROGRAM)
    common = ["--host-ip=127.0.0.1", "--sn-ip=127.0.0.1", f"--sn-api-port={api}"]
    program = [f"--ml-entrypoint={sys.executable}"]

    def line(index: int, start: str, status: int, **options: bool) -> list[str]:
        port = f"--sl-fs-port={ports[index - 1]}"
        command = f"--ml-cmd={host.root}/program.py {start} {status}"
        return host.node("run-sl", f"sl{index}", *common, *program, port, command, **options)

    host.run(*line(1, "1", 0))
    shown = f"SL,127.0.0.1,{ports[0]},sl1,"
    until(lambda: shown in host.commands(api, "LIST NODES"), 30, shown)
    # Its status is that of a program that failed after its training, which ended well.
    said = host.run(*line(2, "2", 7, detach=False), timeout=120)
    assert "sl2-ml runs beside it; its output: swarm logs sl2-ml" in said
    until(lambda: "running" not in (host.states()["sl1"], host.states()["sl1-ml"]), 30, "sl1 ends")
    states = host.states()
    assert states["sl1"] == states["sl1-ml"] == "ended with status 0"
    until(lambda: host.states()["sl2-ml"] == "ended with status 7", 30, "sl2-ml ends")
    for name in ("sl1-ml", "sl2-ml"):
        assert re.search(r"^result 1\.5 1\.5 1\.5$", host.log(name), re.MULTILINE)


def seconds(host: Host, name: str) -> float:
    """How long it takes a network node to leave and end."""
    start = time.monotonic()
    file = host.home / name / "node.json"
    pid = int(re.findall(r'"pid": (\d+)', file.read_text())[0])
    os.kill(pid, 15)
    until(lambda: host.home.joinpath(name, "exit.json").exists(), 30, f"{name} ends")
    return time.monotonic() - start
