"""A ledger that was lost for ever and founded anew: who follows it again, and when."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarm.api import watch as watch_module
from swarm.api.client import ApiClient
from swarm.api.watch import Watch
from swarm.identity import Role
from tests import pki
from tests.processes import until
from tests.sentinel.fakes import FakeLedger
from tests.sentinel.harness import LiveApi

OLD, NEW = b"\x01" * 32, b"\x02" * 32


class Swarm:
    """Two network nodes at fixed addresses, and a client of both."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.ca = pki.authority(directory)
        self.nodes = [
            stack.enter_context(LiveApi(pki.identity(directory, Role.SN, self.ca, name=name)))
            for name in ("1", "2")
        ]
        for node in self.nodes:
            self.serve(node, OLD, height=9)
        self.client = ApiClient(
            pki.identity(directory, Role.SWOP, self.ca),
            [("127.0.0.1", node.port) for node in self.nodes],
            learn=False,
        )
        self.heard: list[tuple[str, int]] = []

    def serve(self, node: LiveApi, chain: bytes, height: int) -> None:
        """Serve this chain from now on; the streams of the other one end."""
        ledger: FakeLedger = node.ledger
        ledger.state = replace(
            ledger.state.put("tasks", "a", {"of": chain[:1].hex()}), chain=chain, height=height
        )

    def watch(self, *, start_over: bool) -> Watch:
        found = self.client.watch(["tasks/a"], start_over=start_over)
        found.on_change(lambda w: self.heard.append((w.chain, w.height)))
        assert found.wait(lambda w: w.connected, 10)
        return found

    def lose(self, watch: Watch) -> None:
        """The stream breaks, as when its node is killed."""
        stream = watch._stream
        if stream is not None:
            stream.abort()


@pytest.fixture
def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    monkeypatch.setattr(watch_module, "START_OVER", 0.3)
    monkeypatch.setattr(watch_module, "PAUSE_MOST", 0.1)
    with contextlib.ExitStack() as stack:
        made = Swarm(tmp_path, stack)
        yield made
        made.client.close()


def test_another_ledger_is_followed_when_the_own_one_is_gone(swarm: Swarm) -> None:
    watch = swarm.watch(start_over=True)
    assert (watch.chain, watch.height) == (OLD.hex(), 9)
    for node in swarm.nodes:
        swarm.serve(node, NEW, height=2)
    swarm.lose(watch)
    assert watch.wait(lambda w: w.chain == NEW.hex(), 10)
    assert watch.height == 2, "lower than before, and not waited for"
    assert watch.records == {"tasks/a": {"of": "02"}}
    assert (NEW.hex(), 2) in swarm.heard


def test_one_node_of_another_ledger_is_passed_over(swarm: Swarm) -> None:
    """One that somebody founded anew by mistake, or that lies: the other one is still ours."""
    watch = swarm.watch(start_over=True)
    swarm.serve(swarm.nodes[0], NEW, height=200)
    for _ in range(5):
        seen = len(swarm.heard)
        swarm.lose(watch)
        until(lambda seen=seen: len(swarm.heard) >= seen + 2, 10, "lost, and found again")
        assert watch.wait(lambda w: w.connected, 10)
        assert (watch.chain, watch.height) == (OLD.hex(), 9)
    assert {chain for chain, _ in swarm.heard} == {OLD.hex()}


def test_a_node_that_is_busy_may_be_ours(swarm: Swarm) -> None:
    """It lives, and cannot serve at present: nothing is lost."""
    watch = swarm.watch(start_over=True)
    swarm.serve(swarm.nodes[0], NEW, height=2)
    swarm.serve(swarm.nodes[1], OLD, height=3)  # it fell back, and answers 503
    told = threading.Event()
    watch.on_change(lambda w: told.set() if "503" in w.error else None)
    swarm.nodes[1].ledger.wait_for = _never  # type: ignore[method-assign]
    swarm.lose(watch)
    assert told.wait(10)
    assert not watch.wait(lambda w: w.chain == NEW.hex(), 1.0)
    swarm.serve(swarm.nodes[1], OLD, height=9)
    assert watch.wait(lambda w: w.connected, 10)
    assert watch.chain == OLD.hex()


async def _never(height: int) -> None:
    return


def test_without_start_over_the_reason_is_told(swarm: Swarm) -> None:
    watch = swarm.watch(start_over=False)
    for node in swarm.nodes:
        swarm.serve(node, NEW, height=20)
    swarm.lose(watch)
    assert watch.wait(lambda w: "another ledger" in w.error, 10)
    assert not watch.wait(lambda w: w.connected, 1.0)
    assert f"serves another ledger ({NEW.hex()[:16]}) than the one followed so far" in watch.error
    assert watch.records == {"tasks/a": {"of": "01"}}, "what was known stays"
