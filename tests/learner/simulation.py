"""A swarm in one thread with a clock of its own: real round drivers on the real state machine.

Everything around them is played: programs, links, files, exchanges, network nodes. Weights are
numbers. What happens when is drawn from a seed, crashes included, so a run can be had again. The
same parts without chance (`delay=0`, programs that do what a transcript says) are in
`test_transcripts`.

What is checked all the time: a program gets decided models only, in order, and its file is left
alone while it reads it; what contributes was made from the last decided model; a learner that is
not done says what it waits for, and so does the record.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from swarm.learner import messages as m
from swarm.learner.core import Core
from swarm.ledger.state import Verdict
from swarm.merge.exchange import Key
from tests.learner.fake_ledger import plain
from tests.state.world import NODE, RULES, World

CONTRACT = "defaultbb.cqdb.sml.hpe"
TICK = 1.0  # seconds
STALL = 10.0  # seconds without a part of somebody, after which it is blamed
TORN = "torn"


@dataclass(frozen=True)
class Weights:
    """A number, and the decided round that it was made from; for a model, its own round."""

    value: float
    base: int
    maker: str

    @property
    def root(self) -> bytes:
        return hashlib.sha256(repr(self).encode()).digest()


class Sim:
    """Clock, ledger and nodes."""

    def __init__(self, seed: int = 0, *, delay: float = 0.0, grace: float = 30.0) -> None:
        self.rng = random.Random(seed)
        self.delay = delay
        self.grace = grace
        self.now = 0.0
        self.ledger = World()
        self.nodes: dict[str, Node] = {}
        self.weights: dict[str, Weights] = {}  # by root, models included
        self.parts: dict[Key, dict[str, Weights]] = {}
        self.accepted: set[bytes] = set()  # roots that were checked in once
        self.down_until = 0.0  # no network node answers before
        self.story: list[str] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def say(self, text: str) -> None:
        self.story.append(text)

    # ------------------------------------------------------------------- time

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, act))

    def soon(self, act: Callable[[], None]) -> None:
        self.after(self.rng.random() * self.delay, act)

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass until then, or until `done`; tells whether it came to that."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, act = heapq.heappop(self._queue)
            act()
            if done():
                return True
        self.now = until
        return done()

    # ----------------------------------------------------------------- ledger

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = plain(self.ledger.state.get("contracts", CONTRACT))
        return found

    def submit(self, sender: str, op: str, args: Mapping[str, Any]) -> Verdict:
        before = self.record
        verdict = self.ledger.do(sender, op, **args)
        if verdict.ok and op == "round.checkin":
            self._contributes(sender, args, before)
        record = self.record
        assert record["waiting"] or record["status"] in ("UNINITIALIZED", "FINISHED"), record
        last = record["last"]
        if last != before["last"] and (not before["last"] or last["round"] > before["round"] - 1):
            model = self.weights[last["digest"]]
            peers = ", ".join(self.ledger.names[uid] for uid in last["roster"])
            self.say(f"  round {last['round']} is decided: {model.value:g}, of {peers}")
        if record["over"] and not before["over"]:
            self.say("  training is over")
        for node in self.nodes.values():
            if node.sl is not None and node.sl.watches:
                node.sl.news()
        return verdict

    def _contributes(self, sender: str, args: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Nothing but weights from the last decided model, or that model, may come in."""
        weights = self.weights[args["root"].hex()]
        newest = before["last"]["round"] if before["last"] else -1
        known = args["root"] in self.accepted and args["done"]
        assert weights.base == newest or known, f"{sender} brings {weights} after round {newest}"
        self.accepted.add(args["root"])
        weight = args["weight"] / 10_000
        self.say(f"  {sender} brings {weights.value:g} with weight {weight:g}")

    def is_down(self) -> bool:
        return self.now < self.down_until

    def outage(self, seconds: float) -> None:
        """No network node answers for so long."""
        self.down_until = max(self.down_until, self.now + seconds)
        for node in self.nodes.values():
            if node.sl is not None and node.sl.watches:
                node.sl.feed(m.LedgerChanged(None, 0, "no network node answers"))
                node.sl.news()

    def lose(self, node: Node) -> None:
        """A network node has had no sign of life of this learner, rightly or not."""
        if self.is_down():
            self.after(self.down_until - self.now + 3, lambda: self.lose(node))
            return
        args = {"contract": CONTRACT, "uid": node.uid, "reason": "no sign of life"}
        self.submit("sn-1", "round.lost", args)


