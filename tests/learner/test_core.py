"""The round driver alone: events in, effects out, with a clock of its own."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from swarm.learner.blame import accused_by, side_with, undecidable, without
from swarm.learner.core import Core
from swarm.learner.messages import (
    AbortExchange,
    Answered,
    Broken,
    Bye,
    Effect,
    Enroll,
    Enrolled,
    ExchangeDone,
    ExchangeSeen,
    Exit,
    Fetch,
    Fetched,
    FetchFailed,
    Keep,
    LedgerChanged,
    Log,
    Opened,
    Prepare,
    Prepared,
    Reported,
    StartExchange,
    Submit,
    Synced,
    Tell,
    Tick,
)
from swarm.merge.exchange import Key

ME, SHE, HE = "1" * 32, "2" * 32, "3" * 32
RULES = {"min_peers": 2, "sync_frequency": 8}
D1, D2 = "aa" * 32, "bb" * 32


def member(uid: str) -> dict[str, Any]:
    return {"name": f"sl-{uid[0]}", "host": "h", "port": 1, "state": "active", "fingerprint": uid}


def contract(*uids: str) -> dict[str, Any]:
    return {
        "status": "CHECKIN",
        "rules": RULES,
        "members": {uid: member(uid) for uid in uids},
        "round": 0,
        "attempt": 0,
        "checkins": {},
        "schema": None,
        "roster": [],
        "suspicions": {},
        "faults": [],
        "interval": RULES["sync_frequency"],
        "merged": {},
        "last": None,
        "over": False,
        "waiting": "waiting for others",
    }


class Driver:
    """A core with a clock and a record."""

    def __init__(self, *uids: str, mode: str = "snapshot") -> None:
        self.core = Core(ME, grace=30)
        self.now = 0.0
        self.height = 1
        self.record = contract(*(uids or (ME, SHE, HE)))
        assert self.feed(Opened("c", RULES, mode)) == [Enroll("c", RULES, mode)]

    def feed(self, event: Any, after: float = 0.0) -> list[Effect]:
        self.now += after
        return self.core.step(event, self.now)

    def news(self, **changes: Any) -> list[Effect]:
        self.height += 1
        self.record = {**copy.deepcopy(self.record), **changes}
        return self.feed(LedgerChanged(self.record, self.height))

    def enrolled(self) -> list[Effect]:
        return self.feed(Enrolled(self.record, self.height))

    def checked_in(self) -> None:
        self.enrolled()
        self.feed(Synced(1, 10_000, 5, False, -1))
        self.feed(Prepared(1, b"r" * 32, b"s" * 32, 64, []))

    def merging(self, *roster: str, attempt: int = 0) -> list[Effect]:
        uids = sorted(roster or (ME, SHE, HE))
        checkins = {uid: {"weight": 1, "root": "00" * 32} for uid in uids}
        return self.news(status="MERGING", roster=uids, checkins=checkins, attempt=attempt)

    def decided(self, digest: str, *holders: str, round_: int = 0, over: bool = False) -> list[Any]:
        last = {
            "round": round_,
            "attempt": self.record["attempt"],
            "digest": digest,
            "roster": sorted(self.record["roster"]),
            "holders": sorted(holders),
        }
        return self.news(
            last=last,
            round=round_ + 1,
            attempt=0,
            status="FINISHED" if over else "CHECKIN",
            roster=[],
            checkins={},
            merged={},
            suspicions={},
            over=over,
        )


def submits(effects: list[Effect]) -> list[str]:
    return [effect.op for effect in effects if isinstance(effect, Submit)]


def told(effects: list[Effect]) -> list[dict[str, Any]]:
    return [dict(effect.message) for effect in effects if isinstance(effect, Tell)]


def test_a_round_from_sync_to_merged() -> None:
    run = Driver()
    assert told(run.enrolled()) == [{"type": "opened", "round": 0, "uid": ME, "hasModel": False}]
    assert run.feed(Synced(1, 10_000, 5, False, -1)) == [Prepare(1, False)]
    (checkin,) = run.feed(Prepared(1, b"r" * 32, b"s" * 32, 64, []))
    assert isinstance(checkin, Submit)
    assert checkin.args["base"] is None
    assert run.feed(Tick(), 1) == []
    run.feed(Answered(checkin.tag, True, "", "", 2))
    (start,) = run.merging()
    assert isinstance(start, StartExchange)
    assert start.key == Key("c", 0, 0)
    assert submits(run.feed(ExchangeDone(start.key, D1, [b"x"]))) == ["round.merged"]
    assert run.feed(Tick(), 5) == []
    effects = run.decided(D1, ME, SHE)
    assert Keep("c", 0, D1) in effects
    assert told(effects) == [
        {
            "type": "merged",
            "seq": 1,
            "round": 0,
            "next": 8,
            "over": False,
            "peers": 3,
            "counted": True,
            "shared": True,
        }
    ]
    assert run.core.phase == "training"
    assert submits(run.feed(Reported(0, "0.5", "0.9", 1, 2))) == ["round.report"]


def test_other_bytes_than_the_decided_ones_are_never_delivered() -> None:
    run = Driver()
    run.checked_in()
    run.merging()
    run.feed(ExchangeDone(Key("c", 0, 0), D2, []))
    effects = run.decided(D1, SHE, HE)
    assert told(effects) == []
    (fetch,) = [effect for effect in effects if isinstance(effect, Fetch)]
    assert fetch.digest == D1
    assert {holder["uid"] for holder in fetch.holders} == {SHE, HE}
    effects = run.feed(Fetched(D1))
    assert [message["type"] for message in told(effects)] == ["merged"]
    assert "round.merged" in submits(effects)  # it is a holder now


def test_an_exchange_that_runs_still_may_bring_the_decided_model() -> None:
    run = Driver()
    run.checked_in()
    run.merging()
    assert run.decided(D1, SHE, HE) == []
    assert [m["type"] for m in told(run.feed(ExchangeDone(Key("c", 0, 0), D1, [])))] == ["merged"]


def test_holders_are_asked_again_and_the_reason_is_said() -> None:
    run = Driver()
    run.checked_in()
    run.merging()
    run.decided(D1, SHE, HE)
    assert any(isinstance(effect, Fetch) for effect in run.feed(Tick(), 2.5))
    assert run.feed(FetchFailed(D1, "sl-2: no route")) == []
    assert "model of round 0 from sl-2, sl-3 (sl-2: no route)" in run.core.waiting
    assert any(isinstance(effect, Fetch) for effect in run.feed(Tick(), 1.5))


def test_the_roster_is_closed_after_the_grace_time_in_turns() -> None:
    run = Driver()
    run.checked_in()
    ours = {"weight": 1, "root": "00" * 32}
    run.news(checkins={ME: ours})
    assert run.feed(Tick(), 100) == []  # too few: it may take for ever
    run.news(checkins={ME: ours, SHE: ours})
    assert run.feed(Tick(), 29) == []
    assert submits(run.feed(Tick(), 2)) == ["round.close"]
    assert run.feed(Tick(), 5) == []


def test_blame_becomes_a_suspicion_once() -> None:
    run = Driver()
    run.checked_in()
    run.merging()
    seen = ExchangeSeen(Key("c", 0, 0), {HE: "no bytes for 10 s"}, "50 % merged")
    effects = run.feed(seen)
    assert submits(effects) == ["round.suspect"]
    (suspect,) = [effect for effect in effects if isinstance(effect, Submit)]
    assert suspect.args["accused"] == [HE]
    assert suspect.args["why"] == "no bytes for 10 s"
    assert any(isinstance(e, Log) and "suspecting sl-3: no bytes" in e.text for e in effects)
    assert submits(run.feed(seen, 1)) == []
    # It came after all: our word for the result replaces the suspicion.
    run.news(suspicions={HE: [ME]})
    assert submits(run.feed(ExchangeDone(Key("c", 0, 0), D1, []))) == ["round.merged"]


def test_a_bystander_takes_sides_after_a_while() -> None:
    run = Driver()
    run.checked_in()
    run.merging()
    run.feed(ExchangeDone(Key("c", 0, 0), D1, []))
    run.news(suspicions={HE: [SHE], SHE: [HE]}, merged={ME: D1})
    assert submits(run.feed(Tick(), 2.9)) == []
    effects = run.feed(Tick(), 0.2)
    (suspect,) = [effect for effect in effects if isinstance(effect, Submit)]
    assert suspect.args["accused"] == [HE]


def test_who_never_says_what_it_holds_is_suspected_by_those_who_have_long_had_it_all() -> None:
    run = Driver()
    run.checked_in()
    run.merging(ME, HE)
    assert submits(run.feed(ExchangeDone(Key("c", 0, 0), D1, []), 5.0)) == ["round.merged"]
    run.feed(Answered(("merged", 0, 0), True, "", "", run.height))
    run.news(merged={ME: D1})
    assert run.feed(Tick(), 19.9) == []  # ten, and twice what the merge has taken
    effects = run.feed(Tick(), 0.2)
    (suspect,) = [effect for effect in effects if isinstance(effect, Submit)]
    assert suspect.args["accused"] == [HE]
    assert "has not said for 20 s what it holds" in suspect.args["why"]
    # It was only slow: our word for the result counts again, with its own.
    assert submits(run.news(merged={HE: D1}, suspicions={HE: [ME]})) == ["round.merged"]


def test_the_next_attempt_starts_afresh() -> None:
    run = Driver()
    run.checked_in()
    run.merging()
    run.feed(ExchangeSeen(Key("c", 0, 0), {HE: "silent"}, ""))
    effects = run.merging(ME, SHE, attempt=1)
    assert [e.key for e in effects if isinstance(e, StartExchange)] == [Key("c", 0, 1)]
    assert run.feed(ExchangeDone(Key("c", 0, 0), D2, [])) == []  # of the attempt before


def test_a_lost_learner_enrolls_again_and_checks_in_again() -> None:
    run = Driver()
    run.checked_in()
    members = {**run.record["members"], ME: {**member(ME), "state": "lost"}}
    assert any(isinstance(e, Enroll) for e in run.news(members=members))
    assert run.news(members=members) == []
    run.height += 1
    run.record["members"][ME]["state"] = "active"
    assert submits(run.enrolled()) == ["round.checkin"]


def test_an_accepted_check_in_that_was_undone_is_made_again() -> None:
    run = Driver()
    run.checked_in()
    run.feed(Answered(("checkin", 0, 0), True, "", "", run.height))
    ours = {"weight": 1, "root": "00" * 32}
    assert submits(run.news(checkins={ME: ours})) == []
    assert submits(run.news(checkins={})) == ["round.checkin"]


def test_a_refused_check_in_waits_for_news() -> None:
    run = Driver()
    run.checked_in()
    effects = run.feed(Answered(("checkin", 0, 0), False, "SW4052", "closed", run.height))
    assert submits(effects) == []
    assert submits(run.feed(Tick(), 10)) == []
    assert submits(run.news()) == ["round.checkin"]


def test_over_answers_a_waiting_finish_with_the_last_model() -> None:
    run = Driver()
    run.enrolled()
    run.feed(Synced(4, 10_000, 5, True, -1))
    run.feed(Prepared(4, b"r" * 32, b"s" * 32, 64, []))
    run.merging()
    run.feed(ExchangeDone(Key("c", 0, 0), D1, []))
    (message,) = told(run.decided(D1, ME, SHE, HE, over=True))
    assert (message["type"], message["seq"], message["over"]) == ("merged", 4, True)
    effects = run.feed(Bye(True, ""))
    assert effects == [Exit(0, "the program is done", leave=True)]


def test_it_stays_at_the_end_for_those_who_need_the_model() -> None:
    run = Driver()
    run.enrolled()
    run.feed(Synced(4, 10_000, 5, True, -1))
    run.feed(Prepared(4, b"r" * 32, b"s" * 32, 64, []))
    run.merging()
    run.feed(ExchangeDone(Key("c", 0, 0), D1, []))
    run.decided(D1, ME, SHE, over=True)
    assert run.feed(Bye(True, "")) == []
    assert run.core.waiting == "staying until these have the last model, too: sl-3"
    last = {**run.record["last"], "holders": [ME, SHE, HE]}
    assert any(isinstance(e, Exit) for e in run.news(last=last))
    assert run.core.waiting == ""


def test_an_attempt_that_came_to_nothing_is_ended_before_the_last_answer() -> None:
    run = Driver(mode="inactive")
    run.checked_in()
    run.merging()
    run.feed(ExchangeDone(Key("c", 0, 0), D1, []))
    run.decided(D1, ME, SHE, HE)
    run.feed(Reported(0, "", "", 0, 0))
    run.feed(Synced(2, 0, 0, True, 0))
    run.feed(Prepared(2, b"r" * 32, b"s" * 32, 64, []))
    run.merging()
    # It sends from trained.bin, which is the program's again with the answer.
    kinds = [type(effect) for effect in run.news(status="FINISHED", over=True, roster=[])]
    assert kinds.index(AbortExchange) < kinds.index(Tell)
    assert Keep not in kinds, "merged.bin holds that model still"


def test_what_cannot_be_repaired_ends_the_learner() -> None:
    run = Driver()
    effects = run.feed(Broken("SW4042", "min_peers is 2, set by sl-2, and 3 in your program"))
    assert told(effects)[0]["code"] == "SW4042"
    assert [e.status for e in effects if isinstance(e, Exit)] == [4]
    assert run.feed(Tick(), 1) == []


def test_a_reset_contract_ends_the_learner() -> None:
    run = Driver()
    run.enrolled()
    effects = run.news(members={})
    assert [e.status for e in effects if isinstance(e, Exit)] == [4]


UIDS = st.sampled_from(["a", "b", "c", "d", "e"])
SUSPICIONS = st.dictionaries(UIDS, st.lists(UIDS, min_size=1, unique=True), max_size=5)


@given(SUSPICIONS)
def test_all_bystanders_come_to_the_same_answer(suspicions: dict[str, list[str]]) -> None:
    answers = {tuple(side_with(suspicions, f"bystander {n}")) for n in range(3)}
    assert len(answers) == 1
    accused = set(suspicions) | {one for accusers in suspicions.values() for one in accusers}
    assert set(answers.pop()) <= accused


@given(SUSPICIONS, UIDS)
def test_leaving_out_ones_own_suspicions(suspicions: dict[str, list[str]], me: str) -> None:
    rest = without(suspicions, me)
    assert accused_by(rest, me) == []
    for accused, accusers in rest.items():
        assert set(accusers) == set(suspicions[accused]) - {me}


@given(st.dictionaries(UIDS, st.sampled_from(["x", "y", "z"])))
def test_undecidable_is_what_no_vote_can_change(merged: dict[str, str]) -> None:
    roster = ["a", "b", "c", "d", "e"]
    silent = [uid for uid in roster if uid not in merged]
    best = max(
        (sum(d == digest for d in merged.values()) for digest in set(merged.values())), default=0
    )
    assert undecidable(merged, roster) == (bool(merged) and best + len(silent) <= 2)
