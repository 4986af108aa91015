"""A world of replicas in virtual time, with everything that may go wrong, from one seed.

The production core and a real application run in it; only clocks, network, disks and the
validators' signatures are made up. Invariants are checked after every step (`judge.py`);
`World.run` raises `Broken` with the command that runs the same world again.

Until `Profile.heal` there is trouble: `profiles.FAULTS` lists it, `network.py` has the links,
`node.py` the processes with their clocks and crash points, `disk.py` what a disk may forget, and
`byzantine.py` the liars. Then all processes run and messages arrive, and everything that clients
ask for must be committed everywhere within `PATIENCE`.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from swarm.ledger.application import Application
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Config, Core, Resume
from tests.ledger import kv
from tests.simulator.byzantine import Liars
from tests.simulator.judge import Broken, Judge
from tests.simulator.ledgers import KvLedger, Ledger
from tests.simulator.network import Network
from tests.simulator.node import DAY_MS, Node
from tests.simulator.profiles import DIRECTED, Profile, random_profile
from tests.simulator.trace import describe_effect, describe_event

PATIENCE = 90.0  # virtual seconds after healing within which everything must be committed
RETRY = 0.5  # seconds between a client's attempts

MakeCore = Callable[[Config, Application, Resume], Core]
MakeLedger = Callable[[int, str], Ledger]
Entry = tuple[float, int, int, "Node | None", Callable[..., None], tuple[Any, ...]]


class World:
    """All nodes, the network between them, and the queue of things to come."""

    def __init__(
        self,
        seed: int,
        profile: Profile | str | None = None,
        core: MakeCore = Core,
        ledger: MakeLedger = KvLedger,
        *,
        sizes: Sequence[int] = (),
        without: Collection[str] = (),
        log: Callable[[str], None] | None = None,
    ) -> None:
        """A world of `seed`; `profile` is one, the name of a directed one, or None for random.

        `without` names faults to leave out, `log` takes the lines of a trace.
        """
        self.seed = seed
        self.rng = random.Random(seed)
        if profile is None:
            profile = random_profile(self.rng, sizes)
        elif isinstance(profile, str):
            profile = DIRECTED[profile][1]
        self.profile = p = profile.without(without) if without else profile
        self.make_core = core
        self.log = log
        self.now = 0.0
        self.network = Network(p, self.rng)
        self.queue: list[Entry] = []
        self.count = 0
        self.points = 0  # crash points passed
        self.stats = dict.fromkeys(
            (
                "steps",
                "messages",
                "blocks",
                "crashes",
                "lost disks",
                "rollbacks",
                "evidence",
                "halts",
            ),
            0,
        )
        self.ledger = ledger(p.validators, p.model)
        uids = self.ledger.validators
        faulty = self.rng.sample(uids, p.liars + p.forgetful)
        self.liars = frozenset(faulty[: p.liars])
        self.suspects = frozenset(faulty)  # those of whom nothing is promised
        self.genesis = self.ledger.genesis
        self.judge = Judge(self)
        self.nodes: list[Node] = []
        self._wire: dict[msg.Message, msg.Message] = {}
        self.requests: list[bytes] = []
        self._keys: dict[bytes, bytes] = {}
        self._populate(uids)
        self.byzantine = Liars(self) if self.liars else None
        liars = ", ".join(sorted(self.liars)) or "none"
        self.tell(None, f"seed {seed}: {p.describe()}; liars: {liars}")
        self._plan()
        for node in list(self.nodes):
            node.boot()

    # ------------------------------------------------------------------ people and plans

    def _populate(self, uids: Sequence[str]) -> None:
        for uid in uids:
            node = self.add(uid, old=True)
            if uid in self.suspects - self.liars:
                node.disk.history = deque()
        if "twins" in self.profile.lies:
            for uid in sorted(self.liars):
                self.add(uid, old=True, twin=1)
        for number in range(self.profile.observers):
            self.add(self.ledger.outsider(number))

    def add(self, uid: str, *, old: bool = False, twin: int = 0) -> Node:
        """A process; `old`: it founded the chain with the others, so it may vote."""
        node = Node(self, uid, twin)
        if old:
            node.disk.vote_from = (0, 0)
        self.nodes.append(node)
        return node

    def _plan(self) -> None:
        p, rng, heal = self.profile, self.rng, self.profile.heal
        uids = [node.uid for node in self.nodes if not node.twin]
        for number in range(p.partitions + p.one_way):
            begin = rng.uniform(0, heal)
            end = min(heal, begin + rng.uniform(0.5, heal / 2 + 0.5))
            links = (
                self.network.split(uids) if number < p.partitions else self.network.one_way(uids)
            )
            self.after(begin, self._cut, number, links)
            self.after(end, self._mend, number)
        for _ in range(p.crashes):
            self.after(
                rng.uniform(0.1, heal * 0.8), rng.choice(self.nodes).crash, rng.uniform(0.05, 3)
            )
        self._plan_disks()
        for number in range(p.transactions):
            self.request(rng.uniform(0, heal), self.ledger.put(number))
        self._plan_members()
        if p.skew:
            for _ in range(3):
                self.after(rng.uniform(0, heal), self._jump)
        if self.byzantine is not None:
            self.byzantine.plan()
        self.after(heal, self._heal)
        self.after(RETRY, self._retry)

    def _plan_disks(self) -> None:
        p, rng, heal = self.profile, self.rng, self.profile.heal
        sound = [
            n for n in self.nodes if n.uid in self.ledger.validators and n.uid not in self.suspects
        ]
        for node in rng.sample(sound, p.lost_disks):
            self.after(rng.uniform(0.1, heal * 0.8), self._lose_disk, node)
        for node in self.nodes:
            if node.disk.history is not None:
                for _ in range(rng.randint(1, 3)):
                    self.after(rng.uniform(0.1, heal), self._lose_steps, node)

    def _plan_members(self) -> None:
        p, rng, heal = self.profile, self.rng, self.profile.heal
        for number in range(p.joins):
            self.after(rng.uniform(0, heal), self._join, number)
        voters = [uid for uid in self.ledger.validators if uid not in self.suspects]
        # A liar is put out first: that is what evicting is for.
        target = min(self.liars, default=voters[0])
        if p.evictions and p.validators > 1:
            for tx in self.ledger.evict(target):
                self.request(rng.uniform(0, heal), tx)
        if p.leaves and p.validators > 1 and voters[-1] != target:  # whose word is taken no more
            self.request(rng.uniform(0, heal), self.ledger.leave(voters[-1]))

    # ------------------------------------------------------------------ things that happen

    def _cut(self, number: int, links: frozenset[tuple[str, str]]) -> None:
        self.tell(None, f"cut: {', '.join(sorted(f'{a}->{b}' for a, b in links))}")
        self.network.cut(number, links)

    def _mend(self, number: int) -> None:
        self.tell(None, "a cut is mended")
        self.network.mend(number)

    def _jump(self) -> None:
        """Somebody sets a clock."""
        self.rng.choice(self.nodes).wall_ms += self.rng.randint(-DAY_MS, DAY_MS)

    def _lose_disk(self, node: Node) -> None:
        node.crash(self.rng.uniform(0.5, 4), lose_disk=True)

    def _lose_steps(self, node: Node) -> None:
        node.crash(self.rng.uniform(0.05, 1), lose_steps=self.rng.randint(1, 10))

    def _join(self, number: int) -> None:
        """A newcomer: syncs, learns when it may vote, then enrolls."""
        node = self.add(self.ledger.outsider(self.profile.observers + number))
        node.joining = True
        node.boot()

    def _heal(self) -> None:
        self.tell(None, "the world heals")
        self.network.heal()
        for node in self.nodes:
            if node.core is None:
                node.boot()

    def request(self, when: float, tx: bytes) -> None:
        """A client sends `tx` at that time to some node."""
        self.requests.append(tx)
        self.judge.asked(tx)
        self.after(when, self._submit, tx)

    def _submit(self, tx: bytes) -> None:
        self.rng.choice(self.nodes).submit(tx)

    def _retry(self) -> None:
        """Clients send again what they saw no answer to, to others."""
        for tx in self.requests:
            if tx not in self.judge.acknowledged and self.rng.random() < 0.5:
                self._submit(tx)
        for node in self.nodes:
            if node.joining and node.core is not None and node.core.vote_from is not None:
                node.joining = False
                tx = self.ledger.join(node.uid)
                self.requests.append(tx)
                self.judge.asked(tx)
                node.submit(tx)
        self.after(RETRY, self._retry)

    # ------------------------------------------------------------------ time

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Do it then, whatever happens."""
        self.count += 1
        heapq.heappush(self.queue, (self.now + delay, self.count, 0, None, call, args))

    def at_node(self, node: Node, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Do it unless the process has ended meanwhile."""
        self.count += 1
        heapq.heappush(self.queue, (self.now + delay, self.count, node.epoch, node, call, args))

    def crash_point(self, node: Node, sends: int) -> int | None:
        """Where in a step the process ends; None: it does not.

        0 is before, or while, the step is written; k before its k-th outward effect; sends + 1
        after all of them.
        """
        first = self.points
        self.points += sends + 2
        p = self.profile
        if p.crash_at is not None:
            return p.crash_at - first if first <= p.crash_at < self.points else None
        if p.crash_in_step and self.network.troubled and self.rng.random() < p.crash_in_step:
            return self.rng.randint(0, sends + 1)
        return None

    # ------------------------------------------------------------------ messages

    def sign(self, key: bytes, data: bytes) -> bytes:
        """Made up: cheap, and only the simulator's own liars could forge it, which they never do
        in anybody's name but their own."""
        secret = self._keys.get(key)
        if secret is None:
            secret = self._keys[key] = hashlib.sha256(key).digest()
        return kv.sign(secret, data)

    def verify(self, key: bytes, data: bytes, signature: bytes) -> bool:
        """Whether `sign` made it."""
        return self.sign(key, data) == signature

    def wire(self, message: msg.Message) -> msg.Message:
        """What arrives of it: through the wire format, so that its codec is exercised too."""
        copy = self._wire.get(message)
        if copy is None:
            copy = self._wire[message] = msg.decode(msg.encode(message))
        return copy

    def send(self, source: Node, message: msg.Message, to: str | None) -> None:
        """To one or all, as far as the sender is honest and the network lets it."""
        copy = self.wire(message)
        byzantine = self.byzantine
        if byzantine is not None:
            if source.honest:
                byzantine.overhear(copy)
            elif byzantine.withholds(source, copy):
                return
        for node in self.nodes:
            if node.uid == source.uid or (to is not None and to != node.uid):
                continue
            if not source.honest and byzantine is not None and not byzantine.tells(source, node):
                continue
            self.deliver(source.uid, node, copy)

    def deliver(self, source: str, node: Node, message: msg.Message) -> None:
        """Put it on the way. A connection ends with its process: nothing waits for a later one."""
        self.stats["messages"] += 1
        if node.core is None:
            return
        for when in self.network.arrivals(source, node.uid, message, self.now):
            self.count += 1
            heapq.heappush(
                self.queue,
                (when, self.count, node.epoch, node, node.event, ("receive", source, message)),
            )

    # ------------------------------------------------------------------ running

    def run(self) -> dict[str, int]:
        """Until everything is committed everywhere; returns figures, raises Broken."""
        try:
            self._run()
            self.judge.final()
        except Broken as error:
            raise Broken(f"seed {self.seed}: {error} ({self.profile.describe()})") from error
        self.stats["blocks"] = len(self.judge.decided)
        return self.stats

    def _run(self) -> None:
        queue, judge, network = self.queue, self.judge, self.network
        end = self.profile.heal + PATIENCE
        while queue:
            self.now, _, epoch, node, call, args = heapq.heappop(queue)
            if self.now > end:
                raise Broken(f"no progress {PATIENCE:.0f} s after healing: {judge.missing()}")
            if node is not None and node.epoch != epoch:
                continue
            self.stats["steps"] += 1
            call(*args)
            if not network.troubled and judge.complete():
                return

    # ------------------------------------------------------------------ traces

    def tell(self, node: Node | None, text: str) -> None:
        """A line of the trace."""
        if self.log is not None:
            who = "" if node is None else node.uid + ("'" if node.twin else "")
            self.log(f"{self.now:9.4f} {who:6} {text}")

    def tell_event(self, node: Node, name: str, args: tuple[Any, ...]) -> None:
        self.tell(node, describe_event(name, args))

    def tell_effect(self, node: Node, effect: fx.Effect) -> None:
        self.tell(node, describe_effect(effect))
