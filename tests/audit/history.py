"""A genuine ledger made in this process: real certificates, signatures and state machine, two
organisations, four network nodes, three learners, rounds with real vectors. Only consensus itself
is left out: the nodes certify each block at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from swarm.merge import blocks, methods
from swarm.merge.mean import segments
from swarmlearning.narrow import widen
from swarmlearning.tensors import Layout, Tensor, bfloat16
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


def vector(arrays: Arrays, transfer: str = "") -> tuple[Layout, bytes]:
    """The data section of these arrays, laid out as the callback does."""
    layout = Layout.of(arrays, transfer)
    data = bytearray(layout.size)
    for tensor in layout.tensors:
        tensor.put(arrays[tensor.name], memoryview(data))
    return layout, bytes(data)


def merge(rules: Mapping[str, Any], layout: Layout, inputs: list[bytes]) -> bytes:
    """What members of equal weight decide on, by the contract's method."""
    runs = segments([(t.dtype, t.offset) for t in layout.tensors], layout.size)
    weights = [10_000] * len(inputs)
    method = methods.make(rules["merge_method"], rules["merge_args"], runs, weights)
    if isinstance(method, methods.MixingWeights):
        floats = [t for t in layout.tensors if "float" in t.dtype]
        rows = [np.concatenate([_wide(t, data) for t in floats]) for data in inputs]
        method.settle(np.array([[np.sum((a - b) ** 2) for b in rows] for a in rows]))
    out = bytearray(layout.size)
    method.reduce(inputs, memoryview(out), 0)
    return bytes(out)


def _wide(tensor: Tensor, data: bytes) -> NDArray[np.float64]:
    stored = tensor.view(memoryview(data))
    return np.ravel(widen(stored, tensor.dtype, "float64"))


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
        rules: Mapping[str, Any] = RULES,
        contract: str = DEFAULT_CONTRACT,
    ) -> None:
        self.contract = contract
        self.rules = rules
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
        self.operator = pki.identity(directory / "swci", Role.SWCI, first)
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
        """All nodes join, and all learners enroll in the contract."""
        for sn in self.sns:
            about = {**NODE, "uid_name": "", "type": "SN", "validator": True}
            self.must((sn, "node.enroll", about))
        if self.contract != DEFAULT_CONTRACT:
            self.must((self.operator, "contract.create", {"name": self.contract}))
        for number, sl in enumerate(self.sls):
            about = {
                **NODE, "uid_name": f"sl-{number}", "type": "SL", "contract": self.contract,
                "parent": node_uid(self.sns[0].fingerprint),
            }  # fmt: skip
            self.must((sl, "node.enroll", about))
        self.train()

    def train(self) -> None:
        """All learners enroll in the contract."""
        for number, sl in enumerate(self.sls):
            self.must((sl, "contract.enroll", self.enrolment(number)))

    def delete(self) -> None:
        """All learners leave the contract, and it is deleted and made again."""
        for number, sl in enumerate(self.sls):
            about = {"contract": self.contract, "uid": self.uid(number)}
            self.must((sl, "contract.leave", about))
        self.must((self.operator, "contract.delete", {"contract": self.contract}))
        self.must((self.operator, "contract.create", {"name": self.contract}))

    def enrolment(self, number: int) -> dict[str, Any]:
        return {
            "contract": self.contract, "uid": self.uid(number), "name": f"sl-{number}",
            "host": "10.0.0.1", "port": 30305, "rules": dict(self.rules), "mode": "snapshot",
        }  # fmt: skip

    def report(self, number: int, loss: str) -> dict[str, Any]:
        """What the first learner says of a round."""
        return {
            "contract": self.contract, "uid": self.uid(0), "round": number, "loss": loss,
            "metric": "0.9", "epochs": number + 1, "total_epochs": 10,
        }  # fmt: skip

    def round(
        self, seed: int = 0, merged_by: int = 2, make: Callable[[int], Arrays] | None = None
    ) -> None:
        """One whole round: check-ins in a block each, results in one, reports in one.

        `make` gives a learner's weights from a number.
        """
        contract = self.app.state.get("contracts", self.contract)
        assert contract is not None
        number, last = contract["round"], contract["last"]
        transfer, vectors = self.rules["merge_args"].get("transferDtype", ""), []
        for learner in range(len(self.sls)):
            arrays = (make or model)(100 * number + learner + seed)
            layout, data = vector(arrays, transfer)
            vectors.append(data)
            self.must(
                (
                    self.sls[learner],
                    "round.checkin",
                    {
                        "contract": self.contract, "uid": self.uid(learner), "round": number,
                        "weight": 10_000, "samples": 100 + learner, "root": root_of(data),
                        "schema": layout.schema_digest(), "tensors": layout.schema_lines(),
                        "size": layout.size, "base": last["digest"] if last else None,
                        "done": False,
                    },
                )
            )  # fmt: skip
        merged = merge(self.rules, layout, vectors)
        digest = root_of(merged)
        self.must(
            *(
                (
                    self.sls[learner],
                    "round.merged",
                    {
                        "contract": self.contract, "uid": self.uid(learner), "round": number,
                        "attempt": 0, "digest": digest, "shards": [],
                    },
                )
                for learner in range(merged_by)
            )
        )  # fmt: skip
        self.models.append({t.name: t.get(memoryview(merged)) for t in layout.tensors})
        self.must(
            *(
                (
                    sl,
                    "round.report",
                    {
                        "contract": self.contract, "uid": self.uid(learner), "round": number,
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


def mixed(seed: int) -> Arrays:
    """Tensors of many types, without a shape and without values among them."""
    rng = np.random.default_rng(seed)
    return {
        "0000/kernel": rng.normal(size=(4, 3)).astype(np.float32),
        "0001/precise": rng.normal(size=(5,)),
        "0002/half": rng.normal(size=(7,)).astype(np.float16),
        "0003/brain": bfloat16(rng.integers(0x3F00, 0x4000, 9).astype(np.uint16)),
        "0004/steps": np.array(10**17 + seed, np.int64),
        "0005/mask": rng.random(6) < 0.5,
        "0006/scale": np.array(rng.normal(), np.float32),
        "0007/nothing": np.empty((0, 3), np.float32),
    }
