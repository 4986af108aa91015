"""The learner's acts on the ledger, and their order at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from swarm.api.models import Verdict
from swarm.learner import ledger as module
from swarm.learner.ledger import Ledger, Place
from swarm.learner.messages import Enroll, Submit

BOUND = 30.0
REPORT = Submit(("report", 0), "round.report", {"round": 0}, side=True)


class Watch:
    """Hears nothing."""

    records: Mapping[str, Any] = {}
    height, connected, error = 1, True, ""

    def on_change(self, callback: object) -> None:
        """Nothing ever changes."""

    def close(self) -> None:
        """There is nothing to close."""


class Network:
    """Takes everything, but a report only when the test says so."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.reporting, self.go_on = threading.Event(), threading.Event()

    def status(self) -> dict[str, Any]:
        return {"uid": "sn"}

    def record(self, table: str, key: str, *, min_height: int = 0) -> dict[str, Any]:
        return {}

    def submit(self, op: str, args: Mapping[str, Any], *, patience: float = 0.0) -> Verdict:
        if op == "round.report":
            self.reporting.set()
            assert self.go_on.wait(BOUND)
        self.acts.append(op)
        return Verdict(True)

    def watch(self, keys: list[str], *, uid: str = "") -> Watch:
        return Watch()

    def close(self) -> None:
        """There is nothing to close."""


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def ledger(network: Network) -> Iterator[Ledger]:
    enrolled = threading.Event()
    place = Place("u" * 32, "sl-1", "127.0.0.1", 30305, "0", "k")
    ledger = Ledger(network, place, lambda event: enrolled.set())  # type: ignore[arg-type]
    ledger.enroll(Enroll("c", {}, "snapshot"))
    assert enrolled.wait(BOUND)
    yield ledger
    network.go_on.set()
    ledger.close()


def test_the_last_report_goes_before_the_learner_leaves(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPORTS", BOUND)
    ledger.submit(REPORT)
    assert network.reporting.wait(BOUND)
    leaving = threading.Thread(target=ledger.leave)
    leaving.start()
    network.go_on.set()
    leaving.join(BOUND)
    assert network.acts[-3:] == ["round.report", "contract.leave", "node.leave"]


def test_a_report_that_nobody_takes_does_not_hold_it(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPORTS", 0.01)
    ledger.submit(REPORT)
    assert network.reporting.wait(BOUND)
    ledger.leave()
    assert network.acts[-2:] == ["contract.leave", "node.leave"]
