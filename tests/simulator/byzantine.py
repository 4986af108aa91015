"""The liars: everything that keys in the wrong hands can do (`profiles.LIES` lists it).

A liar runs the honest core, once or (Twins, arXiv:2004.10617) twice with a disk each, and beside it
tells lies of its own: some at random times, some in answer to what honest nodes propose. It sees
every message and every honest node's memory, knows the other liars, and signs with its own key
only: signatures in others' names are made up, and nobody may believe them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from swarm.ledger.application import execute
from swarm.ledger.block import NIL, PRECOMMIT, PREVOTE, Block, Certificate, Effect
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Core
from swarm.ledger.state.verdict import Header

if TYPE_CHECKING:
    from tests.simulator.node import Node
    from tests.simulator.world import World

OVERHEARD = 200
ROUNDS = 60  # how far ahead a liar looks for its turn


class Liars:
    """All liars of a world; they collude."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.uids = sorted(world.liars)
        self.lies = world.profile.lies
        self._heard: deque[msg.Message] = deque(maxlen=OVERHEARD)
        self._answered: set[tuple[int, int, bytes]] = set()
        self._ears = {  # whom each twin of a liar talks to
            (node.uid, node.twin): {n.uid for n in world.nodes if self.rng.random() < 0.7}
            for node in world.nodes
            if not node.honest
        }
        self._acts = [
            act
            for lie, acts in (
                ("equivocate", (self._equivocate, self._two_proposals)),
                ("old-votes", (self._old_vote, self._revive)),
                ("forge", (self._stuffed, self._borrowed, self._impersonate)),
                ("wrong-state", (self._wrong_state,)),
                ("wrong-next", (self._wrong_next,)),
                ("replay", (self._replay,)),
                ("stale", (self._stale, self._future)),
            )
            if lie in self.lies
            for act in acts
        ]
        self._fresh = 80_000

    def plan(self) -> None:
        """Lies at random times."""
        if not self._acts:
            return
        for _ in range(self.world.profile.acts):
            when = self.rng.uniform(0.05, self.world.profile.heal)
            self.world.after(when, self._act, self.rng.choice(self._acts))

    def _act(self, act: Callable[[Core, str], None]) -> None:
        cores = [n.core for n in self.world.nodes if n.honest and n.core is not None]
        if cores:
            core = self.rng.choice(cores)
            liar = self.rng.choice(self.uids)
            self.world.tell(None, f"{liar} lies: {act.__name__.strip('_').replace('_', ' ')}")
            act(core, liar)

    # ------------------------------------------------------------------ what its processes do

    def overhear(self, message: msg.Message) -> None:
        """See what an honest node sends, and answer a proposal at once."""
        if not isinstance(message, msg.Vote | msg.Proposal):
            return
        self._heard.append(message)
        if isinstance(message, msg.Proposal) and "equivocate" in self.lies:
            key = (message.height, message.round, message.block.id)
            if key not in self._answered and self.world.network.troubled:
                self._answered.add(key)
                delay = self.rng.random() * 0.1
                self.world.after(delay, self._divide, message.height, message.round, key[2], NIL)

    def withholds(self, source: Node, message: msg.Message) -> bool:
        """Whether a liar's process keeps this to itself."""
        return (
            "withhold" in self.lies
            and isinstance(message, msg.Proposal)
            and message.voter == source.uid
            and self.rng.random() < 0.6
        )

    def tells(self, source: Node, node: Node) -> bool:
        """Whether a liar's process sends a message to this node, too."""
        if "twins" in self.lies and node.uid not in self._ears[source.uid, source.twin]:
            return False
        return "partial" not in self.lies or self.rng.random() < 0.7

    # ------------------------------------------------------------------ tools

    def _vote(self, liar: str, kind: int, height: int, round_: int, block_id: bytes) -> msg.Vote:
        world = self.world
        bare = msg.Vote(kind, height, round_, block_id, liar, b"")
        signature = world.sign(world.ledger.key(liar), bare.signed_bytes(world.ledger.chain))
        vote = msg.Vote(kind, height, round_, block_id, liar, signature)
        world.judge.heard(vote)
        return vote

    def _proposal(
        self, liar: str, round_: int, block: Block, valid_round: int = -1
    ) -> msg.Proposal:
        world = self.world
        bare = msg.Proposal(block.height, round_, valid_round, block, liar, b"")
        signature = world.sign(world.ledger.key(liar), bare.signed_bytes(world.ledger.chain))
        return msg.Proposal(block.height, round_, valid_round, block, liar, signature)

    def _honest(self, chance: float = 1.0) -> list[Node]:
        return [n for n in self.world.nodes if n.honest and self.rng.random() < chance]

    def _tell(self, liar: str, nodes: Iterable[Node], message: msg.Message) -> None:
        for node in nodes:
            self.world.deliver(liar, node, self.world.wire(message))

    def _put(self) -> bytes:
        """A transaction that nobody asked for; a liar may well have it included."""
        self._fresh += 1
        tx = self.world.ledger.put(self._fresh)
        self.world.judge.offered.add(tx)
        return tx

    def _block(
        self, core: Core, liar: str, txs: Sequence[bytes], effect: Effect | None = None
    ) -> Block:
        """The liar's block on top of a core's chain, right in all that is not said here."""
        header = Header(core.height + 1, 1, liar)
        return Block.make(
            chain=self.world.ledger.chain,
            height=header.height,
            previous=core._last_id,
            time_ms=header.time_ms,
            proposer=liar,
            transactions=list(txs),
            effect=effect or execute(core.app, header, tuple(txs)).effect,
        )

    def _turn(self, core: Core, liar: str) -> int | None:
        """The next round in which the liar proposes."""
        if liar not in core.validators:
            return None
        first = max(0, core.round)
        return next((r for r in range(first, first + ROUNDS) if core._proposer(r) == liar), None)

    def _divide(self, height: int, round_: int, one: bytes, other: bytes) -> None:
        """All liars vote for `one` to some, for `other` to the rest."""
        some, rest = self._halves()
        self._vote_apart(height, round_, one, some, other, rest)

    def _halves(self) -> tuple[list[Node], list[Node]]:
        honest = self._honest()
        self.rng.shuffle(honest)
        cut = self.rng.randint(0, len(honest))
        return honest[:cut], honest[cut:]

    def _vote_apart(
        self, height: int, round_: int, one: bytes, some: list[Node], other: bytes, rest: list[Node]
    ) -> None:
        for liar in self.uids:
            for kind in (PREVOTE, PRECOMMIT):
                self._tell(liar, some, self._vote(liar, kind, height, round_, one))
                self._tell(liar, rest, self._vote(liar, kind, height, round_, other))

    # ------------------------------------------------------------------ lies

    def _equivocate(self, core: Core, liar: str) -> None:
        """Votes for two of the known blocks, or for one and for nothing."""
        ids = [NIL, *(p.block.id for _, p in core._tally.blocks())]
        one, other = self.rng.choice(ids), self.rng.choice(ids)
        round_ = max(0, core.round + self.rng.randint(0, 1))
        self._divide(core.height + 1, round_, one, other)

    def _two_proposals(self, core: Core, liar: str) -> None:
        """Two good blocks in one round, each to a part of the others, with votes to go with it."""
        round_ = self._turn(core, liar)
        if round_ is None:
            return
        one, other = (self._block(core, liar, [self._put()]) for _ in range(2))
        some, rest = self._halves()
        self._tell(liar, some, self._proposal(liar, round_, one))
        self._tell(liar, rest, self._proposal(liar, round_, other))
        self._vote_apart(core.height + 1, round_, one.id, some, other.id, rest)

    def _old_vote(self, core: Core, liar: str) -> None:
        ids = [NIL, *(p.block.id for _, p in core._tally.blocks())]
        round_ = self.rng.randint(0, max(0, core.round))
        for kind in (PREVOTE, PRECOMMIT):
            vote = self._vote(liar, kind, core.height + 1, round_, self.rng.choice(ids))
            self._tell(liar, self._honest(0.5), vote)

    def _revive(self, core: Core, liar: str) -> None:
        """Proposes what had a quorum of prevotes in an old round; that is allowed, if unkind."""
        round_ = self._turn(core, liar)
        if round_ is None:
            return
        polkas = [
            (then, block_id)
            for then, block_id in self.world.judge.polkas(core.height + 1)
            if then < round_
        ]
        if not polkas:
            return
        valid_round, block_id = self.rng.choice(polkas)
        for node in self._honest():
            block = node.core._tally.block(block_id) if node.core is not None else None
            if block is not None:
                self._tell(
                    liar, self._honest(0.8), self._proposal(liar, round_, block, valid_round)
                )
                some, rest = self._halves()
                self._vote_apart(block.height, round_, block_id, some, NIL, rest)
                return

    def _stuffed(self, core: Core, liar: str) -> None:
        """The next block, certified by one real signature under everybody's name."""
        block = self._block(core, liar, [self._put()])
        own = self._vote(liar, PRECOMMIT, block.height, 0, block.id).signature
        signatures = tuple((uid, own) for uid in sorted(core.validators))
        self._give(core, liar, block, Certificate(block.height, 0, block.id, signatures))

    def _borrowed(self, core: Core, liar: str) -> None:
        """The next block with the genuine certificate of another height."""
        disks = [n.disk.blocks for n in self._honest() if n.disk.blocks]
        if disks:
            block = self._block(core, liar, [self._put()])
            _, raw = self.rng.choice(self.rng.choice(disks))
            self._give(core, liar, block, Certificate.decode(raw))

    def _give(self, core: Core, liar: str, block: Block, certificate: Certificate) -> None:
        item = (block.encoded, certificate.encode())
        nodes = [n for n in self._honest() if n.core is not None and n.core.height == core.height]
        self._tell(liar, nodes, msg.Blocks((item,)))

    def _impersonate(self, core: Core, liar: str) -> None:
        """Votes in the names of all others."""
        ids = [NIL, *(p.block.id for _, p in core._tally.blocks())]
        block_id, round_ = self.rng.choice(ids), max(0, core.round)
        for uid in core.validators:
            if uid in self.uids:
                continue
            for kind in (PREVOTE, PRECOMMIT):
                signature = self._vote(liar, kind, core.height + 1, round_, block_id).signature
                forged = msg.Vote(kind, core.height + 1, round_, block_id, uid, signature)
                self._tell(liar, self._honest(0.7), forged)

    def _wrong_state(self, core: Core, liar: str) -> None:
        self._propose(core, liar, [self._put()], self.rng.choice(("state", "results")))

    def _wrong_next(self, core: Core, liar: str) -> None:
        self._propose(core, liar, [self._put()], "next_validators")

    def _replay(self, core: Core, liar: str) -> None:
        fresh = self._put()
        old = self.rng.choice(list(self.world.judge.included) or [fresh])
        self._propose(core, liar, self.rng.choice([[old], [fresh, old], [fresh, fresh]]))

    def _propose(self, core: Core, liar: str, txs: list[bytes], wrong: str = "") -> None:
        """A well-signed proposal of a bad block, and votes for it."""
        round_ = self._turn(core, liar)
        if round_ is None:
            return
        block = self._block(core, liar, txs)
        if wrong:
            effect = block.header.effect._replace(**{wrong: b"w" * 32})
            block = self._block(core, liar, txs, effect)
        self._tell(liar, self._honest(0.9), self._proposal(liar, round_, block))
        for kind in (PREVOTE, PRECOMMIT):
            self._tell(liar, self._honest(), self._vote(liar, kind, block.height, round_, block.id))

    def _stale(self, core: Core, liar: str) -> None:
        """What was said long ago, again and from another side."""
        for _ in range(min(10, len(self._heard))):
            self._tell(liar, self._honest(0.3), self.rng.choice(self._heard))

    def _future(self, core: Core, liar: str) -> None:
        """Votes from heights and rounds that nobody has reached, and wild claims."""
        rng = self.rng
        height = core.height + rng.choice((1, 2, 3, 1000))
        round_ = rng.choice((0, 1, 5, 100, 1 << 20))
        for kind in (PREVOTE, PRECOMMIT):
            self._tell(liar, self._honest(), self._vote(liar, kind, height, round_, b"f" * 32))
        reach, last = rng.randint(-1, height), rng.randint(-1, 3)
        self._tell(liar, self._honest(0.5), msg.Answer(height, reach, last))
        self._tell(liar, self._honest(0.5), msg.Ask(max(0, height - 2), round_, True))
        self._tell(liar, self._honest(0.5), msg.Fetch(rng.randint(0, core.height + 2)))
