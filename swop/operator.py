"""What an operator decides, as a pure function of what it hears.

THEORY OF OPERATION. `Operator.step(event, now)` returns effects; it does no I/O and knows no clock
(`now` is monotonic seconds). The shell (`daemon.py`) carries effects out, and answers with events.

    WAITING  --assigned-->  ENROLL  --accepted-->  WAITFORRUN  --record RUNNING-->  RUN  -->  DONE
       ^                      |                        |                             |         |
       +------- refused ------+------- RESET, or another operation on the record ----+---------+

Rules:

1. Everything belongs to one operation (the id of an assignment). Events of another are ignored, so
   answers that come late do no harm.
2. An operator that finds itself on the record of a running task, without knowing of it, was killed
   and restarted. It goes on where the record stands: pairs that have a result are left alone, pairs
   that were running are watched, the others are started (starting is idempotent).
3. A pair that fails is reported at once and both of its members are stopped. One that ended stays
   until RESET, so that its log can be read.
4. A pair's failure is told with the reason that a user can act on: an ML that crashes takes its SL
   with it, and the other way round, so when one fails the other gets a moment to tell its story.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from swop.runtime import RunState, RunStatus

# An SL ends when its ML says that the training is over, and the ML waits for that. So one that is
# still there this many seconds after its ML ended was not told, and waits for the next program.
SL_LEAVES = 10.0
ML_TELLS = 2.0  # seconds in which an ML may still end, with the real reason, after its SL failed


class Phase(str, Enum):
    """Where the operator is in its work."""

    WAITING = "WAITING"
    ENROLL = "ENROLL"
    WAITFORRUN = "WAITFORRUN"
    RUN = "RUN"
    DONE = "DONE"


# ------------------------------------------------------------------ events


@dataclass(frozen=True)
class RunnerChanged:
    """The taskrunner's record, as the ledger has it now; None when there is no such taskrunner."""

    record: Mapping[str, Any] | None


@dataclass(frozen=True)
class EnrollAnswered:
    """The ledger's verdict on our enrolment."""

    operation: str
    ok: bool
    text: str = ""


@dataclass(frozen=True)
class PlannedPair:
    """One pair of a RUN_SWARM task."""

    index: int
    name: str
    sl: str
    ml: str
    takes_part: bool = True


@dataclass(frozen=True)
class PairsPlanned:
    """The task is a RUN_SWARM with these pairs."""

    operation: str
    pairs: tuple[PlannedPair, ...]


@dataclass(frozen=True)
class PairStarted:
    """Both members run (or ran); or one could not be started: `error` says why."""

    operation: str
    index: int
    error: str = ""


@dataclass(frozen=True)
class PairObserved:
    """The present state of both members."""

    operation: str
    index: int
    sl: RunStatus
    ml: RunStatus


@dataclass(frozen=True)
class Progress:
    """A task goes on, or waits: what is to be said of it."""

    operation: str
    text: str


@dataclass(frozen=True)
class TaskEnded:
    """A task without pairs ended, or no task could be executed at all."""

    operation: str
    ok: bool
    text: str


Event = (
    RunnerChanged
    | EnrollAnswered
    | PairsPlanned
    | PairStarted
    | PairObserved
    | Progress
    | TaskEnded
)

# ------------------------------------------------------------------ effects


@dataclass(frozen=True)
class Say:
    """A line for the log."""

    text: str
    level: int = logging.INFO


@dataclass(frozen=True)
class Enroll:
    """Submit runner.enroll."""

    operation: str


@dataclass(frozen=True)
class Execute:
    """Look up the task and do it: answer PairsPlanned, or Progress… and TaskEnded."""

    operation: str
    task: str


@dataclass(frozen=True)
class StartPair:
    """Start the members of a pair, SL first; answer PairStarted."""

    operation: str
    index: int


@dataclass(frozen=True)
class Report:
    """Submit runner.status. `peer` is the pair's name, "" for the operator itself.

    When `tail_of` names a program, the end of its log belongs to the text.
    """

    operation: str
    peer: str
    index: int
    state: str
    text: str
    tail_of: str = ""


