"""The round driver when programs and learners follow each other."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.learner.core import Core
from swarm.learner.knowledge import LINGER
from swarm.learner.messages import (
    AbortExchange,
    Bye,
    Effect,
    Enroll,
    Enrolled,
    ExchangeDone,
    Exit,
    Fetch,
    Fetched,
    FetchFailed,
    Keep,
    LedgerChanged,
    Opened,
    Prepare,
    Prepared,
    ProgramGone,
    Release,
    Reported,
    Submit,
    Synced,
    Tick,
)
from swarm.merge.exchange import Key
from tests.learner.test_core import D1, D2, HE, ME, RULES, SHE, Driver, contract, submits, told

GONE = ProgramGone("the other side closed the link")


def after_a_round(mode: str = "snapshot") -> Driver:
    """A learner whose program trains on from the model of round 0."""
    run = Driver(mode=mode)
    run.checked_in()
    run.merging()
    run.feed(ExchangeDone(Key("c", 0, 0), D1, []))
    run.decided(D1, ME, SHE, HE)
    run.feed(Reported(0, "", "", 0, 0))
    return run


def restarted(round_: int, **record: Any) -> Driver:
    """A new learner in a contract whose round 0 is decided, and a program that has `round_`."""
    run = Driver.__new__(Driver)
    run.core, run.now, run.height = Core(ME, grace=30), 0.0, 5
    last = {"round": 0, "attempt": 0, "digest": D1, "roster": [ME, SHE], "holders": [ME, SHE]}
    run.record = {**contract(ME, SHE), "round": 1, "last": last, **record}
    run.feed(Opened("c", RULES, "snapshot", round_))
    return run


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def fetches(effects: list[Effect]) -> list[list[str]]:
    """Whom each fetch in there asks."""
    return [[h["uid"] for h in e.holders] for e in effects if isinstance(e, Fetch)]


def test_a_program_that_is_gone_is_left_behind_and_the_next_one_is_taken() -> None:
    run = after_a_round()
    run.feed(Synced(2, 10_000, 5, False, 0))
    run.feed(Prepared(2, b"r" * 32, b"s" * 32, 64, []))
    run.merging()
    effects = run.feed(GONE)
    assert submits(effects) == ["contract.leave"]
    assert {AbortExchange, Release} <= set(kinds(effects))
    assert run.core.waiting == (
        "waiting for the user's program to open its link;"
        " the one before is gone: the other side closed the link"
    )
    assert run.feed(Tick(), 100) == []
    assert Enroll("c", RULES, "active") in run.feed(Opened("c", RULES, "active"))
    run.height += 1
    run.record = {**run.record, "status": "CHECKIN", "roster": [], "checkins": {}}
    effects = run.enrolled()
    assert Keep not in kinds(effects), "merged.bin has not been touched by the attempt"
    (opened,) = told(effects)
    assert (opened["hasModel"], opened["round"]) == (True, 1)
    assert run.feed(Synced(1, 10_000, 5, False, 0)) == [Prepare(1, False)]


def test_the_enrolment_of_a_program_that_is_gone_does_not_count() -> None:
    run = Driver()
    effects = run.feed(GONE)
    assert submits(effects) == ["contract.leave"]  # it comes behind the enrolment
    assert run.feed(Opened("c", RULES, "snapshot")) == []
    assert kinds(run.enrolled()) == [Enroll]
    assert [m["type"] for m in told(run.enrolled())] == ["opened"]


def test_a_program_that_connects_and_says_nothing() -> None:
    core = Core(ME)
    assert core.step(GONE, 0.0)[-1:] == [Release()]
    assert core.step(Bye(True, ""), 1.0) == [Exit(0, "the program is done", leave=False)]


def test_a_program_of_another_contract_is_refused() -> None:
    run = after_a_round()
    run.feed(GONE)
    effects = run.feed(Opened("d", RULES, "snapshot"))
    assert told(effects)[0]["code"] == "SW6007"
    assert [e.status for e in effects if isinstance(e, Exit)] == [4]


def test_a_program_that_has_the_last_model_waits_for_nobody_else() -> None:
    run = restarted(0)
    assert fetches(run.enrolled()) == [[]]  # its files only
    effects = run.feed(FetchFailed(D1, ""))
    assert [m["hasModel"] for m in told(effects)] == [False]
    run.feed(Synced(7, 10_000, 5, False, 0))
    (checkin,) = run.feed(Prepared(7, b"r" * 32, b"s" * 32, 64, []))
    assert isinstance(checkin, Submit)
    assert checkin.args["base"] == bytes.fromhex(D1)


def test_what_a_predecessor_left_behind_is_enough() -> None:
    run = restarted(0)
    run.enrolled()
    effects = run.feed(Fetched(D1))
    assert [(m["hasModel"], m["round"]) for m in told(effects)] == [(False, 1)]
    assert run.core.base is not None


def test_a_program_that_has_missed_a_round_gets_its_model_for_what_it_brings() -> None:
    run = restarted(-1)
    assert fetches(run.enrolled()) == [[SHE]]
    run.feed(Fetched(D1))
    effects = run.feed(Synced(7, 10_000, 5, False, -1))
    (merged,) = told(effects)
    assert (merged["seq"], merged["round"], merged["counted"]) == (7, 0, True)
    assert submits(effects) == []  # they are in that model: it was in the roster
    run = restarted(-1)
    run.record["last"]["roster"] = [SHE, HE]
    run.enrolled()
    run.feed(Fetched(D1))
    (merged,) = told(run.feed(Synced(7, 10_000, 5, False, -1)))
    assert merged["counted"] is False


def test_a_finish_whose_own_weights_count_no_more_needs_the_model() -> None:
    run = restarted(0)
    run.enrolled()
    run.feed(FetchFailed(D1, ""))
    effects = run.feed(Synced(7, 10_000, 5, True, 0, False), 2)
    assert fetches(effects) == [[SHE]]
    assert Prepare(7, True) in run.feed(Fetched(D1))


def test_a_contract_that_was_reset_meanwhile_is_another_training() -> None:
    run = after_a_round()
    run.feed(GONE)
    run.record = contract(ME, SHE)
    run.height += 1
    run.feed(LedgerChanged(run.record, run.height))
    run.feed(Opened("c", RULES, "snapshot"))
    assert [m["hasModel"] for m in told(run.enrolled())] == [False]
    assert run.core.base is None


@pytest.mark.parametrize("digest", ["", D2])
def test_a_program_from_before_the_reset_is_told(digest: str) -> None:
    run = restarted(3, **({} if digest else {"last": None, "round": 0}))
    effects = run.enrolled()
    assert told(effects)[0]["code"] == "SW6011"


def test_who_is_fetching_the_last_model_is_waited_for() -> None:
    run = after_a_round()
    run.feed(Synced(2, 10_000, 5, True, 0))
    run.feed(Prepared(2, b"r" * 32, b"s" * 32, 64, []))
    run.merging()
    run.feed(ExchangeDone(Key("c", 1, 0), D2, []))
    run.decided(D2, ME, SHE, round_=1, over=True)
    run.feed(Bye(True, ""))
    assert run.feed(Tick(True), LINGER + 1) == []
    effects = run.feed(Tick(False), 1)
    assert [e.status for e in effects if isinstance(e, Exit)] == [0]


def test_every_phase_says_what_it_waits_for() -> None:
    run = Driver()
    assert "take the enrolment" in run.core.waiting
    run.enrolled()
    assert run.core.waiting == "round 0: this node's program trains"
    run.feed(Synced(1, 10_000, 5, False, -1))
    assert run.core.waiting == "round 0: reading the program's weights"
    run.feed(LedgerChanged(None, 0, "sn-1 is gone"))
    run.feed(Prepared(1, b"r" * 32, b"s" * 32, 64, []))
    expected = "round 0: checking in; no news from the network nodes: sn-1 is gone"
    assert run.core.waiting == expected
    assert isinstance(run.core.step(Enrolled(run.record, 1), 1.0), list)  # one too many is nothing
    assert run.core.waiting == expected


def test_one_fetch_at_a_time_writes_into_the_file() -> None:
    run = restarted(-1)
    assert fetches(run.enrolled()) == [[SHE]]
    last = {**run.record["last"], "round": 1, "digest": D2}
    assert run.news(last=last, round=2) == []
    # The first one comes to its end with a model that is not the last one any more.
    assert fetches(run.feed(Fetched(D1))) == [[SHE]]
    assert [m["round"] for m in told(run.feed(Fetched(D2)))] == [2]


def test_nothing_is_given_out_from_a_file_that_a_fetch_writes_into() -> None:
    run = after_a_round()
    run.feed(Synced(2, 10_000, 5, True, 0))
    last = {**run.record["last"], "round": 1, "digest": D2, "roster": [SHE, HE], "holders": [SHE]}
    assert fetches(run.news(last=last, round=2, status="FINISHED", over=True)) == [[SHE]]
    assert run.feed(Tick(), 3 * LINGER + 1) == []
    (over,) = told(run.feed(FetchFailed(D2, "sl-2: no route")))
    assert (over["type"], over["round"], over["over"]) == ("merged", 0, True)


def test_training_may_be_over_before_there_was_a_model() -> None:
    run = Driver(mode="inactive")
    run.enrolled()
    run.feed(Synced(1, 0, 5, True, -1))
    run.feed(Prepared(1, b"r" * 32, b"s" * 32, 64, []))
    (over,) = told(run.news(status="FINISHED", over=True))
    assert (over["type"], over["hasModel"]) == ("over", False)
    assert run.feed(Bye(True, "")) == [Exit(0, "the program is done", leave=True)]