class Jobs:
    """Things to do one after the other, each some time after the one before."""

    def __init__(self, sim: Sim, alive: Callable[[], bool], *, ledger: bool = False) -> None:
        self._sim = sim
        self._alive = alive
        self._ledger = ledger
        self._jobs: deque[Callable[[], None]] = deque()
        self._busy = False

    def add(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        if not self._busy:
            self._busy = True
            self._sim.soon(self._go)

    def _go(self) -> None:
        if not self._alive():
            return
        if self._ledger and self._sim.is_down():
            self._sim.after(self._sim.down_until - self._sim.now, self._go)
            return
        self._jobs.popleft()()
        self._busy = bool(self._jobs)
        if self._busy:
            self._sim.soon(self._go)


class Node:
    """A host: its files, its learner and its program, of which either may be gone."""

    def __init__(self, sim: Sim, name: str) -> None:
        self.sim = sim
        self.name = name
        sim.ledger.add(name)
        self.uid = sim.ledger.uid(name)
        self.trained: Weights | None = None
        self.merged = self.next = ""  # digests of what lies on its disk
        self.offered = ""  # digest of what the program shall load
        self.sl: Sl | None = None
        self.program: Any = None  # `hears(message)` and `lost_link()`
        self.reading = False  # the program is loading that
        self.status: int | None = None  # of the last learner
        sim.nodes[name] = self

    def start_sl(self) -> None:
        if self.sl is None:
            self.sl = Sl(self)

    def crash_sl(self) -> None:
        sl, self.sl = self.sl, None
        if sl is None:
            return
        sl.alive = False
        self.sim.after(3 + 5 * self.sim.rng.random(), self.miss)
        self.cut(sl)

    def miss(self) -> None:
        """Its network node looks for a learner that was killed."""
        if self.sl is None:
            self.sim.lose(self)

    def cut(self, sl: Sl) -> None:
        """The link to this learner is gone."""
        program = sl.program
        if program is not None:
            self.sim.soon(program.lost_link)


class Sl:
    """A learner process: a core, and what carries out its effects."""

    def __init__(self, node: Node) -> None:
        self.node, self.sim = node, node.sim
        self.core = Core(node.uid, grace=self.sim.grace)
        self.alive = True
        self.watches = False
        self.program: Any = None  # that is connected
        self._result = ""  # digest of what is made in memory
        self.holds = ""  # digest of the model that is served to others
        self._saved = True
        self._link = Jobs(self.sim, lambda: self.alive)
        self._jobs = Jobs(self.sim, lambda: self.alive, ledger=True)
        self._side = Jobs(self.sim, lambda: self.alive, ledger=True)
        self._contribution: Weights | None = None
        self._effect: m.StartExchange | None = None
        self._started = 0.0
        self._searched = False
        self._tick()

    # ----------------------------------------------------------------- events

    def feed(self, event: m.Event) -> None:
        if not self.alive:
            return
        for effect in self.core.step(event, self.sim.now):
            getattr(self, "do_" + type(effect).__name__.lower())(effect)
        if isinstance(event, (m.Tick, m.Reported)):
            self._save()
        core = self.core
        assert core.waiting or core.ended, f"{self.node.name} is {core.phase} and says nothing"

    def _save(self) -> None:
        """The decided model goes to the disk; what it lay in may be written to."""
        if not self._saved:
            self._saved, self.node.merged = True, self.holds

    def _begin(self) -> None:
        """Something else is being made in memory."""
        self._save()
        assert not self.node.reading, f"{self.node.name}: what it reads is written to"
        self._result = TORN

    def hear(self, program: Any, event: m.Event) -> None:
        """The program says something; it comes some time later, in order."""
        self._link.add(lambda: self.feed(event) if self.program is program else None)

    def news(self) -> None:
        """The watch brings the record, some time later."""
        record, height = self.sim.record, self.sim.ledger.state.height

        def come() -> None:
            if self.sim.is_down():
                self.sim.after(self.sim.down_until - self.sim.now, come)
            else:
                self.feed(m.LedgerChanged(record, height))

        self.sim.soon(come)

    def _tick(self) -> None:
        if not self.alive:
            return
        effect = self._effect
        if effect is not None and self.core.result is None:
            parts = self.sim.parts[effect.key]
            late = self.sim.now - self._started > STALL
            silent = [uid for uid in effect.roster if uid not in parts] if late else []
            blames = dict.fromkeys(silent, "no bytes for 10 s")
            self.feed(m.ExchangeSeen(effect.key, blames, f"{len(parts)} parts are here"))
        self.feed(m.Tick())
        self.sim.after(TICK, self._tick)

    # ---------------------------------------------------------------- effects

    def do_enroll(self, effect: m.Enroll) -> None:
        def enroll() -> None:
            name, uid = self.node.name, self.node.uid
            node = {**NODE, "uid_name": name, "type": "SL", "contract": CONTRACT}
            self.sim.submit(name, "node.enroll", node)
            asked = {"contract": CONTRACT, "uid": uid, "name": name, "host": "h", "port": 1}
            asked |= {"rules": dict(effect.rules), "mode": effect.mode}
            verdict = self.sim.submit(name, "contract.enroll", asked)
            record, height = self.sim.record, self.sim.ledger.state.height
            if verdict.ok:
                self.watches = True
                self.sim.soon(lambda: self.feed(m.Enrolled(record, height)))
                self.news()
            else:
                self.sim.soon(lambda: self.feed(m.Broken(verdict.code, verdict.text)))

        self._jobs.add(enroll)

    def do_submit(self, effect: m.Submit) -> None:
        def submit() -> None:
            verdict = self.sim.submit(self.node.name, effect.op, effect.args)
            height = self.sim.ledger.state.height
            answer = m.Answered(effect.tag, verdict.ok, verdict.code, verdict.text, height)
            self.sim.soon(lambda: self.feed(answer))

        (self._side if effect.side else self._jobs).add(submit)

    def do_prepare(self, effect: m.Prepare) -> None:
        if effect.merged:
            assert self.holds, "the decided one is contributed"
            self._contribution = self.sim.weights[self.holds]
        else:
            self._contribution = self.node.trained
        assert self._contribution is not None
        root = self._contribution.root
        self.feed(m.Prepared(effect.seq, root, b"s" * 32, 64, []))

    def do_startexchange(self, effect: m.StartExchange) -> None:
        assert self._contribution is not None
        assert effect.checkins[self.node.uid]["root"] == self._contribution.root.hex()
        self._begin()
        self._effect, self._started = effect, self.sim.now
        mine = self._contribution

        def bring() -> None:
            if self.alive and self._effect is effect:
                parts = self.sim.parts.setdefault(effect.key, {})
                parts[self.node.uid] = mine
                if set(parts) == set(effect.roster):
                    for node in self.sim.nodes.values():
                        if node.sl is not None:
                            self.sim.soon(node.sl.finish_exchange)

        self.sim.parts.setdefault(effect.key, {})
        self.sim.after(self.sim.rng.random() * 4 * self.sim.delay, bring)

    def finish_exchange(self) -> None:
        effect = self._effect
        if not self.alive or effect is None or self.core.result is not None:
            return
        parts = self.sim.parts[effect.key]
        if set(parts) != set(effect.roster):
            return
        weights = {uid: checkin["weight"] for uid, checkin in effect.checkins.items()}
        total = sum(weights[uid] for uid in effect.roster)
        mean = sum(parts[uid].value * weights[uid] for uid in effect.roster) / total
        names = "+".join(parts[uid].maker for uid in effect.roster)
        maker = f"model of {hashlib.sha256(names.encode()).hexdigest()[:8]}"
        model = Weights(mean, effect.key.round, maker)
        digest = model.root.hex()
        self.sim.weights[digest] = model
        self._result = digest
        if self.core.pending is not None and self.core.pending.done:
            self.node.next = digest  # its program will load it from the disk
        self.feed(m.ExchangeDone(effect.key, digest, []))

    def do_abortexchange(self, effect: m.AbortExchange) -> None:
        self._effect = None

    def do_keep(self, effect: m.Keep) -> None:
        assert self._result == effect.digest
        self.holds, self._saved = effect.digest, False

    def do_fetch(self, effect: m.Fetch) -> None:
        self.sim.soon(lambda: self._fetch(effect))

    def _fetch(self, effect: m.Fetch) -> None:
        if not self.alive:
            return
        searched, self._searched = self._searched, True
        if not searched and effect.digest in (self.node.merged, self.node.next):
            self._result = effect.digest
            self.feed(m.Fetched(effect.digest))
            return
        self._begin()
        for holder in effect.holders:
            sl = self.sim.nodes[holder["name"]].sl
            if sl is not None and sl.holds == effect.digest:
                self._result = effect.digest
                self.feed(m.Fetched(effect.digest))
                return
        self.feed(m.FetchFailed(effect.digest, "nobody gave it"))

    def do_tell(self, effect: m.Tell) -> None:
        message, program = dict(effect.message), self.program
        if message["type"] == "merged" or (message["type"] == "opened" and message["hasModel"]):
            self.node.reading, self.node.offered = True, self.holds
            if not message.get("shared"):
                self._save()
        if program is not None:
            program.inbox.add(lambda: program.hears(self, message))

    def do_release(self, effect: m.Release) -> None:
        self.program = None
        self.node.reading = False

    def do_log(self, effect: m.Log) -> None:
        """Nobody reads it."""

    def do_exit(self, effect: m.Exit) -> None:
        node, uid = self.node, {"contract": CONTRACT, "uid": self.node.uid}
        node.status = effect.status
        self.alive, node.sl = False, None
        if effect.leave and not self.sim.is_down():
            self.sim.submit(node.name, "contract.leave", uid)
        node.cut(self)
        if effect.status:  # somebody starts it again
            self.sim.after(5, node.start_sl)


def rules(min_peers: int) -> dict[str, Any]:
    return {**RULES, "min_peers": min_peers}
