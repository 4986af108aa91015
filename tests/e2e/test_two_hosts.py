"""Two hosts with addresses of their own train MNIST to the end, on a good and on a bad line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from two_hosts import READY, Host, TwoHosts, follow, stop_process

from tests.e2e import netns

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


@pytest.fixture
def line() -> Iterator[tuple[netns.Namespace, netns.Namespace]]:
    with netns.two_hosts() as hosts:
        yield hosts


def train(
    line: tuple[netns.Namespace, netns.Namespace], directory: Path
) -> list[dict[str, object]]:
    """Run the example from certificates to the end of its script; each host's result."""
    hosts = []
    for index, namespace in enumerate(line, 1):
        path = directory / f"host-{index}"
        path.mkdir()
        host = Host(
            index=index,
            address=namespace.address,
            directory=path,
            p2p_port=30303,
            api_port=30304,
            learner_port=30305,
            prefix=namespace.prefix,
        )
        hosts.append(host)
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
        for host in hosts:
            assert READY.format(port=30304) in swarm.run(host, "swarm", "logs", f"sn{host.index}")
    finally:
        if script is not None:
            stop_process(script)
        swarm.stop()
    return [json.loads((host.user / "result.json").read_text()) for host in hosts]


def check(results: list[dict[str, object]]) -> None:
    first, second = results
    assert first["weights_sha256"] == second["weights_sha256"]
    for result in results:
        assert isinstance(result["accuracy"], float)
        assert result["accuracy"] >= 0.95


def test_a_good_line(line: tuple[netns.Namespace, netns.Namespace], tmp_path: Path) -> None:
    check(train(line, tmp_path))


def test_loss_of_one_percent_and_8_mbit_a_second(
    line: tuple[netns.Namespace, netns.Namespace], tmp_path: Path
) -> None:
    for namespace in line:
        namespace.impair(loss=0.01, kbit=8000)
    check(train(line, tmp_path))
