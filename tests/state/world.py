"""A swarm for tests of the state machine: named members without certificates or network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from swarm.identity import Peer, Role, node_uid
from swarm.identity.keys import public_der
from swarm.identity.keys import sign as sign_with
from swarm.ledger.consensus.statement import Statement
from swarm.ledger.genesis import Founder, Genesis
from swarm.ledger.state import DEFAULT_CONTRACT, DEFAULT_RUNNER, Header, State, Verdict
from swarm.ledger.transaction import Transaction

NODE = {
    "host": "10.0.0.1",
    "port": 30304,
    "p2p": [],
    "peer_id": "",
    "parent": "",
    "validator": False,
    "runner": "",
    "pairs": 0,
    "contract": "",
    "version": "1",
}
RULES = {
    "min_peers": 2,
    "merge_method": "mean",
    "merge_args": {},
    "sync_frequency": 128,
    "adaptive": False,
}


def sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@lru_cache(maxsize=64)
def key_of(holder: str) -> ec.EllipticCurvePrivateKey:
    """The private key of a network node; the others sign nothing that the state machine checks."""
    return ec.derive_private_key(int.from_bytes(sha(holder)[:31], "big"), ec.SECP256R1())


def member(name: str, organisation: str = "org-1", certificate: str = "") -> Peer:
    """A member whose role is the part of its name before the hyphen, as "sl-1".

    Members with the same `certificate` share one.
    """
    role = Role(name.partition("-")[0].upper())
    holder = certificate or name
    return Peer(
        fingerprint=sha(holder).hex(),
        role=role,
        organisation=sha(organisation).hex(),
        common_name=holder.upper(),
        public_key_der=(
            public_der(key_of(holder).public_key())
            if role == Role.SN
            else b"key of " + holder.encode()
        ),
    )


FOUNDER = member("sn-1")


def genesis(fault_model: str = "byzantine") -> Genesis:
    founder = Founder(
        uid=node_uid(FOUNDER.fingerprint),
        fingerprint=FOUNDER.fingerprint,
        organisation=FOUNDER.organisation,
        public_key=FOUNDER.public_key_der,
        name="sn-1",
        host="10.0.0.1",
        port=30304,
        p2p=("/ip4/10.0.0.1/tcp/30303",),
        peer_id="Peer1",
        version="1",
    )
    ca = b"\x30\x03abc"
    cas = {hashlib.sha256(ca).hexdigest(): ca}
    return Genesis("test", fault_model, cas, founder, 0, bytes(16))


class World:
    """One state, members by name, and one block for each transaction (a second apart)."""

    def __init__(self) -> None:
        self.state = State.genesis(genesis())
        self.members: dict[str, Peer] = {"sn-1": FOUNDER}
        self.names: dict[str, str] = {node_uid(FOUNDER.fingerprint): "sn-1"}
        self.changed: frozenset[str] = frozenset()
        self._count = 0

    def add(self, name: str, **kwargs: str) -> Peer:
        """Make a member known, without enrolling it."""
        self.members[name] = member(name, **kwargs)
        self.names[self.uid(name)] = name
        return self.members[name]

    def uid(self, name: str) -> str:
        peer = self.members[name]
        return node_uid(peer.fingerprint, "" if peer.role == Role.SN else name)

    def transaction(self, op: str, args: dict[str, Any]) -> Transaction:
        self._count += 1
        tx_id = self._count.to_bytes(16, "big")
        return Transaction(self.state.chain, tx_id, self.state.height + 1000, op, args)

    def header(self) -> Header:
        height = self.state.height + 1
        return Header(height, 1000 * height, node_uid(FOUNDER.fingerprint))

    def block(self, *transactions: tuple[Transaction, Peer]) -> tuple[Verdict, ...]:
        self.state, verdicts, self.changed = self.state.apply(self.header(), transactions)
        return verdicts

    def do(self, sender: str, op: str, **args: Any) -> Verdict:
        """Apply one transaction in a block of its own."""
        return self.block((self.transaction(op, args), self.members[sender]))[0]

    def must(self, sender: str, op: str, **args: Any) -> dict[str, Any]:
        """As `do`; the verdict has to be good."""
        verdict = self.do(sender, op, **args)
        assert verdict.ok, verdict
        return verdict.result

    # Short forms

    def join(self, name: str, **changes: Any) -> Verdict:
        """node.enroll; unknown names become members."""
        if name not in self.members:
            self.add(name)
        peer = self.members[name]
        own = {"uid_name": "" if peer.role == Role.SN else name, "type": peer.role.value}
        if peer.role == Role.SN:
            own["name"] = name
        if peer.role == Role.SL:
            own["parent"] = self.uid("sn-1")
            own["contract"] = DEFAULT_CONTRACT
        if peer.role == Role.SWOP:
            own["runner"] = DEFAULT_RUNNER
        return self.do(name, "node.enroll", **{**NODE, **own, **changes})

    def train(
        self, name: str, *, mode: str = "snapshot", contract: str = DEFAULT_CONTRACT, **rules: Any
    ) -> Verdict:
        """contract.enroll."""
        return self.do(
            name,
            "contract.enroll",
            contract=contract,
            uid=self.uid(name),
            name=name,
            host="10.0.0.1",
            port=30305,
            rules={**RULES, **rules},
            mode=mode,
        )

    def learners(self, *names: str, **rules: Any) -> None:
        """Enroll learners, in the swarm and in the default contract."""
        for name in names:
            assert self.join(name).ok
            assert self.train(name, **rules).ok

    def evict(self, sender: str, name: str) -> Verdict:
        """node.evict."""
        return self.do(sender, "node.evict", uid=self.uid(name))

    def statement(
        self, name: str, block: str, *, kind: int = 2, height: int = 7, round_: int = 0,
        chain: bytes = b"",
    ) -> Statement:  # fmt: skip
        """What a network node says when it signs "block" in a step."""
        bare = Statement(kind, height, round_, -1, sha(block), self.uid(name), b"")
        return self.signed(name, bare, chain)

    def signed(self, name: str, bare: Statement, chain: bytes = b"") -> Statement:
        """A statement with the signature of a network node."""
        signature = sign_with(key_of(name), bare.signed_bytes(chain or self.state.chain))
        return replace(bare, signature=signature)

    def accuse(self, reporter: str, first: Statement, second: Statement) -> Verdict:
        """node.accuse."""
        return self.do(reporter, "node.accuse", first=first.encode(), second=second.encode())

    def recover(self, sender: str, *names: str, reason: str = "two sites burnt down") -> Verdict:
        """A recovery block, as accepted by every operator."""
        uids = [self.uid(name) for name in names]
        tx = self.transaction("ledger.recover", {"validators": uids, "reason": reason})
        header = self.header()._replace(recovery=True)
        pair = (tx, self.members[sender])
        self.state, verdicts, self.changed = self.state.apply(header, [pair])
        return verdicts[0]

    @property
    def contract(self) -> dict[str, Any]:
        record = self.state.get("contracts", DEFAULT_CONTRACT)
        assert record is not None
        return record

    @property
    def runner(self) -> dict[str, Any]:
        record = self.state.get("taskrunners", DEFAULT_RUNNER)
        assert record is not None
        return record

    def checkin(self, name: str, **changes: Any) -> Verdict:
        """round.checkin for the present round, from the last decided model."""
        last = self.contract["last"]
        args = {
            "contract": DEFAULT_CONTRACT,
            "uid": self.uid(name),
            "round": self.contract["round"],
            "weight": 10_000,
            "samples": 100,
            "root": sha(f"vector of {name}"),
            "schema": sha("schema"),
            "tensors": ["w float32 2x2", "b float32 2"],
            "size": 64,
            "base": last["digest"] if last else None,
            "done": False,
        }
        return self.do(name, "round.checkin", **{**args, **changes})

    def close(self, name: str, **changes: Any) -> Verdict:
        args = {
            "contract": DEFAULT_CONTRACT,
            "uid": self.uid(name),
            "round": self.contract["round"],
        }
        return self.do(name, "round.close", **{**args, **changes})

    def _attempt(self, name: str) -> dict[str, Any]:
        return {
            "contract": DEFAULT_CONTRACT,
            "uid": self.uid(name),
            "round": self.contract["round"],
            "attempt": self.contract["attempt"],
        }

    def merged(self, name: str, digest: str = "result", **changes: Any) -> Verdict:
        args = {**self._attempt(name), "digest": sha(digest), "shards": []}
        return self.do(name, "round.merged", **{**args, **changes})

    def suspect(self, name: str, *accused: str, **changes: Any) -> Verdict:
        uids = sorted(self.uid(one) for one in accused)
        args = {**self._attempt(name), "accused": uids, "why": "no bytes for 10 s"}
        return self.do(name, "round.suspect", **{**args, **changes})

    def lost(self, reporter: str, name: str) -> Verdict:
        return self.do(
            reporter,
            "round.lost",
            contract=DEFAULT_CONTRACT,
            uid=self.uid(name),
            reason="no sign of life",
        )

    def task(self, name: str, type_: str = "RUN_SWARM", prereq: str = "ROOTTASK") -> None:
        """Create and finalize a task as swci-1."""
        if "swci-1" not in self.members:
            self.add("swci-1")
        about = {"author": "me", "prereq": prereq, "outcome": name}
        self.must("swci-1", "task.create", name=name, type=type_, **about)
        self.must("swci-1", "task.finalize", task=name)

    def assign(
        self, task: str, peers: int = 0, target: str = "*", among: Sequence[str] | None = None
    ) -> Verdict:
        args: dict[str, Any] = {"runner": DEFAULT_RUNNER, "task": task, "peers": peers}
        args["target"] = target if target == "*" else self.uid(target)
        if among is not None:
            args["among"] = [self.uid(name) for name in among]
        return self.do("swci-1", "runner.assign", **args)

    def take_part(self, name: str, pairs: int = 1, **changes: Any) -> Verdict:
        args = {
            "runner": DEFAULT_RUNNER,
            "operation": self.runner["operation"],
            "uid": self.uid(name),
            "pairs": pairs,
        }
        return self.do(name, "runner.enroll", **{**args, **changes})

    def status(
        self,
        name: str,
        state: str,
        *,
        peer: str = "",
        index: int = 0,
        text: str = "",
        **changes: Any,
    ) -> Verdict:
        args = {
            "runner": DEFAULT_RUNNER,
            "operation": self.runner["operation"],
            "uid": self.uid(name),
            "peer": peer,
            "index": index,
            "state": state,
            "text": text,
        }
        return self.do(name, "runner.status", **{**args, **changes})
