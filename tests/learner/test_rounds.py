"""Whole rounds of several learners: real exchanges, the real state machine, no consensus."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.learner import learner
from swarm.learner.messages import Exit
from swarm.merge.dial import Member, Unreachable
from swarm.merge.exchange import Buffers
from swarm.merge.progress import Limits
from swarm.merge.sending import Sender
from swarm.merge.wire import Channel, Kind
from swarmlearning import link, tensors
from tests.learner.conftest import Swarm
from tests.learner.program import Host, Program

Arrays = dict[str, NDArray[np.float32]]


def weights(value: float, length: int = 5000) -> Arrays:
    return {
        "dense/kernel": np.full((length // 50, 50), value, np.float32),
        "dense/bias": np.full(50, -value, np.float32),
    }


def same(left: Arrays, right: Arrays) -> bool:
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


def value(arrays: Arrays) -> float:
    return float(arrays["dense/kernel"][0, 0])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_rounds_with_the_weighted_mean(swarm: Swarm, count: int) -> None:
    hosts = [swarm.start(number) for number in range(count)]
    for host in hosts:
        host.program.send_open(min_peers=count)
    for host in hosts:
        assert host.program.receive("opened")["hasModel"] is False
    for round_ in range(3):
        for number, host in enumerate(hosts):
            host.program.send_sync(weights(number + round_), weight=number + 1)
        answers = [host.program.merged() for host in hosts]
        for message, merged in answers:
            assert (message["round"], message["over"], message["next"]) == (round_, False, 5)
            assert message["peers"] == count
            assert same(merged, answers[0][1])
        expected = np.average(np.arange(count) + round_, weights=np.arange(count) + 1)
        assert value(answers[0][1]) == pytest.approx(expected)
        for host in hosts:
            host.program.report(round_)
    record = swarm.ledger.wait(
        lambda r: all(m["reported_round"] == 2 for m in r["members"].values())
    )
    assert [past["round"] for past in record["history"]] == [0, 1, 2]


def test_training_ends_when_min_peers_are_done(swarm: Swarm) -> None:
    one, two = swarm.start(1), swarm.start(2)
    one.program.send_open()
    two.program.send_open()
    one.program.receive("opened")
    two.program.receive("opened")
    # One finishes early; it goes on taking part with its snapshot until the other is done as well.
    one.program.send_finish(weights(1))
    two.program.send_sync(weights(3))
    for program in (one.program, two.program):
        message, merged = program.merged()
        assert (message["round"], message["over"], value(merged)) == (0, False, 2.0)
        program.report(0)
    two.program.send_finish(weights(5))
    for program in (one.program, two.program):
        message, merged = program.merged()
        assert (message["round"], message["over"], value(merged)) == (1, True, 3.0)
        program.report(1)
        program.bye()
    assert one.ended() == 0
    assert two.ended() == 0
    record = swarm.ledger.contract()
    assert record["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("mode", "second"), [("snapshot", 3.0), ("inactive", 5.0), ("active", 3.5)]
)
def test_what_a_finished_learner_contributes(swarm: Swarm, mode: str, second: float) -> None:
    one, two = swarm.start(1), swarm.start(2)
    one.program.send_open(mode=mode)
    two.program.send_open()
    one.program.receive("opened")
    two.program.receive("opened")
    one.program.send_finish(weights(1), weight=0 if mode == "inactive" else 1)
    two.program.send_sync(weights(3))
    first = 3.0 if mode == "inactive" else 2.0
    for program in (one.program, two.program):
        message, merged = program.merged()
        assert value(merged) == first
        program.report(message["round"])
    two.program.send_sync(weights(5))
    for program in (one.program, two.program):
        message, merged = program.merged()
        assert value(merged) == second
        program.report(message["round"])


def test_a_learner_still_training_is_told_that_it_is_over(swarm: Swarm) -> None:
    hosts = [swarm.start(number) for number in range(3)]
    for host in hosts:
        host.program.send_open()
    for host in hosts:
        host.program.receive("opened")
    hosts[0].program.send_finish(weights(0))
    hosts[1].program.send_finish(weights(3))
    hosts[2].program.send_sync(weights(6))
    answers = [host.program.merged() for host in hosts]
    assert [message["over"] for message, _ in answers] == [True, True, True]
    assert all(same(merged, answers[0][1]) for _, merged in answers)


def test_a_late_joiner_gets_the_model_first_and_takes_part_from_the_next_round(
    swarm: Swarm,
) -> None:
    one, two = swarm.start(1), swarm.start(2)
    for host in (one, two):
        host.program.send_open()
    for host in (one, two):
        host.program.receive("opened")
    one.program.send_sync(weights(1))
    two.program.send_sync(weights(3))
    _, merged = one.program.merged()
    two.program.merged()
    late = swarm.start(3)
    opened = late.program.open()
    assert (opened["hasModel"], opened["round"]) == (True, 1)
    assert same(late.program.weights(), merged)
    for host, number in ((one, 0), (two, 3), (late, 6)):
        host.program.send_sync(weights(number))
    for host in (one, two, late):
        message, merged = host.program.merged()
        assert (message["peers"], value(merged)) == (3, 3.0)


def test_others_go_on_after_the_grace_time_and_the_slow_one_catches_up(swarm: Swarm) -> None:
    fast = [swarm.start(number, grace=0.3) for number in (1, 2)]
    slow = swarm.start(3, grace=0.3)
    for host in (*fast, slow):
        host.program.send_open()
    for host in (*fast, slow):
        host.program.receive("opened")
    for number, host in enumerate(fast):
        host.program.send_sync(weights(number))
    for host in fast:
        message, merged = host.program.merged()
        assert (message["peers"], value(merged)) == (2, 0.5)
    # Too late for round 0: it is given that model at once.
    message, got = slow.program.sync(weights(100))
    assert (message["round"], value(got)) == (0, 0.5)
    for number, host in enumerate(fast):
        host.program.send_sync(weights(number + 1))
    for host in fast:
        assert host.program.merged()[0]["round"] == 1
    # Late again: these weights were not made from the model of round 1, so they are dropped, too.
    message, got = slow.program.sync(weights(9))
    assert (message["round"], message["counted"], value(got)) == (1, False, 1.5)
    for number, host in enumerate((*fast, slow)):
        host.program.send_sync(weights(number))
    for host in (*fast, slow):
        message, merged = host.program.merged()
        assert (message["round"], message["peers"], message["counted"]) == (2, 3, True)
        assert value(merged) == 1.0


def test_what_has_not_changed_is_fetched_as_well_where_it_is_not_at_hand(swarm: Swarm) -> None:
    """The file that a fetch fills holds an older model than the one that it has made itself."""

    def half_frozen(number: float) -> Arrays:
        return {"frozen": np.full(100_000, min(number, 1), np.float32), **weights(number)}

    fast = [swarm.start(number, grace=0.3) for number in (1, 2)]
    slow = swarm.start(3, grace=0.3)
    for host in (*fast, slow):
        host.program.send_open()
    for host in (*fast, slow):
        host.program.receive("opened")
    for round_, present in enumerate([(*fast, slow), (*fast, slow), fast]):
        for host in present:
            host.program.send_sync(half_frozen(round_))
        for host in present:
            assert host.program.merged()[0]["round"] == round_
    message, got = slow.program.sync(half_frozen(100))
    assert (message["round"], message["counted"]) == (2, False)
    assert same(half_frozen(2), got)


def test_below_min_peers_it_waits_and_says_for_whom(swarm: Swarm) -> None:
    one, two = swarm.start(1), swarm.start(2)
    for host in (one, two):
        host.program.send_open()
    for host in (one, two):
        host.program.receive("opened")
    one.program.send_sync(weights(1))
    assert "not yet: sl-2" in one.program.hear("waiting for 1 more check-in")
    two.program.close()
    heard = one.program.hear("must enroll or return")
    assert "gone: sl-2" in heard
    assert "gone: sl-2" in swarm.ledger.contract()["waiting"]
    two.program = Program(two.learner._settings.folder)
    two.program.open()
    two.program.send_sync(weights(3))
    assert value(one.program.merged()[1]) == 2.0


def test_a_model_that_differs_is_refused_with_the_tensor_named(swarm: Swarm) -> None:
    one, two = swarm.start(1), swarm.start(2)
    for host in (one, two):
        host.program.send_open()
    for host in (one, two):
        host.program.receive("opened")
    one.program.send_sync(weights(1))
    one.program.hear("waiting for 1 more check-in")
    two.program.send_sync(weights(1, 500))
    answer = two.program.receive("error")
    assert answer["code"] == "SW4054"
    assert "dense/kernel" in answer["text"]
    assert two.ended() == 4


def test_other_rules_are_refused_with_both_values(swarm: Swarm) -> None:
    one, two = swarm.start(1), swarm.start(2)
    one.program.open(min_peers=2)
    two.program.send_open(min_peers=3)
    answer = two.program.receive("error")
    assert "min_peers" in answer["text"]
    assert two.ended() == 4


def test_a_lost_member_returns_by_itself_with_the_decided_model(swarm: Swarm) -> None:
    hosts = [swarm.start(number) for number in range(3)]
    for host in hosts:
        host.program.send_open()
    for host in hosts:
        host.program.receive("opened")
    hosts[2].program.send_sync(weights(100))
    swarm.ledger.wait(lambda r: hosts[2].uid in r["checkins"])
    swarm.ledger.lost(hosts[2].uid)
    # It enrolls again at once, checks in again, and the round goes on with all three.
    swarm.ledger.wait(lambda r: hosts[2].uid in r["checkins"])
    hosts[0].program.send_sync(weights(1))
    hosts[1].program.send_sync(weights(1))
    answers = [host.program.merged() for host in hosts]
    assert all(value(merged) == pytest.approx(34.0) for _, merged in answers)


QUICK = Limits(stall=1.0, unreachable=0.5)
# Where only one may be accused: a machine that stands still for a second does not end this.
CALM = Limits(stall=5.0, unreachable=0.5)


def trio(swarm: Swarm, min_peers: int = 2, limits: Limits = QUICK) -> list[Host]:
    return enrolled(swarm, 3, min_peers, limits)


def enrolled(swarm: Swarm, count: int, min_peers: int, limits: Limits) -> list[Host]:
    hosts = [swarm.start(number, limits=limits) for number in range(count)]
    for host in hosts:
        host.program.send_open(min_peers)
    for host in hosts:
        host.program.receive("opened")
    return hosts


def freeze(host: Host) -> None:
    """From now on its learner takes everything in and does nothing: alive, but no use."""
    real = host.learner._carry_out
    host.learner._carry_out = (  # type: ignore[method-assign]
        lambda effect: real(effect) if isinstance(effect, Exit) else None
    )


@pytest.mark.parametrize("reachable", [True, False])
def test_a_silent_learner_is_suspected_and_the_others_go_on(swarm: Swarm, reachable: bool) -> None:
    hosts = trio(swarm, limits=CALM)
    frozen = hosts[1]
    frozen.program.send_sync(weights(50))
    swarm.ledger.wait(lambda r: frozen.uid in r["checkins"])
    freeze(frozen)
    if not reachable:
        frozen.learner._server.close()
    for host in (hosts[0], hosts[2]):
        host.program.send_sync(weights(3))
    answers = [host.program.merged() for host in (hosts[0], hosts[2])]
    assert [value(merged) for _, merged in answers] == [3.0, 3.0]
    assert all(same(merged, answers[0][1]) for _, merged in answers)
    record = swarm.ledger.contract()
    assert record["members"][frozen.uid]["state"] == "lost"
    assert record["history"][0]["attempts"] == 2
    # The first attempt took the place of what had been handed in.
    assert [host.program.agains for host in hosts] == [1, 0, 1]
    suspicions = [args for op, args, ok, _ in swarm.ledger.log if op == "round.suspect" and ok]
    assert suspicions
    assert all(args["accused"] == [frozen.uid] for args in suspicions)
    assert all(record["members"][host.uid]["state"] == "active" for host in (hosts[0], hosts[2]))


def test_a_program_that_is_stopped_is_not_waited_for_in_another_attempt(swarm: Swarm) -> None:
    """Its learner brings nothing, as it has merged where the weights were."""
    hosts = enrolled(swarm, 4, 2, CALM)
    hosts[2].program.stopped = True
    hosts[1].program.send_sync(weights(50))
    swarm.ledger.wait(lambda r: hosts[1].uid in r["checkins"])
    freeze(hosts[1])
    for host in (hosts[0], hosts[2], hosts[3]):
        host.program.send_sync(weights(3))
    for host in (hosts[0], hosts[3]):
        message, merged = host.program.merged()
        assert (message["peers"], value(merged)) == (2, 3.0)
    hosts[2].program.hear("it hands in its weights again, for another attempt")
    names = [fault["name"] for fault in swarm.ledger.contract()["faults"]]
    assert sorted(names) == ["sl-1", "sl-2"]


def test_weights_that_change_while_they_are_merged_are_refused(swarm: Swarm) -> None:
    """A program that is asked for them again has to give the same."""
    hosts = trio(swarm, limits=CALM)
    hosts[1].program.send_sync(weights(50))
    swarm.ledger.wait(lambda r: hosts[1].uid in r["checkins"])
    freeze(hosts[1])
    for host in (hosts[0], hosts[2]):
        host.program.send_sync(weights(3))
    hosts[2].program.handed_in = weights(4)
    error = hosts[2].program.receive("error")
    assert error["code"] == "SW6003" and "changed while" in error["text"]
    assert hosts[2].ended() == 4


def test_what_was_decided_last_is_saved_by_a_learner_that_ends(swarm: Swarm) -> None:
    """Even if it is told to end before its program has said that it has loaded it."""
    one, two = enrolled(swarm, 2, 2, Limits())
    for host in (one, two):
        host.program.send_sync(weights(3))
    one.program.merged()
    one.learner.stop()
    assert one.ended() == 3
    with tensors.open(one.program.folder / link.MERGED) as file:
        assert value({name: np.array(array) for name, array in file.arrays().items()}) == 3.0


def test_below_min_peers_after_a_suspicion_the_rest_waits_for_the_lost_one(swarm: Swarm) -> None:
    hosts = trio(swarm, min_peers=3)
    hosts[0].program.send_sync(weights(50))
    swarm.ledger.wait(lambda r: hosts[0].uid in r["checkins"])
    freeze(hosts[0])
    for host in hosts[1:]:
        host.program.send_sync(weights(3))
    for host in hosts[1:]:
        host.program.hear("gone: sl-0")
    record = swarm.ledger.contract()
    assert (record["status"], record["round"], record["attempt"]) == ("CHECKIN", 0, 1)


def test_two_that_are_cut_from_each_other_are_parted_by_the_bystander(swarm: Swarm) -> None:
    hosts = sorted(trio(swarm), key=lambda host: host.uid)
    cut(hosts[0], hosts[1])
    cut(hosts[1], hosts[0])
    for number, host in enumerate(hosts):
        host.program.send_sync(weights(3 * number))
    # The larger uid of the two goes; the other one and the bystander merge without it.
    for host in (hosts[0], hosts[2]):
        assert host.program.merged()[0]["peers"] == 2
    record = swarm.ledger.contract()
    assert record["last"]["roster"] == sorted([hosts[0].uid, hosts[2].uid])
    # It is answered by the decided model, fetched from the one that it can reach.
    assert value(hosts[1].program.merged()[1]) == 3.0


def cut(host: Host, other: Host) -> None:
    """Nothing that `host` sends reaches `other`."""
    dial = host.learner._dialler.dial

    def broken(member: Member) -> Channel:
        if member.uid == other.uid:
            raise Unreachable("no route")
        return dial(member)

    host.learner._dialler.dial = broken  # type: ignore[method-assign]


def test_one_that_sends_what_it_did_not_check_in_is_named_at_once(swarm: Swarm) -> None:
    hosts = trio(swarm)
    bad = hosts[2]
    buffers = bad.learner._vectors.buffers

    def spoiled(in_place: bool) -> Buffers:
        real = buffers(in_place)
        return real._replace(contribution=memoryview(bytes(len(real.contribution))))

    bad.learner._vectors.buffers = spoiled  # type: ignore[method-assign]
    for number, host in enumerate(hosts):
        host.program.send_sync(weights(number + 1))
    answers = [host.program.merged() for host in hosts[:2]]
    assert [value(merged) for _, merged in answers] == [1.5, 1.5]
    whys = [args["why"] for op, args, ok, _ in swarm.ledger.log if op == "round.suspect" and ok]
    assert any("does not fit its digest" in why for why in whys)
    assert [fault["name"] for fault in swarm.ledger.contract()["faults"]] == ["sl-2"]


def test_an_owner_that_hands_out_different_shards_is_found(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = trio(swarm)
    cheat(hosts[1], monkeypatch)
    for number, host in enumerate(hosts):
        host.program.send_sync(weights(number + 1))
    for host in (hosts[0], hosts[2]):
        message, merged = host.program.merged()
        assert (message["peers"], value(merged)) == (2, 2.0)
    whys = [args["why"] for op, args, ok, _ in swarm.ledger.log if op == "round.suspect" and ok]
    assert any("differ in the shard of sl-1" in why for why in whys)


def test_an_owner_that_has_another_shard_for_one_is_named_after_the_decision(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the one, when it has fetched the decided model; not all holders give it at once."""
    hosts = trio(swarm)
    cheat(hosts[1], monkeypatch, victim=hosts[0].uid)
    real, failed = learner.fetch, threading.Event()

    def fetch(*args: Any) -> list[bytes]:
        if not failed.is_set():
            failed.set()
            raise Unreachable("not yet")
        return real(*args)

    monkeypatch.setattr(learner, "fetch", fetch)
    for number, host in enumerate(hosts):
        host.program.send_sync(weights(number + 1))
    answers = [host.program.merged() for host in hosts]
    assert all(same(merged, answers[2][1]) for _, merged in answers)
    record = swarm.ledger.wait(lambda r: r["faults"])
    (fault,) = record["faults"]
    assert (fault["round"], fault["name"], fault["by"]) == (0, "sl-1", "sl-0")
    assert fault["why"] == "had sent other bytes for its shard than were decided"


