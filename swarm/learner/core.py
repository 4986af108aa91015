"""The round driver: from what the program and the ledger say to what the learner does.

Theory of operation. `step(event, now)` notes what has happened and then asks the table `PHASES`:
the first phase whose condition holds is the one that the learner is in. Each phase has an action,
which gives effects, and a sentence that says what is waited for. Nothing depends on which event
came, only on what is known now, so a lost, repeated or late event does no harm: the same facts lead
to the same phase.

Rules that must stay true:

1. No sockets, files, threads, clocks or randomness in here.
2. What is submitted carries a tag that names its round and attempt; one tag is submitted once, and
   again only when the record has changed since the answer and still does not show it.
3. The program gets nothing but decided models (`base`), in the order of rounds; and what it hands
   in contributes only if it was made from the last of them (`given`).
4. What the program loads always is `base`, and is not replaced between the delivery of a model and
   the program's next word, so no exchange and no fetch starts then. A pending call of the program
   is therefore a condition of all phases that do so.
5. Facts about the contract come from its record alone; our own submits change it, and we wait to
   see that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from swarm.learner.blame import accused_by, undecidable
from swarm.learner.knowledge import LINGER, LONGEST, Knowledge, Model
from swarm.learner.messages import (
    AbortExchange,
    Answered,
    Broken,
    Bye,
    Compare,
    Compared,
    Effect,
    Enroll,
    Enrolled,
    Event,
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
    ProgramGone,
    Record,
    Release,
    Reported,
    StartExchange,
    Submit,
    Synced,
    Tell,
    Tick,
)

STAGGER = 0.5  # seconds between the members' turns to close the roster
REFETCH = 1.0  # seconds between two rounds of asking all holders

# Refusals of a check-in that no later event can cure.
FATAL = frozenset({"SW4002", "SW4054", "SW4056"})


class Core(Knowledge):
    """One learner's part in one contract. See the module's text."""

    # ------------------------------------------------------------------- step

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take in an event at a time in seconds, and return what to do, in order."""
        self.now, self.out = now, []
        if not self.ended:
            HANDLERS[type(event)](self, event)
        before = ""
        while not self.ended and before != self.phase + str(len(self.out)):
            phase = next(phase for phase in PHASES if phase.applies(self))
            before = self.phase + str(len(self.out))
            self.phase = phase.name
            phase.act(self)
            self.waiting = "" if self.ended else phase.sentence(self)
        return self.out

    # ----------------------------------------------------------------- events

    def on_opened(self, event: Opened) -> None:
        if self.contract not in ("", event.contract):
            self.fail("SW6007", f"it served {self.contract}, the program names {event.contract}")
            return
        self.session, self.contract = event, event.contract
        self.given = event.round

    def on_synced(self, event: Synced) -> None:
        self.pending = event
        self.given = event.round
        self.contribution = None
        self.answered = False
        self.report_due = -1  # a program that says nothing about a round has nothing to say

    def on_reported(self, event: Reported) -> None:
        assert self.session
        self.report_due = -1
        args = {
            "contract": self.session.contract,
            "uid": self.uid,
            "round": event.round,
            "loss": event.loss,
            "metric": event.metric,
            "epochs": event.epochs,
            "total_epochs": event.total_epochs,
        }
        self.out.append(Submit(("report", event.round), "round.report", args, side=True))

    def on_bye(self, event: Bye) -> None:
        self.bye = event
        self.pending = None
        self.report_due = -1

    def on_program_gone(self, event: ProgramGone) -> None:
        """Leave the training, so that the others go on, and be ready for the next program."""
        if self.bye is not None:
            return
        self.out.append(Log(f"the program is gone without a good-bye: {event.why}", warning=True))
        self.stop_exchange()
        if self.enrolled or self.enrolling:
            args = {
                "contract": self.contract,
                "uid": self.uid,
                "why": f"its program is gone: {event.why}"[:300],
            }
            self.out.append(Submit(("leave", self.height), "contract.leave", args))
        self.session = self.pending = self.contribution = None
        self.enrolled = self.said_opened = False
        self.report_due = -1
        self.gone = event.why
        self.out.append(Release())

    def on_ledger_changed(self, event: LedgerChanged) -> None:
        self.stream_error = event.error
        if event.height >= self.height and event.record is not None:
            self.take_record(event.record, event.height)

    def on_enrolled(self, event: Enrolled) -> None:
        asked, self.enrolling = self.enrolling, None
        if asked is None or asked is not self.session:
            return  # that program is gone, and so is its membership
        self.enrolled = True
        self.tags.clear()
        self.since.clear()
        if event.height >= self.height:
            self.record = event.record
            if self.base and not self.behind() and self.base.digest != self.wanted:
                self.base = None  # the contract was reset, and this is another training
            self.take_record(event.record, event.height)

    def take_record(self, record: Record, height: int) -> None:
        self.tell_faults(record)
        self.record, self.height = record, height
        last, result = record["last"], self.result
        if last is None or (self.base and self.base.round >= last["round"]):
            return
        ours = result is not None and result.key.round == last["round"]
        if ours and result is not None and result.digest == last["digest"]:
            self.keep(last)
        elif self.base and self.base.digest == last["digest"] and self.clean:
            self.hold(last)  # a round that changed nothing

    def tell_faults(self, record: Record) -> None:
        """Log who failed a round, as soon as the ledger has it."""
        for fault in record["faults"] if self.record is not None else ():
            if fault["height"] > self.height:
                place = f"round {fault['round']}, attempt {fault['attempt']}"
                by = "left" if fault["by"] == fault["name"] else f"failed, says {fault['by']}"
                said = f"{fault['name']} {by}: {fault['why']}"
                self.out.append(Log(f"{place}: {said}", warning=True))

    def keep(self, last: Mapping[str, Any]) -> None:
        """The result is the decided model `last`."""
        self.out.append(Keep(self.contract, last["round"], last["digest"]))
        self.hold(last)

    def hold(self, last: Mapping[str, Any]) -> None:
        """The model that is kept is the decided model `last`."""
        self.base = Model(last["round"], last["digest"])
        self.clean = True
        merged, roster = last["round"], len(last["roster"])
        self.out.append(Log(f"round {merged}: merged parameters from {roster} of {roster} nodes"))
        if self.uid not in last["holders"]:
            args = {"attempt": last["attempt"], "digest": bytes.fromhex(last["digest"])}
            self.submit(("hold", merged), "round.merged", round=merged, shards=[], **args)

    def on_answered(self, event: Answered) -> None:
        kind = event.tag[0]
        self.tags[event.tag] = max(1, event.height)
        if event.ok:
            if kind == "checkin" and self.session:
                done = f"SMLBB:CHKIN:{self.session.contract}:{event.tag[1]}:Checkin Done"
                self.out.append(Log(done))
            return
        if kind == "checkin" and event.code in FATAL:
            self.fail(event.code, event.text)
            return
        self.out.append(Log(f"{event.tag[0]}: {event.code} {event.text}", kind == "checkin"))

    def on_prepared(self, event: Prepared) -> None:
        if self.pending and event.seq == self.pending.seq:
            self.contribution = event

    def on_broken(self, event: Broken) -> None:
        self.fail(event.code, event.text)

    def on_exchange_done(self, event: ExchangeDone) -> None:
        if event.key != self.exchange:
            return
        self.result, self.seen = event, None
        self.took = self.now - self.begun
        if self.record:
            self.take_record(self.record, self.height)

    def on_exchange_seen(self, event: ExchangeSeen) -> None:
        if event.key == self.exchange:
            self.seen = event

    def on_compared(self, event: Compared) -> None:
        if event.key == self.exchange:
            self.compared = event.blames

    def on_fetched(self, event: Fetched) -> None:
        last = self.record["last"] if self.record else None
        self.fetching = self.fetch_why = ""
        if last and last["digest"] == event.digest:
            self.keep(last)
            if event.blames:
                self.note_blames(last, event.blames)

    def note_blames(self, last: Mapping[str, Any], blames: Mapping[str, str]) -> None:
        """Say who had sent us something else than what was decided; it decides nothing."""
        named = "; ".join(f"{self.name(uid)} {text}" for uid, text in blames.items())
        why = named if len(blames) > 1 else next(iter(blames.values()))
        place = {"round": last["round"], "attempt": last["attempt"]}
        self.out.append(Log(f"round {last['round']}: {named}", warning=True))
        tag = ("late suspicion", last["round"])
        self.submit(tag, "round.suspect", accused=sorted(blames), why=why[:500], **place)

    def on_fetch_failed(self, event: FetchFailed) -> None:
        self.fetching, self.fetch_at, self.fetch_why = "", self.now + REFETCH, event.why
        self.looked_for = event.digest

    def on_tick(self, event: Tick) -> None:
        self.serving = event.serving

    # ---------------------------------------------------------------- effects

    def submit(self, tag: tuple[Any, ...], op: str, **args: Any) -> None:
        """Submit once for each tag; again when the record has changed since the answer.

        Callers ask only while the record does not show what they want, so this repeats what was
        refused for a reason that may have passed, and what was accepted and undone since.
        """
        answered = self.tags.get(tag)
        if answered is not None and not 0 < answered < self.height:
            return
        self.tags[tag] = 0
        common = {"contract": self.contract, "uid": self.uid}
        self.out.append(Submit(tag, op, {**common, **args}))

    def end(self, status: int, text: str) -> None:
        self.ended = True
        self.phase, self.waiting = "ended", ""
        self.out.append(Exit(status, text, leave=self.enrolled))

    def fail(self, code: str, text: str) -> None:
        """End because of something that only people can repair; the program hears it."""
        self.out.append(Tell({"type": "error", "code": code, "text": text}))
        self.end(4, f"{code}: {text}")

    def stop_exchange(self) -> None:
        if self.exchange is not None:
            self.exchange = self.result = self.seen = None
            self.out.append(AbortExchange())

    # ---------------------------------------------------------------- actions

    def act_enroll(self) -> None:
        assert self.session
        if not self.enrolling:
            self.enrolling = self.session
            self.out.append(Enroll(self.session.contract, self.session.rules, self.session.mode))

    def act_forgotten(self) -> None:
        self.fail("SW6011", "the contract was reset, or this learner was removed from it")

    def act_linger(self) -> None:
        assert self.bye is not None
        patience = LONGEST if self.serving else LINGER
        if not self.needed_at_end() or self.seen_for("bye") >= patience:
            text = "the program is done" if self.bye.ok else f"the program gave up: {self.bye.text}"
            self.end(0, text)

    def act_fetch(self) -> None:
        last = self.last
        if last is None or self.fetching or self.finishing() or self.now < self.fetch_at:
            return
        assert self.record is not None
        looked = self.looked_for == last["digest"]
        holders = self.holders() if looked or not self.program_has_it() else []
        if looked and not holders:
            return
        self.stop_exchange()
        self.fetching, self.clean = last["digest"], False
        schema = self.record["schema"] or ""
        attempt = last["round"], last["attempt"]
        self.out.append(Fetch(self.contract, last["digest"], attempt, schema, holders))

    def act_open(self) -> None:
        assert self.record is not None
        self.said_opened = True
        news = self.base is not None and self.given < self.base.round
        if news:
            self.give_up()
        message = {
            "type": "opened",
            "round": self.base.round + 1 if self.base else self.record["round"],
            "uid": self.uid,
            "hasModel": news,
        }
        self.out.append(Tell(message))

    def act_over(self) -> None:
        if self.pending is None:
            return
        news = self.base is not None and self.given < self.base.round
        if self.base is not None and (news or self.pending.done):
            self.deliver(over=True)
        else:
            self.out.append(Tell({"type": "over", "seq": self.pending.seq, "hasModel": False}))
        self.pending = None
        self.out.append(Log("Swarm training is over"))

    def act_deliver(self) -> None:
        """Answer the pending call with the newest model.

        Weights that were made from an older one do not contribute: the program trains on from this
        one. Those of a finish would be contributed again and again; the decided model goes in their
        place.
        """
        assert self.pending is not None
        assert self.base is not None
        if not self.counted() and not self.answered:
            self.out.append(
                Log(
                    f"round {self.base.round} was decided without this node's weights, which came"
                    " too late and are dropped; its program goes on from the decided model",
                    warning=True,
                )
            )
        self.deliver(over=False)

    def deliver(self, *, over: bool) -> None:
        assert self.record and self.session and self.pending and self.base and self.last
        counted = self.counted()
        self.given = self.base.round
        self.give_up()
        message = {
            "type": "merged",
            "seq": self.pending.seq,
            "round": self.base.round,
            "next": int(self.record["interval"]),
            "over": over,
            "peers": len(self.last["roster"]),
            "counted": counted,
            "shared": not self.pending.done,
        }
        self.out.append(Tell(message))
        self.since.clear()
        self.tags = {tag: at for tag, at in self.tags.items() if tag[1] >= self.base.round}
        if not self.pending.done or over:
            self.pending = None
            return
        self.report_due = self.base.round
        own = self.pending.own and self.session.mode != "active" and (counted or self.answered)
        self.answered = True
        self.pending = replace(self.pending, own=own)
        if not own:
            self.contribution = None  # it brings this model next

    def give_up(self) -> None:
        """What was begun since `base` was made has come to nothing: the program goes on from that.

        It may write to the memory that it shares then, so no exchange may send from there any more.
        """
        if self.base is not None and not self.clean:
            self.stop_exchange()
            self.clean = True

    def act_prepare(self) -> None:
        assert self.pending
        merged = not self.pending.own
        round_ = self.base.round if self.base else -1
        tag = ("prepare", round_, self.pending.seq, merged)
        if tag not in self.tags:
            self.tags[tag] = 0
            self.out.append(Prepare(self.pending.seq, merged))

    def act_checkin(self) -> None:
        assert self.contribution and self.pending
        self.submit(
            ("checkin", self.key.round, self.key.attempt),
            "round.checkin",
            round=self.key.round,
            weight=self.pending.weight,
            samples=self.pending.samples,
            root=self.contribution.root,
            schema=self.contribution.schema,
            tensors=self.contribution.tensors,
            size=self.contribution.size,
            base=bytes.fromhex(self.wanted) or None,
            done=self.pending.done,
        )

    def act_gather(self) -> None:
        assert self.record is not None
        if self.exchange is not None and self.exchange.round == self.key.round:
            self.stop_exchange()  # too few were left for another attempt
        checkins = self.record["checkins"]
        if len(checkins) < self.record["rules"]["min_peers"]:
            self.since.pop(("enough", self.key), None)
            return
        turn = sorted(checkins).index(self.uid)
        if self.seen_for("enough", self.key) >= self.grace + turn * STAGGER:
            self.submit(("close", *self.key[1:]), "round.close", round=self.key.round)

    def act_merge(self) -> None:
        assert self.record is not None
        key, record = self.key, self.record
        if self.exchange != key:
            self.exchange, self.result, self.seen, self.compared = key, None, None, {}
            self.begun = self.now
            self.clean = False
            self.out.append(
                StartExchange(key, record["roster"], record["members"], record["checkins"])
            )
            return
        accused = self.accused()
        if accused:
            named = "; ".join(f"{self.name(uid)}: {text}" for uid, text in accused.items())
            why = named if len(accused) > 1 else next(iter(accused.values()))
            tag = ("suspect", *key[1:], *sorted(accused))
            if tag not in self.tags:
                self.out.append(Log(f"round {key.round}: suspecting {named}", warning=True))
            if sorted(accused) != accused_by(record["suspicions"], self.uid):
                place = {"round": key.round, "attempt": key.attempt}
                self.submit(tag, "round.suspect", accused=sorted(accused), why=why[:500], **place)
        elif self.result is not None:
            if record["merged"].get(self.uid) != self.result.digest:
                self.submit(
                    ("merged", *key[1:]),
                    "round.merged",
                    round=key.round,
                    attempt=key.attempt,
                    digest=bytes.fromhex(self.result.digest),
                    shards=self.result.shards,
                )
            self.compare()

    def compare(self) -> None:
        assert self.record is not None
        merged = self.record["merged"]
        if self.uid not in merged or not undecidable(merged, self.record["roster"]):
            return
        tag = ("compare", *self.key[1:])
        if tag not in self.tags:
            self.tags[tag] = 0
            self.out.append(Log("the members hold different results; comparing", warning=True))
            self.out.append(Compare(self.key, dict(merged), self.record["members"]))


