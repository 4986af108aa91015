"""--socket-path in its three forms, against an engine's client that records what it is asked."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from swarm.launch import cli
from tests.launch.conftest import FakeDocker

SN = ["-d", "--host-ip=1.1.1.1", "--sentinel"]
ENV = "--env=SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH=/tmp/spire-agent/"


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A socket in a directory of its own; found by its relative name, which is short."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("agent.sock")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run" / "agent.sock"


def test_a_socket_file(docker: FakeDocker, agent: Path) -> None:
    """Its directory is mounted: an agent that starts again makes a new file."""
    assert cli.run_sn([*SN, "--socket-path=run/agent.sock"]) == 0
    assert {
        f"--volume={agent.parent}:/tmp/spire-agent:ro",
        f"{ENV}agent.sock",
        "--label=swarm-node-type=sn",
    } <= set(docker.created())


def test_a_volume_and_a_path(docker: FakeDocker) -> None:
    assert cli.run_swci(["-d", "--socket-path=spire-volume:public/agent.sock"]) == 0
    assert {
        "--volume=spire-volume:/tmp/spire-agent:ro",
        f"{ENV}public/agent.sock",
        "--label=swarm-node-type=swci",
    } <= set(docker.created())


def test_the_name_of_a_volume(docker: FakeDocker) -> None:
    docker.answer("volume", "inspect", stdout="spire")
    docker.answer("container", "run", stdout="private/admin.sock\npublic/agent.sock")
    assert cli.run_sn([*SN, "--socket-path", "spire", "--image=mine"]) == 0
    assert {"--volume=spire:/tmp/spire-agent:ro", f"{ENV}public/agent.sock"} <= set(
        docker.created()
    )
    (looked,) = docker.calls("container", "run")
    assert {"--network=none", "--volume=spire:/tmp/spire-agent:ro", "mine"} <= set(looked)


def test_the_name_of_a_container(docker: FakeDocker, agent: Path) -> None:
    """What it has mounted is looked through: volumes, and directories of the host."""
    docker.answer("volume", "inspect", stderr="no such volume", status=1)
    docker.answer("container", "inspect", "spire-agent", stdout=f"/none.conf\n{agent.parent}\n")
    docker.answer("container", "run", stdout="agent.sock")
    assert cli.run_sn([*SN, "--socket-path=spire-agent"]) == 0
    assert {f"--volume={agent.parent}:/tmp/spire-agent:ro", f"{ENV}agent.sock"} <= set(
        docker.created()
    )
    assert len(docker.calls("container", "run")) == 1, "a file of the host is no place to look in"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("/none/agent.sock", "/none/agent.sock: bad socket file"),
        ("key.pem/", "key.pem/: bad socket file"),
        ("volume:../agent.sock", "volume:../agent.sock: no path inside a volume"),
        ("volume:/agent.sock", "volume:/agent.sock: no path inside a volume"),
        ("volume:", "volume:: no path inside a volume"),
        (":agent.sock", ":agent.sock: bad socket file"),
        ("nobody", "nobody: no socket, nor a volume or container of one"),
        ("many", "many: holds several sockets, give one of many:a.sock, many:b.sock"),
    ],
)
def test_complaints(
    docker: FakeDocker, capsys: pytest.CaptureFixture[str], value: str, complaint: str
) -> None:
    docker.answer("volume", "inspect", "many", stdout="many")
    docker.answer("volume", "inspect", stderr="no such volume", status=1)
    docker.answer("container", "inspect", stderr="no such container", status=1)
    docker.answer("container", "run", stdout="a.sock\nb.sock")
    assert cli.run_sn([*SN, f"--socket-path={value}"]) == 1
    assert capsys.readouterr().err == f"run-sn: --socket-path: {complaint}\n"
    assert not docker.calls("container", "create")


def test_a_local_process_needs_a_socket_file(
    docker: FakeDocker, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("volume:agent.sock", "volume"):
        assert cli.run_sn([*SN, "--runtime=process", f"--socket-path={value}"]) == 1
        assert "bad socket file" in capsys.readouterr().err
