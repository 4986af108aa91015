"""Parts of a training that come and go, as processes: network nodes, learners, programs.

Three network nodes go on without one of them. Each learner is told of one node only; it knows the
others from the ledger. Programs are the real library, in threads.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.api.client import ApiClient
from swarm.identity import Role
from swarmlearning import tensors
from swarmlearning.session import Merged, Session
from swarmlearning.settings import Settings
from tests import pki
from tests.e2e.forked import ForkedProcesses
from tests.processes import Daemon, Processes, free_port, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BOUND = 120.0
CONTRACT = "defaultbb.cqdb.sml.hpe"
Act = Callable[[Session], Any]


class Program:
    """A user's program, in a thread that does one thing after the other."""

    def __init__(self, folder: Path, name: str) -> None:
        self._session = Session(folder, logging.getLogger(name))
        self._folder = folder
        self._acts: queue.Queue[Act] = queue.Queue()
        self._results: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._results.put(self._acts.get()(self._session))
            except BaseException as error:
                self._results.put(error)

    def begin(self, act: Act) -> None:
        self._acts.put(act)

    def end(self) -> Any:
        result = self._results.get(timeout=BOUND)
        if isinstance(result, BaseException):
            raise result
        return result

    def open(self) -> None:
        self.begin(lambda session: session.open(Settings(5, 2)))

    def sync(self, value: float) -> None:
        self.begin(lambda session: self._sync(session, value))

    def finish(self, value: float) -> None:
        self.begin(lambda session: self._finish(session, value))

    def bye(self) -> None:
        self.begin(lambda session: session.bye())

    def vanish(self) -> None:
        """As when the program is killed: nothing is said."""
        self.begin(lambda session: session.close())
        self.end()

    def value(self) -> float:
        with tensors.open(self._folder / "merged.bin") as file:
            return float(file.views()["w"][0])

    def has_model(self) -> bool:
        return self._session.has_model

    def _sync(self, session: Session, value: float) -> tuple[Merged, float]:
        merged = session.sync(weights(value), weightage=1, samples=1, epochs=1)
        return merged, self._load(session, merged)

    def _load(self, session: Session, merged: Merged) -> float:
        with session.merged(lambda: weights(0)) as arrays:
            value = float(arrays["w"][0])
        session.report(merged.round, 0.5, 0.5, 1, 1)
        return value

    def _finish(self, session: Session, value: float) -> float:
        last = 0.0
        for merged in session.finish(weights(value), weightage=1, epochs=1):
            last = self._load(session, merged)
        return last


def weights(value: float) -> dict[str, NDArray[np.float32]]:
    return {"w": np.full(50_000, value, np.float32)}


class Pair:
    """A learner process and its program."""

    def __init__(self, swarm: Swarm, number: int, sn: Daemon) -> None:
        self.name = f"sl-{number}"
        self.folder = swarm.run.directory / f"link-{swarm.trainings}-{number}"
        self.folder.mkdir()
        port = str(free_port())
        env = {
            **pki.environment(swarm.run.directory / f"cert-{number}", Role.SL, swarm.ca),
            "SN_NODE_IP": "127.0.0.1",
            "SN_API_SERVER_PORT": str(sn.port),
            "THIS_NODE_IP": "127.0.0.1",
            "SWARM_LISTEN": "127.0.0.1",
            "SL_FS_PORT": port,
            "SL_LISTEN_PORT": port,
            "SWARM_NODE_NAME": self.name,
            "SWARM_LINK": str(self.folder),
        }
        self.daemon = swarm.learners.start(self.name, "swarm.learner", env)
        self.program = Program(self.folder, f"program {number}")


