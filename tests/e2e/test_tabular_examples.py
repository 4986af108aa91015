"""The examples with small models, from certificates to the end of their scripts, on loopback."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from two_hosts import EXAMPLES, TwoHosts, free_ports, replace

from tests.e2e.example_runs import hosts_of, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def results(*directories: Path) -> list[dict[str, Any]]:
    return [json.loads((directory / "result.json").read_text()) for directory in directories]


def example(path: str) -> Any:
    """A file of an example, imported."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sklearn(tmp_path: Path) -> None:
    """Each node has half of the digits, and learns all of them."""
    swarm = TwoHosts(hosts_of("sklearn", tmp_path))
    swarm.prepare()
    task = swarm.first.workspace / "swci" / "taskdefs" / "swarm_sklearn_task.yaml"
    replace(task, {"MAX_EPOCHS: '10'": "MAX_EPOCHS: '4'"})
    run(swarm)
    first, second = results(*(host.user for host in swarm.hosts))
    assert first == second
    assert first["accuracy"] > 0.8  # alone, nobody can reach more than about half
    assert first["rounds"] > 15


def test_fraud_detection(tmp_path: Path) -> None:
    """Three very unequal banks on two hosts: the swarm beats each alone on all test sets."""
    swarm = TwoHosts(hosts_of("fraud-detection", tmp_path))
    swarm.prepare()
    second = swarm.hosts[1]
    third = second.workspace / "user3"
    example("fraud-detection/data.py").write(third, 3)
    port = str(free_ports(1)[0])
    replace(second.workspace / "swop" / "swop2_profile.yaml", {"18001": port})
    run(swarm)
    banks = [swarm.first.user, second.user, third]
    one, two, three = results(*banks)
    assert one["weights_sha256"] == two["weights_sha256"] == three["weights_sha256"]
    accuracy = example("fraud-detection/compare.py").compare(banks)
    assert list(accuracy) == ["user1 alone", "user2 alone", "user3 alone", "swarm"]
    swarms = accuracy.pop("swarm")
    assert swarms > max(accuracy.values()) + 0.05, (swarms, accuracy)
