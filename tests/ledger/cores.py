"""A few cores and a wire between them that a test works by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swarm.ledger.application import execute
from swarm.ledger.block import NIL, PRECOMMIT, Block
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Config, Core, Now, Resume
from swarm.ledger.genesis import Timing
from swarm.ledger.state.verdict import Header
from tests.ledger import kv

CHAIN = b"c" * 32
TIMING = Timing(300, 150, 10)
UIDS = ("a", "b", "c", "d")


def signed_vote(
    voter: str, kind: int, round_: int, block_id: bytes = NIL, height: int = 1
) -> msg.Vote:
    """A vote with a good signature."""
    bare = msg.Vote(kind, height, round_, block_id, voter, b"")
    signature = kv.sign(kv.key_of(voter), bare.signed_bytes(CHAIN))
    return msg.Vote(kind, height, round_, block_id, voter, signature)


def signed_proposal(voter: str, round_: int, block: Block, valid_round: int = -1) -> msg.Proposal:
    """A proposal with a good signature."""
    bare = msg.Proposal(block.height, round_, valid_round, block, voter, b"")
    signature = kv.sign(kv.key_of(voter), bare.signed_bytes(CHAIN))
    return msg.Proposal(block.height, round_, valid_round, block, voter, signature)


def put(number: int, expires: int = 1000) -> bytes:
    return kv.transaction("client", number, "put", "key", str(number), expires)


def block_of(core: Core, txs: Sequence[bytes], proposer: str, **changes: Any) -> Block:
    """What `proposer` would propose on top of a core's chain."""
    parts: dict[str, Any] = {
        "chain": CHAIN,
        "height": core.height + 1,
        "previous": core._last_id,
        "time_ms": 1,
        "proposer": proposer,
        "transactions": list(txs),
        **changes,
    }
    header = Header(parts["height"], parts["time_ms"], parts["proposer"])
    if "effect" not in parts:
        parts["effect"] = execute(core.app, header, tuple(parts["transactions"])).effect
    return Block.make(**parts)


class Wire:
    """Cores by uid; messages wait in order until a test delivers or drops them."""

    def __init__(
        self,
        uids: Sequence[str] = UIDS,
        *,
        model: str = "byzantine",
        observers: Sequence[str] = (),
        made: type[Core] = Core,
    ) -> None:
        self.genesis = kv.KV(fault_model=model, uids=tuple(uids))
        self.now = 0.0
        self.made = made
        self.cores: dict[str, Core] = {}
        self.waiting: list[tuple[str, str, msg.Message]] = []  # from, to
        self.timers: dict[str, list[fx.StartTimer]] = {}
        self.log: dict[str, list[fx.Effect]] = {}
        self.blocks: list[tuple[bytes, bytes]] = []
        self.cut: Callable[[str, str, msg.Message], bool] = lambda a, b, m: False
        for uid in (*uids, *observers):
            self.boot(uid, Resume(CHAIN, vote_from=(0, 0) if uid in uids else None))
        for uid in self.cores:
            self.take(uid, self.cores[uid].start(self.time()))
        self.waiting.clear()

    def boot(self, uid: str, resume: Resume, app: Any = None) -> Core:
        key = kv.key_of(uid)
        config = Config(uid, CHAIN, TIMING, lambda data: kv.sign(key, data), kv.verify)
        core = self.cores[uid] = self.made(config, app or self.genesis, resume)
        self.timers[uid] = []
        self.log.setdefault(uid, [])
        return core

    def time(self) -> Now:
        return Now(self.now, int(self.now * 1000))

    def take(self, uid: str, effects: list[fx.Effect]) -> list[fx.Effect]:
        """Note a core's effects; messages wait on the wire."""
        self.log[uid] += effects
        for effect in effects:
            if isinstance(effect, fx.Send):
                for other in self.cores:
                    if other != uid and effect.to in (None, other):
                        self.waiting.append((uid, other, effect.message))
            elif isinstance(effect, fx.StartTimer):
                self.timers[uid].append(effect)
            elif isinstance(effect, fx.Commit):
                if len(self.blocks) < effect.block.height:
                    self.blocks.append((effect.block.encoded, effect.certificate.encode()))
            elif isinstance(effect, fx.Serve):
                items = tuple(self.blocks[effect.height :])
                self.waiting.append((uid, effect.to, msg.Blocks(items)))
        return effects

    def submit(self, uid: str, tx: bytes) -> list[fx.Effect]:
        return self.take(uid, self.cores[uid].submit(tx, self.time()))

    def give(self, uid: str, message: msg.Message, source: str = "z") -> list[fx.Effect]:
        """Hand a core a message from outside."""
        return self.take(uid, self.cores[uid].receive(source, message, self.time()))

    def fire(self, uid: str, kind: str) -> list[fx.Effect]:
        """Let the latest timer of a kind run out."""
        timer = [t for t in self.timers[uid] if t.timer.kind == kind][-1]
        self.now += timer.delay
        return self.take(uid, self.cores[uid].timeout(timer.timer, self.time()))

    def flow(self, steps: int = 100_000) -> None:
        """Deliver until nothing is left to deliver, and let 0-second timers run."""
        for _ in range(steps):
            due = [(u, t) for u, timers in self.timers.items() for t in timers if t.delay == 0]
            for uid, timer in due:
                self.timers[uid].remove(timer)
                self.take(uid, self.cores[uid].timeout(timer.timer, self.time()))
            if not self.waiting:
                if not due:
                    return
                continue
            source, to, message = self.waiting.pop(0)
            if not self.cut(source, to, message):
                copy = msg.decode(msg.encode(message))
                self.take(to, self.cores[to].receive(source, copy, self.time()))
        raise AssertionError("the wire never falls silent")

    def heights(self) -> list[int]:
        return [core.height for core in self.cores.values()]


def sent(effects: Sequence[fx.Effect], kind: type) -> list[Any]:
    """Messages of a kind among effects."""
    return [e.message for e in effects if isinstance(e, fx.Send) and isinstance(e.message, kind)]


def votes(effects: Sequence[fx.Effect]) -> list[tuple[int, int, bytes]]:
    """Votes sent: kind, round, block id."""
    return [(v.kind, v.round, v.block_id) for v in sent(effects, msg.Vote)]


__all__ = ["PRECOMMIT"]
