"""Learners as processes with a real network node: killed at any point of a round, stopped, fed."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.learner.processes import Network, Sl

pytestmark = pytest.mark.slow

Arrays = dict[str, NDArray[np.float32]]
MIB = 1 << 20


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = Network(tmp_path_factory.mktemp("network"))
    yield made
    made.close()


@pytest.fixture
def network(node: Network) -> Iterator[Network]:
    yield node
    node.reset()


def weights(value: float, size: int = 4 * MIB) -> Arrays:
    return {"kernel": np.full(size // 4, value, np.float32)}


def same(left: Arrays, right: Arrays) -> bool:
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


def opened(network: Network, count: int, **more: str) -> list[Sl]:
    sls = [network.learner(number, **more) for number in range(count)]
    for sl in sls:
        sl.program.send_open(min_peers=2)
    for sl in sls:
        sl.program.receive("opened")
    return sls


def go_on(sls: list[Sl], value: float) -> None:
    """One more round of these: all end with the same bytes."""
    for sl in sls:
        sl.program.send_sync(weights(value))
    answers = [sl.program.merged() for sl in sls]
    assert all(same(merged, answers[0][1]) for _, merged in answers)
    assert answers[0][1]["kernel"][0] == pytest.approx(value)


def test_killed_before_its_check_in(network: Network) -> None:
    sls = opened(network, 3)
    sls[2].kill()
    # Its network node misses it within seconds; nobody waits for the grace time.
    go_on(sls[:2], 1.0)
    go_on(sls[:2], 2.0)


def test_killed_after_its_check_in(network: Network) -> None:
    sls = opened(network, 3)
    sls[2].program.send_sync(weights(9))
    network.watch.wait(lambda w: sls[2].uid in network.contract()["checkins"], 30)
    sls[2].kill()
    go_on(sls[:2], 1.0)
    go_on(sls[:2], 2.0)


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.2])
def test_killed_while_weights_are_exchanged(network: Network, moment: float) -> None:
    sls = opened(network, 3)
    size = 48 * MIB
    for number, sl in enumerate(sls):
        sl.program.write(weights(number, size))
    for number, sl in enumerate(sls):
        sl.program.send_sync(weights(number, size))
    network.watch.wait(lambda w: network.contract()["status"] == "MERGING", 30)
    network.watch.wait(lambda w: False, moment)  # the point is to be at some point, not at which
    sls[1].kill()
    answers = [sl.program.merged() for sl in (sls[0], sls[2])]
    assert same(answers[0][1], answers[1][1])
    assert answers[0][1]["kernel"][0] == pytest.approx(1.0)
    for sl in (sls[0], sls[2]):
        sl.program.report(0)


def test_killed_after_it_reported_merged(network: Network) -> None:
    sls = opened(network, 3)
    for number, sl in enumerate(sls):
        sl.program.send_sync(weights(number))
    network.watch.wait(
        lambda w: sls[0].uid in network.contract()["merged"] or bool(network.contract()["last"]),
        30,
    )
    sls[0].kill()
    answers = [sl.program.merged() for sl in sls[1:]]
    assert same(answers[0][1], answers[1][1])
    go_on(sls[1:], 5.0)


def test_below_min_peers_all_wait_say_for_whom_and_go_on_when_it_returns(
    network: Network,
) -> None:
    sls = opened(network, 2)
    go_on(sls, 1.0)
    sls[1].kill()
    sls[0].program.send_sync(weights(3))
    sls[0].program.hear("gone: sl-1")
    assert network.watch.wait(lambda w: "gone: sl-1" in str(network.contract()["waiting"]), 30)
    assert "gone: sl-1" in sls[0].log.read_text()
    again = network.learner(1)
    opened_again = again.program.open()
    assert opened_again["hasModel"] is True
    assert again.program.weights()["kernel"][0] == 1.0
    again.program.send_sync(weights(5))
    for sl in (sls[0], again):
        assert sl.program.merged()[1]["kernel"][0] == 4.0


def test_frozen_in_the_middle_of_a_round(network: Network) -> None:
    sls = opened(network, 3)
    for number, sl in enumerate(sls):
        sl.program.write(weights(number))
    sls[1].program.send_sync(weights(1))
    network.watch.wait(lambda w: sls[1].uid in network.contract()["checkins"], 30)
    sls[1].process.send_signal(signal.SIGSTOP)
    sls[0].program.send_sync(weights(0))
    sls[2].program.send_sync(weights(2))
    answers = [sl.program.merged() for sl in (sls[0], sls[2])]
    assert same(answers[0][1], answers[1][1])
    # When it thaws it is told what was decided, and takes part again.
    sls[1].process.send_signal(signal.SIGCONT)
    message, merged = sls[1].program.merged()
    assert message["round"] == 0
    assert same(merged, answers[0][1])
    go_on(sls, 7.0)


def test_a_stop_signal_ends_it_in_order_and_in_time(network: Network) -> None:
    sls = opened(network, 2)
    sls[0].process.send_signal(signal.SIGTERM)
    assert sls[0].process.wait(5) == 3  # a program trains, and nobody knows how it is going to end
    assert network.watch.wait(
        lambda w: network.contract()["members"][sls[0].uid]["state"] == "left", 10
    )


def test_the_program_dies_without_a_word(network: Network) -> None:
    sls = opened(network, 2)
    sls[0].program.close()
    assert network.watch.wait(
        lambda w: network.contract()["members"][sls[0].uid]["state"] == "left", 30
    )
    assert sls[0].process.poll() is None
    sls[0].process.terminate()
    assert sls[0].status() == 0


def test_resident_memory_stays_below_the_bound(network: Network) -> None:
    sls = opened(network, 2)
    size = 100 * 1_000_000
    for round_ in range(3):
        for number, sl in enumerate(sls):
            sl.program.send_sync(weights(number, size))
        for sl in sls:
            sl.program.merged()
            sl.program.report(round_)
    late = network.learner(2)
    late.program.open()
    peaks = {sl.name: sl.memory() for sl in (*sls, late)}
    assert max(peaks.values()) < 60_000_000 + 2.2 * size, peaks


def test_an_evicted_learner_says_so_and_ends_and_the_round_goes_on(network: Network) -> None:
    sls = opened(network, 3)
    go_on(sls, 1.0)
    answer = network.client.submit("node.evict", {"uid": sls[2].uid})
    assert answer.result["evicted"]
    assert sls[2].status() != 0
    told = sls[2].log.read_text()
    assert f"sl-2 was evicted at height {answer.height} by the votes of SWCI-1" in told
    assert network.contract()["members"][sls[2].uid]["state"] == "left"
    go_on(sls[:2], 2.0)
