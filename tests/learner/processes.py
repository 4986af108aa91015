"""A real network node and real learners, each a process of its own, on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from swarm.api.client import ApiClient
from swarm.identity import Identity, Role, node_uid
from swarmlearning import link
from tests import pki
from tests.learner.program import BOUND, CONTRACT, Program
from tests.processes import free_port


class Network:
    """One SN and any number of learners. `close` kills what is left."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self.ca = pki.authority(tmp, 1)
        self._started = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self.api_port = free_port()
        env = {
            **pki.environment(tmp / "sn", Role.SN, self.ca),
            "THIS_NODE_IP": "127.0.0.1",
            "SWARM_LISTEN": "127.0.0.1",
            "SN_API_SERVER_PORT": str(self.api_port),
            "SN_P2P_PORT": str(free_port()),
            "SN_I_AM_SENTINEL": "1",
            "SWARM_DATA_DIR": str(tmp / "sn-data"),
            "SWARM_NODE_NAME": "sn-1",
        }
        self.sn = self.run("sentinel", env, "sn")
        viewer = pki.identity(tmp / "viewer", Role.SWCI, self.ca)
        self.client = ApiClient(viewer, [("127.0.0.1", self.api_port)])
        if not self.client.wait_up(BOUND):
            raise AssertionError((tmp / "sn.log").read_text())
        self.watch = self.client.watch([f"contracts/{CONTRACT}"])

    def run(self, module: str, env: dict[str, str], name: str) -> subprocess.Popen[bytes]:
        path = Path(env.get("SWARM_LINK", str(self._tmp))) / f"{name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env={**os.environ, **env},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def learner(self, number: int, **more: str) -> Sl:
        self._started += 1
        return Sl(self, self._tmp / str(self._started), self.ca, number, more)

    def contract(self) -> dict[str, object]:
        record = self.watch.records[f"contracts/{CONTRACT}"]
        assert record is not None
        return record

    def reset(self) -> None:
        """Kill the learners and forget the training; the network node stays."""
        for process in self.processes[1:]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        del self.processes[1:]
        verdict = self.client.submit("contract.reset", {"contract": CONTRACT})
        self.watch.wait(lambda watch: watch.height >= verdict.height, BOUND)

    def close(self) -> None:
        self.client.close()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


class Sl:
    """A learner process and its program's end of the link."""

    def __init__(
        self, network: Network, tmp: Path, ca: pki.Authority, number: int, more: dict[str, str]
    ) -> None:
        self.name = f"sl-{number}"
        self.folder = tmp / self.name
        self.folder.mkdir(parents=True)
        self.log = self.folder / f"{self.name}.log"
        self.port = port = free_port()
        files = tmp / f"id-{number}"
        env = pki.environment(files, Role.SL, ca, name=str(number))
        identity = Identity.from_env(env, Role.SL)
        self.uid = node_uid(identity.fingerprint, self.name)
        env |= {
            "SN_NODE_IP": "127.0.0.1",
            "SN_API_SERVER_PORT": str(network.api_port),
            "THIS_NODE_IP": "127.0.0.1",
            "SWARM_LISTEN": "127.0.0.1",
            "SL_FS_PORT": str(port),
            "SL_LISTEN_PORT": str(port),
            "SWARM_NODE_NAME": self.name,
            "SWARM_LINK": str(self.folder),
            **more,
        }
        self.process = network.run("swarm.learner", env, self.name)
        bell = threading.Event()
        for _ in range(int(BOUND / 0.05)):
            try:
                self.program = Program(self.folder)
                return
            except link.LinkError:
                bell.wait(0.05)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def status(self) -> int:
        return self.process.wait(BOUND)

    def memory(self) -> int:
        """Peak resident memory in bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
