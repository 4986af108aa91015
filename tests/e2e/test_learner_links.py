"""Real learners on hosts of their own: a line that is cut in one direction, and a slow one."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from swarm.merge.progress import PATIENCE
from tests.e2e import netns
from tests.e2e.learner_network import Learners, Trial, moment, stopped
from tests.learner.program import BOUND
from tests.processes import until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

STALL = 4.0  # seconds of silence that these learners take, in place of ten
BRIEF = 3.0  # the same, where all of it has to pass
SLOW = 8000  # kilobits a second: 1 MB/s
FAST = 1_000_000
LARGE = 100_000_000  # bytes

Hosts = Sequence[netns.Namespace]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hosts, Learners]]:
    with netns.several_hosts(3) as hosts:
        made = Learners(tmp_path_factory.mktemp("network"), listen="0.0.0.0")
        yield hosts, made
        made.close()


@pytest.fixture
def hosts(places: tuple[Hosts, Learners]) -> Iterator[Hosts]:
    yield places[0]
    for host in places[0]:
        host.heal()


@pytest.fixture
def network(places: tuple[Hosts, Learners]) -> Iterator[Learners]:
    yield places[1]
    places[1].reset()


def trial(
    network: Learners, hosts: Hosts, fault: str = "", stall: float = STALL, **more: int
) -> Trial:
    """Three learners, each on a host of its own; the last one may have a fault, in round 1."""
    sls = [
        network.learner(
            k,
            SN_NODE_IP=host.gateway,
            THIS_NODE_IP=host.address,
            SWARM_LISTEN=host.address,
            FAULT_NAMESPACE=host.name,
            FAULT_ROUND="1",
            FAULT_STALL=str(stall),
            FAULT=fault if k == 2 else "",
        )
        for k, host in enumerate(hosts)
    ]
    return Trial(network, sls, **more)


@pytest.mark.parametrize("direction", ["to it", "from it"])
def test_cut_off_in_one_direction(network: Learners, hosts: Hosts, direction: str) -> None:
    """It stops itself in the middle of sending; the line is cut before it goes on."""
    run = trial(network, hosts, "stopped-sending")
    run.begin(*run.sls)
    moment(run.sls[2])
    until(lambda: stopped(run.sls[2]), BOUND, "it has stopped itself")
    if direction == "to it":
        hosts[2].cut(*hosts[:2])
    else:
        hosts[0].cut(hosts[2])
        hosts[1].cut(hosts[2])
    since = time.monotonic()
    run.sls[2].process.send_signal(signal.SIGCONT)
    run.survive(run.sls[2], since, STALL, "no bytes for")


def test_a_slow_member_is_waited_for_while_its_bytes_come(network: Learners, hosts: Hosts) -> None:
    """At 1 MB/s, for longer than silence and excuses are taken; then the line is as the others."""
    run = trial(network, hosts, stall=BRIEF, size=LARGE)
    hosts[2].throttle(SLOW)
    try:
        before, start = hosts[2].sent(), time.monotonic()
        run.begin(*run.sls)
        until(lambda: hosts[2].sent() - before > 12_000_000, BOUND, "some of it is sent")
        assert time.monotonic() - start > PATIENCE * BRIEF
        assert "ATTEMPT : 0" in network.status()
        assert "FAULT" not in network.status()
        hosts[2].throttle(FAST)
        run.end(run.sls)
    finally:
        hosts[2].throttle(0)
    assert "FAULT" not in network.status()
    run.bounded(run.sls)
