"""A ledger told again, block by block, and checked: what an outsider does instead of believing.

The rules are those of `consensus/algorithm.py` and `core.py`, for somebody who does not vote: each
block follows the last one, is certified by a quorum of the validators of its own height, holds
transactions that their senders signed and that may be included, and has in its header exactly what
comes of executing it with the production state machine.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from swarm.audit.sources import Pair
from swarm.errors import RemoteError
from swarm.identity import verify_signature
from swarm.ledger.application import Executed, LedgerApplication, Outcome, execute
from swarm.ledger.block import CODE, Block, Certificate
from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.genesis import Genesis
from swarm.ledger.recovery import Recovery, check_certificate, recovery_of
from swarm.ledger.state import Header


@dataclass(frozen=True)
class Step:
    """A block that was found to be right."""

    block: Block
    certificate: Certificate | None  # None where another network does the ordering
    outcome: Outcome
    before: LedgerApplication
    after: LedgerApplication
    recovery: Recovery | None


class Replay:
    """Takes blocks in order. `app` is the state after the last one."""

    def __init__(self, genesis: Genesis, recoveries: Collection[bytes] = ()) -> None:
        """`recoveries`: ids of recovery blocks that the reader is willing to follow."""
        self.genesis = genesis
        self.app = LedgerApplication.genesis(genesis)
        self.last_id = genesis.chain_id
        self._recoveries = frozenset(recoveries)

    def take(self, pair: Pair) -> Step:
        """Check the next block. Raises RemoteError; the replay is where it was, then."""
        before = self.app
        block = Block.decode(pair.block)
        self._follows(block)
        certificate = self._certified(block, pair.certificate)
        recovery = recovery_of(block) if block.id in self._recoveries else None
        self._includable(block, recovery is not None)
        done = self._executed(block, recovery is not None)
        assert isinstance(done.application, LedgerApplication), "made from one"
        self.app, self.last_id = done.application, block.id
        return Step(block, certificate, done.outcome, before, self.app, recovery)

    def _follows(self, block: Block) -> None:
        header, height = block.header, self.app.height + 1
        if header.chain != self.genesis.chain_id:
            raise RemoteError(CODE, "the block belongs to another swarm")
        if header.height != height:
            raise RemoteError(CODE, f"block {header.height} is where block {height} should be")
        if header.previous != self.last_id:
            raise RemoteError(CODE, "the block does not follow the one before it")

    def _certified(self, block: Block, raw: bytes) -> Certificate | None:
        if self.genesis.order is not None:
            if raw != Certificate(block.height, 0, block.id, ()).encode():
                raise RemoteError(CODE, "a certificate where nobody votes")
            return None
        keys = {v.uid: v.public_key_der for v in self.app.validators()}
        if block.header.proposer not in keys:
            raise RemoteError(CODE, "the proposer is no validator")
        certificate = Certificate.decode(raw)
        needed = quorum(len(keys), self.genesis.fault_model)
        check_certificate(block, certificate, keys, needed, verify_signature, self._recoveries)
        return certificate

    def _includable(self, block: Block, recovery: bool) -> None:
        seen = set()
        for place, tx in enumerate(block.transactions):
            try:
                ticket = self.app.identify(tx) if recovery else self.app.check(tx)
            except RemoteError as error:
                raise RemoteError(error.code, f"transaction {place}: {error.cause}") from None
            if ticket.id in seen:
                raise RemoteError(CODE, f"transaction {place} comes twice")
            seen.add(ticket.id)

    def _executed(self, block: Block, recovery: bool) -> Executed:
        header = Header(block.height, block.header.time_ms, block.header.proposer, recovery)
        done = execute(self.app, header, block.transactions)
        for name, text in (
            ("results", "its transactions get other verdicts than its header says"),
            ("next_validators", "its header names other validators of the next block"),
            ("state", "it leads to another state than its header says"),
        ):
            if getattr(done.effect, name) != getattr(block.header.effect, name):
                raise RemoteError(CODE, text)
        if recovery and not done.outcome.verdicts[0].ok:
            raise RemoteError(CODE, f"it recovers nothing: {done.outcome.verdicts[0].text}")
        return done
