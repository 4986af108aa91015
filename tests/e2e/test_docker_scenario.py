"""The example's README, step by step, in containers: one engine, two networks as two hosts.

The commands are the ones that users type, run by a shell in a directory that looks like the
repository's root. As both hosts share one engine, the second publishes its ports elsewhere, and a
host's address is its network's gateway.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.engine import images

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("sn1", "sn2", "swop1", "swop2", "swci1", "helper")
NETWORKS = ("host-1-net", "host-2-net")
READY = "swarm.blCnt : INFO : Starting SWARM-API-SERVER on port: {port}"
FINISHED = (
    "SwarmCallback : INFO : All peers and Swarm training rounds finished. "
    "Final Swarm model was loaded."
)
IDENTITY = "--key=workspace/mnist/cert/{0}-key.pem --cert=workspace/mnist/cert/{0}-cert.pem"


class Logs:
    """Follows the output of all ML containers from their start to their end."""

    def __init__(self, engine: docker.DockerClient) -> None:
        self.texts: dict[str, str] = {}
        self._engine = engine
        self._events = engine.events(
            decode=True, filters={"event": "start", "label": "swarm.role=ML"}
        )
        self._readers: list[threading.Thread] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        for event in self._events:
            reader = threading.Thread(target=self._read, args=(event["id"],), daemon=True)
            self._readers.append(reader)
            reader.start()

    def _read(self, identifier: str) -> None:
        container = self._engine.containers.get(identifier)
        lines = []
        for chunk in container.logs(stream=True, follow=True):
            lines.append(chunk.decode(errors="replace"))
            self.texts[str(container.name)] = "".join(lines)

    def close(self) -> None:
        self._events.close()
        for reader in self._readers:
            reader.join(30)


class Scenario:
    """A shell in a directory with what the repository's root holds, and the guide's variables."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("examples", "scripts", "lib", ".venv"):
            (root / name).symlink_to(REPOSITORY / name)
        # Plain commands such as gen-cert's look for the program beside this interpreter.
        self.variables = {**os.environ, "DOCKER_CLI_HINTS": "false"}

    def sh(self, commands: str, *, check: bool = True) -> str:
        """Run commands as a user would; fails with their output."""
        done = subprocess.run(
            ["bash", "-ec", commands],
            cwd=self.root,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{commands}\n{done.stdout}"
        return done.stdout

    def set(self, **variables: object) -> None:
        self.variables.update({name: str(value) for name, value in variables.items()})


def port(wanted: int) -> int:
    """`wanted` where it is free on this machine, else any that is."""
    for candidate in (wanted, 0):
        with socket.socket() as sock:
            try:
                sock.bind(("0.0.0.0", candidate))
            except OSError:
                continue
            return int(sock.getsockname()[1])
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    reason = images.nodes()
    if reason:
        pytest.skip(reason)
    client = docker.from_env()
    taken = {c.name for c in client.containers.list(all=True, ignore_removed=True)} & set(NAMES)
    taken |= {n.name for n in client.networks.list()} & set(NETWORKS)
    if taken:
        pytest.skip(f"the engine has other objects with the example's names: {sorted(taken)}")
    yield client
    client.close()


@pytest.fixture
def scenario(engine: docker.DockerClient, tmp_path: Path) -> Iterator[Scenario]:
    subprocess.run(["make", "--silent", "wheel"], cwd=REPOSITORY, check=True)
    scenario = Scenario(tmp_path)
    try:
        yield scenario
    finally:
        for name in NAMES:
            scenario.sh(f"docker rm --force {name}", check=False)
        for container in engine.containers.list(
            all=True, filters={"label": "swarm.node"}, ignore_removed=True
        ):
            container.remove(force=True)
        for name in NETWORKS:
            scenario.sh(f"docker network rm {name}", check=False)
        scenario.sh("docker volume rm sl-cli-lib", check=False)


def test_the_guide_word_for_word(engine: docker.DockerClient, scenario: Scenario) -> None:
    prepare(scenario)
    start_network_nodes(scenario)
    start_operators(scenario)
    logs = Logs(engine)
    output = run_script(scenario)
    logs.close()

    assert len(logs.texts) == 2, output
    for text in logs.texts.values():
        assert FINISHED in text
    await_removal_of_pairs(engine)
    remaining = engine.containers.list(all=True, ignore_removed=True)
    assert {"sn1", "sn2", "swop1", "swop2"} <= {c.name for c in remaining if c.status == "running"}
    check_results(scenario.root / "workspace" / "mnist")
    clean_up(engine, scenario)


def prepare(scenario: Scenario) -> None:
    """Steps 1 to 7: workspace, certificates, networks, placeholders, the library's volume."""
    scenario.sh(
        """
        mkdir workspace
        cp -r examples/mnist workspace/
        cp -r examples/utils/gen-cert workspace/mnist/
        ./workspace/mnist/gen-cert -e mnist -i 1
        ./workspace/mnist/gen-cert -e mnist -i 2
        docker network create host-1-net
        docker network create host-2-net
        """
    )
    first, second = (gateway(scenario, name) for name in NETWORKS)
    scenario.set(APLS_IP=first, SN_1_IP=first, SN_2_IP=second)
    scenario.set(HOST_1_IP=first, HOST_2_IP=second)
    scenario.set(SN_API_PORT=port(30304), SN_P2P_PORT=port(30303))
    scenario.set(SN_2_API_PORT=port(30314), SN_2_P2P_PORT=port(30313))
    scenario.sh(
        """
        sed -i "s+<PROJECT-MODEL>+$(pwd)/workspace/mnist/model+g" workspace/mnist/swci/taskdefs/swarm_mnist_task.yaml
        sed -i "s+<SWARM-NETWORK>+host-1-net+g" workspace/mnist/swop/swop1_profile.yaml
        sed -i "s+<SWARM-NETWORK>+host-2-net+g" workspace/mnist/swop/swop2_profile.yaml
        sed -i "s+<HOST_ADDRESS>+${HOST_1_IP}+g" workspace/mnist/swop/swop1_profile.yaml
        sed -i "s+<HOST_ADDRESS>+${HOST_2_IP}+g" workspace/mnist/swop/swop2_profile.yaml
        sed -i "s+<LICENSE-SERVER-ADDRESS>+${APLS_IP}+g" workspace/mnist/swop/swop*_profile.yaml
        sed -i "s+<PROJECT>+$(pwd)/workspace/mnist+g" workspace/mnist/swop/swop*_profile.yaml
        sed -i "s+<PROJECT-CERTS>+$(pwd)/workspace/mnist/cert+g" workspace/mnist/swop/swop*_profile.yaml
        sed -i "s+<PROJECT-CACERTS>+$(pwd)/workspace/mnist/cert/ca/capath+g" workspace/mnist/swop/swop*_profile.yaml
        # What one engine in place of two hosts needs besides: addresses and ports of its own
        sed -i "s+172.1.1.1+${HOST_1_IP} ${SN_API_PORT}+g" workspace/mnist/swci/swci-init
        sed -i "s+30304+${SN_API_PORT}+g" workspace/mnist/swop/swop1_profile.yaml
        sed -i "s+30304+${SN_2_API_PORT}+g" workspace/mnist/swop/swop2_profile.yaml
        """  # noqa: E501 - as it stands in the guide
    )
    learner_ports = {1: port(16000), 2: port(18000)}
    for index, number in learner_ports.items():
        profile = f"workspace/mnist/swop/swop{index}_profile.yaml"
        scenario.sh(f'sed -i -E "s+slport: .*+slport: {number}+" {profile}')
        scenario.sh(
            f".venv/bin/python examples/mnist/data.py --node {index} workspace/mnist/user{index}"
        )
    scenario.sh("docker volume rm sl-cli-lib", check=False)
    scenario.sh(
        """
        docker volume create sl-cli-lib
        docker container create --name helper -v sl-cli-lib:/data hello-world
        docker cp -L lib/swarmlearning-client-py3-none-manylinux_2_24_x86_64.whl helper:/data
        docker rm helper
        """
    )


def gateway(scenario: Scenario, network: str) -> str:
    found = scenario.sh(
        f"docker network inspect -f '{{{{(index .IPAM.Config 0).Gateway}}}}' {network}"
    )
    return found.strip()


def start_network_nodes(scenario: Scenario) -> None:
    """Steps 8 and 9."""
    scenario.sh(
        f"""
        ./scripts/bin/run-sn -d --rm --name=sn1 --network=host-1-net --host-ip=${{HOST_1_IP}} \
            --sentinel --sn-p2p-port=${{SN_P2P_PORT}} --sn-api-port=${{SN_API_PORT}} \
            {IDENTITY.format("sn-1")} --capath=workspace/mnist/cert/ca/capath --apls-ip=${{APLS_IP}}
        """
    )
    wait_ready(scenario, "sn1", "SN_API_PORT")
    scenario.sh(
        f"""
        ./scripts/bin/run-sn -d --rm --name=sn2 --network=host-2-net --host-ip=${{HOST_2_IP}} \
            --sentinel-ip=${{SN_1_IP}} --sentinel-api-port=${{SN_API_PORT}} \
            --sn-p2p-port=${{SN_2_P2P_PORT}} --sn-api-port=${{SN_2_API_PORT}} \
            {IDENTITY.format("sn-2")} --capath=workspace/mnist/cert/ca/capath --apls-ip=${{APLS_IP}}
        """
    )
    wait_ready(scenario, "sn2", "SN_2_API_PORT")


def wait_ready(scenario: Scenario, name: str, variable: str) -> None:
    """Follow a node's log to the line that the guide names."""
    expected = (READY.format(port=scenario.variables[variable]), READY.format(port=30304))
    engine = docker.from_env()
    try:
        container = engine.containers.get(name)
        seen = ""
        for chunk in container.logs(stream=True, follow=True):
            seen += chunk.decode(errors="replace")
            if any(line in seen for line in expected):
                return
        raise AssertionError(f"{name} ended:\n{seen}")
    finally:
        engine.close()


def start_operators(scenario: Scenario) -> None:
    """Steps 10 and 11."""
    for index, api_port in ((1, "SN_API_PORT"), (2, "SN_2_API_PORT")):
        scenario.sh(
            f"""
            ./scripts/bin/run-swop -d --rm --name=swop{index} --network=host-{index}-net \
                --sn-ip=${{SN_{index}_IP}} --sn-api-port=${{{api_port}}} \
                --usr-dir=workspace/mnist/swop --profile-file-name=swop{index}_profile.yaml \
                {IDENTITY.format(f"swop-{index}")} --capath=workspace/mnist/cert/ca/capath \
                -e http_proxy= -e https_proxy= --apls-ip=${{APLS_IP}}
            """
        )


def run_script(scenario: Scenario) -> str:
    """Step 12: the script builds, trains and cleans up."""
    return scenario.sh(
        f"""
        ./scripts/bin/run-swci --rm --name=swci1 --network=host-1-net \
            --usr-dir=workspace/mnist/swci --init-script-name=swci-init \
            {IDENTITY.format("swci-1")} --capath=workspace/mnist/cert/ca/capath \
            -e http_proxy= -e https_proxy= --apls-ip=${{APLS_IP}}
        """
    )


def await_removal_of_pairs(engine: docker.DockerClient) -> None:
    """RESET TASKRUNNER is a message to the operators: they remove their pairs soon afterwards."""
    for container in engine.containers.list(
        all=True, filters={"label": "swarm.role"}, ignore_removed=True
    ):
        if container.labels["swarm.role"] in ("SL", "ML"):
            with contextlib.suppress(docker.errors.NotFound):
                container.wait(condition="removed", timeout=60)


def check_results(workspace: Path) -> None:
    """Step 13: a model in each user's directory, equal weights, and it has learnt."""
    results: list[dict[str, Any]] = []
    for index in (1, 2):
        user = workspace / f"user{index}"
        results.append(json.loads((user / "result.json").read_text()))
        assert (user / results[-1]["model"]).is_file()
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert all(result["accuracy"] >= 0.95 for result in results)


def clean_up(engine: docker.DockerClient, scenario: Scenario) -> None:
    """Step 14."""
    scenario.sh("./scripts/bin/stop-swarm")
    left = {c.name for c in engine.containers.list(all=True, ignore_removed=True)} & set(NAMES)
    assert not left
    scenario.sh(
        """
        docker network rm host-1-net host-2-net
        docker volume rm sl-cli-lib
        rm -rf workspace
        """
    )
