"""The operator's decisions, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from swop.operator import (
    Clear,
    Effect,
    Enroll,
    EnrollAnswered,
    Execute,
    Operator,
    PairObserved,
    PairsPlanned,
    PairStarted,
    Phase,
    PlannedPair,
    Progress,
    Report,
    RunnerChanged,
    Say,
    StartPair,
    StopPair,
    TaskEnded,
    judge,
)
from swop.runtime import RunState, RunStatus

ME, OTHER = "a" * 32, "b" * 32
OP = "0123456789abcdef"
PAIR = PlannedPair(0, "g-t-s-0-x", "g-t-s-0-x", "g-t-u-0-x")
UP = RunStatus(RunState.RUNNING)


def exited(code: int, note: str = "") -> RunStatus:
    return RunStatus(RunState.EXITED, code, note)


def record(state: str = "ASSIGNED", **changes: Any) -> RunnerChanged:
    value: dict[str, Any] = {
        "state": state,
        "task": "train",
        "operation": OP,
        "invited": [],
        "swops": {},
        "peers": {},
    }
    return RunnerChanged({**value, **changes})


def mine(state: str = "ENROLLED") -> dict[str, Any]:
    return {ME: {"index": 0, "pairs": 1, "state": state, "text": "", "updated_ms": 0}}


def texts(effects: list[Effect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, Say)]


def others(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if not isinstance(effect, Say)]


def idle() -> Operator:
    """An operator that has seen its idle taskrunner."""
    operator = Operator(ME)
    operator.step(record("IDLE", operation=""), 0.0)
    return operator


def running(*pairs: PlannedPair) -> Operator:
    """An operator whose pairs run."""
    operator = idle()
    operator.step(record(), 0.0)
    operator.step(EnrollAnswered(OP, True), 0.0)
    operator.step(record("RUNNING", swops=mine()), 0.0)
    operator.step(PairsPlanned(OP, pairs or (PAIR,)), 0.0)
    for pair in pairs or (PAIR,):
        operator.step(PairStarted(OP, pair.index), 0.0)
    return operator


def test_a_task_from_assignment_to_the_end_and_reset() -> None:
    operator = Operator(ME)
    effects = operator.step(record("IDLE", operation=""), 0.0)
    assert texts(effects) == ["Waiting for new Task…"]
    assert others(effects) == [Clear()], "what an earlier life left behind goes"

    effects = operator.step(record(), 0.0)
    assert "Switching to ENROLL state" in texts(effects)
    assert others(effects) == [Enroll(OP)]
    assert operator.step(record(), 0.0) == [], "the same record again is no news"

    assert texts(operator.step(EnrollAnswered(OP, True), 0.0)) == ["Switching to WAITFORUN State"]
    assert operator.step(record(swops=mine()), 0.0) == [], "the quorum is not enrolled yet"
    effects = operator.step(record("RUNNING", swops=mine()), 0.0)
    assert texts(effects) == ["Switching to RUN State"]
    assert others(effects) == [Execute(OP, "train")]

    effects = operator.step(PairsPlanned(OP, (PAIR,)), 0.0)
    assert others(effects) == [
        Report(OP, "", 0, "RUNNING", "Profile validated"),
        StartPair(OP, 0),
    ]
    effects = operator.step(PairStarted(OP, 0), 0.0)
    assert Report(OP, PAIR.name, 0, "RUNNING", "SL and ML started") in effects
    assert "Created containers to match profile : 1" in texts(effects)
    assert operator.watched() == [PAIR]

    assert operator.step(PairObserved(OP, 0, UP, UP), 1.0) == []
    assert operator.step(PairObserved(OP, 0, UP, exited(0)), 2.0) == [], "the SL says good-bye"
    effects = operator.step(PairObserved(OP, 0, exited(0), exited(0)), 2.5)
    assert others(effects) == [
        Report(OP, PAIR.name, 0, "COMPLETE", "training finished", PAIR.ml),
        StopPair(OP, 0),
        Report(OP, "", 0, "COMPLETE", "all 1 pairs completed"),
    ]
    assert operator.phase is Phase.DONE
    assert operator.watched() == []

    effects = operator.step(record("IDLE", operation=""), 3.0)
    assert others(effects) == [Clear()]
    assert texts(effects) == ["Waiting for new Task…"]


def test_the_record_may_come_before_the_answer_to_the_enrolment() -> None:
    operator = idle()
    operator.step(record(), 0.0)
    assert operator.step(record("RUNNING", swops=mine()), 0.0) == []
    assert others(operator.step(EnrollAnswered(OP, True), 0.0)) == [Execute(OP, "train")]


def test_reset_in_the_middle_stops_everything() -> None:
    operator = running()
    assert others(operator.step(record("IDLE", operation=""), 1.0)) == [Clear()]
    assert operator.step(PairObserved(OP, 0, UP, exited(1)), 1.1) == [], "late news are ignored"


def test_another_assignment_takes_the_place_of_the_old_one() -> None:
    operator = running()
    effects = operator.step(record(operation="f" * 16), 1.0)
    assert others(effects) == [Clear(), Enroll("f" * 16)]


def test_a_taskrunner_that_does_not_exist_is_waited_for() -> None:
    operator = Operator(ME)
    effects = operator.step(RunnerChanged(None), 0.0)
    assert "The taskrunner does not exist yet; SWCI can create it" in texts(effects)
    assert others(operator.step(record(), 1.0)) == [Enroll(OP)]


def test_a_refusal_is_accepted_and_not_asked_again() -> None:
    operator = idle()
    operator.step(record(), 0.0)
    effects = operator.step(EnrollAnswered(OP, False, "enough operators take part: 2"), 0.0)
    assert "Not taking part in train: enough operators take part: 2" in texts(effects)
    assert operator.step(record("RUNNING"), 0.0) == []
    assert others(operator.step(record(operation="f" * 16), 1.0)) == [Enroll("f" * 16)]


def test_refused_as_one_of_many_it_tries_when_it_is_called_in() -> None:
    operator = idle()
    operator.step(record(), 0.0)
    operator.step(EnrollAnswered(OP, False, "enough operators take part: 1"), 0.0)
    assert operator.step(record("RUNNING", invited=[OTHER]), 1.0) == []
    called = record("RUNNING", invited=[ME, OTHER])
    assert others(operator.step(called, 2.0)) == [Enroll(OP)]
    operator.step(EnrollAnswered(OP, False, "operator has no learner in its profile"), 2.0)
    assert operator.step(called, 3.0) == [], "it has been told twice"
    assert operator.step(record("ERROR", invited=[ME, OTHER]), 4.0) == []
    assert others(operator.step(called, 5.0)) == [Enroll(OP)], "after an end, it may be otherwise"


def test_a_task_for_others_is_left_alone() -> None:
    operator = idle()
    assert operator.step(record(invited=[OTHER]), 0.0) == []
    assert others(operator.step(record(invited=[ME, OTHER]), 0.0)) == [Enroll(OP)]


def test_a_failed_pair_is_told_at_once_and_stopped() -> None:
    second = PlannedPair(1, "g-t-s-1-x", "g-t-s-1-x", "g-t-u-1-x")
    operator = running(PAIR, second)
    effects = operator.step(PairObserved(OP, 0, UP, exited(3)), 1.0)
    assert others(effects) == [
        Report(OP, PAIR.name, 0, "ERROR", "the ML program exited with code 3", PAIR.ml),
        StopPair(OP, 0),
    ]
    assert operator.watched() == [second]
    effects = operator.step(PairObserved(OP, 1, exited(0), exited(0)), 2.0)
    assert effects[-2] == Report(OP, "", 0, "ERROR", f"1 of 2 pairs failed: {PAIR.name}")


def test_a_pair_that_cannot_be_started() -> None:
    operator = idle()
    operator.step(record(), 0.0)
    operator.step(EnrollAnswered(OP, True), 0.0)
    operator.step(record("RUNNING", swops=mine()), 0.0)
    operator.step(PairsPlanned(OP, (PAIR,)), 0.0)
    effects = operator.step(PairStarted(OP, 0, "SW7007: /data does not exist"), 0.0)
    assert effects[0] == Report(OP, PAIR.name, 0, "ERROR", "SW7007: /data does not exist")
    assert operator.phase is Phase.DONE


def test_a_task_without_pairs() -> None:
    operator = idle()
    operator.step(record(), 0.0)
    operator.step(EnrollAnswered(OP, True), 0.0)
    operator.step(record("RUNNING", swops=mine()), 0.0)
    effects = operator.step(Progress(OP, "Build thread has started"), 0.0)
    assert others(effects) == [Report(OP, "", 0, "RUNNING", "Build thread has started")]
    effects = operator.step(TaskEnded(OP, False, "SW7010: no"), 0.0)
    assert others(effects) == [Report(OP, "", 0, "ERROR", "SW7010: no")]


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETE", "ERROR"])
def test_after_a_restart_running_pairs_are_watched_and_ended_ones_left(state: str) -> None:
    second = PlannedPair(1, "g-t-s-1-x", "g-t-s-1-x", "g-t-u-1-x")
    third = PlannedPair(2, "g-t-s-2-x", "g-t-s-2-x", "g-t-u-2-x")
    peers = {
        PAIR.name: {"swop": ME, "index": 0, "state": "RUNNING"},
        second.name: {"swop": ME, "index": 1, "state": "ERROR"},
        "stranger": {"swop": OTHER, "index": 2, "state": "RUNNING"},
    }
    operator = Operator(ME)
    effects = operator.step(record(state, swops=mine("RUNNING"), peers=peers), 0.0)
    assert others(effects) == [Clear(spare=OP), Execute(OP, "train")]
    effects = operator.step(PairsPlanned(OP, (PAIR, second, third)), 0.0)
    assert others(effects)[1:] == [StartPair(OP, 2)]
    assert operator.watched() == [PAIR]


def test_after_a_restart_before_the_quorum_the_operator_waits_again() -> None:
    operator = Operator(ME)
    effects = operator.step(record(swops=mine()), 0.0)
    assert others(effects) == [Clear(spare=OP)]
    assert others(operator.step(record("RUNNING", swops=mine()), 0.0)) == [Execute(OP, "train")]


def test_after_a_restart_a_task_that_was_over_stays_over() -> None:
    operator = Operator(ME)
    effects = operator.step(record("COMPLETE", swops=mine("COMPLETE")), 0.0)
    assert others(effects) == [Clear(spare=OP)]
    assert operator.phase is Phase.DONE
    assert others(operator.step(record("IDLE", operation=""), 0.0)) == [Clear()]


def test_called_in_again_after_a_failure() -> None:
    operator = running()
    operator.step(PairObserved(OP, 0, UP, exited(1)), 1.0)
    effects = operator.step(record("RUNNING", invited=[ME]), 2.0)
    assert others(effects) == [Clear(anew=True), Enroll(OP)]


def test_a_member_that_is_restarted_by_hand_is_no_failure() -> None:
    operator = running()
    assert operator.step(PairObserved(OP, 0, exited(3), UP), 1.0) == []
    assert operator.step(PairObserved(OP, 0, UP, UP), 2.0) == []
    assert operator.step(PairObserved(OP, 0, exited(3), UP), 100.0) == []
    assert operator.step(PairObserved(OP, 0, UP, exited(0)), 101.0) == []
    (report, *_) = others(operator.step(PairObserved(OP, 0, exited(0), exited(0)), 102.0))
    assert isinstance(report, Report)
    assert report.state == "COMPLETE"


class TestJudge:
    """How a pair ends."""

    def ended(self, sl: RunStatus, ml: RunStatus, waited: float = 0.0) -> tuple[bool, str] | None:
        outcome = judge(PAIR, sl, ml, waited)
        return None if outcome is None else (outcome.ok, outcome.text)

    def test_a_crash_of_the_program_counts_before_its_sl(self) -> None:
        expected = (False, "the ML program exited with code 137 (out of memory)")
        assert self.ended(UP, exited(137, "out of memory")) == expected
        assert self.ended(exited(1), exited(137, "out of memory")) == expected

    def test_a_crash_of_the_sl_is_told_after_a_moment(self) -> None:
        assert self.ended(exited(2), UP) is None
        assert self.ended(exited(2), UP, 2.0) == (False, "the SL exited with code 2")
        assert self.ended(exited(2), exited(0)) == (False, "the SL exited with code 2")

    def test_an_sl_may_end_before_its_program(self) -> None:
        assert self.ended(exited(0), UP, 1000.0) is None

    def test_a_program_that_ends_before_it_took_part(self) -> None:
        assert self.ended(UP, exited(0), 9.0) is None
        ended = self.ended(UP, exited(0), 10.0)
        assert ended is not None and not ended[0]
        assert "not at the end of a swarm training" in ended[1]

    def test_a_program_in_loopback_needs_no_sl(self) -> None:
        alone = PlannedPair(0, "p", "s", "u", takes_part=False)
        outcome = judge(alone, UP, exited(0), 0.0)
        assert outcome is not None and outcome.ok

    def test_a_member_that_somebody_removed(self) -> None:
        gone = RunStatus(RunState.MISSING)
        ended = self.ended(UP, gone)
        assert ended == (False, f"the ML program {PAIR.ml} is gone: somebody else removed it")
