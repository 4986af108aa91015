"""Learners as processes with a real network node: stopped, short of members, evicted, fed.

What kills or cuts them off in the middle of a round is in `tests/e2e/test_learner_faults.py`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

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


def test_the_first_program_sets_the_rules_and_one_with_others_is_told(network: Network) -> None:
    first = network.learner(0)
    first.program.open(min_peers=2)
    for number, (rule, here, other) in enumerate(
        [("minPeers", 2, 3), ("mergeMethod", "mean", "coordmedian"), ("syncFrequency", 5, 7)], 1
    ):
        second = network.learner(number)
        second.program.send_open(**{"minPeers": 2, rule: other})
        answer = second.program.receive("error")
        assert answer["code"] == "SW4042"
        assert f" is {here!r} in contract " in answer["text"]
        assert f"set by {first.name}, and {other!r} in your program" in answer["text"]
        assert second.status() != 0
    assert list(network.contract()["members"]) == [first.uid], "none of them takes part"
    network.learner(4).program.open(min_peers=2)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the system knows no such policy")
def test_a_learner_gives_way_to_who_wakes_up_for_a_moment(network: Network) -> None:
    sls = opened(network, 2)
    go_on(sls, 1.0)
    for sl in sls:
        threads = [int(path.name) for path in Path(f"/proc/{sl.process.pid}/task").iterdir()]
        policies = [os.sched_getscheduler(thread) for thread in threads]
        assert os.sched_getscheduler(sl.process.pid) == os.SCHED_BATCH
        # numpy's own threads, which do nothing here, were there before.
        assert policies.count(os.SCHED_BATCH) > 5 >= policies.count(os.SCHED_OTHER)
    assert os.sched_getscheduler(network.sn.pid) == os.SCHED_OTHER
