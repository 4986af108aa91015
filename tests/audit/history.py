"""A genuine ledger made in this process: real certificates, signatures and state machine, two
organisations, four network nodes, three learners, rounds with real vectors. Only consensus itself
is left out: the nodes certify each block at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm.audit.sources import Pair
from swarm.identity import Identity, Role, node_uid
from swarm.ledger import recovery
from swarm.ledger.application import LedgerApplication, Outcome, execute
from swarm.ledger.block import PRECOMMIT, Block, Certificate, vote_bytes
from swarm.ledger.genesis import EthereumOrder, Genesis
from swarm.ledger.state import DEFAULT_CONTRACT, Header
from swarm.ledger.transaction import SignedTransaction, Transaction
from swarm.merge import blocks
from swarmlearning.tensors import Layout
from tests import pki
from tests.ledger.net import genesis_for

Arrays = dict[str, NDArray[Any]]
RULES = {
    "min_peers": 2, "merge_method": "mean", "merge_args": {}, "sync_frequency": 128,
    "adaptive": False,
}  # fmt: skip
NODE = {
    "host": "10.0.0.1", "port": 30304, "p2p": [], "peer_id": "", "parent": "", "validator": False,
    "runner": "", "pairs": 0, "contract": "", "version": "1",
}  # fmt: skip


def vector(arrays: Arrays) -> tuple[Layout, bytes]:
    """The data section of these arrays, laid out as the callback does."""
    layout = Layout.of(arrays)
    data = bytearray(layout.size)
    for tensor in layout.tensors:
        raw = arrays[tensor.name].tobytes()
        data[tensor.offset : tensor.offset + len(raw)] = raw
    return layout, bytes(data)


def root_of(data: bytes) -> bytes:
    """Root of the hash tree over a vector."""
    return blocks.root(blocks.leaves(memoryview(data), blocks.block_size(len(data))))


class History:
    """One swarm and its blocks so far."""

    def __init__(
        self,
        directory: Path,
        validators: int = 4,
        learners: int = 3,
        order: EthereumOrder | None = None,
    ) -> None:
        first = pki.authority(directory, 1)
        second = pki.authority(directory, 2)
        self.authorities = (first, second)
        self.capath = first.capath
        self.sns = [
            pki.identity(directory / f"sn-{n}", Role.SN, (first, second)[n % 2], name=str(n))
            for n in range(validators)
        ]
        self.sls = [
            pki.identity(directory / f"sl-{n}", Role.SL, (first, second)[n % 2], name=str(n))
            for n in range(learners)
        ]
        genesis = genesis_for(self.sns[0])
        self.genesis = Genesis(
            genesis.chain_name, genesis.fault_model, self.sns[0].trust.ca_ders, genesis.founder,
            genesis.created_ms, genesis.nonce, order=order,
        )  # fmt: skip
        self.keys = {node_uid(sn.fingerprint): sn for sn in self.sns}
        self.app = LedgerApplication.genesis(self.genesis)
        self.last_id = self.genesis.chain_id
        self.pairs: list[Pair] = []
        self.blocks: list[Block] = []
        self.models: list[Arrays] = []
        self._count = 0

    def uid(self, learner: int) -> str:
        return node_uid(self.sls[learner].fingerprint, f"sl-{learner}")

    def sign(self, identity: Identity, op: str, args: Mapping[str, Any]) -> bytes:
        self._count += 1
        tx_id = self._count.to_bytes(16, "big")
        expires = self.app.height + 1000
        transaction = Transaction(self.genesis.chain_id, tx_id, expires, op, dict(args))
        return SignedTransaction.sign(identity, transaction).encode()

    def next_block(self, txs: list[bytes], **changes: Any) -> tuple[Block, Any]:
        """The next block, and what comes of it."""
        proposer = self.app.validators()[0].uid
        header = Header(self.app.height + 1, 1000 * (self.app.height + 1), proposer)
        done = execute(self.app, header, tuple(txs))
        parts: dict[str, Any] = {
            "chain": self.genesis.chain_id, "height": header.height, "previous": self.last_id,
            "time_ms": header.time_ms, "proposer": proposer, "transactions": txs,
            "effect": done.effect, **changes,
        }  # fmt: skip
        return Block.make(**parts), done

    def certify(self, block: Block, signers: list[str] | None = None) -> Certificate:
        """Precommits of all validators, or of some; of none where nobody votes."""
        if self.genesis.order is not None:
            return Certificate(block.height, 0, block.id, ())
        uids = signers or sorted(v.uid for v in self.app.validators())
        data = vote_bytes(block.chain, PRECOMMIT, block.height, 0, block.id)
        signed = tuple((uid, self.keys[uid].sign(data)) for uid in uids)
        return Certificate(block.height, 0, block.id, signed)

    def commit(self, *txs: bytes) -> Outcome:
        block, done = self.next_block(list(txs))
        return self._append(block, self.certify(block), done)

    def _append(self, block: Block, certificate: Certificate, done: Any) -> Outcome:
        self.pairs.append(Pair(block.encoded, certificate.encode()))
        self.blocks.append(block)
        self.app, self.last_id = done.application, block.id
        outcome: Outcome = done.outcome
        return outcome

    def must(self, *acts: tuple[Identity, str, dict[str, Any]]) -> None:
        """One block with these acts, all of which are accepted."""
        outcome = self.commit(*(self.sign(*act) for act in acts))
        assert all(verdict.ok for verdict in outcome.verdicts), outcome.verdicts

    # What happens in it

    def found(self) -> None:
        """All nodes join, and all learners enroll in the default contract."""
        for sn in self.sns:
            about = {**NODE, "uid_name": "", "type": "SN", "validator": True}
            self.must((sn, "node.enroll", about))
        for number, sl in enumerate(self.sls):
            about = {
                **NODE, "uid_name": f"sl-{number}", "type": "SL", "contract": DEFAULT_CONTRACT,
                "parent": node_uid(self.sns[0].fingerprint),
            }  # fmt: skip
            self.must((sl, "node.enroll", about))
            self.must((sl, "contract.enroll", self.enrolment(number)))

    def enrolment(self, number: int) -> dict[str, Any]:
        return {
            "contract": DEFAULT_CONTRACT, "uid": self.uid(number), "name": f"sl-{number}",
            "host": "10.0.0.1", "port": 30305, "rules": RULES, "mode": "snapshot",
        }  # fmt: skip

    def report(self, number: int, loss: str) -> dict[str, Any]:
        """What the first learner says of a round."""
        return {
            "contract": DEFAULT_CONTRACT, "uid": self.uid(0), "round": number, "loss": loss,
            "metric": "0.9", "epochs": number + 1, "total_epochs": 10,
        }  # fmt: skip

    def round(self, seed: int = 0, merged_by: int = 2) -> None:
        """One whole round: check-ins in a block each, results in one, reports in one."""
        contract = self.app.state.get("contracts", DEFAULT_CONTRACT)
        assert contract is not None
        number, last = contract["round"], contract["last"]
        inputs = [model(100 * number + learner + seed) for learner in range(len(self.sls))]
        for learner, arrays in enumerate(inputs):
            layout, data = vector(arrays)
            self.must(
                (
                    self.sls[learner],
                    "round.checkin",
                    {
                        "contract": DEFAULT_CONTRACT, "uid": self.uid(learner), "round": number,
                        "weight": 10_000, "samples": 100 + learner, "root": root_of(data),
                        "schema": layout.schema_digest(), "tensors": layout.schema_lines(),
                        "size": layout.size, "base": last["digest"] if last else None,
                        "done": False,
                    },
                )
            )  # fmt: skip
        mean = {k: np.mean([i[k] for i in inputs], axis=0, dtype=np.float32) for k in inputs[0]}
        digest = root_of(vector(mean)[1])
        self.must(
            *(
                (
                    self.sls[learner],
                    "round.merged",
                    {
                        "contract": DEFAULT_CONTRACT, "uid": self.uid(learner), "round": number,
                        "attempt": 0, "digest": digest, "shards": [],
                    },
                )
                for learner in range(merged_by)
            )
        )  # fmt: skip
        self.models.append(mean)
        self.must(
            *(
                (
                    sl,
                    "round.report",
                    {
                        "contract": DEFAULT_CONTRACT, "uid": self.uid(learner), "round": number,
                        "loss": "0.25", "metric": "0.9", "epochs": number + 1,
                        "total_epochs": 10,
                    },
                )
                for learner, sl in enumerate(self.sls)
            )
        )  # fmt: skip

    def recover(self, survivors: list[Identity]) -> recovery.Name:
        """Go on with these alone."""
        uids = sorted(node_uid(sn.fingerprint) for sn in survivors)
        tx = self.sign(survivors[0], "ledger.recover", {"validators": uids, "reason": "a fire"})
        header = Header(self.app.height + 1, 0, uids[0], True)
        done = execute(self.app, header, (tx,))
        block, _ = self.next_block([tx], time_ms=0, proposer=uids[0], effect=done.effect)
        data = recovery.signed_bytes(block)
        signatures = {uid: self.keys[uid].sign(data) for uid in uids}
        self._append(block, recovery.certificate_of(block, signatures), done)
        return recovery.Name.of(block)


def model(seed: int) -> Arrays:
    """Weights of a small network: two layers of equal shapes among them."""
    rng = np.random.default_rng(seed)
    shapes = {
        "0000/kernel": (4, 3), "0001/bias": (3,), "0002/kernel": (3, 3), "0003/bias": (3,),
        "0004/kernel": (3, 3), "0005/bias": (3,),
    }  # fmt: skip
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