class Phase(NamedTuple):
    """A state of the learner: when it holds, what to do in it, what it waits for."""

    name: str
    applies: Callable[[Core], bool]
    act: Callable[[Core], None]
    sentence: Callable[[Core], str]


def _idle(core: Core) -> None:
    """Nothing to do but wait."""


PHASES: tuple[Phase, ...] = (
    Phase("lingering", lambda c: c.bye is not None, Core.act_linger, Core.say_linger),
    Phase("unopened", lambda c: c.session is None, _idle, Core.say_unopened),
    Phase("enrolling", lambda c: not c.enrolled, Core.act_enroll, Core.say_enrolling),
    Phase(
        "forgotten",
        lambda c: c.member is None or c.given > c.newest,
        Core.act_forgotten,
        Core.say_nothing,
    ),
    Phase(
        "returning",
        lambda c: c.member is not None and c.member["state"] != "active" and not c.over(),
        Core.act_enroll,
        Core.say_enrolling,
    ),
    Phase(
        "fetching",
        lambda c: c.needs_model() and not c.busy(),
        Core.act_fetch,
        Core.say_fetching,
    ),
    Phase("opening", lambda c: not c.said_opened, Core.act_open, Core.say_nothing),
    Phase("reporting", lambda c: c.busy(), _idle, Core.say_report),
    Phase("over", lambda c: c.over(), Core.act_over, Core.say_over),
    Phase("training", lambda c: c.pending is None, _idle, Core.say_training),
    Phase(
        "delivering",
        lambda c: c.base is not None and c.given < c.base.round,
        Core.act_deliver,
        Core.say_nothing,
    ),
    Phase("preparing", lambda c: c.contribution is None, Core.act_prepare, Core.say_preparing),
    Phase(
        "elsewhere",
        lambda c: c.status() == "MERGING" and not c.in_roster(),
        _idle,
        Core.say_elsewhere,
    ),
    Phase("merging", lambda c: c.status() == "MERGING", Core.act_merge, Core.say_merging),
    Phase("gathering", lambda c: c.checked_in(), Core.act_gather, Core.say_record),
    Phase("checking in", lambda c: True, Core.act_checkin, Core.say_checkin),
)

HANDLERS: Mapping[type, Callable[[Core, Any], None]] = {
    Opened: Core.on_opened,
    Synced: Core.on_synced,
    Reported: Core.on_reported,
    Bye: Core.on_bye,
    ProgramGone: Core.on_program_gone,
    LedgerChanged: Core.on_ledger_changed,
    Enrolled: Core.on_enrolled,
    Answered: Core.on_answered,
    Prepared: Core.on_prepared,
    Broken: Core.on_broken,
    ExchangeDone: Core.on_exchange_done,
    ExchangeSeen: Core.on_exchange_seen,
    Compared: Core.on_compared,
    Fetched: Core.on_fetched,
    FetchFailed: Core.on_fetch_failed,
    Tick: Core.on_tick,
}