@dataclass(frozen=True)
class StopPair:
    """Stop both members and leave them for inspection."""

    operation: str
    index: int


@dataclass(frozen=True)
class Clear:
    """Stop and remove everything that this operator started, but not for the operation `spare`.

    `anew`: also what shall be kept, as the same operation starts programs of the same names again.
    """

    spare: str = ""
    anew: bool = False


Effect = Say | Enroll | Execute | StartPair | Report | StopPair | Clear

# ------------------------------------------------------------------ the core


@dataclass
class PairTrack:
    """What the operator knows about one pair."""

    plan: PlannedPair
    state: str = "PLANNED"  # PLANNED, STARTING, RUNNING, COMPLETE, ERROR
    since: float | None = None  # when one member ended and the other did not

    @property
    def is_over(self) -> bool:
        return self.state in ("COMPLETE", "ERROR")


@dataclass(frozen=True)
class Outcome:
    """How a pair ended, and whose log tells more."""

    ok: bool
    text: str
    tail_of: str = ""


@dataclass
class Operator:
    """The state of one operator; see the module's text."""

    uid: str
    phase: Phase = Phase.WAITING
    operation: str = ""
    task: str = ""
    refused: tuple[str, bool] = ("", False)  # the operation that did not want us; were we invited?
    has_looked: bool = False  # has it seen the taskrunner since it started?
    latest: Mapping[str, Any] | None = None  # the record as it was seen last
    pairs: dict[int, PairTrack] = field(default_factory=dict)
    before: dict[int, str] = field(default_factory=dict)  # pair states on the record at a restart

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event in; returns what is to be done, in order."""
        if isinstance(event, RunnerChanged):
            return self._runner_changed(event.record)
        if event.operation != self.operation:
            return []
        if isinstance(event, EnrollAnswered):
            return self._enroll_answered(event)
        if isinstance(event, PairsPlanned):
            return self._pairs_planned(event.pairs)
        if isinstance(event, PairStarted):
            return self._pair_started(event)
        if isinstance(event, PairObserved):
            return self._pair_observed(event, now)
        if isinstance(event, Progress):
            if self.phase is not Phase.RUN:  # it was over when this came
                return []
            return [Say(event.text), self._about_me("RUNNING", event.text)]
        return self._task_ended(event)

    def watched(self) -> list[PlannedPair]:
        """Pairs whose members' states are wanted."""
        return [track.plan for track in self.pairs.values() if track.state == "RUNNING"]

    # -------------------------------------------------------------- the record

    def _runner_changed(self, record: Mapping[str, Any] | None) -> list[Effect]:
        effects: list[Effect] = []
        self.latest = record
        current = "" if record is None or record["state"] == "IDLE" else record["operation"]
        if not self.has_looked:
            self.has_looked = True
            effects += [Say("Waiting for new Task…"), Clear(spare=current)]
            if record is None:
                effects.append(Say("The taskrunner does not exist yet; SWCI can create it"))
        if record is not None and record["state"] in ("COMPLETE", "ERROR"):
            self.refused = ("", False)  # should it go on, then for those that are called in
        again = self._is_called_again(record)
        if self.operation and (current != self.operation or again):
            effects += [Clear(anew=again), *self._wait()]
        if record is None or not current or self.refused == (current, self._is_invited(record)):
            return effects
        if not self.operation:
            return effects + self._engage(record)
        return effects + self._maybe_run()

    def _is_called_again(self, record: Mapping[str, Any] | None) -> bool:
        """The same operation wants us anew: a targeted assignment after our failure."""
        return (
            record is not None
            and self.phase is Phase.DONE
            and record["state"] in ("ASSIGNED", "RUNNING")
            and self.uid not in record["swops"]
        )

    def _is_invited(self, record: Mapping[str, Any]) -> bool:
        """By name: what we were refused as one of many, we may try as the one that is called in."""
        return self.uid in record["invited"]

    def _engage(self, record: Mapping[str, Any]) -> list[Effect]:
        """A task that we take no part in yet, as far as we remember."""
        mine = record["swops"].get(self.uid)
        if mine is None and record["state"] not in ("ASSIGNED", "RUNNING"):
            return []
        if mine is None and record["invited"] and self.uid not in record["invited"]:
            return []
        self.operation, self.task = record["operation"], record["task"]
        if mine is None:
            self.phase = Phase.ENROLL
            return [
                Say(f"New task {self.task} (operation {self.operation})"),
                Say("Switching to ENROLL state"),
                Enroll(self.operation),
            ]
        return self._resume(record, mine)

    def _resume(self, record: Mapping[str, Any], mine: Mapping[str, Any]) -> list[Effect]:
        """We were restarted in the middle of a task."""
        effects: list[Effect] = [Say(f"Going on with task {self.task} after a restart")]
        if mine["state"] in ("COMPLETE", "ERROR"):
            self.phase = Phase.DONE
            return [*effects, Say(f"Task {self.task} was over: {mine['state']}")]
        self.before = {
            peer["index"]: peer["state"]
            for peer in record["peers"].values()
            if peer["swop"] == self.uid
        }
        self.phase = Phase.WAITFORRUN
        return effects + self._maybe_run()

    def _maybe_run(self) -> list[Effect]:
        """Begin when we have enrolled and the taskrunner's quorum has, too."""
        record = self.latest
        if self.phase is not Phase.WAITFORRUN or record is None:
            return []
        if self.uid not in record["swops"] or record["state"] == "ASSIGNED":
            return []
        if record["state"] != "RUNNING" and not self.before:
            self.phase = Phase.DONE
            return [Say(f"Task {self.task} is {record['state']} already")]
        self.phase = Phase.RUN
        return [Say("Switching to RUN State"), Execute(self.operation, self.task)]

    def _enroll_answered(self, event: EnrollAnswered) -> list[Effect]:
        if self.phase is not Phase.ENROLL:
            return []
        if event.ok:
            self.phase = Phase.WAITFORRUN
            # The record with our enrolment may have come before this answer.
            return [Say("Switching to WAITFORUN State"), *self._maybe_run()]
        invited = self.latest is not None and self._is_invited(self.latest)
        self.refused = (self.operation, invited)
        return [Say(f"Not taking part in {self.task}: {event.text}"), *self._wait()]

    def _wait(self) -> list[Effect]:
        self.phase, self.operation, self.task = Phase.WAITING, "", ""
        self.pairs, self.before = {}, {}
        return [Say("Waiting for new Task…")]

    # -------------------------------------------------------------- pairs

    def _pairs_planned(self, pairs: Sequence[PlannedPair]) -> list[Effect]:
        effects: list[Effect] = [self._about_me("RUNNING", "Profile validated")]
        for plan in pairs:
            before = self.before.get(plan.index, "")
            track = PairTrack(plan, before if before in ("COMPLETE", "ERROR") else "STARTING")
            self.pairs[plan.index] = track
            if before == "RUNNING":
                track.state = "RUNNING"
                effects.append(Say(f"Found pair {plan.name} again"))
            elif not track.is_over:
                effects.append(StartPair(self.operation, plan.index))
        return effects + self._maybe_done()

    def _pair_started(self, event: PairStarted) -> list[Effect]:
        track = self.pairs.get(event.index)
        if track is None or track.state != "STARTING":
            return []
        if event.error:
            return self._pair_over(track, Outcome(False, event.error))
        track.state = "RUNNING"
        effects: list[Effect] = [
            self._about_pair(track, "RUNNING", "SL and ML started"),
            Say(f"Started pair {track.plan.name}"),
        ]
        if all(other.state != "STARTING" for other in self.pairs.values()):
            text = f"Created containers to match profile : {len(self.pairs)}"
            effects += [Say(text), self._about_me("RUNNING", text)]
        return effects

    def _pair_observed(self, event: PairObserved, now: float) -> list[Effect]:
        track = self.pairs.get(event.index)
        if track is None or track.state != "RUNNING":
            return []
        one_ended = RunState.EXITED in (event.sl.state, event.ml.state)
        if not one_ended:
            track.since = None  # somebody has restarted the one that had ended
        elif track.since is None:
            track.since = now
        waited = 0.0 if track.since is None else now - track.since
        outcome = judge(track.plan, event.sl, event.ml, waited)
        return [] if outcome is None else self._pair_over(track, outcome)

    def _pair_over(self, track: PairTrack, outcome: Outcome) -> list[Effect]:
        track.state = "COMPLETE" if outcome.ok else "ERROR"
        level = logging.INFO if outcome.ok else logging.ERROR
        return [
            self._about_pair(track, track.state, outcome.text, outcome.tail_of),
            Say(f"Pair {track.plan.name}: {outcome.text}", level),
            StopPair(self.operation, track.plan.index),
            *self._maybe_done(),
        ]

    def _maybe_done(self) -> list[Effect]:
        """When all pairs are over, so is our part of the task."""
        if not all(track.is_over for track in self.pairs.values()):
            return []
        failed = [track.plan.name for track in self.pairs.values() if track.state == "ERROR"]
        self.phase = Phase.DONE
        text = f"{len(failed)} of {len(self.pairs)} pairs failed: {', '.join(failed)}"
        if not failed:
            text = f"all {len(self.pairs)} pairs completed"
        report = self._about_me("ERROR" if failed else "COMPLETE", text)
        return [report, Say(f"Task {self.task} … Done: {text}")]

    # -------------------------------------------------------------- other tasks

    def _task_ended(self, event: TaskEnded) -> list[Effect]:
        self.phase = Phase.DONE
        state = "COMPLETE" if event.ok else "ERROR"
        level = logging.INFO if event.ok else logging.ERROR
        return [
            self._about_me(state, event.text),
            Say(f"Task {self.task} … Done: {event.text}", level),
        ]

    def _about_me(self, state: str, text: str) -> Report:
        return Report(self.operation, "", 0, state, text)

    def _about_pair(self, track: PairTrack, state: str, text: str, tail_of: str = "") -> Report:
        plan = track.plan
        return Report(self.operation, plan.name, plan.index, state, text, tail_of)


