"""The PyTorch examples as users run them: two hosts on this machine, plain processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from two_hosts import TwoHosts, replace

from tests.e2e.example_runs import hosts_of, run

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def train(example: str, directory: Path, **shorter: str) -> list[Path]:
    """Run an example's script to its end; the private directories of both hosts.

    `shorter`: task -> how many epochs, instead of two.
    """
    swarm = TwoHosts(hosts_of(example, directory))
    swarm.prepare()
    for task, epochs in shorter.items():
        path = swarm.first.workspace / "swci" / "taskdefs" / f"{task}.yaml"
        replace(path, {"MAX_EPOCHS: '2'": f"MAX_EPOCHS: '{epochs}'"})
    run(swarm)
    return [host.user for host in swarm.hosts]


def results(users: list[Path], name: str = "result.json") -> list[dict[str, Any]]:
    """What both programs reached; their final weights are equal."""
    found = [json.loads((user / name).read_text()) for user in users]
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]
    return found


def test_mnist(tmp_path: Path) -> None:
    for result in results(train("mnist-pyt", tmp_path, swarm_mnist_pyt_task="1")):
        assert result["accuracy"] >= 0.9
        assert result["rounds"] == 3


def test_reviews(tmp_path: Path) -> None:
    """A whole model, then adapters on top of it. Alone, a node reaches 0.72 to 0.74."""
    pytest.importorskip("peft")
    users = train("huggingface", tmp_path)
    for result in results(users):
        assert result["accuracy"] >= 0.8
    for result in results(users, "result-peft.json"):
        assert result["accuracy"] >= 0.85