class Swarm:
    """Three network nodes, and pairs for one training after the other."""

    def __init__(self, run: Processes) -> None:
        self.run = run
        self.learners = Processes(run.directory)
        self.ca = pki.authority(run.directory)
        first = run.sn("sn1", self.ca, fault_model="crash", wait=BOUND)
        rest = [run.sn(f"sn{n}", self.ca, sentinel=first, wait=None) for n in (2, 3)]
        for sn in rest:
            run.ready(sn, BOUND)
        self.sns = [first, *rest]
        self.client = self.direct(first)
        until(lambda: len(self.client.status()["validators"]) == 3, 60, "three validators")
        self.trainings = 0
        self.pairs: list[Pair] = []

    def direct(self, sn: Daemon) -> ApiClient:
        return self.run.direct(self.ca, sn)

    def begin(self, count: int = 2) -> list[Pair]:
        """A training whose first round is done; the first pair's learner is at the second node."""
        self.trainings += 1
        order = (1, 0, 2)
        self.pairs = [Pair(self, number, self.sns[order[number]]) for number in range(count)]
        for pair in self.pairs:
            pair.program.open()
        for pair in self.pairs:
            pair.program.end()
        self.round(0, *range(count))
        return self.pairs

    def round(self, number: int, *values: float) -> None:
        for pair, value in zip(self.pairs, values, strict=True):
            pair.program.sync(value)
        self.ended(number, float(np.mean(values)))

    def ended(self, number: int, value: float) -> None:
        for pair in self.pairs:
            merged, got = pair.program.end()
            assert (merged.round, merged.counted, got) == (number, True, value)

    def finish(self) -> None:
        """All programs end their training, with the same weights; and so do the learners."""
        for number, pair in enumerate(self.pairs):
            pair.program.finish(number)
        assert len({pair.program.end() for pair in self.pairs}) == 1
        for pair in self.pairs:
            pair.program.bye()
        for pair in self.pairs:
            pair.program.end()
            pair.daemon.wait_end()
            assert pair.daemon.process.returncode == 0, pair.daemon.tail()

    def checked_in(self, pair: Pair) -> None:
        uids = {m["name"]: uid for uid, m in self.contract()["members"].items()}
        until(lambda: uids[pair.name] in self.contract()["checkins"], BOUND, "its check-in")

    def contract(self) -> Any:
        return self.client.record("contracts", CONTRACT)

    def parent(self, uid: str) -> str:
        """The network node that watches over a learner, as the ledger has it."""
        node = self.client.record("nodes", uid)
        assert node is not None
        return str(node["parent"])

    def reset(self) -> None:
        for pair in self.pairs:
            if pair.daemon.alive():
                pair.daemon.kill()
        self.client.submit("contract.reset", {"contract": CONTRACT})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with ForkedProcesses(tmp_path_factory.mktemp("resume")) as run:
        swarm = Swarm(run)
        with swarm.learners:
            yield swarm


@pytest.fixture
def swarm(network: Swarm) -> Iterator[Swarm]:
    yield network
    network.reset()


def test_a_learner_that_is_killed_at_any_time_goes_on_when_it_is_back(swarm: Swarm) -> None:
    one, two = swarm.begin()
    # While its program waits for the others.
    one.program.sync(1)
    swarm.checked_in(one)
    one.daemon.kill()
    one.daemon.start()
    two.program.sync(3)
    swarm.ended(1, 2.0)
    # While its program trains.
    one.daemon.kill()
    one.daemon.start()
    swarm.round(2, 4, 8)
    # In order this time, and while its program has finished and waits for the others.
    one.program.finish(10)
    swarm.checked_in(one)
    assert one.daemon.terminate(BOUND) == 3
    one.daemon.start()
    two.program.sync(20)
    merged, value = two.program.end()
    assert (merged.round, value) == (3, 15.0)
    two.program.finish(30)
    assert {one.program.end(), two.program.end()} == {20.0}  # its snapshot counts again
    for pair in (one, two):
        pair.program.bye()
        pair.program.end()
        pair.daemon.wait_end()
        assert pair.daemon.process.returncode == 0, pair.daemon.tail()


def test_a_program_that_is_restarted_gets_the_last_model(swarm: Swarm) -> None:
    one, two = swarm.begin()
    one.program.vanish()
    two.program.sync(3)
    until(lambda: "gone: sl-0" in swarm.contract()["waiting"], BOUND, "it says who is missed")
    until(lambda: "the one before is gone" in one.daemon.log, BOUND, "its learner says so, too")
    one.program = Program(one.folder, "program 0 again")
    one.program.open()
    one.program.end()
    assert one.program.has_model()
    assert one.program.value() == 0.5
    one.program.begin(lambda session: one.program._load(session, Merged(True, True, False, 0)))
    one.program.end()
    one.program.sync(5)
    swarm.ended(1, 4.0)
    swarm.finish()


def test_a_learner_goes_on_through_another_network_node(swarm: Swarm) -> None:
    one, _ = swarm.begin()
    (uid,) = [u for u, m in swarm.contract()["members"].items() if m["name"] == one.name]
    lost = swarm.sns[1]
    gone = swarm.direct(lost).status()["uid"]
    assert swarm.parent(uid) == gone
    lost.kill()
    try:
        swarm.round(1, 1, 3)
        until(lambda: swarm.parent(uid) != gone, BOUND, "a new parent")
        swarm.round(2, 2, 4)
        assert swarm.contract()["members"][uid]["missed"] == 0
        swarm.finish()
    finally:
        swarm.run.restart(lost, BOUND)


def test_training_goes_on_when_all_network_nodes_were_restarted(swarm: Swarm) -> None:
    one, two = swarm.begin()
    one.program.sync(1)
    swarm.checked_in(one)
    for sn in swarm.sns:
        sn.signal(signal.SIGKILL)
    for sn in swarm.sns:
        sn.wait_end()
    two.program.sync(3)
    until(lambda: "no news from the network nodes" in one.daemon.log, BOUND, "it says why it waits")
    for sn in swarm.sns:
        sn.start()
    for sn in swarm.sns:
        swarm.run.ready(sn, BOUND)
    swarm.ended(1, 2.0)
    swarm.round(2, 2, 4)
    swarm.finish()