def judge(plan: PlannedPair, sl: RunStatus, ml: RunStatus, waited: float) -> Outcome | None:
    """How a pair ended; None while it goes on.

    `waited` is for how many seconds (at least) one member has ended and the other has not.
    """
    for member, name, status in (("ML program", plan.ml, ml), ("SL", plan.sl, sl)):
        if status.state is RunState.MISSING:
            return Outcome(False, f"the {member} {name} is gone: somebody else removed it")
        if status.state is RunState.CREATED:
            return Outcome(False, f"the {member} {name} was never started")
    if ml.state is RunState.EXITED and ml.code != 0:
        return Outcome(False, _ended("ML program", ml), plan.ml)
    sl_failed = sl.state is RunState.EXITED and sl.code != 0
    if ml.state is RunState.EXITED:
        return _after_success(plan, sl, sl_failed, waited)
    if sl_failed and waited >= ML_TELLS:
        return Outcome(False, _ended("SL", sl), plan.sl)
    return None


def _after_success(
    plan: PlannedPair, sl: RunStatus, sl_failed: bool, waited: float
) -> Outcome | None:
    """The ML ended with exit code 0; did it take part?"""
    if not plan.takes_part:
        return Outcome(True, "the ML program ended (SWARM_LOOPBACK: it trained alone)")
    if sl_failed:
        return Outcome(False, _ended("SL", sl), plan.sl)
    if sl.state is RunState.EXITED:
        return Outcome(True, "training finished", plan.ml)
    if waited >= SL_LEAVES:
        text = "the ML program ended with exit code 0, but not at the end of a swarm training"
        return Outcome(False, text, plan.ml)
    return None


def _ended(member: str, status: RunStatus) -> str:
    note = f" ({status.note})" if status.note else ""
    return f"the {member} exited with code {status.code}{note}"
