"""Adaptive sync with real learners: everybody merges at the same, changing pace."""

from __future__ import annotations

import numpy as np

from tests.learner.conftest import Swarm


def test_the_interval_follows_the_loss_and_is_everybodys(swarm: Swarm) -> None:
    hosts = [swarm.start(number) for number in range(2)]
    for host in hosts:
        host.program.send_open(adaptive=True, syncFrequency=16)
    for host in hosts:
        host.program.receive("opened")
    intervals = []
    # What the two report on each round's model: it improves, and then no longer.
    for round_, losses in enumerate((("9", "7"), ("6", "4"), ("3", "1"), ("9", "9"), ("9", "9"))):
        for host in hosts:
            host.program.send_sync({"w": np.full(4, float(round_))})
        nexts = set()
        for host, loss in zip(hosts, losses, strict=True):
            message, _ = host.program.merged()
            nexts.add(message["next"])
            host.program.report(message["round"], loss)
        assert len(nexts) == 1
        intervals += nexts
        swarm.ledger.wait(
            lambda r, n=round_: all(m["reported_round"] == n for m in r["members"].values())
        )
    assert intervals == [16, 16, 20, 25, 19]


def test_members_agree_on_it(swarm: Swarm) -> None:
    one, two = swarm.start(1), swarm.start(2)
    one.program.send_open(adaptive=True)
    one.program.receive("opened")
    two.program.send_open()
    refusal = two.program.receive("error")
    assert "adaptive is True" in refusal["text"]
    assert "False in your program" in refusal["text"]
    one.program.bye()
