"""Reading a ledger through a node's API: in batches, from a busy node, from one that lies."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from swarm.api.transport import Answer, Transport
from swarm.audit.remote import Remote
from swarm.audit.sources import Pair
from swarm.audit.verify import verify
from swarm.errors import RemoteError
from tests.audit.history import History

Respond = Callable[[int], Answer]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = History(tmp_path_factory.mktemp("history"), validators=2, learners=1)
    made.found()
    return made


def honest(history: History, after: int) -> dict[str, Any]:
    """Three blocks at a time."""
    told: dict[str, Any] = {
        "height": len(history.pairs),
        "blocks": [
            [base64.b64encode(raw).decode() for raw in pair]
            for pair in history.pairs[after : after + 3]
        ],
    }
    if after == 0:
        genesis = base64.b64encode(history.genesis.encode()).decode()
        told |= {"genesis": genesis, "recoveries": []}
    return told


def remote(history: History, monkeypatch: pytest.MonkeyPatch, respond: Respond) -> Remote:
    def exchange(_: Transport, method: str, path: str) -> Answer:
        assert method == "GET"
        return respond(int(path.removeprefix("/v1/blocks?after=")))

    monkeypatch.setattr(Transport, "exchange", exchange)
    return Remote(history.sns[0], "host", 1, pause=lambda seconds: None)


def test_all_blocks_come_in_batches(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def respond(after: int) -> Answer:
        asked.append(after)
        if asked.count(after) == 1:
            return Answer(429, {"code": "SW5009"}, "slow down", retry_after=2.0)
        return Answer(200, honest(history, after), "")

    with remote(history, monkeypatch, respond) as ledger:
        assert ledger.genesis == history.genesis
        assert list(ledger.pairs()) == history.pairs
        assert list(ledger.pairs(4)) == history.pairs[4:]
        assert verify(ledger, history.sns[0].trust.ca_ders).height == len(history.pairs)


def test_a_node_that_stays_busy_is_given_up(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RemoteError, match="no quorum"):
        remote(history, monkeypatch, lambda _: Answer(503, {"code": "SW5005"}, "no quorum"))


@pytest.mark.parametrize(
    "changes",
    [
        {"genesis": "?"}, {"genesis": None}, {"genesis": "AAAA"}, {"recoveries": [1]},
        {"recoveries": None}, {"height": None}, {"height": float("inf")}, {"height": "3"},
    ],
)  # fmt: skip
def test_a_strange_beginning(
    history: History, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    told = {**honest(history, 0), **changes}
    with pytest.raises(RemoteError):
        remote(history, monkeypatch, lambda _: Answer(200, told, ""))


@pytest.mark.parametrize(
    "blocks",
    [None, [], 7, ["ab"], [["AA", "AA"]], [["?", "AA=="]], [[1, 2]], [["AA==", "A" * 800_000]]],
)
def test_strange_blocks(history: History, monkeypatch: pytest.MonkeyPatch, blocks: object) -> None:
    told = {**honest(history, 0), "blocks": blocks}
    with (
        remote(history, monkeypatch, lambda _: Answer(200, told, "")) as ledger,
        pytest.raises(RemoteError),
    ):
        list(ledger.pairs())


@pytest.mark.parametrize("value", [None, [], "text"])
def test_no_object(history: History, monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    with pytest.raises(RemoteError):
        remote(history, monkeypatch, lambda _: Answer(200, value, ""))


def test_it_does_not_wait_for_more_than_there_was(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger grows while it is read."""

    def respond(after: int) -> Answer:
        told = honest(history, after)
        if after:
            told["height"] += 100
            told["blocks"] += [told["blocks"][-1]] * 50
        return Answer(200, told, "")

    with remote(history, monkeypatch, respond) as ledger:
        found: list[Pair] = list(ledger.pairs())
    assert found == history.pairs
