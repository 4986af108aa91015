"""Long ledgers without the time that agreeing on them takes.

`Chain` extends the ledgers of stopped validators with blocks that all of them have signed, exactly
as they would have come about; the nodes go on from there. Writing is not made durable block by
block, so do not cut its power.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swarm.identity import Identity, node_uid, verify_signature
from swarm.ledger import directory
from swarm.ledger.application import Outcome, execute
from swarm.ledger.block import PRECOMMIT, Block, Certificate, vote_bytes
from swarm.ledger.consensus import effects as fx
from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.state import Header
from swarm.ledger.transaction import SignedTransaction, Transaction


class Chain:
    """The ledgers in `sites` (directory and identity of each node), all at the same height."""

    def __init__(self, sites: Sequence[tuple[Path, Identity]]) -> None:
        genesis = directory.genesis_of(sites[0][0])
        assert genesis is not None
        self.chain = genesis.chain_id
        self.signers = {node_uid(identity.fingerprint): identity for _, identity in sites}
        opened = [
            directory.open_store(path, genesis, uid)
            for (path, _), uid in zip(sites, self.signers, strict=True)
        ]
        self.stores = [store for store, _ in opened]
        self.app = opened[0][1]
        assert all(app.digest() == self.app.digest() for _, app in opened)
        resume = self.stores[0].resume()
        self.last, self.time_ms = resume.last_id, resume.last_time_ms
        for store in self.stores:
            store._db.execute("PRAGMA synchronous = OFF")

    def transaction(self, sender: Identity, op: str, args: dict[str, Any]) -> bytes:
        """A signed transaction that can be in the next block."""
        made = Transaction.new(self.chain, self.app.height + 1000, op, args)
        return SignedTransaction.sign(sender, made).encode()

    def block(self, *transactions: bytes) -> Outcome:
        """Append a block of these."""
        proposer = next(v.uid for v in self.app.validators() if v.uid in self.signers)
        self.time_ms += 50
        header = Header(self.app.height + 1, self.time_ms, proposer)
        after, outcome, effect = execute(self.app, header, transactions)
        block = Block.make(
            chain=self.chain,
            height=header.height,
            previous=self.last,
            time_ms=self.time_ms,
            proposer=proposer,
            transactions=transactions,
            effect=effect,
        )
        commit = fx.Commit(
            block,
            self._certificate(block),
            tuple(self.app.check(tx).id for tx in transactions),
            self.app,
            after,
            outcome,
        )
        for store in self.stores:
            store.write([commit])
        self.app, self.last = after, block.id  # type: ignore[assignment]
        return outcome

    def _certificate(self, block: Block) -> Certificate:
        """Precommits of as many as are needed, as a quick network has them."""
        validators = self.app.validators()
        needed = quorum(len(validators), self.app.fault_model)
        data = vote_bytes(self.chain, PRECOMMIT, block.height, 0, block.id)
        uids = sorted(v.uid for v in validators if v.uid in self.signers)[:needed]
        signatures = tuple((uid, self.signers[uid].sign(data)) for uid in uids)
        certificate = Certificate(block.height, 0, block.id, signatures)
        if block.height % 1000 == 1:  # they are made to be right: look now and then
            keys = {v.uid: v.public_key_der for v in validators}
            certificate.check(block, keys, needed, verify_signature)
        return certificate

    def close(self) -> None:
        for store in self.stores:
            store.close()
