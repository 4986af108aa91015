"""What a learner knows of its program, its contract and its exchange, and what follows from that.

The base of the round driver (`core`): plain fields, questions about them, and the sentences that
say what is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from swarm.learner.blame import all_accusers, side_with, without
from swarm.learner.messages import (
    Bye,
    Effect,
    ExchangeDone,
    ExchangeSeen,
    Opened,
    Prepared,
    Record,
    Synced,
)
from swarm.merge.exchange import Key

GRACE = 30.0  # seconds for absent members once minPeers have checked in
BYSTAND = 3.0  # seconds that others' suspicions may stand before a bystander takes sides
WORD = 10.0  # seconds that others may be silent about their result when we have ours, and then
AGAIN = 2.0  # so many times as long as our own part of the merge has taken
FINISHING = 2.0  # seconds that a running exchange gets when its round is decided already
LINGER = 20.0  # seconds that a learner stays at the end for those who still need the last model
LONGEST = 1800.0  # the same while one of them is fetching it


class Model(NamedTuple):
    """A decided model, by round."""

    round: int
    digest: str


class Knowledge:
    """What the round driver knows, and what follows from it. Nothing here has effects."""

    def __init__(self, uid: str, *, grace: float = GRACE) -> None:
        self.uid = uid
        self.grace = grace
        self.now = 0.0
        self.phase = "unopened"
        self.waiting = ""
        self.out: list[Effect] = []

        self.contract = ""  # the first program names it
        self.session: Opened | None = None
        self.gone = ""  # why the last program is gone
        self.said_opened = False
        self.enrolled = False
        self.enrolling: Opened | None = None  # the session that we are enrolling for
        self.record: Record | None = None
        self.height = 0
        self.stream_error = ""
        self.pending: Synced | None = None
        self.answered = False  # the pending call has had an answer: it is a finish
        self.contribution: Prepared | None = None
        self.base: Model | None = None  # what we hold
        self.clean = True  # nothing was begun since `base` was made
        self.given = -1  # round of the model that the program has, or that it was told of
        self.report_due = -1  # round that the program shall report on before we go on; -1: none
        self.exchange: Key | None = None
        self.result: ExchangeDone | None = None
        self.seen: ExchangeSeen | None = None
        self.begun = 0.0  # when the exchange was started
        self.took = 0.0  # seconds until its result was there
        self.compared: Mapping[str, str] = {}  # whom the comparison of results blames, and why
        self.fetching = ""  # digest
        self.fetch_at = 0.0
        self.fetch_why = ""
        self.looked_for = ""  # digest that our own files do not hold
        self.tags: dict[tuple[Any, ...], int] = {}  # -> height of the answer; 0: on its way
        self.since: dict[tuple[Any, ...], float] = {}  # when a fact was seen first
        self.bye: Bye | None = None
        self.serving = False  # somebody is fetching the last model from us
        self.ended = False

    # ------------------------------------------------------------------ facts

    @property
    def member(self) -> Mapping[str, Any] | None:
        """Our entry in the contract."""
        assert self.record is not None
        entry: Mapping[str, Any] | None = self.record["members"].get(self.uid)
        return entry

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The last decided round."""
        assert self.record is not None
        decided: Mapping[str, Any] | None = self.record["last"]
        return decided

    @property
    def key(self) -> Key:
        """The attempt that the record is at."""
        assert self.record is not None
        return Key(self.contract, self.record["round"], self.record["attempt"])

    @property
    def newest(self) -> int:
        """The last decided round, -1 before the first one."""
        return -1 if self.last is None else int(self.last["round"])

    def behind(self) -> bool:
        """There is a decided model that we do not hold."""
        return self.last is not None and (self.base is None or self.base.round < self.last["round"])

    def over(self) -> bool:
        """Training has ended."""
        assert self.record is not None
        return bool(self.record["over"])

    def busy(self) -> bool:
        """The program loads the merged model, and will report."""
        return self.report_due >= 0

    def in_roster(self) -> bool:
        """We take part in the attempt that runs."""
        assert self.record is not None
        return self.uid in self.record["roster"]

    def checked_in(self) -> bool:
        """The record shows our check-in of this round."""
        assert self.record is not None
        return self.uid in self.record["checkins"]

    def needs_model(self) -> bool:
        """The program waits, and may go on only with a model that we do not hold.

        At the end, when those who have it are gone, it gets the newest that we have. A fetch that
        has begun writes to the result, so nothing else does before it has ended.
        """
        if self.pending is None and self.said_opened:
            return False
        if self.fetching or not self.behind():
            return bool(self.fetching)
        if self.over():
            return self.seen_for("over without model") < 3 * LINGER
        return not (self.program_has_it() and self.looked_for == self.wanted)

    def program_has_it(self) -> bool:
        """The program can go on without the last model from us: it goes on from it already."""
        return self.given == self.newest and (self.pending is None or self.pending.own)

    def counted(self) -> bool:
        """The pending call's weights are in the last decided model."""
        last = self.last
        return last is not None and self.uid in last["roster"] and self.given == last["round"] - 1

    @property
    def wanted(self) -> str:
        """Digest of the last decided model, "" before the first one."""
        return "" if self.last is None else str(self.last["digest"])

    def status(self) -> str:
        """Status of the contract."""
        assert self.record is not None
        return str(self.record["status"])

    def name(self, uid: str) -> str:
        """A member's name, for people."""
        assert self.record is not None
        member = self.record["members"].get(uid)
        return str(member["name"]) if member else uid

    def seen_for(self, *fact: Any) -> float:
        """Seconds for which a fact has been known; facts of earlier rounds are forgotten."""
        return self.now - self.since.setdefault(fact, self.now)

    def needed_at_end(self) -> set[str]:
        """Uids of members that may still want the last model from us."""
        if not self.enrolled or self.record is None or not self.over():
            return set()
        if self.base is None or self.behind():
            return set()
        members, holders = self.record["members"], self.record["last"]["holders"]
        return {
            uid
            for uid, member in members.items()
            if uid not in holders and member["state"] == "active"
        }

    def finishing(self) -> bool:
        """The decided round's own exchange still runs here, and may bring the rest by itself."""
        last = self.last
        if last is None or self.exchange is None or self.result is not None:
            return False
        if (self.exchange.round, self.exchange.attempt) != (last["round"], last["attempt"]):
            return False
        blames = self.seen.blames if self.seen else {}
        return not blames and self.seen_for("decided", last["round"]) < FINISHING

    def holders(self) -> list[Mapping[str, Any]]:
        """Members to ask for the last model: active ones first, each learner from another start."""
        last = self.last
        assert last is not None
        assert self.record is not None
        members = self.record["members"]
        known = [uid for uid in last["holders"] if uid in members and uid != self.uid]
        start = int(self.uid[:8], 16) % len(known) if known else 0
        turned = known[start:] + known[:start]
        turned.sort(key=lambda uid: members[uid]["state"] != "active")
        return [{"uid": uid, **members[uid]} for uid in turned]

    def accused(self) -> dict[str, str]:
        """Whom we accuse now: by what we see ourselves, else as a bystander."""
        assert self.record is not None
        roster, suspicions = self.record["roster"], self.record["suspicions"]
        seen = {**(self.seen.blames if self.seen else {}), **self.compared}
        own = {uid: why for uid, why in seen.items() if uid in roster and uid != self.uid}
        own = own or self.wordless()
        if own:
            return own
        if self.uid in all_accusers(suspicions) and self.result is None:
            return {}  # said already, and nothing new is known
        others = without(suspicions, self.uid)
        pending = ("suspicions", self.key)
        if not others:
            self.since.pop(pending, None)
            return {}
        if self.seen_for(*pending) < BYSTAND:
            return {}
        return dict.fromkeys(side_with(others, self.uid), "accused by others, who are stuck")

    def wordless(self) -> dict[str, str]:
        """Those who say neither what they hold nor whom they miss, long after we have it all.

        How long follows the speed of this merge: who has a slower line may still be at it.
        """
        assert self.record is not None
        if self.result is None:
            return {}
        waited = self.seen_for("result", self.key)
        if waited < WORD + AGAIN * self.took:
            return {}
        spoken = all_accusers(self.record["suspicions"]) | set(self.record["merged"]) | {self.uid}
        silent = [uid for uid in self.record["roster"] if uid not in spoken]
        return dict.fromkeys(silent, f"has not said for {waited:.0f} s what it holds")

    # -------------------------------------------------------------- sentences

    def say_nothing(self) -> str:
        return ""

    def say_unopened(self) -> str:
        gone = f"; the one before is gone: {self.gone}" if self.gone else ""
        return f"waiting for the user's program to open its link{gone}"

    def say_enrolling(self) -> str:
        return "waiting for the network nodes to take the enrolment"

    def say_fetching(self) -> str:
        last = self.last
        if last is None:
            return "waiting for the end of a fetch from before the contract's reset"
        holders = ", ".join(self.name(uid) for uid in last["holders"] if uid != self.uid)
        problem = f" ({self.fetch_why})" if self.fetch_why else ""
        source = f"from {holders}" if holders else "but nobody else holds it"
        return f"waiting for the model of round {last['round']} {source}{problem}"

    def say_report(self) -> str:
        return f"waiting for this node's program to report on round {self.report_due}"

    def say_preparing(self) -> str:
        return f"round {self.key.round}: reading the program's weights"

    def say_training(self) -> str:
        return self.with_stream(f"round {self.key.round}: this node's program trains")

    def say_over(self) -> str:
        return "training is over; waiting for this node's program to come for the news"

    def say_checkin(self) -> str:
        return self.with_stream(f"round {self.key.round}: checking in")

    def say_record(self) -> str:
        assert self.record is not None
        return self.with_stream(str(self.record["waiting"]))

    def say_elsewhere(self) -> str:
        assert self.record is not None
        names = ", ".join(map(self.name, self.record["roster"]))
        return self.with_stream(
            f"round {self.key.round} is being merged by {names}; this learner joins the next"
        )

    def say_merging(self) -> str:
        if self.result is not None or self.seen is None or not self.seen.text:
            return self.say_record()
        return self.with_stream(f"round {self.key.round}: {self.seen.text}")

    def say_linger(self) -> str:
        names = ", ".join(sorted(map(self.name, self.needed_at_end())))
        return f"staying until these have the last model, too: {names}"

    def with_stream(self, text: str) -> str:
        return (
            f"{text}; no news from the network nodes: {self.stream_error}"
            if (self.stream_error)
            else text
        )
