"""Real learners that are killed, cut off, slow or malicious at a named moment of a round.

Each time: the others end the round with equal bytes in (deadline + 2 s), the status of the contract
and their logs name the culprit and what it did, memory stays within its bound, and the next round
is as if nothing had happened.
"""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sentinel.lost import CLOSED
from swarm.learner.knowledge import BYSTAND
from tests.e2e import faulty_learner as faulty
from tests.e2e.learner_network import Learners, Trial, go_on, moment, stopped, weights
from tests.learner.processes import Sl
from tests.learner.program import BOUND
from tests.processes import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STALL = 4.0  # seconds of silence that these learners take, in place of ten
NOISE = b"\x55" + random.Random(1).randbytes(999)  # some first bytes announce more to come
PROOF = 0.0  # seconds: what is proven needs no waiting


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Learners]:
    made = Learners(tmp_path_factory.mktemp("network"))
    yield made
    made.close()


@pytest.fixture
def network(node: Learners) -> Iterator[Learners]:
    yield node
    node.reset()


def trial(network: Learners, *faults: str, **more: str) -> Trial:
    """Three learners; the last ones of them have faults, in round 1."""
    names = [""] * (3 - len(faults)) + list(faults)
    env = {faulty.ROUND: "1", faulty.STALL: str(STALL), **more}
    return Trial(
        network,
        [network.learner(k, **env, **{faulty.FAULT: name}) for k, name in enumerate(names)],
    )


def kill(sl: Sl) -> float:
    sl.kill()
    return time.monotonic()


# ------------------------------------------------------------------ it is gone


def test_killed_before_its_check_in(network: Learners) -> None:
    run = trial(network)
    run.begin(*run.sls[:2])
    for sl in run.sls[:2]:
        sl.program.hear("not yet: sl-2")
    run.survive(run.sls[2], kill(run.sls[2]), CLOSED, "its connection was closed")


def test_killed_after_its_check_in(network: Learners) -> None:
    run = trial(network)
    run.begin(run.sls[2])
    network.watch.wait(lambda w: run.sls[2].uid in network.contract()["checkins"], BOUND)
    since = kill(run.sls[2])
    run.begin(*run.sls[:2])
    run.survive(run.sls[2], since, CLOSED)


@pytest.mark.parametrize("fault", ["killed-sending", "killed-reducing"])
def test_killed_in_the_middle_of_it(network: Learners, fault: str) -> None:
    run = trial(network, fault)
    run.begin(*run.sls)
    run.sls[2].process.wait(BOUND)
    run.survive(run.sls[2], moment(run.sls[2]), CLOSED)


def test_killed_after_merged(network: Learners) -> None:
    """It is the only one that has said so: the others are held back until it is dead.

    Its word counts while it is not missed yet, so the round is decided with what it brought.
    """
    run = trial(network, "late-word", "late-word", "")
    run.begin(*run.sls)
    network.watch.wait(lambda w: list(network.contract()["merged"]) == [run.sls[2].uid], BOUND)
    since = kill(run.sls[2])
    for sl in run.sls[:2]:
        go_on(sl)
    run.survive(run.sls[2], since, CLOSED, merged_from=run.sls)


def test_frozen_in_the_middle_of_sending(network: Learners) -> None:
    run = trial(network, "stopped-sending")
    run.begin(*run.sls)
    until(lambda: stopped(run.sls[2]), BOUND, "it has stopped itself")
    took = run.end(run.sls[:2]) - moment(run.sls[2])
    assert took <= STALL + 2.0 * run.slowness
    run.named(run.sls[2], "no bytes for")
    # When it thaws it is told what was decided, and takes part again.
    run.sls[2].process.send_signal(signal.SIGCONT)
    message, merged = run.sls[2].program.merged()
    assert (message["round"], merged["kernel"][0]) == (1, 10.5)
    run.sls[2].program.report(1)
    run.round(run.sls)


