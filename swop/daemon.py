"""The operator's shell: threads around the pure core of `operator.py`.

- the main thread takes events from one queue, steps the core and hands its effects out;
- the *worker* does what may take long (builds, starts, removals), one job after the other;
- the *outbox* submits transactions in order, and again until the network takes them;
- the *poller* looks after the programs that the core watches;
- the watch of the API client brings the taskrunner's record, and is our sign of life.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from swarm.api.models import VerdictError
from swarm.errors import LocalError, RemoteError, SwarmFault
from swarm.pulse import EVERY, Pulse
from swop import operator as core
from swop.content import ContentRequest
from swop.log_stream import LogStreams
from swop.mask import Mask
from swop.plan import Host, Pair, Program, RunTask, plan_pairs
from swop.profile import Profile
from swop.pulling import PullRequest
from swop.runtime import AWAY, LOG_LIMIT, RunState, RunStatus, Runtime, bounded_tail
from swop.status_text import status_text
from swop.tasks import understand
from swop.work import Work

log = logging.getLogger("swop")

T = TypeVar("T")
POLL_SECONDS = 0.5
PAUSE_SECONDS = 2.0  # before a transaction or a read is tried again
TRY_AGAIN = ("SW5001", "SW5005")  # no SN answers, or the SNs have no quorum
CONNECT_TRIES = 60
CONNECT_SECONDS = 5.0
STOP_PAIRS_SECONDS = 4.0  # from SIGTERM to SIGKILL for pairs when the operator itself must go
LEAVE_SECONDS = 4.0
LAST_JOB_SECONDS = 1.0
ENGINE_SECONDS = 60.0  # of an engine that does not answer, until a task fails for it
GONE = "the engine was gone meanwhile"
BARRED = "SW4015"


class Api(Protocol):
    """What the operator needs of `swarm.api.client.ApiClient`."""

    def is_up(self) -> bool: ...
    def status(self) -> dict[str, Any]: ...
    def record(self, table: str, key: str, *, min_height: int = 0) -> dict[str, Any] | None: ...
    def submit(self, op: str, args: Mapping[str, Any], *, patience: float = 60.0) -> Any: ...
    def watch(self, keys: Sequence[str], *, uid: str = "", start_over: bool = False) -> Any: ...
    def close(self) -> None: ...


class Daemon:
    """One running operator. `run` returns when `stop` was called."""

    def __init__(
        self,
        *,
        name: str,
        host: Host,
        profile: Profile,
        runtime: Runtime,
        api: Api,
        keep: bool = False,
        stream_logs: bool = False,
        version: str = "",
    ) -> None:
        self._name = name
        self._host = host
        self._profile = profile
        self._runtime = runtime
        self._api = api
        self._keep = keep
        self._streams = LogStreams(runtime) if stream_logs else None
        self._version = version
        self._core = core.Operator(host.uid)
        self._events: queue.SimpleQueue[core.Event | None] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._letters: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._watched: tuple[str, tuple[core.PlannedPair, ...]] = ("", ())
        self._pairs: dict[int, Pair] = {}  # of the operation at hand; the worker's
        self._at_hand: tuple[str, Work] | None = None  # a build, a pull or content
        self._stopping = threading.Event()
        self._pulse = Pulse()
        self._chain = ""  # of the ledger at hand; the watch's
        self._barred = ""  # why the members have evicted us, if they have
        self._threads: list[threading.Thread] = []

    # ------------------------------------------------------------------ life

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stopping.set()
        self._events.put(None)

    def run(self) -> None:
        """Work until stopped.

        Raises LocalError when the runtime cannot be used, RemoteError SW7005 when no SN answers,
        SW4015 when the members have evicted this operator.
        """
        log.info("Runtime: %s", self._runtime.check())
        if not self._connect():
            return
        bar = self._enroll_node()
        for target in (self._work, self._deliver, self._poll):
            thread = threading.Thread(target=target, name=target.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)
        key = f"taskrunners/{self._profile.taskrunner}"
        watch = self._api.watch([key, bar], uid=self._host.uid, start_over=True)
        watch.on_change(lambda changed: self._hear(changed, key, bar))
        self._hear(watch, key, bar)
        while (event := self._next_event()) is not None and not self._stopping.is_set():
            self._take(event)
        self._leave()
        if self._barred:
            raise RemoteError(BARRED, self._barred)

    def _next_event(self) -> core.Event | None:
        """Wait for the next event; None to stop."""
        while True:
            self._pulse.beat()
            try:
                return self._events.get(timeout=EVERY)
            except queue.Empty:
                continue

    def _connect(self) -> bool:
        """Wait for the SN; False when we were stopped meanwhile."""
        for attempt in range(1, CONNECT_TRIES + 1):
            self._pulse.beat()
            if self._api.is_up():
                log.info("API-Server is UP!")
                return True
            log.info(
                "Failed to connect to the API Server. Retrying %d of %d", attempt, CONNECT_TRIES
            )
            if self._stopping.wait(CONNECT_SECONDS):
                return False
        address = f"{self._host.sn_host}:{self._host.sn_port}"
        raise RemoteError("SW7005", f"no SN answered at {address} in {CONNECT_TRIES} attempts")

    def _enroll_node(self) -> str:
        """Register as a node of the network, with the SN that we talk to as parent.

        Returns the name of the record that bars our key, should there ever be one.
        """
        height = self._api.submit("node.enroll", self._enrolment()).height
        node = self._api.record("nodes", self._host.uid, min_height=height) or {}
        runner = self._profile.taskrunner
        log.info("Enrolled as %s (%s), listening to %s", self._name, self._host.uid, runner)
        return f"evictions/{node.get('holder') or node.get('fingerprint', '')}"

    def _enrolment(self) -> dict[str, Any]:
        return {
            "uid_name": self._name,
            "type": "SWOP",
            # It listens nowhere. Behind a proxy, the name of its SN tells where it belongs.
            "host": self._host.sn_host if self._host.service else "",
            "port": self._host.sn_port if self._host.service else 0,
            "p2p": [],
            "peer_id": "",
            "parent": str(self._api.status().get("uid", "")),
            "validator": False,
            "runner": self._profile.taskrunner,
            "pairs": len(self._profile.pairs),
            "contract": "",
            "version": self._version,
        }

    def _hear(self, watch: Any, key: str, bar: str) -> None:
        """The watch's callback, in its thread."""
        eviction = watch.records.get(bar)
        if eviction and eviction["at"]:
            self._barred = str(eviction["reason"])
            self.stop()
        if watch.connected:
            self._look_at_chain(watch.chain)
            self._events.put(core.RunnerChanged(watch.records.get(key)))

    def _look_at_chain(self, chain: str) -> None:
        """Begin again with a ledger that is another one: nothing of before is on it, nor are we."""
        if chain != self._chain and self._chain:
            log.warning(
                "The ledger that we worked on (%s) is gone: the network nodes serve another one"
                " (%s). Starting over: its tasks are ended, and this operator enrolls again",
                self._chain[:16],
                chain[:16],
            )
            # Ahead of all that the other ledger's tasks will have us say.
            self._letters.put(("node.enroll", {}))
        self._chain = chain

    def _leave(self) -> None:
        """Leave in order: the task hears of it, pairs are stopped. Bounded in time."""
        log.info("Stopping: leaving the network, ending SL and ML")
        leave = threading.Thread(target=self._say_good_bye, daemon=True)
        if not self._barred:  # nothing is taken of an evicted one
            leave.start()
        if self._at_hand is not None:
            self._at_hand[1].give_up("the operator was stopped")
        self._jobs.put(None)
        self._letters.put(None)
        for thread in self._threads:  # what is under way; builds are given up
            thread.join(LAST_JOB_SECONDS)
        try:
            self._clear("", STOP_PAIRS_SECONDS)
        except SwarmFault as fault:
            log.warning("some of SL and ML may be left: %s", fault)
        if self._streams is not None:
            self._streams.close()
        if not self._barred:
            leave.join(LEAVE_SECONDS)
        log.info("Stopped")

    def _say_good_bye(self) -> None:
        try:
            args = {"uid": self._host.uid}
            self._api.submit("node.leave", args, patience=LEAVE_SECONDS)
        except RemoteError as fault:
            log.warning("the network did not hear that we leave: %s", fault)

    # ------------------------------------------------------------------ effects

    def _take(self, event: core.Event) -> None:
        for effect in self._core.step(event, time.monotonic()):
            self._perform(effect)
        self._watched = (self._core.operation, tuple(self._core.watched()))
        self._give_up_unless(self._core.operation)

    def _perform(self, effect: core.Effect) -> None:
        if isinstance(effect, core.Say):
            log.log(effect.level, "%s", effect.text)
        elif isinstance(effect, core.Enroll):
            self._post("runner.enroll", effect.operation, {"pairs": len(self._profile.pairs)})
        elif isinstance(effect, core.Report):
            self._post("runner.status", effect.operation, self._status(effect))
        elif isinstance(effect, core.Execute):
            self._jobs.put(lambda: self._execute(effect))
        elif isinstance(effect, core.StartPair):
            self._jobs.put(lambda: self._start_pair(effect))
        elif isinstance(effect, core.StopPair):
            self._jobs.put(lambda: self._stop_pair(effect.index))
        else:
            clear = effect
            self._jobs.put(lambda: self._insist(lambda: self._clear(clear.spare, anew=clear.anew)))

    def _post(self, op: str, operation: str, args: dict[str, Any]) -> None:
        common = {"runner": self._profile.taskrunner, "uid": self._host.uid}
        self._letters.put((op, {**common, "operation": operation, **args}))

    def _status(self, report: core.Report) -> dict[str, Any]:
        tail = self._tail(report.tail_of) if report.tail_of else ""
        text = f"{report.text}; last lines of its log:\n" if tail else report.text
        if tail:
            text += bounded_tail(tail, max(0, LOG_LIMIT - len(text)))
        return {
            "peer": report.peer,
            "index": report.index,
            "state": report.state,
            "text": status_text(text),
        }

    def _tail(self, name: str) -> str:
        """The end of a program's log as others may read it."""
        members = (m for pair in self._pairs.values() for m in (pair.sl, pair.ml))
        given = next((m.environment for m in members if m.name == name), {})
        try:
            return Mask(given).text(self._runtime.log_tail(name))
        except LocalError as fault:
            return f"(its log cannot be read: {fault.cause})"

    # ------------------------------------------------------------------ worker

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopping.is_set():
            try:
                job()
            except SwarmFault as fault:
                log.warning("%s", fault)
            except Exception:
                log.exception("a job failed in a way that was not foreseen")

    def _execute(self, effect: core.Execute) -> None:
        """Look up the task and do it; whatever goes wrong is the task's failure."""
        try:
            self._execute_task(effect)
        except SwarmFault as fault:
            self._events.put(core.TaskEnded(effect.operation, False, str(fault)))
        except Exception as error:
            log.exception("a task failed in a way that was not foreseen")
            text = str(LocalError("SW1001", repr(error)[:500]))
            self._events.put(core.TaskEnded(effect.operation, False, text))

    def _execute_task(self, effect: core.Execute) -> None:
        task = self._patiently(lambda: self._api.record("tasks", effect.task))
        if task is None:
            raise LocalError("SW7013", f"task {effect.task} does not exist")
        prereq = self._patiently(lambda: self._api.record("tasks", task["prereq"]))
        request = understand(task, prereq, self._profile, self._host)
        if isinstance(request, RunTask):
            self._plan(effect.operation, request)
            return
        self._progress(effect.operation, "Profile validated")
        with self._begin(effect.operation) as work:
            if isinstance(request, ContentRequest):
                text = self._runtime.fill(request, work)
            elif isinstance(request, PullRequest):
                text = self._runtime.pull(request, work)
            else:
                text = self._runtime.build(request, work)
        self._events.put(core.TaskEnded(effect.operation, True, text))

    def _begin(self, operation: str) -> Work:
        """Work that is given up when the operation ends before it."""
        work = Work(
            lambda said: self._progress(operation, said),
            lambda said: log.info("%s", said),
            self._host.rules.task_seconds,
        )
        self._at_hand = (operation, work)
        self._give_up_unless(self._core.operation)  # it may have ended before it began
        return work

    def _give_up_unless(self, operation: str) -> None:
        """The taskrunner has gone on to another operation, or to none."""
        if self._at_hand is not None and self._at_hand[0] != operation:
            self._at_hand[1].give_up("the taskrunner was reset")

    def _plan(self, operation: str, task: RunTask) -> None:
        if not self._insist(lambda: self._runtime.has_image(task.image), ENGINE_SECONDS):
            cause = f"{task.image}, which {task.name} runs in, is not on this host"
            raise LocalError("SW7009", cause)
        pairs = plan_pairs(self._profile, task, operation, self._host)
        self._pairs = {pair.index: pair for pair in pairs}
        planned = tuple(
            core.PlannedPair(p.index, p.name, p.sl.name, p.ml.name, p.ml.takes_part) for p in pairs
        )
        # So that a restarted operator knows its programs by name.
        there = {found.name for found in self._runtime.adopt()}
        for program in (member for pair in pairs for member in (pair.sl, pair.ml)):
            if program.name in there:
                self._stream(program, lines=0)
        self._events.put(core.PairsPlanned(operation, planned))

    def _progress(self, operation: str, text: str) -> None:
        self._events.put(core.Progress(operation, text))

    def _start_pair(self, effect: core.StartPair) -> None:
        pair, error = self._pairs[effect.index], ""
        try:
            for program in (pair.sl, pair.ml):
                # Idempotent: what the engine did before it went away is not done twice.
                self._insist(lambda: self._runtime.start(program), ENGINE_SECONDS)  # noqa: B023
                self._stream(program)
        except LocalError as fault:
            error = str(fault)
        self._events.put(core.PairStarted(effect.operation, effect.index, error))

    def _stream(self, program: Program, lines: int | None = None) -> None:
        if self._streams is not None:
            self._streams.begin(program, lines=lines)

    def _stop_pair(self, index: int) -> None:
        pair = self._pairs.get(index)
        if pair is not None:
            self._insist(lambda: self._runtime.stop([pair.ml.name, pair.sl.name]))

    def _clear(self, spare: str, grace: float | None = None, *, anew: bool = False) -> None:
        """Stop, and unless they shall be kept remove, all programs but those of one operation."""
        names = [found.name for found in self._runtime.adopt() if found.operation != spare]
        if not names:
            return
        if grace is None:
            self._runtime.stop(names)
        else:
            self._runtime.stop(names, grace)
        if self._keep and not anew:
            log.info("Stopped and kept (SWOP_KEEP_CONTAINERS): %s", ", ".join(names))
            return
        self._runtime.remove(names)
        log.info("Stopped and removed: %s", ", ".join(names))

    def _insist(self, act: Callable[[], T], seconds: float | None = None) -> T:
        """Do it, again and again while the engine does not answer; `seconds`: for how long at most.

        Without a limit for what must not be left undone: nobody else would end what still runs.
        """
        end = None if seconds is None else time.monotonic() + seconds
        told = False
        while True:
            try:
                return act()
            except LocalError as fault:
                if fault.code != AWAY or (end is not None and time.monotonic() > end):
                    raise
                if not told:
                    log.warning("%s", fault)
                told = True
                if self._stopping.wait(PAUSE_SECONDS):
                    raise

    def _patiently(self, read: Callable[[], T]) -> T:
        """Read from the network, again and again while it does not answer."""
        while True:
            try:
                return read()
            except RemoteError as fault:
                if fault.code not in TRY_AGAIN:
                    raise
                log.warning("%s", fault)
                if self._stopping.wait(PAUSE_SECONDS):
                    raise

    # ------------------------------------------------------------------ outbox

    def _deliver(self) -> None:
        while (letter := self._letters.get()) is not None and not self._stopping.is_set():
            op, args = letter
            try:
                self._patiently(lambda: self._submit(op, args))  # noqa: B023 - called at once
            except RemoteError as fault:
                log.error("%s is not delivered: %s", op, fault)
                if op == "runner.enroll":
                    self._events.put(core.EnrollAnswered(args["operation"], False, str(fault)))

    def _submit(self, op: str, args: dict[str, Any]) -> None:
        """Submit once; a verdict, good or bad, settles it."""
        ok, text = True, ""
        try:
            self._api.submit(op, self._enrolment() if op == "node.enroll" else args)
        except VerdictError as error:
            ok, text = False, error.cause
        if op == "runner.enroll":
            self._events.put(core.EnrollAnswered(args["operation"], ok, text))
        elif not ok and op == "node.enroll":
            log.error("the network does not take this operator: %s", text)
        elif not ok:
            # Usual after a RESET: the status of an operation that is over interests nobody.
            log.info("a status was not taken: %s", text)

    # ------------------------------------------------------------------ poller

    def _poll(self) -> None:
        complaint = ""
        away = ""  # of which operation the pairs cannot be seen, as the engine is away
        while not self._stopping.wait(POLL_SECONDS):
            operation, pairs = self._watched
            try:
                for pair in pairs:
                    # The ML first: when both have ended at the second look, both are seen.
                    ml, sl = self._runtime.status(pair.ml), self._runtime.status(pair.sl)
                    if away == operation:
                        ml, sl = _ended_meanwhile(ml), _ended_meanwhile(sl)
                    self._events.put(core.PairObserved(operation, pair.index, sl, ml))
                if away:
                    self._progress(away, "The engine answers again")
                complaint = away = ""
            except LocalError as fault:
                if str(fault) != complaint:
                    log.warning("%s", fault)
                complaint = str(fault)
                if fault.code == AWAY and away != operation:
                    away = operation
                    text = f"SL and ML cannot be seen, as the engine does not answer: {fault.cause}"
                    self._progress(operation, text)


def _ended_meanwhile(status: RunStatus) -> RunStatus:
    """What is seen at the first look after the engine was away."""
    if status.state is not RunState.EXITED:
        return status
    return replace(status, note="; ".join([*filter(None, [status.note]), GONE]))
