"""The learner around its round driver: one loop that feeds events in and carries effects out.

Threads: this loop; the link to the program; two that submit to the ledger and one that watches it;
the listener and its connections; the exchange's; one for a fetch or a comparison. They meet in one
queue. Only the loop touches the driver, the files and the exchange.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity, node_uid
from swarm.learner import vectors as v
from swarm.learner.core import Core
from swarm.learner.evicted import Evicted
from swarm.learner.ledger import ClientPort, Ledger, Place
from swarm.learner.link_server import LinkServer, Rewritten, Shared
from swarm.learner.messages import (
    AbortExchange,
    Broken,
    Compare,
    Compared,
    Effect,
    Enroll,
    Event,
    ExchangeDone,
    ExchangeSeen,
    Exit,
    Fetch,
    Fetched,
    FetchFailed,
    Keep,
    Log,
    Prepare,
    Prepared,
    Release,
    Reported,
    StartExchange,
    Submit,
    Tell,
    Tick,
)
from swarm.learner.settings import Settings
from swarm.merge import methods
from swarm.merge.compare import changed, compare
from swarm.merge.dial import Dialler, Member
from swarm.merge.exchange import Exchange, Key, Law, Result, Window
from swarm.merge.fetch import Write, fetch
from swarm.merge.mean import contributors
from swarm.merge.plan import Plan
from swarm.merge.progress import Limits
from swarm.merge.server import Server
from swarm.merge.wire import Channel
from swarm.pulse import Pulse

log = logging.getLogger("swarm.learner")

TICK = 0.25  # seconds between two looks at the clock and at the exchange
LASTING = (
    0.3  # seconds; who waits for less has nothing to tell, and a small model's round is shorter
)
AGAIN = "waiting for the program: it hands in its weights again, for another attempt"
REMIND = 30.0  # seconds after which a waiting that has not changed is logged again
_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))


class Attempted(NamedTuple):
    """What an exchange that has ended was about, and the leaf digests of what it brought."""

    key: Key
    plan: Plan
    members: Sequence[Member]
    leaves: Sequence[bytes]


class Stop:
    """The event of a signal: leave in order and end."""


class Made(NamedTuple):
    """The event of an exchange that has the whole result, by its number."""

    number: int
    result: Result


class Saved(NamedTuple):
    """The event of a decided model that is on disk now, or of what kept it from there."""

    fault: LocalError | None


class Learner:
    """One learner process. `run` returns its exit status."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        client: ClientPort,
        version: str,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._limits = limits or Limits()
        self.uid = node_uid(identity.fingerprint, settings.name)
        self.core = Core(self.uid, grace=settings.grace)
        self._events: queue.Queue[Event | Stop | Made | Saved | Shared | Rewritten] = queue.Queue()
        place = Place(
            self.uid, settings.name, settings.host, settings.port, version, identity.holder
        )
        self._ledger = Ledger(client, place, self._events.put)
        self._link = LinkServer(settings.folder, self._events.put)
        self._server = Server(identity, self._door)
        self._trust = identity.trust
        self._evicted = Evicted(client)
        self._dialler = Dialler(identity)
        self._vectors = v.Vectors(settings.folder)
        self._window = Window()
        self._exchange: Exchange | None = None
        self._started = 0  # exchanges
        self._leaves: list[bytes] = []  # of the result, when that is whole
        self._attempted: Attempted | None = None  # that exchange
        self._kept = False  # what our exchange made is decided
        self._saving = False  # a thread does
        self._lent = False  # the program's memory holds the decided model, and it waits for `saved`
        self._asked = False  # the program for its weights, once more
        self._again: StartExchange | None = None  # what waits for that
        self._fetching: Channel | None = None
        self._settled = False  # our files were searched for what a predecessor left behind
        self._waits = ("", 0.0)  # what for, without numbers, and since when
        self._said = ""  # the same, as it was said last
        self._said_at = 0.0
        self._status: int | None = None
        self._pulse = Pulse()

    def run(self) -> int:
        """Serve programs until one says bye. Raises LocalError when it cannot start."""
        try:
            self._server.start(self._settings.listen_host, self._settings.listen_port)
            self._link.start()
            log.info("learner %s (%s) is ready", self._settings.name, self.uid)
            self._say()
            while self._status is None:
                self._turn()
            return self._status
        finally:
            self._close()

    def stop(self) -> None:
        """Leave in order; may be called from a signal handler."""
        self._events.put(Stop())

    # ------------------------------------------------------------------- loop

    def _turn(self) -> None:
        self._pulse.beat()
        try:
            event = self._events.get(timeout=TICK)
        except queue.Empty:
            event = Tick(self._server.serving > 0)
        if isinstance(event, Stop):
            idle = self.core.session is None or self.core.bye is not None
            text = "asked to stop" if idle else "asked to stop in the middle of a training"
            self._carry_out(Exit(0 if idle else 3, text, leave=self.core.enrolled))
            return
        if isinstance(event, Made):
            self._made(event)
        elif isinstance(event, Saved):
            self._saved(event)
        elif isinstance(event, Shared):
            self._vectors.share(event.descriptor)
        elif isinstance(event, Rewritten):
            self._rewritten()
        else:
            self._feed(event)
        self._look_at_exchange()
        self._say()

    def _feed(self, event: Event) -> None:
        for effect in self.core.step(event, time.monotonic()):
            self._carry_out(effect)
        if isinstance(event, (Reported, Tick)) and self._vectors.unsaved:
            self._start_saving()  # the program has loaded it, or is in no hurry

    def _look_at_exchange(self) -> None:
        if self._exchange is not None and self.core.result is None and self._status is None:
            failure = self._exchange.failure
            if failure is not None:
                self._feed(Broken(failure.code, failure.cause))
                return
            blames, text = self._exchange.poll(), self._exchange.waiting()
            self._feed(ExchangeSeen(self._exchange.key, blames, text))

    def _say(self) -> None:
        """Log what is waited for, and let the program know: when it lasts, and now and then."""
        text, now = AGAIN if self._again else self.core.waiting, time.monotonic()
        stem = _without_numbers(text)
        if stem != self._waits[0]:
            self._waits = stem, now
        if not text:
            self._said = ""
            return
        due = self._said_at + REMIND if stem == self._said else self._waits[1] + LASTING
        if now >= due:
            log.info("%s", text)
            if self.core.phase != "training":  # it does not listen then, and would hear it later
                self._link.tell({"type": "waiting", "text": text})
            self._said_at = now
            self._said = stem

    # ---------------------------------------------------------------- effects

    def _carry_out(self, effect: Effect) -> None:
        handler: Callable[[Any], None] = getattr(self, EFFECTS[type(effect)])
        handler(effect)

    def _enroll(self, effect: Enroll) -> None:
        self._ledger.enroll(effect)

    def _submit(self, effect: Submit) -> None:
        self._ledger.submit(effect)

    def _tell(self, effect: Tell) -> None:
        message = effect.message
        if message["type"] in ("merged", "over"):
            log.info("training: %s", _summary(message))
        try:
            if message.get("shared"):
                self._vectors.hand_over()
                self._lent = True
            elif message["type"] == "merged" or message.get("hasModel"):
                self._vectors.save()  # the program loads it from the file
        except LocalError as fault:
            self._feed(Broken(fault.code, fault.cause))
            return
        self._link.tell(message)
        self._give_back()

    def _release(self, effect: Release) -> None:
        self._lent, self._asked, self._again = False, False, None
        self._link.release()

    def _log(self, effect: Log) -> None:
        log.log(logging.WARNING if effect.warning else logging.INFO, "%s", effect.text)

    def _start_saving(self) -> None:
        if not self._saving:
            self._saving = True
            threading.Thread(target=self._save, name="save", daemon=True).start()

    def _save(self) -> None:
        """Save the decided model; a thread's work."""
        try:
            self._vectors.save()
        except LocalError as fault:
            self._events.put(Saved(fault))
        else:
            self._events.put(Saved(None))

    def _saved(self, event: Saved) -> None:
        self._saving = False
        if event.fault is not None:
            self._feed(Broken(event.fault.code, event.fault.cause))
        else:
            self._give_back()

    def _give_back(self) -> None:
        """Tell the program that its memory is its own again, when all is saved that lies in it."""
        if self._lent and not self._vectors.unsaved:
            self._lent = False
            self._link.tell({"type": "saved"})

    def _prepare(self, effect: Prepare) -> None:
        try:
            if effect.merged:
                self._stop_exchange()
            assert self.core.session is not None, "a program asked for it"
            rules = self.core.session.rules
            transfer = str(rules["merge_args"].get("transferDtype", ""))
            root, layout, odd = self._vectors.prepare(effect.merged, transfer)
            if odd:
                self._not_finite(v.not_finite(odd), rules["merge_method"])
        except LocalError as fault:
            self._feed(Broken(fault.code, fault.cause))
            return
        lines, schema = v.describe(layout), layout.schema_digest()
        self._feed(Prepared(effect.seq, root, schema, layout.size, lines))

    def _not_finite(self, text: str, method: str) -> None:
        """One NaN makes everybody's mean NaN; other methods leave it out, and people should know.

        Raises LocalError SW6014.
        """
        if not methods.excludes(method):
            raise LocalError("SW6014", text)
        text = f"{text}; {method} leaves out what is not finite"
        log.warning("%s", text)
        self._link.tell({"type": "waiting", "text": text})

    def _start(self, effect: StartExchange) -> None:
        self._stop_exchange()
        assert self.core.pending is not None, "it has handed in weights"
        in_place = not self.core.pending.done
        if in_place and self._vectors.spent:
            self._again = effect
            if not self._asked:  # who is asked twice would write while we merge already
                self._asked = True
                self._link.tell({"type": "again"})
            return
        roster = [_member(uid, effect.members[uid], effect.checkins[uid]) for uid in effect.roster]
        names = ", ".join(member.name for member in roster)
        log.info("round %d, attempt %d: merging with %s", *effect.key[1:], names)
        self._settled = True  # from now on our files are our own work
        try:
            exchange = Exchange(
                effect.key,
                self.uid,
                roster,
                self._vectors.buffers(in_place),
                self._dialler,
                self._when_made(),
                law=self._law(roster),
                window=self._window,
                limits=self._limits,
            )
        except LocalError as fault:
            self._feed(Broken(fault.code, fault.cause))
            return
        self._exchange, self._kept = exchange, False
        self._server.offer(exchange)
        exchange.start()

    def _rewritten(self) -> None:
        """The program has written its weights again: start what waits for that."""
        effect, self._again = self._again, None
        asked, self._asked = self._asked, False
        if effect is None or not asked:
            return  # the attempt has failed meanwhile
        try:
            self._vectors.prepare_again()
        except LocalError as fault:
            self._feed(Broken(fault.code, fault.cause))
            return
        self._start(effect)

    def _law(self, roster: Sequence[Member]) -> Law:
        """How the contract's rules merge. Raises LocalError when that cannot hold for `roster`.

        The ledger knows that of the product's own methods, and closes no roster that is too small.
        """
        assert self.core.record is not None, "an exchange is of a contract"
        rules = self.core.record["rules"]
        law = Law(str(rules["merge_method"]), rules["merge_args"])
        contributing = contributors([member.weight for member in roster])
        reason = methods.check(law.method, law.args, len(contributing))
        if reason:
            raise LocalError("SW6015", reason)
        return law

    def _when_made(self) -> Callable[[Result], None]:
        """What the exchange that is just being started shall call, in one of its threads."""
        self._started += 1
        number = self._started
        finishing = self.core.pending is not None and self.core.pending.done

        def made(result: Result) -> None:
            try:
                if finishing:  # its program will load the model from the file
                    self._vectors.write()
            except LocalError as fault:
                self._events.put(Broken(fault.code, fault.cause))
            else:
                self._events.put(Made(number, result))

        return made

    def _made(self, event: Made) -> None:
        if self._exchange is None or event.number != self._started:
            return  # it was aborted meanwhile
        result = event.result
        self._leaves = result.leaves
        self._feed(ExchangeDone(result.key, result.digest.hex(), result.shards))

    def _abort(self, effect: AbortExchange) -> None:
        self._stop_exchange()

    def _stop_exchange(self) -> None:
        self._again = None
        if self._exchange is not None:
            self._server.offer(None)
            self._exchange.abort()
            ended, self._exchange = self._exchange, None
            leaves = ended.partial_leaves()
            self._attempted = Attempted(ended.key, ended.plan, ended.members, leaves)
            if not self._kept:
                self._vectors.stopped(leaves)

    def _keep(self, effect: Keep) -> None:
        place = effect.contract, effect.round, effect.digest
        try:
            self._server.keep(self._vectors.keep(*place, self._leaves))
        except LocalError as fault:
            self._feed(Broken(fault.code, fault.cause))
            return
        self._kept = True

    def _exit(self, effect: Exit) -> None:
        log.log(logging.INFO if effect.status == 0 else logging.ERROR, "ending: %s", effect.text)
        self._status = effect.status
        if effect.leave:
            self._ledger.leave(effect.text if effect.status else "")

    # ------------------------------------------------- fetching and comparing

    def _fetch(self, effect: Fetch) -> None:
        if effect.holders:
            names = ", ".join(str(holder["name"]) for holder in effect.holders)
            log.info("fetching the decided model %s… from one of %s", effect.digest[:16], names)
        in_place = self.core.pending is not None and not self.core.pending.done
        job = partial(self._fetch_from, effect, in_place)
        threading.Thread(target=job, name="fetch", daemon=True).start()

    def _fetch_from(self, effect: Fetch, in_place: bool) -> None:
        hello = (effect.contract, self.uid, bytes.fromhex(effect.digest))

        def prepare(header: bytes, size: int) -> tuple[Write, Sequence[bytes]]:
            return self._vectors.for_fetch(header, size, effect.schema, in_place)

        found = None if self._settled else self._vectors.left_behind(effect.digest)
        self._settled = True
        if found is not None:
            log.info("the decided model %s… was found in %s", effect.digest[:16], found[0])
            self._leaves = found[1]
            self._events.put(Fetched(effect.digest))
            return
        reasons = []
        for record in effect.holders:
            holder = _member(str(record["uid"]), record, {})
            try:
                leaves = fetch(self._dialler, holder, hello, prepare, self._watch_fetch)
                self._vectors.write()
            except RemoteError as fault:
                reasons.append(f"{holder.name}: {fault.cause}")
            except LocalError as fault:
                self._events.put(Broken(fault.code, fault.cause))
                return
            else:
                self._leaves = leaves
                self._events.put(Fetched(effect.digest, self._changed(effect, leaves)))
                return
        self._events.put(FetchFailed(effect.digest, "; ".join(reasons)[:400]))

    def _changed(self, effect: Fetch, decided: Sequence[bytes]) -> Mapping[str, str]:
        """Whose shards had come to us with other bytes, if we took part in that very attempt."""
        ours = self._attempted
        if ours is None or ours.key[1:] != effect.attempt:
            return {}
        return changed(ours.plan, ours.members, self.uid, ours.leaves, decided)

    def _watch_fetch(self, channel: Channel | None) -> None:
        self._fetching = channel

    def _compare(self, effect: Compare) -> None:
        exchange = self._exchange
        own = exchange.result_leaves() if exchange else None
        if exchange is None or own is None:
            return
        job = partial(
            compare,
            self._dialler,
            effect.key,
            self.uid,
            own,
            exchange.plan,
            exchange.members,
            effect.digests,
        )
        threading.Thread(
            target=lambda: self._events.put(Compared(effect.key, job())),
            name="compare",
            daemon=True,
        ).start()

    def audit(self) -> None:
        """Put out those who may not be here any more; the thread that follows our files calls."""
        barred = self._evicted.look(self.core.record)
        if barred:
            self._trust.bar(barred)
        self._server.audit()
        self._dialler.audit()

    # ---------------------------------------------------------------- private

    def _door(self, contract: str, uid: str) -> str | None:
        """Fingerprint of a member's key; the listener's threads ask."""
        record = self.core.record
        if record is None or self.core.contract != contract:
            return None
        member = record["members"].get(uid)
        if member is None or (member["state"] != "active" and self._evicted.ask(uid)):
            return None
        return str(member["fingerprint"])

    def _close(self) -> None:
        self._server.close()
        if self._exchange is not None:
            self._exchange.abort()
        fetching = self._fetching
        if fetching is not None:
            fetching.abort()
        self._dialler.close()
        self._link.close()
        self._ledger.close()
        try:
            self._vectors.save()
        except LocalError as fault:
            log.error("the last merged model was not saved: %s", fault)
        self._vectors.close()


def _member(uid: str, record: Mapping[str, Any], checkin: Mapping[str, Any]) -> Member:
    return Member(
        uid,
        str(record["name"]),
        str(record["host"]),
        int(record["port"]),
        str(record["fingerprint"]),
        int(checkin.get("weight", 0)),
        bytes.fromhex(checkin.get("root", "")),
    )


def _without_numbers(text: str) -> str:
    """A waiting sentence without what changes all the time: per cents and seconds."""
    return text.translate(_NO_DIGITS)


def _summary(message: Mapping[str, Any]) -> str:
    if message["type"] == "over":
        return "over"
    state = "over" if message["over"] else f"next merge after {message['next']} batches"
    return f"round {message['round']} merged by {message['peers']} peers, {state}"


EFFECTS: Mapping[type[Effect], str] = {
    Enroll: "_enroll",
    Submit: "_submit",
    Tell: "_tell",
    Release: "_release",
    Log: "_log",
    Prepare: "_prepare",
    StartExchange: "_start",
    AbortExchange: "_abort",
    Compare: "_compare",
    Keep: "_keep",
    Fetch: "_fetch",
    Exit: "_exit",
}