# --------------------------------------------------------------- it is malicious


@pytest.mark.parametrize(
    ("fault", "deadline", "words"),
    [
        ("spoiled", PROOF, "does not fit its digest"),
        ("repeated", PROOF, "chunk 0 is not due"),
        ("random-frames", PROOF, "frame"),
        ("random-bytes", PROOF, "do not open"),
        ("early-excuses", PROOF, "waits before its contribution"),
        ("silent", STALL, "no bytes for"),
        ("stale", STALL, "no bytes for"),
    ],
)
def test_it_sends_what_it_should_not(
    network: Learners, fault: str, deadline: float, words: str
) -> None:
    run = trial(network, fault)
    run.begin(*run.sls)
    run.survive(run.sls[2], moment(run.sls[2]), deadline, words)


def test_it_hands_different_shards_to_all(network: Learners) -> None:
    run = trial(network, "two-faces")
    run.begin(*run.sls)
    run.survive(run.sls[2], moment(run.sls[2]), PROOF, "differ in the shard of sl-2")


def with_a_victim(network: Learners, fault: str) -> Trial:
    """The third one has a fault that only the first one can see."""
    sls = [network.learner(k, **{faulty.STALL: str(STALL)}) for k in range(2)]
    env = {faulty.ROUND: "1", faulty.FAULT: fault, faulty.VICTIM: str(sls[0].port)}
    return Trial(network, [*sls, network.learner(2, **env)])


def test_it_spoils_what_it_sends_to_one(network: Learners) -> None:
    """The other one has no proof of its own, and takes the side of the one that is stuck."""
    run = with_a_victim(network, "spoiled-for-one")
    run.begin(*run.sls)
    run.survive(run.sls[2], moment(run.sls[2]), BYSTAND, "does not fit its digest")


def test_it_hands_another_shard_to_one(network: Learners) -> None:
    """It agrees with the other one, so the round is decided, and the one fetches that model."""
    run = with_a_victim(network, "a-face-for-one")
    run.begin(*run.sls)
    end = run.end(run.sls)
    assert end - moment(run.sls[2]) <= 2.0 * run.slowness
    run.named(run.sls[2], "had sent other bytes for its shard than were decided")
    run.bounded(run.sls)


def test_its_model_is_another_one(network: Learners) -> None:
    run = trial(network)
    run.begin(*run.sls[:2])
    for sl in run.sls[:2]:
        sl.program.hear("not yet: sl-2")
    since = time.monotonic()
    run.sls[2].program.memory = None
    run.sls[2].program.send_sync(weights(1, 1000))
    answer = run.sls[2].program.receive("error")
    assert answer["code"] == "SW4054"
    assert "kernel" in answer["text"]
    run.survive(run.sls[2], since, PROOF, "SW4054", "kernel")


# ---------------------------------------------------------------- it is a stranger


def test_strangers_at_the_door(network: Learners) -> None:
    """Some say nothing, some talk nonsense, and they come again: the round is as always."""
    run = trial(network)
    sl, over = run.sls[0], threading.Event()
    silent = [socket.create_connection(("127.0.0.1", sl.port)) for _ in range(120)]

    def nonsense() -> None:
        while not over.is_set():
            with socket.create_connection(("127.0.0.1", sl.port)) as sock:
                sock.sendall(NOISE)
                sock.settimeout(BOUND)
                while _received(sock):
                    pass

    talker = threading.Thread(target=nonsense)
    talker.start()
    try:
        since = time.monotonic()
        run.begin(*run.sls)
        assert run.end(run.sls) - since <= 2.0 * run.slowness
        until(
            lambda: "turned away a connection from 127.0.0.1" in sl.log.read_text(), BOUND, "named"
        )
        run.bounded(run.sls)
    finally:
        over.set()
        talker.join(BOUND)
        for sock in silent:
            sock.close()


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1000)
    except ConnectionError:
        return b""
