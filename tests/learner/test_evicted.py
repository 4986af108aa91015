"""Whom the network has evicted, as a learner finds out."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.errors import RemoteError
from swarm.learner.evicted import Evicted


class Network:
    """Answers for the nodes table."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.down = False

    def record(self, table: str, key: str) -> dict[str, Any] | None:
        assert table == "nodes"
        self.asked.append(key)
        if self.down:
            raise RemoteError("SW5001", "no network node answers")
        return self.nodes.get(key)


def node(name: str, evicted: int = 0) -> dict[str, Any]:
    return {"name": name, "fingerprint": f"key of {name}", "evicted": evicted}


def contract(**states: str) -> dict[str, Any]:
    return {"members": {uid: {"state": state} for uid, state in states.items()}}


@pytest.fixture
def network() -> Network:
    network = Network()
    network.nodes = {name: node(name) for name in "abc"}
    return network


def test_only_those_who_are_not_active_are_asked_about_and_once(network: Network) -> None:
    evicted = Evicted(network)
    assert evicted.look(None) == {}
    assert evicted.look(contract(a="active", b="active")) == {}
    assert network.asked == []
    network.nodes["b"] = node("b", evicted=7)
    for _ in range(3):
        found = evicted.look(contract(a="active", b="left", c="lost"))
        assert found == {"key of b": "evicted from the network at height 7"}
    assert sorted(network.asked) == ["b", "c"]


def test_one_that_returns_and_leaves_again_is_asked_about_again(network: Network) -> None:
    evicted = Evicted(network)
    evicted.look(contract(b="lost"))
    evicted.look(contract(b="active"))
    network.nodes["b"] = node("b", evicted=9)
    assert "key of b" in evicted.look(contract(b="lost"))


def test_one_that_comes_is_asked_about_whatever_was_known(network: Network) -> None:
    """It had left long before it was evicted."""
    evicted = Evicted(network)
    evicted.look(contract(b="left"))
    assert not evicted.ask("b")
    network.nodes["b"] = node("b", evicted=9)
    assert evicted.ask("b")
    assert "key of b" in evicted.look(contract(b="left"))


def test_without_an_answer_it_asks_again(network: Network) -> None:
    evicted = Evicted(network)
    network.down = True
    assert evicted.look(contract(b="left")) == {}
    network.down = False
    network.nodes["b"] = node("b", evicted=9)
    assert "key of b" in evicted.look(contract(b="left"))
    del network.nodes["c"]  # displaced
    assert not evicted.ask("c")
