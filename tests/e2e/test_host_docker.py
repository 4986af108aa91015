"""`swarm up` and `swarm down` with containers: one host on its own Docker network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from swarm.host import record
from swarm.launch import cli
from tests.engine import images
from tests.processes import free_port

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

NETWORK = "swarm-up-test"
NAMES = ("up-test-sn", "up-test-swop")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.DockerClient]:
    reason = images.nodes()
    if reason:
        pytest.skip(reason)
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "nodes"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    client = docker.from_env()
    network = client.networks.create(NETWORK)
    network.reload()
    gateway = network.attrs["IPAM"]["Config"][0]["Gateway"]
    line = [
        *("init", "--yes", "--name=up-test", "--runtime=docker", f"--network={NETWORK}"),
        *(f"--address={gateway}", "--make-certificates", f"--api-port={free_port('0.0.0.0')}"),
        *(f"--p2p-port={free_port('0.0.0.0')}", f"--learner-port={free_port('0.0.0.0')}"),
    ]
    try:
        assert cli.swarm(line) == 0
        yield client
    finally:
        for name in NAMES:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
        for command in (["volume", "rm", "up-test-sn-data"], ["network", "rm", NETWORK]):
            subprocess.run(["docker", *command], capture_output=True, check=False)
        client.close()


def ids(engine: docker.DockerClient) -> dict[str, str]:
    listed = engine.containers.list(ignore_removed=True)
    return {str(one.name): str(one.id) for one in listed if one.name in NAMES}


def check(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What the doctor warns of, on a host that is a go."""
    capsys.readouterr()
    assert cli.swarm(["doctor", "--json", "--quiet", *words]) == 0
    codes = [one["code"] for one in json.loads(capsys.readouterr().out)["findings"]]
    return [code for code in codes if code != "SW9044"]  # the disk may be as full as it likes


def test_a_host_in_containers(
    engine: docker.DockerClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = check(capsys, "--image=no-such-image:1")
    assert before == ["SW9050", "SW9051"]  # nobody to ask, and the image of the program
    assert cli.swarm(["up"]) == 0, capsys.readouterr()
    first = ids(engine)
    assert cli.swarm(["doctor"]) == 0
    assert (
        "(API of the SN) is in use by container up-test-sn, which runs" in capsys.readouterr().out
    )
    assert set(first) == set(NAMES)
    assert cli.swarm(["up"]) == 0
    assert ids(engine) == first

    # One that ended is started again, under its name, beside the one that runs.
    engine.containers.get("up-test-swop").kill()
    assert cli.swarm(["up"]) == 0, capsys.readouterr()
    second = ids(engine)
    assert second["up-test-sn"] == first["up-test-sn"]
    assert second["up-test-swop"] != first["up-test-swop"]

    # A setting that cannot work: the operator ends, its log is shown, and the SN goes on.
    file = tmp_path / "swarm.yaml"
    whole = file.read_text()
    file.write_text(whole.replace("operator:\n", "operator:\n  envvars: {SWARM_RUNTIME: no}\n"))
    assert cli.swarm(["up", "--restart"]) == 1
    said = capsys.readouterr()
    assert "SW7004: SWARM_RUNTIME: expected DOCKER or PROCESS" in said.out
    assert set(ids(engine)) == {"up-test-sn"}
    file.write_text(whole)
    assert cli.swarm(["up"]) == 0

    assert cli.swarm(["down"]) == 0
    assert not any(
        one.name in NAMES for one in engine.containers.list(all=True, ignore_removed=True)
    )
    assert engine.volumes.get("up-test-sn-data"), "the ledger stays"
    assert cli.swarm(["up"]) == 0
    assert "founding the network" not in engine.containers.get("up-test-sn").logs().decode()
    assert cli.swarm(["down", "--remove-data"]) == 0
    assert "up-test-sn-data" not in [volume.name for volume in engine.volumes.list()]
    assert record.recorded() == []
