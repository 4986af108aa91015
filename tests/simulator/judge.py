"""The invariants, checked after every step of a simulated world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.ledger.application import Application
from swarm.ledger.block import PRECOMMIT, Block, validators_hash, vote_bytes
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus import messages as msg
from swarm.ledger.consensus.core import Core
from swarm.ledger.consensus.quorum import quorum

if TYPE_CHECKING:
    from tests.simulator.world import Node, World


class Broken(Exception):
    """An invariant does not hold."""


class Judge:
    """Sees everything; knows nothing that the nodes could use."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.decided: dict[int, Block] = {}
        self.states: dict[int, Application] = {world.genesis.height: world.genesis}
        self.included: dict[bytes, int] = {}  # transaction -> height
        self.acknowledged: set[bytes] = set()
        self.signed: dict[tuple[str, int, int, int], bytes] = {}
        self.uttered: set[bytes] = set()

    def committed(self, node: Node, effect: fx.Commit) -> None:
        """Agreement, a certified chain, equal digests, each transaction once."""
        if not node.honest:
            return
        block, height = effect.block, effect.block.height
        known = self.decided.setdefault(height, block)
        if known.id != block.id:
            raise Broken(f"two blocks at height {height}")
        before = self.states.get(height - 1)
        if before is None or effect.before.height != height - 1:
            raise Broken(f"height {height} committed before its predecessor")
        self._certified(before, effect)
        state = self.states.setdefault(height, effect.application)
        if state.digest() != effect.application.digest():
            raise Broken(f"states differ at height {height}")
        for tx in block.transactions:
            if self.included.setdefault(tx, height) != height:
                raise Broken("a transaction is in two blocks")
            self.acknowledged.add(tx)
        if len(set(block.transactions)) != len(block.transactions):
            raise Broken("a transaction is in a block twice")

    def _certified(self, before: Application, effect: fx.Commit) -> None:
        """Independent of the core's own check: counts distinct, valid signers."""
        certificate, header = effect.certificate, effect.block.header
        keys = {v.uid: v.public_key_der for v in before.validators()}
        data = vote_bytes(
            header.chain, PRECOMMIT, header.height, certificate.round, effect.block.id
        )
        good = {
            uid
            for uid, signature in certificate.signatures
            if uid in keys and self.world.verify(keys[uid], data, signature)
        }
        if len(good) < quorum(len(keys), before.fault_model):
            raise Broken(f"block {header.height} is not certified")
        if (
            header.height - 1 in self.decided
            and header.previous != self.decided[header.height - 1].id
        ):
            raise Broken(f"block {header.height} does not follow")
        if header.effect.state != effect.application.digest():
            raise Broken(f"block {header.height} names a different state")
        if header.effect.next_validators != validators_hash(effect.application.validators()):
            raise Broken(f"block {header.height} names other validators")

    def sent(self, node: Node, message: msg.Message) -> None:
        """No honest equivocation, ever; and what is sent is on disk before."""
        if not node.honest or not isinstance(message, msg.Vote | msg.Proposal):
            return
        if message.voter != node.uid:
            return
        kind = message.kind if isinstance(message, msg.Vote) else 0
        value = message.block_id if isinstance(message, msg.Vote) else message.block.id
        key = (message.height, message.round, kind)
        if self.signed.setdefault((node.uid, *key), value) != value:
            raise Broken(f"{node.uid} signed two values at {key}")
        raw = msg.encode(message)
        over = node.disk.app is not None and node.disk.app.height >= message.height
        # What it said before it may pass on again, as a node does that lost its disk since.
        if raw not in self.uttered and not over and node.disk.votes.get(key) != raw:
            raise Broken(f"{node.uid} sent at {key} what is not on its disk")
        self.uttered.add(raw)

    def evidence(self, node: Node, effect: fx.WriteEvidence) -> None:
        """Only liars are accused."""
        if node.honest and effect.voter not in self.world.liars:
            raise Broken(f"{effect.voter} is accused and innocent")
        self.world.stats["evidence"] = self.world.stats.get("evidence", 0) + 1

    def step(self, node: Node, core: Core) -> None:
        """Memory and disk agree after a step; nothing grows without bound."""
        if node.honest and node.disk.app is not None and node.disk.app is not core.app:
            raise Broken(f"{node.uid} holds another state than its disk")
        if core.round > 400:
            raise Broken(f"{node.uid} is in round {core.round}")

    def complete(self) -> bool:
        """Everything asked for is committed, everywhere."""
        return not self.missing()

    def missing(self) -> str:
        world = self.world
        left = [tx for tx in world.requests if tx not in self.included]
        if left:
            return f"{len(left)} of {len(world.requests)} transactions; {self._where()}"
        top = len(self.decided)
        late = [n.uid for n in world.nodes if n.honest and len(n.disk.blocks) < top]
        waiting = [n.uid for n in world.nodes if n.joining]
        return f"late: {late}, joining: {waiting}; {self._where()}" if late or waiting else ""

    def _where(self) -> str:
        return ", ".join(
            f"{n.uid} " + ("down" if n.core is None else f"{n.core.height}/{n.core.round}")
            for n in self.world.nodes
        )

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
