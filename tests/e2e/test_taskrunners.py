"""How many take part in a task, and who: real network nodes, operators, learners and programs.

peers of a RUN_SWARM task are pairs of learner and program, of all others operators
WITH n PEERS    complete when n have completed; of operators, exactly n take part
WITH ALL PEERS  all that listen when the task is assigned
TARGET uid      that operator alone; or one more in a task that is there already
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from swarmlearning.swci import answers
from tests.e2e.operators import Swarm
from tests.processes import Processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    directory = tmp_path_factory.mktemp("swarm")
    with Processes(directory) as run:
        swarm = Swarm(run, directory)
        swarm.build_task("build")
        yield swarm
        swarm.close()


def peers_of(swarm: Swarm, runner: str) -> list[str]:
    """Uids of the operators that took part."""
    return [row[1] for row in answers.rows(swarm.say(f"LIST TASKRUNNER PEERS {runner}"), 4)]


def test_tasks_of_operators(swarm: Swarm) -> None:
    """Exactly as many as were asked for; one that is named; all that are there."""
    swarm.say("CREATE TASKRUNNER builds")
    swarm.build_task("first")
    swarm.build_task("second")
    swarm.build_task("third")
    one, two = (swarm.operator(f"builder{i}", "builds", 0.0) for i in (1, 2))

    swarm.say("ASSIGN TASK first TO builds WITH 1 PEERS")
    assert swarm.ended("builds") == "COMPLETE"
    assert len(peers_of(swarm, "builds")) == 1
    assert one.has("first") != two.has("first"), "exactly one took part"
    ok, lines = swarm.try_to("ASSIGN TASK second TO builds WITH 1 PEERS")
    assert not ok and "is COMPLETE with task first; reset it first" in lines[0]

    # The other one is called into a task of which all places are taken.
    swarm.say("RESET TASKRUNNER builds")
    swarm.say(f"ASSIGN TASK second TO builds TARGET {two.uid}")
    assert swarm.ended("builds") == "COMPLETE"
    assert peers_of(swarm, "builds") == [two.uid]
    assert two.has("second") and not one.has("second")

    swarm.say("RESET TASKRUNNER builds")
    assert answers.field(
        swarm.say("ASSIGN TASK third TO builds WITH 2 PEERS"), "PEERS NEEDED"
    ) == "2"  # fmt: skip
    assert swarm.ended("builds") == "COMPLETE"
    assert sorted(peers_of(swarm, "builds")) == sorted([one.uid, two.uid])
    assert one.has("third") and two.has("third")
    swarm.say("RESET TASKRUNNER builds")

    assert answers.field(
        swarm.say("ASSIGN TASK first TO builds WITH ALL PEERS"), "PEERS NEEDED"
    ) == "2"  # fmt: skip
    assert swarm.ended("builds") == "COMPLETE"
    assert one.has("first") and two.has("first")


def test_three_of_four_pairs_and_all_of_them(swarm: Swarm) -> None:
    """Three are enough; ALL are those of the beginning, and no later operator."""
    swarm.say("CREATE TASKRUNNER pairs")
    one, two = (
        swarm.operator("pairs1", "pairs", 1.0, 2.0),
        swarm.operator("pairs2", "pairs", 3.0, 9.0),
    )
    swarm.say("ASSIGN TASK build TO pairs WITH 2 PEERS")
    assert swarm.ended("pairs") == "COMPLETE"
    swarm.say("RESET TASKRUNNER pairs")

    swarm.run_task("three", "build", MIN_PEERS=3)
    two.mark("hold", 1)
    swarm.say("ASSIGN TASK three TO pairs WITH 3 PEERS")
    assert swarm.ended("pairs") == "COMPLETE"
    swarm.wait("pairs", lambda r: len(r["peers"]) == 4)
    assert swarm.status("pairs", "NEEDED PEERS") == "3"
    assert swarm.status("pairs", "COMPLETED PEERS") == "3"
    assert swarm.status("pairs", "ACTIVE PEERS") == "1"
    assert swarm.status("pairs", "DESCRIPTION") == "3 of 3 pairs completed"
    for result in (one.result(0), one.result(1), two.result(0)):
        np.testing.assert_array_equal(result, np.full(1000, 2.0, np.float32))
    swarm.say("RESET TASKRUNNER pairs")
    two.daemon.wait_for("Stopped and removed")
    two.clear("hold", 1)

    swarm.run_task("all", "build", MIN_PEERS=4)
    for operator in (one, two):
        operator.mark("hold-in-training")
    assigned = swarm.say("ASSIGN TASK all TO pairs WITH ALL PEERS")
    assert answers.field(assigned, "PEERS NEEDED") == "4"
    late = swarm.operator("pairs3", "pairs", 100.0)
    swarm.wait("pairs", lambda r: [p["state"] for p in r["peers"].values()] == ["RUNNING"] * 4)
    for operator in (one, two):
        operator.clear("hold-in-training")
    assert swarm.ended("pairs") == "COMPLETE"
    assert swarm.status("pairs", "COMPLETED PEERS") == "4"
    assert late.uid not in peers_of(swarm, "pairs")
    np.testing.assert_array_equal(two.result(1), np.full(1000, 3.75, np.float32))
    assert "New task" not in late.daemon.log
    swarm.say("RESET TASKRUNNER pairs")


def test_a_failed_operator_comes_back_into_the_task(swarm: Swarm) -> None:
    """The other one trains on, waiting for its peer; then both finish."""
    swarm.say("CREATE TASKRUNNER again")
    one, two = swarm.operator("again1", "again", 1.0), swarm.operator("again2", "again", 3.0)
    swarm.say("ASSIGN TASK build TO again WITH 2 PEERS")
    assert swarm.ended("again") == "COMPLETE"
    swarm.say("RESET TASKRUNNER again")
    swarm.run_task("back", "build", MIN_PEERS=2)
    two.mark("crash")
    swarm.say("ASSIGN TASK back TO again WITH 2 PEERS")
    assert swarm.ended("again") == "ERROR"
    swarm.wait("again", lambda r: r["swops"][two.uid]["state"] == "ERROR")
    status = answers.peer_status(swarm.say(f"GET TASKRUNNER PEER STATUS again {two.uid}"))
    assert "no data here" in status.pairs[0].text
    ok, lines = swarm.try_to(f"ASSIGN TASK back TO again TARGET {one.uid}")
    assert not ok and "takes part already and is RUNNING" in lines[0]

    two.clear("crash")
    swarm.say(f"ASSIGN TASK back TO again TARGET {two.uid}")
    assert swarm.ended("again") == "COMPLETE"
    assert swarm.status("again", "DESCRIPTION") == "2 of 2 pairs completed"
    for operator in (one, two):
        np.testing.assert_array_equal(operator.result(), np.full(1000, 2.0, np.float32))
    swarm.say("RESET TASKRUNNER again")


def test_one_operator_trains_alone(swarm: Swarm) -> None:
    """TARGET, and a program that was told to do without a learner: it is complete all the same."""
    swarm.say("CREATE TASKRUNNER alone")
    one, two = swarm.operator("alone1", "alone", 5.0), swarm.operator("alone2", "alone", 7.0)
    swarm.say("ASSIGN TASK build TO alone WITH ALL PEERS")
    assert swarm.ended("alone") == "COMPLETE"
    swarm.say("RESET TASKRUNNER alone")
    swarm.run_task("loopback", "build", MIN_PEERS=2, SWARM_LOOPBACK="True")
    swarm.say(f"ASSIGN TASK loopback TO alone TARGET {two.uid}")
    assert swarm.ended("alone") == "COMPLETE"
    status = answers.peer_status(swarm.say("GET TASKRUNNER PEER STATUS alone 0"))
    assert status.uid == two.uid
    assert status.pairs[0].text == "the ML program ended (SWARM_LOOPBACK: it trained alone)"
    np.testing.assert_array_equal(two.result(), np.full(1000, 7.0, np.float32))
    assert not (one.pairs[0] / "result.npy").exists()
    contract = answers.field(swarm.say("GET CONTRACT STATUS loopback"), "STATUS")
    assert contract == "uninitialized", "nobody has enrolled"
    swarm.say("RESET TASKRUNNER alone")
    # It still looks at its parameters.
    swarm.run_task("wrong", "build", MIN_PEERS=-1, SWARM_LOOPBACK="True")
    swarm.say(f"ASSIGN TASK wrong TO alone TARGET {two.uid}")
    assert swarm.ended("alone") == "ERROR"
    status = answers.peer_status(swarm.say("GET TASKRUNNER PEER STATUS alone 0"))
    assert "minPeers" in status.pairs[0].text


def test_two_trainings_at_the_same_time(swarm: Swarm) -> None:
    """Two taskrunners, two contracts, the same two hosts: neither sees anything of the other."""
    trainings = {"red": (1.0, 3.0), "blue": (10.0, 30.0)}
    for runner, values in trainings.items():
        swarm.say(f"CREATE TASKRUNNER {runner}")
        for index, value in enumerate(values, 1):
            swarm.operator(f"{runner}{index}", runner, value)
        swarm.say(f"ASSIGN TASK build TO {runner} WITH 2 PEERS")
    for runner in trainings:
        assert swarm.ended(runner) == "COMPLETE"
        swarm.say(f"RESET TASKRUNNER {runner}")
        swarm.run_task(f"train-{runner}", "build", MIN_PEERS=2, STEPS=4)
    mine = {
        runner: [one for one in swarm.operators if one.name.startswith(runner)]
        for runner in trainings
    }
    for runner in trainings:
        for operator in mine[runner]:
            operator.mark("hold-in-training")
        swarm.say(f"ASSIGN TASK train-{runner} TO {runner} WITH ALL PEERS")
    # Both have merged for the first time, so both are in training; only then they go on.
    for runner in trainings:
        swarm.watch(f"contracts/train-{runner}", lambda c: c["last"] is not None)
    for runner in trainings:
        assert swarm.status(runner, "TASK_STATE") == "RUNNING"
        for operator in mine[runner]:
            operator.clear("hold-in-training")
    members: dict[str, set[str]] = {}
    for runner, values in trainings.items():
        assert swarm.ended(runner) == "COMPLETE"
        for operator in mine[runner]:
            np.testing.assert_array_equal(
                operator.result(), np.full(1000, sum(values) / 2, np.float32)
            )
        contract = swarm.client.record("contracts", f"train-{runner}")
        assert contract is not None
        assert len(contract["last"]["roster"]) == 2
        assert contract["last"]["round"] == 4, "each step of its own training, and no other"
        members[runner] = set(contract["members"])
    assert len(members["red"] | members["blue"]) == 4
    # One is cleared away while the other still stands.
    swarm.say("RESET TASKRUNNER red")
    assert swarm.status("blue", "TASK_STATE") == "COMPLETE"
