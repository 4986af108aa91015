"""A world of replicas in virtual time, with everything that may go wrong, from one seed.

The production core and a real application run in it; only clock, network, disk and signatures are
made up. Invariants are checked after every step (`judge.py`); `World.run` raises `Broken` with the
seed when one fails.

What the network does until `heal`: loses, delays, reorders and duplicates messages, and splits.
What nodes do: crash before, while or after a step is made durable and sent, restart from disk, lose
the disk, join and leave the validators. One validator may be byzantine (`byzantine.py`).
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from swarm.errors import RemoteError
from swarm.ledger.application import Application
from swarm.ledger.block import Block
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Config, Core, Lock, Now, Resume
from swarm.ledger.genesis import Timing
from tests.ledger import kv
from tests.simulator.judge import Broken, Judge
from tests.simulator.ledgers import KvLedger, Ledger

TIMING = Timing(300, 150, 8)
PATIENCE = 90.0  # virtual seconds after healing within which everything must be committed


@dataclass
class Profile:
    """What may happen. Times in virtual seconds."""

    validators: int = 4
    model: str = "byzantine"
    byzantine: bool = False
    observers: int = 0
    loss: float = 0.0
    duplicate: float = 0.01
    delay: float = 0.05
    partitions: int = 0
    crashes: int = 0
    crash_in_step: float = 0.0  # chance at each step
    lost_disks: int = 0
    joins: int = 0
    leaves: int = 0
    transactions: int = 12
    heal: float = 12.0

    @classmethod
    def random(cls, rng: random.Random) -> Profile:
        """One of the many, all legal: no more faults than the fault model tolerates."""
        n = rng.choice([1, 2, 3, 4, 4, 4, 5, 6, 7])
        model = rng.choice(["byzantine", "byzantine", "crash"])
        byzantine = model == "byzantine" and n >= 4 and rng.random() < 0.4
        spare = (n - 1) // 3 if model == "byzantine" else (n - 1) // 2
        return cls(
            validators=n,
            model=model,
            byzantine=byzantine,
            observers=rng.choice([0, 0, 1]),
            loss=rng.choice([0.0, 0.0, 0.05, 0.2]),
            duplicate=rng.choice([0.0, 0.02, 0.1]),
            delay=rng.choice([0.01, 0.1, 0.6]),
            partitions=rng.randint(0, 3),
            crashes=rng.randint(0, 4),
            crash_in_step=rng.choice([0.0, 0.002, 0.01]),
            lost_disks=int(spare > byzantine and rng.random() < 0.3),
            joins=0 if byzantine else rng.choice([0, 0, 1, 2]),
            leaves=0 if byzantine else rng.choice([0, 0, 1]),
            transactions=rng.randint(1, 20),
        )


@dataclass
class Disk:
    """What survives a crash. Steps are written whole, as a database transaction does."""

    blocks: list[tuple[bytes, bytes]] = field(default_factory=list)
    app: Application | None = None
    last: Block | None = None
    votes: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    lock: fx.WriteLock | None = None
    vote_from: tuple[int, int] | None = None

    def write(self, effect: fx.Durable) -> None:
        if isinstance(effect, fx.WriteVote):
            self.votes[effect.height, effect.round, effect.kind] = effect.message
        elif isinstance(effect, fx.WriteLock):
            self.lock = effect
        elif isinstance(effect, fx.WriteVoting):
            self.vote_from = (effect.height, effect.round)
        elif isinstance(effect, fx.Commit):
            self.blocks.append((effect.block.encoded, effect.certificate.encode()))
            self.app, self.last = effect.application, effect.block
            self.votes = {k: v for k, v in self.votes.items() if k[0] > effect.block.height}
            if self.lock is not None and self.lock.height <= effect.block.height:
                self.lock = None

    def resume(self, chain: bytes) -> Resume:
        signed = []
        for raw in self.votes.values():
            message = msg.decode(raw)
            assert isinstance(message, msg.Vote | msg.Proposal)
            signed.append(message)
        lock = Lock()
        if self.lock is not None:
            w = self.lock
            proof = tuple(v for v in map(msg.decode, w.proof) if isinstance(v, msg.Vote))
            block = Block.decode(w.valid_block)
            lock = Lock(w.locked_round, w.locked_id, w.valid_round, block, proof)
        if self.last is None:
            return Resume(chain, signed=tuple(signed), lock=lock, vote_from=self.vote_from)
        header = self.last.header
        return Resume(
            self.last.id, header.proposer, header.time_ms, tuple(signed), lock, self.vote_from
        )


class Node:
    """One process with its disk. `twin` tells apart two processes with one byzantine key."""

    def __init__(self, world: World, uid: str, twin: int = 0) -> None:
        self.world = world
        self.uid = uid
        self.twin = twin
        self.disk = Disk()
        self.core: Core | None = None
        self.epoch = 0
        self.joining = False
        self.leaving = False
        self.held: list[fx.Effect] = []  # effects of earlier events, not yet carried out

    @property
    def honest(self) -> bool:
        return self.uid not in self.world.liars

    def boot(self) -> None:
        """Start the process on its disk."""
        world = self.world
        self.epoch += 1
        app = self.disk.app or world.genesis
        chain, key = world.ledger.chain, world.ledger.key(self.uid)
        config = Config(self.uid, chain, TIMING, lambda data: world.sign(key, data), world.verify)
        self.core = world.make_core(config, app, self.disk.resume(chain))
        self.held = []
        self.finish(self.core.start(world.time()))
        for other in world.nodes:
            if other.core is not None and other is not self:
                other.finish(other.core.peer_up(self.uid, world.time()))

    def crash(self, down: float, *, lose_disk: bool = False) -> None:
        """End the process; it returns after `down` seconds."""
        if self.core is None:
            return
        self.core = None
        self.epoch += 1
        self.held = []
        self.world.stats["crashes"] += 1
        if lose_disk:
            self.disk = Disk()
            self.world.stats["lost disks"] += 1
        self.world.after(down, lambda: self.boot() if self.core is None else None)

    def finish(self, effects: list[fx.Effect]) -> None:
        """Carry effects out, now or together with those of the next events."""
        self.held += effects
        if self.held and self.world.rng.random() < 0.8:
            self.flush()
        elif self.held:
            self.world.at_node(self, 0.0005, self.flush)

    def flush(self) -> None:
        """One step of the shell: all that is durable at once, then the rest in order."""
        held, self.held = self.held, []
        world, core = self.world, self.core
        if not held or core is None:
            return
        outward = [effect for effect in held if not isinstance(effect, fx.DURABLE)]
        stop = world.crash_point(len(outward))
        if stop == -1:  # before anything was written
            self.crash(world.rng.uniform(0.05, 2))
            return
        for effect in held:
            if isinstance(effect, fx.DURABLE):
                self.disk.write(effect)
        for effect in held:
            if isinstance(effect, fx.Commit):
                world.judge.committed(self, effect)
            elif isinstance(effect, fx.WriteEvidence):
                world.judge.evidence(self, effect)
        for number, effect in enumerate(outward):
            if number == stop:
                self.crash(world.rng.uniform(0.05, 2))
                return
            self.act(effect)
        world.judge.step(self, core)

    def act(self, effect: fx.Outward) -> None:
        world = self.world
        if isinstance(effect, fx.Send):
            world.judge.sent(self, effect.message)
            world.send(self, effect.message, effect.to)
        elif isinstance(effect, fx.StartTimer):
            timer = effect.timer
            world.at_node(self, effect.delay, lambda: self.event("timeout", timer))
        elif isinstance(effect, fx.Serve):
            first = effect.height - world.genesis.height
            items = tuple(self.disk.blocks[first : first + 50])
            world.send(self, msg.Blocks(items), effect.to)
        elif isinstance(effect, fx.Halt):
            raise Broken(f"{self.uid} halted: {effect.code} {effect.cause}")

    def event(self, name: str, *args: Any) -> None:
        """Give the core an event, if the process runs."""
        if self.core is not None:
            self.finish(getattr(self.core, name)(*args, self.world.time()))

    def submit(self, tx: bytes) -> None:
        """A client's request; refusals are the client's business."""
        if self.core is not None:
            try:
                self.finish(self.core.submit(tx, self.world.time()))
            except RemoteError:
                return


class World:
    """All nodes, the network between them, and the queue of things to come."""

    @staticmethod
    def sign(key: bytes, data: bytes) -> bytes:
        return kv.sign(hashlib.sha256(key).digest(), data)

    @staticmethod
    def verify(key: bytes, data: bytes, signature: bytes) -> bool:
        return World.sign(key, data) == signature

    def __init__(
        self,
        seed: int,
        profile: Profile | None = None,
        core: Callable[[Config, Application, Resume], Core] = Core,
        ledger: Callable[[int, str], Ledger] = KvLedger,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.profile = p = profile or Profile.random(self.rng)
        self.make_core = core
        self.now = 0.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.stats: dict[str, int] = {"steps": 0, "messages": 0, "crashes": 0, "lost disks": 0}
        self.ledger = ledger(p.validators, p.model)
        uids = self.ledger.validators
        self.liars = {self.rng.choice(uids)} if p.byzantine else set()
        self.genesis = self.ledger.genesis
        self.judge = Judge(self)
        self.nodes: list[Node] = []
        self.cuts: list[tuple[float, float, dict[str, int]]] = []
        for uid in uids:
            self.add(uid, old=True)
        for uid in self.liars:
            self.add(uid, old=True, twin=1)
        self.ears = {  # whom each twin of a liar talks to
            (node.uid, node.twin): {u for u in uids if self.rng.random() < 0.7}
            for node in self.nodes
            if not node.honest
        }
        for number in range(p.observers):
            self.add(self.ledger.outsider(number))
        self.requests: list[bytes] = []
        self._plan()
        for node in list(self.nodes):
            node.boot()

    # -------------------------------------------------------------- people and plans

    def add(self, uid: str, *, old: bool = False, twin: int = 0) -> Node:
        node = Node(self, uid, twin)
        if old:
            node.disk.vote_from = (0, 0)  # it founded the chain with the others
        self.nodes.append(node)
        return node

    def _plan(self) -> None:
        p, rng, heal = self.profile, self.rng, self.profile.heal
        honest = [node for node in self.nodes if node.honest]
        for _ in range(p.partitions):
            begin = rng.uniform(0, heal)
            sides = {node.uid: rng.randint(0, 1) for node in self.nodes}
            self.cuts.append((begin, min(heal, begin + rng.uniform(0.5, 6)), sides))
        for _ in range(p.crashes):
            node = rng.choice(self.nodes)
            self.after(rng.uniform(0.2, heal * 0.8), lambda n=node: n.crash(rng.uniform(0.05, 3)))
        voters = [node for node in honest if node.uid in self.ledger.validators]
        for node in rng.sample(voters, p.lost_disks):
            self.after(
                rng.uniform(0.2, heal * 0.8),
                lambda n=node: n.crash(rng.uniform(1.5, 4), lose_disk=True),
            )
        for number in range(p.transactions):
            self.request(rng.uniform(0, heal), self.ledger.put(number))
        for number in range(p.joins):
            self.after(rng.uniform(0, heal), lambda k=number: self._join(k))
        if p.leaves and p.validators > 1:
            self.request(rng.uniform(0, heal), self.ledger.leave(voters[-1].uid))
        if self.liars:
            from tests.simulator.byzantine import plan

            plan(self)
        self.after(heal, self._healed)
        self.after(0.5, self._retry)

    def request(self, when: float, tx: bytes) -> None:
        """A client sends `tx` at that time to some node."""
        self.requests.append(tx)
        self.after(when, lambda: self.rng.choice(self.nodes).submit(tx))

    def _retry(self) -> None:
        """Clients send again what they saw no answer to, to others."""
        for tx in self.requests:
            if tx not in self.judge.acknowledged and self.rng.random() < 0.5:
                self.rng.choice(self.nodes).submit(tx)
        for node in self.nodes:
            if node.joining and node.core is not None and node.core.vote_from is not None:
                node.joining = False
                tx = self.ledger.join(node.uid)
                self.requests.append(tx)
                node.submit(tx)
        self.after(0.5, self._retry)

    def _join(self, number: int) -> None:
        """A newcomer: syncs, learns when it may vote, then enrolls."""
        node = self.add(self.ledger.outsider(self.profile.observers + number))
        node.joining = True
        node.boot()

    def _healed(self) -> None:
        for node in self.nodes:
            if node.core is None:
                node.boot()

    # -------------------------------------------------------------- time and network

    def time(self) -> Now:
        return Now(self.now, 1_700_000_000_000 + int(self.now * 1000))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.now + delay, self.count, action))

    def at_node(self, node: Node, delay: float, action: Callable[[], None]) -> None:
        """Do it unless the process has ended meanwhile."""
        epoch = node.epoch

        def run() -> None:
            if node.epoch == epoch:
                action()

        self.after(delay, run)

    def troubled(self) -> bool:
        return self.now < self.profile.heal

    def crash_point(self, sends: int) -> int | None:
        """Where in this step the process ends: -1 before writing, k before the k-th effect."""
        if self.troubled() and self.rng.random() < self.profile.crash_in_step:
            return self.rng.randint(-1, sends - 1) if sends else -1
        return None

    def is_cut(self, a: str, b: str) -> bool:
        return any(t0 <= self.now < t1 and s.get(a) != s.get(b) for t0, t1, s in self.cuts)

    def send(self, source: Node, message: msg.Message, to: str | None) -> None:
        """Through the wire format, so that its codec is exercised too."""
        copy = msg.decode(msg.encode(message))
        for node in self.nodes:
            if node.uid == source.uid or to not in (None, node.uid):
                continue
            if not source.honest and node.uid not in self.ears[source.uid, source.twin]:
                continue
            self.deliver(source.uid, node, copy)

    def deliver(self, source: str, node: Node, message: msg.Message) -> None:
        self.stats["messages"] += 1
        p, rng = self.profile, self.rng
        copies = 1 + (self.troubled() and rng.random() < p.duplicate)
        for _ in range(copies):
            if self.troubled() and (rng.random() < p.loss or self.is_cut(source, node.uid)):
                continue
            delay = rng.uniform(0.001, p.delay)
            # A connection ends with its process: nothing sent to the old one reaches the new one.
            self.at_node(node, delay, lambda: node.event("receive", source, message))

    # -------------------------------------------------------------- running

    def run(self) -> dict[str, int]:
        """Until everything is committed everywhere; raises Broken."""
        try:
            for _ in self.steps():
                if not self.troubled() and self.judge.complete():
                    break
            self.judge.final()
        except Broken as error:
            raise Broken(f"seed {self.seed}: {error} ({self.profile})") from error
        return self.stats

    def steps(self) -> Iterator[None]:
        while self.queue:
            self.now, _, action = heapq.heappop(self.queue)
            if self.now > self.profile.heal + PATIENCE:
                raise Broken(f"no progress {PATIENCE:.0f} s after healing: {self.judge.missing()}")
            self.stats["steps"] += 1
            action()
            yield
