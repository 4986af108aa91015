"""A network node in a container, whose agent serves its socket in a volume of the engine."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.launch import cli
from tests.engine import images
from tests.processes import until
from tests.spire import TrustDomain, WorkloadApi

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]
pytest.importorskip("spiffe")


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def name() -> Iterator[str]:
    """Of a volume and of the container that is to be started."""
    reason = images.nodes()
    if reason:
        pytest.skip(reason)
    name = f"spiffe-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", name)
    yield name
    docker("container", "rm", "--force", "--volumes", name)
    docker("volume", "rm", name)


def test_the_name_of_a_volume_is_enough(name: str) -> None:
    """The socket is found inside; and an agent that starts again, with a new file, is found too."""
    place = Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", name))
    org = TrustDomain("org1.test")
    agent = WorkloadApi(place / "public.sock")
    agent.socket.chmod(0o777)  # nodes run without rights, as agents expect of workloads
    try:
        agent.publish([org.svid("/host-1/sn")], org)
        words = ["-d", f"--name={name}", "--host-ip=127.0.0.1", "--sentinel"]
        assert cli.run_sn([*words, f"--socket-path={name}"]) == 0

        def logs() -> str:
            done = subprocess.run(
                ["docker", "logs", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, check=True,
            )  # fmt: skip
            return done.stdout

        until(lambda: "Starting SWARM-API-SERVER" in logs(), 60, "the node is ready")
        assert "the SPIFFE agent at /tmp/spire-agent/public.sock gave spiffe://org1.test/" in logs()
        template = '{{index .Config.Labels "swarm-node-type"}}'
        assert docker("container", "inspect", "--format", template, name) == "sn"
        agent.stop()
        agent.publish([org.svid("/host-1/sn")], org)
        agent.start()
        agent.socket.chmod(0o777)
        until(lambda: "going on with the renewed certificate" in logs(), 60, "a rotation")
    finally:
        agent.stop()
