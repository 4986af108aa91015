"""The invariants, checked after every step of a simulated world.

The judge sees everything, and counts, executes and compares for itself: it shares with the nodes
the application, the encodings and nothing of `swarm.ledger.consensus`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from swarm.ledger.application import Application
from swarm.ledger.block import PRECOMMIT, PREVOTE, Block, validators_hash, vote_bytes
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Core
from swarm.ledger.state.verdict import Header

if TYPE_CHECKING:
    from tests.simulator.node import Node
    from tests.simulator.world import World

MAX_ROUND = 400  # of a world that will be fine


class Broken(Exception):
    """An invariant does not hold."""


def votes_needed(validators: int, model: str) -> int:
    """Quorum, written anew: more than two thirds of those who may lie, else more than half."""
    return validators - (validators - 1) // 3 if model == "byzantine" else validators // 2 + 1


class Judge:
    """Sees everything; knows nothing that the nodes could use."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.decided: dict[int, Block] = {}
        self.states: dict[int, Application] = {world.genesis.height: world.genesis}
        self.included: dict[bytes, int] = {}  # transaction -> height
        self.offered: set[bytes] = set()  # by clients and by liars
        self.open: set[bytes] = set()  # asked for and not committed by anybody
        self.acknowledged: set[bytes] = set()
        self.signed: dict[tuple[str, int, int, int], bytes] = {}
        self.uttered: set[bytes] = set()
        self.prevotes: defaultdict[tuple[int, int, bytes], set[str]] = defaultdict(set)
        self.locks: dict[tuple[str, int], tuple[int, bytes]] = {}  # node, height -> precommit
        self._sets: dict[int, tuple[dict[str, bytes], int]] = {}

    # ------------------------------------------------------------------ blocks

    def asked(self, tx: bytes) -> None:
        """A client wants this in the log."""
        self.offered.add(tx)
        if tx not in self.included:
            self.open.add(tx)

    def committed(self, node: Node, effect: fx.Commit) -> None:
        """Agreement, validity, a certified chain, equal digests, each transaction once."""
        if not node.honest:
            return
        block, height = effect.block, effect.block.height
        first = height not in self.decided
        known = self.decided.setdefault(height, block)
        if known.id != block.id:
            raise Broken(f"two blocks at height {height}")
        before = self.states.get(height - 1)
        if before is None or effect.before.height != height - 1:
            raise Broken(f"height {height} committed before its predecessor")
        self._certified(effect)
        if first:
            self.states[height] = self._execute(before, block)
        if self.states[height].digest() != effect.application.digest():
            raise Broken(f"states differ at height {height}")
        for tx in block.transactions:
            if self.included.setdefault(tx, height) != height:
                raise Broken("a transaction is in two blocks")
            self.acknowledged.add(tx)
            self.open.discard(tx)

    def _execute(self, before: Application, block: Block) -> Application:
        """Validity, once for each height."""
        header = block.header
        if len(set(block.transactions)) != len(block.transactions):
            raise Broken("a transaction is in a block twice")
        if not self.offered.issuperset(block.transactions):
            raise Broken(f"block {block.height} holds what nobody asked for")
        if header.proposer not in self._validators(block.height)[0]:
            raise Broken(f"block {block.height} is of {header.proposer}, who is no validator")
        follows = self.decided.get(block.height - 1)
        if follows is not None and header.previous != follows.id:
            raise Broken(f"block {block.height} does not follow")
        after, _ = before.apply(
            Header(block.height, header.time_ms, header.proposer), block.transactions
        )
        if header.effect.state != after.digest():
            raise Broken(f"block {block.height} names a different state")
        if header.effect.next_validators != validators_hash(after.validators()):
            raise Broken(f"block {block.height} names other validators")
        return after

    def _validators(self, height: int) -> tuple[dict[str, bytes], int]:
        """Keys and quorum of a height, from the state before it."""
        found = self._sets.get(height)
        if found is None:
            state = self.states[height - 1]
            keys = {v.uid: v.public_key_der for v in state.validators()}
            found = self._sets[height] = (keys, votes_needed(len(keys), state.fault_model))
        return found

    def _certified(self, effect: fx.Commit) -> None:
        """Independent of the core's own check: counts distinct, valid signers."""
        certificate, block = effect.certificate, effect.block
        keys, needed = self._validators(block.height)
        data = vote_bytes(block.chain, PRECOMMIT, block.height, certificate.round, block.id)
        good = {
            uid
            for uid, signature in certificate.signatures
            if uid in keys and self.world.verify(keys[uid], data, signature)
        }
        if len(good) < needed:
            raise Broken(f"block {block.height} is not certified")

    # ------------------------------------------------------------------ votes

    def heard(self, vote: msg.Vote) -> None:
        """A vote with a good signature exists, whoever made it."""
        if vote.kind == PREVOTE and vote.block_id:
            self.prevotes[vote.height, vote.round, vote.block_id].add(vote.voter)

    def polkas(self, height: int) -> list[tuple[int, bytes]]:
        """Rounds and blocks with a quorum of prevotes."""
        if height - 1 not in self.states:
            return []
        return [
            (round_, block_id)
            for (at, round_, block_id) in self.prevotes
            if at == height and self._polka(at, round_, block_id)
        ]

    def _polka(self, height: int, round_: int, block_id: bytes, without: str = "") -> bool:
        voters = self.prevotes.get((height, round_, block_id))
        if voters is None:
            return False
        keys, needed = self._validators(height)
        return len((voters & keys.keys()) - {without}) >= needed

    def sent(self, node: Node, message: msg.Message) -> None:
        """No honest equivocation, ever; what is sent is on disk before; votes respect locks."""
        if not isinstance(message, msg.Vote | msg.Proposal):
            return
        if message.voter != node.uid:
            return
        if isinstance(message, msg.Vote):
            self.heard(message)
        if node.uid in self.world.suspects:
            return
        raw = msg.encode(message)
        # What it said before it may pass on again, as a node does that lost its disk since.
        if raw in self.uttered:
            return
        self.uttered.add(raw)
        kind = message.kind if isinstance(message, msg.Vote) else 0
        value = message.block_id if isinstance(message, msg.Vote) else message.block.id
        key = (message.height, message.round, kind)
        if self.signed.setdefault((node.uid, *key), value) != value:
            raise Broken(f"{node.uid} signed two values at {key}")
        over = node.disk.app is not None and node.disk.app.height >= message.height
        if not over and node.disk.votes.get(key) != raw:
            raise Broken(f"{node.uid} sent at {key} what is not on its disk")
        if isinstance(message, msg.Vote) and message.block_id:
            self._keeps_lock(message)

    def _keeps_lock(self, vote: msg.Vote) -> None:
        """What the paper's proof of agreement rests on (its lemmas 2 and 4)."""
        height, round_, block_id = vote.height, vote.round, vote.block_id
        if vote.kind == PRECOMMIT:
            if not self._polka(height, round_, block_id):
                raise Broken(f"{vote.voter} precommitted without a quorum of prevotes")
            self.locks[vote.voter, height] = (round_, block_id)
            return
        locked_round, locked = self.locks.get((vote.voter, height), (round_, block_id))
        if (
            locked != block_id
            and round_ > locked_round
            and not any(self._polka(height, r, block_id) for r in range(locked_round, round_))
            # A node that watched the round in silence may join a quorum that is there without it.
            and not self._polka(height, round_, block_id, without=vote.voter)
        ):
            raise Broken(
                f"{vote.voter} is locked since round {locked_round} of height {height} and "
                f"prevoted another block in round {round_}"
            )

    def forgotten(self, node: Node) -> None:
        """Its disk is lost, and its locks with it; `amnesia.py` says why that is safe."""
        for key in [key for key in self.locks if key[0] == node.uid]:
            del self.locks[key]

    def evidence(self, node: Node, effect: fx.WriteEvidence) -> None:
        """Only liars are accused."""
        if node.honest and effect.voter not in self.world.suspects:
            raise Broken(f"{effect.voter} is accused and innocent")
        self.world.stats["evidence"] += 1

    # ------------------------------------------------------------------ the whole

    def step(self, node: Node, core: Core) -> None:
        """Memory and disk agree after a step; nothing grows without bound."""
        if node.honest and node.disk.app is not None and node.disk.app is not core.app:
            raise Broken(f"{node.uid} holds another state than its disk")
        if core.round > MAX_ROUND:
            raise Broken(f"{node.uid} is in round {core.round}")

    def complete(self) -> bool:
        """Everything asked for is committed, everywhere."""
        if self.open:
            return False
        top = len(self.decided)
        return all(
            not node.joining and (not node.honest or len(node.disk.blocks) >= top)
            for node in self.world.nodes
        )

    def missing(self) -> str:
        """What is not complete, for a message."""
        world = self.world
        places = ", ".join(
            f"{n.uid} " + ("down" if n.core is None else f"{n.core.height}/{n.core.round}")
            for n in world.nodes
        )
        if self.open:
            return f"{len(self.open)} of {len(world.requests)} transactions; {places}"
        waiting = [n.uid for n in world.nodes if n.joining]
        return f"some are late, {waiting} joining; {places}"

    def final(self) -> None:
        """Acknowledged transactions are in the chain exactly once, in every honest copy."""
        for node in self.world.nodes:
            if not node.honest:
                continue
            seen: list[bytes] = []
            for raw, _ in node.disk.blocks:
                seen += Block.decode(raw).transactions
            if len(seen) != len(set(seen)) or not self.acknowledged <= set(seen):
                raise Broken(f"{node.uid} lost or repeated an acknowledged transaction")
