"""The PyTorch examples as users run them: two hosts on this machine, plain processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from two_hosts import Host, TwoHosts, follow, free_ports, stop_process

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def run(example: str, directory: Path) -> list[Path]:
    """Run an example's script to its end; the private directories of both hosts."""
    ports = free_ports(6)
    hosts = []
    for index in (1, 2):
        path = directory / f"host-{index}"
        path.mkdir()
        hosts.append(
            Host(
                index=index,
                address="127.0.0.1",
                directory=path,
                p2p_port=ports.pop(),
                api_port=ports.pop(),
                learner_port=ports.pop(),
                example=example,
            )
        )
    swarm = TwoHosts(hosts)
    script = None
    output: list[str] = []
    try:
        swarm.prepare()
        for host in hosts:
            swarm.network_node(host)
        for host in hosts:
            swarm.operator(host)
        script = swarm.command_interface()
        status = follow(script, output.append)
        assert status == 0, "\n".join(output)
    finally:
        if script is not None:
            stop_process(script)
        swarm.stop()
    return [host.user for host in hosts]


def results(users: list[Path], name: str = "result.json") -> list[dict[str, Any]]:
    """What both programs reached; their final weights are equal."""
    found = [json.loads((user / name).read_text()) for user in users]
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]
    return found


def test_mnist(tmp_path: Path) -> None:
    for result in results(run("mnist-pyt", tmp_path)):
        assert result["accuracy"] >= 0.95
        assert result["rounds"] >= 4


def test_reviews(tmp_path: Path) -> None:
    """A whole model, then adapters on top of it. Alone, a node reaches 0.65 to 0.77."""
    users = run("huggingface", tmp_path)
    for result in results(users):
        assert result["accuracy"] >= 0.85
    for result in results(users, "result-peft.json"):
        assert result["accuracy"] >= 0.9
