"""A host without any certificate file: run-sn, run-swop and run-swci with --socket-path, and a
learner that the operator starts with the SPIFFE identity of its profile."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.api.client import ApiClient
from swarm.identity import Identity, Role
from swarm.ledger.state import DEFAULT_RUNNER
from tests.launch.test_real_nodes import Host
from tests.processes import READY, free_port, until
from tests.spire import TrustDomain, WorkloadApi
from tests.swop.test_profile import PROFILE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
pytest.importorskip("spiffe")

IDENTITY = """identity:
            - attribute:
                aType: SPIFFE_SOCKETPATH
                mType: BIND
                src: "{directory}"
                tgt: "/tmp/spire-agent"
                subPath: "agent.sock"
        """
PROGRAM = """
import numpy as np
from swarmlearning.numpy import SwarmCallback
swarm = SwarmCallback(syncFrequency=2, minPeers=1, totalEpochs=1)
weights = swarm.on_train_begin({"w": np.ones(3)})
for _ in range(4):
    weights = swarm.on_batch_end(weights)
swarm.on_epoch_end(0)
print("result", *swarm.on_train_end(weights)["w"])
"""


class SpiffeHost(Host):
    """One agent, which knows all that run here."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.org = TrustDomain("org1.test")
        (root / "agent").mkdir()
        self.agent = WorkloadApi(root / "agent" / "agent.sock")
        self.rotate()

    def rotate(self) -> None:
        roles = ("sn", "sl", "swop", "swci")
        self.agent.publish([self.org.svid(f"/host-1/{role}") for role in roles], self.org)

    def node(self, command: str, name: str, *words: str, detach: bool = True) -> list[str]:
        background = ["-d"] if detach else []
        socket = f"--socket-path={self.agent.socket}"
        return [command, "--runtime=process", *background, f"--name={name}", socket, *words]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SpiffeHost]:
    made = SpiffeHost(tmp_path)
    yield made
    made.run("stop-swarm", "--runtime=process", timeout=120)
    made.agent.stop()


def profile(host: SpiffeHost) -> str:
    head, _, rest = PROFILE.partition("identity:")
    _, _, tail = rest.partition("slhostip: 172.1.1.1")
    identity = IDENTITY.format(directory=host.agent.socket.parent)
    text = f"{head}{identity}slhostip: 127.0.0.1{tail}"
    text = text.replace("host: 172.1.1.1\n        port: 30304", "host: null\n        port: null")
    text = text.replace("slport: 16000", f"slport: {free_port()}")
    return text.replace("/data/user1", str(host.root / "usr"))


def test_a_host_of_a_spiffe_agent(host: SpiffeHost) -> None:
    api = free_port()
    ports = [f"--sn-api-port={api}", f"--sn-p2p-port={free_port()}"]
    host.run(*host.node("run-sn", "sn1", "--sentinel", "--host-ip=127.0.0.1", *ports))
    host.wait("sn1", READY.format(port=api))
    usr = host.root / "usr"
    usr.mkdir()
    (usr / "p.yaml").write_text(profile(host))
    (usr / "program.py").write_text(PROGRAM)
    operator = ["--profile-file-name=p.yaml", "--sn-ip=127.0.0.1", f"--sn-api-port={api}"]
    host.run(*host.node("run-swop", "swop1", f"--usr-dir={usr}", *operator))
    host.wait("swop1", "Waiting for new Task")
    env = {"SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH": str(host.agent.socket)}
    client = ApiClient(Identity.from_env(env, Role.SWCI), [("127.0.0.1", api)])
    for name, kind, prereq, lines in (
        ("build", "MAKE_USER_CONTAINER", "ROOTTASK",
         ("BuildContext: null", "BuildType: INLINE", "BuildSteps:", "- FROM x")),
        ("train", "RUN_SWARM", "build",
         ("Command: program.py", f"Entrypoint: {sys.executable}", "WorkingDir: /tmp/test",
          "Envvars: null", "PrivateContent: /tmp/test", "SharedContent: null")),
    ):  # fmt: skip
        head = {"name": name, "type": kind, "author": "a", "prereq": prereq, "outcome": name}
        client.submit("task.create", head)
        client.submit("task.append", {"task": name, "index": 1, "lines": list(lines)})
        client.submit("task.finalize", {"task": name})
        said = host.commands(
            api, f"ASSIGN TASK {name} TO {DEFAULT_RUNNER} WITH 1 PEERS",
            f"WAIT FOR TASKRUNNER {DEFAULT_RUNNER}",
        )  # fmt: skip
        assert "COMPLETE" in said
        if name == "build":
            host.commands(api, f"RESET TASKRUNNER {DEFAULT_RUNNER}")
            host.rotate()
            for node in ("sn1", "swop1"):
                host.wait(node, "going on with the renewed certificate")
    kinds = {n["type"]: n for n in client.table("nodes").values()}
    assert set(kinds) == {"SENTINEL", "SWOP", "SL"} and all("holder" in n for n in kinds.values())
    client.close()

    # Started again, each of them is the member that it was.
    host.run("stop-swarm", "--swop", "--keep", "--runtime=process")
    host.run(*host.node("run-swop", "swop1", f"--usr-dir={usr}", *operator))
    until(lambda: host.log("swop1").count("Enrolled as swop1") >= 1, 30, "it enrolls again")
    assert kinds["SWOP"]["uid"] in host.log("swop1")
