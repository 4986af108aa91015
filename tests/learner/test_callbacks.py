"""Callbacks with real learners beside them: what a program asks for is what all of them do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from swarmlearning import SwarmError
from swarmlearning.numpy import SwarmCallback
from tests.learner.conftest import Swarm
from tests.learner.program import BOUND

Weights = dict[str, "np.ndarray[Any, Any]"]


class Node:
    """One program and its learner."""

    def __init__(self, swarm: Swarm, number: int, step: float, **options: Any) -> None:
        self.step = step
        self.ledger = swarm.ledger
        host = swarm.start(number)
        self.uid = host.uid
        host.program.close()  # the test's own end; the learner takes the next one
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SWARM_LINK", str(host.settings.folder))
            patch.delenv("SWARM_LOOPBACK", raising=False)
            self.callback = SwarmCallback(2, **options)
        self.intervals: list[int] = []

    def train(self, batches: int) -> Weights:
        swarm = self.callback
        weights: Any = {"w": np.zeros(3000, np.float32), "steps": np.array(0, np.int64)}
        weights = swarm.on_train_begin(weights)
        self.reported()
        for _ in range(batches):
            rounds = swarm.roundsMerged
            trained = {"w": weights["w"] + np.float32(self.step), "steps": weights["steps"] + 1}
            weights = swarm.on_batch_end(trained)
            if swarm.roundsMerged > rounds:
                self.intervals.append(swarm.nextSyncInterval)
                self.reported()
        return dict(swarm.on_train_end(weights))

    def reported(self) -> None:
        """The report, which nobody waits for otherwise, is on the ledger before the next round."""
        newest = self.callback.roundsMerged - 1
        self.ledger.wait(lambda r: r["members"][self.uid]["reported_round"] == newest)


def together(nodes: list[Node], batches: int) -> list[Weights]:
    with ThreadPoolExecutor(len(nodes)) as pool:
        futures = [pool.submit(node.train, batches) for node in nodes]
        return [future.result(BOUND) for future in futures]


def test_a_robust_method_narrow_transfer_and_a_pace_of_its_own(swarm: Swarm) -> None:
    options: dict[str, Any] = {
        "minPeers": 5,
        "mergeMethod": "Krum",
        "mergeArgs": {"f": 1},
        "transferDtype": "bfloat16",
        "useAdaptiveSync": True,
        "adsValData": 0,
        "lossFunction": lambda weights, _: 100.0 - float(weights["steps"]),  # falls
    }
    steps = (1.0, 1.0, 1.0625, 0.9375, 1e6)  # the last one is not sound
    nodes = [Node(swarm, number, step, **options) for number, step in enumerate(steps)]
    results = together(nodes, 16)
    for weights in results:
        assert weights["w"].dtype == np.float32
        for name, array in weights.items():
            assert array.tobytes() == results[0][name].tobytes()
    # Krum took sound members' vectors: after 16 steps of about one each, in 3 digits.
    assert 14 < results[0]["w"][0] < 18
    assert results[0]["steps"] == 16
    # Merges after 3 batches, 5 (no trend yet), then after 3 and 4 more: the loss falls.
    assert {tuple(node.intervals) for node in nodes} == {(2, 3, 4, 5)}
    rules = swarm.ledger.contract()["rules"]
    assert rules["merge_method"] == "krum"
    assert rules["merge_args"] == {"f": 1, "transferDtype": "bfloat16"}


def test_other_rules_are_refused_with_both_values(swarm: Swarm) -> None:
    first = Node(swarm, 1, 1.0, minPeers=1, mergeMethod="centeredclip", mergeArgs={"tau": 0.25})
    with pytest.raises(SwarmError, match=r"merge_args is .*'tau': '0.25'.*and .*'tau': '0.5'"):
        Node(swarm, 2, 1.0, minPeers=1, mergeMethod="centeredclip", mergeArgs={"tau": 0.5})
    first.train(1)


def test_a_method_that_cannot_hold_is_refused(swarm: Swarm) -> None:
    with pytest.raises(SwarmError, match="krum with f = 1 needs 5"):
        Node(swarm, 1, 1.0, minPeers=2, mergeMethod="krum")
    with pytest.raises(SwarmError, match=r"SW6006.*mine@1.*is installed"):
        Node(swarm, 2, 1.0, minPeers=2, mergeMethod="mine@1")