def cheat(host: Host, monkeypatch: pytest.MonkeyPatch, victim: str = "") -> None:
    """It sends every other member, or one of them, other bytes for its shard."""
    real = Sender.stream

    def stream(self: Sender, channel: Channel, answer: dict[str, Any]) -> None:
        send, attempt = channel.send_chunk, self._attempt

        def other(kind: Kind, index: int, data: memoryview) -> None:
            meant = victim in ("", attempt.uids[self._j])
            if meant and kind is Kind.REDUCED and attempt.uids[attempt.me] == host.uid:
                data = memoryview(bytes([self._j + 1]) * len(data))
            send(kind, index, data)

        channel.send_chunk = other  # type: ignore[method-assign]
        try:
            real(self, channel, answer)
        finally:
            channel.send_chunk = send  # type: ignore[method-assign]

    monkeypatch.setattr(Sender, "stream", stream)


def test_the_ledger_out_of_reach_is_waited_for_and_said(swarm: Swarm) -> None:
    host = swarm.start(1)
    host.program.open(min_peers=1)
    swarm.ledger.down = "no network node answers"
    host.program.send_sync(weights(1))
    host.program.hear("no network node answers")
    swarm.ledger.down = ""
    assert value(host.program.merged()[1]) == 1.0


def test_a_stop_signal_leaves_in_order(swarm: Swarm) -> None:
    host = swarm.start(1)
    host.program.open(min_peers=1)
    host.learner.stop()
    assert host.ended() == 3  # nobody knows how the program is going to end
    assert swarm.ledger.contract()["members"][host.uid]["state"] == "left"


def test_a_program_that_vanishes_leaves_the_training_and_its_learner_waits(swarm: Swarm) -> None:
    host = swarm.start(1)
    host.program.open(min_peers=1)
    host.program.close()
    swarm.ledger.wait(lambda r: r["members"][host.uid]["state"] == "left")
    assert "the other side closed the link" in host.learner.core.waiting
    host.learner.stop()
    assert host.ended() == 0


def test_bye_in_the_middle_of_a_training_leaves(swarm: Swarm) -> None:
    host = swarm.start(1)
    host.program.open(min_peers=1)
    host.program.bye(ok=False, text="stopped by its user")
    assert host.ended() == 0
    assert swarm.ledger.contract()["members"][host.uid]["state"] == "left"
