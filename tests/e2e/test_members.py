"""Members that come, go, are put out, and are lost, as real processes under load.

`SWARM_MEMBERS=7` runs the first test with validator sets of 1, 7 and 2; it takes 5 otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pki
from tests.e2e.ledger_load import Load, judge
from tests.processes import Daemon, Processes, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MOST = int(os.environ.get("SWARM_MEMBERS", "5"))
SWARM = Path(sys.executable).with_name("swarm")


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as processes:
        yield processes


def members(run: Processes, ca: pki.Authority, through: Daemon, count: int) -> None:
    """Wait until a node sees so many validators."""
    status = run.client(ca, through).status
    until(lambda: len(status()["validators"]) == count, 120, f"{count} validators")


def uid_of(run: Processes, ca: pki.Authority, sn: Daemon) -> str:
    return str(run.client(ca, sn).status()["uid"])


def test_validators_change_under_load(run: Processes, ca: pki.Authority) -> None:
    """1, 5 and 2 validators; the sentinel and proposer leaves, and others join without it."""
    first = run.sn("sn1", ca)
    second = run.sn("sn2", ca, sentinel=first)
    load = Load(run, ca, [second, first])  # whatever becomes of the others, the second one stays
    nodes = [first, second]
    joiners = [
        run.sn(f"sn{n}", ca, sentinel=second, wait=None)  # not through the sentinel
        for n in range(3, MOST + 1)
    ]
    for sn in joiners:
        run.ready(sn, 120)
    nodes += joiners
    members(run, ca, second, MOST)
    assert load.more(20)

    assert first.terminate(30) == 0, "it proposed the last blocks, and leaves in order"
    assert load.more(10)
    late = run.sn("late", ca, sentinel=nodes[2], wait=120)  # the sentinel is gone
    members(run, ca, second, MOST)
    assert load.more(10)

    operator = run.client(ca, second)
    uid = uid_of(run, ca, late)
    answer = operator.submit("node.evict", {"uid": uid})
    assert answer.result["evicted"]
    told = f"SW4015: late was evicted at height {answer.height} by the votes of SWCI-"
    late.wait_for(told, 30)
    assert late.process.wait(30) == 1
    late.wait_end()
    assert load.more(10)
    status = operator.status()
    assert [(one["uid"], one["name"]) for one in status["evicted"]] == [(uid, "late")]
    # It comes back, and once more with a fresh data directory: the others tell it.
    for data in (late.env["SWARM_DATA_DIR"], str(run.directory / "fresh")):
        late.env["SWARM_DATA_DIR"] = data
        late.start()
        late.wait_for("SW4015: .*late was evicted at height", 60)
        assert late.process.wait(30) == 1
        late.wait_end()

    for sn in nodes[:2:-1]:
        assert sn.terminate(30) == 0
        assert load.more(5)
    members(run, ca, second, 2)
    assert load.more(20)
    load.stop()
    assert not load.failures
    height = operator.status()["height"]
    for sn in nodes[1:3]:
        view = run.client(ca, sn)
        until(lambda view=view: view.status()["height"] >= height, 60, "equal heights")  # type: ignore[misc]
    for sn in nodes[1:3]:
        sn.kill()
    judge(nodes, load)


def swarm_command(sn: Daemon, *words: str) -> str:
    """Run `swarm ledger …` with a node's identity."""
    done = subprocess.run(
        [str(SWARM), "ledger", *words],
        env={**os.environ, **{k: v for k, v in sn.env.items() if k.startswith("SWARM_ID_")}},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_recovery_after_one_of_two_is_destroyed(run: Processes, ca: pki.Authority) -> None:
    first = run.sn("sn1", ca)
    second = run.sn("sn2", ca, sentinel=first)
    members(run, ca, first, 2)
    client = run.client(ca, second)
    task = {"type": "RUN_SWARM", "author": "a", "prereq": "ROOTTASK", "outcome": "o"}
    client.submit("task.create", {"name": "before", **task})
    first.kill()
    until(lambda: "sn1" in client.status()["waiting"], 60, "the loss is told")
    second.kill()

    data = second.env["SWARM_DATA_DIR"]
    printed = swarm_command(second, "recover", data, "--reason", "sn1 burnt down", "--yes")
    name = printed.split()[-1]
    assert "Dropped     sn1" in printed
    run.restart(second, 120)
    second.wait_for("Starting SWARM-API-SERVER")
    client.submit("task.create", {"name": "after", **task})
    assert client.record("tasks", "before") is not None

    third = run.sn("sn3", ca, sentinel=second, wait=120)
    assert "the network was recovered without a quorum at height" in third.log
    members(run, ca, third, 2)
    client.submit("task.create", {"name": "both", **task})
    status = run.client(ca, third).status()
    assert [one["reason"] for one in status["recoveries"]] == ["sn1 burnt down"]

    # The one that was given up was not destroyed after all.
    first.start()
    first.wait_for("the network was recovered without 1 of its 2 validators", 120)
    assert first.alive()
    first.kill()
    swarm_command(first, "accept", first.env["SWARM_DATA_DIR"], name)
    run.restart(first, 120)
    members(run, ca, first, 3)
    view = run.client(ca, first)
    until(lambda: view.record("tasks", "both") is not None, 60, "it has the others' blocks")
