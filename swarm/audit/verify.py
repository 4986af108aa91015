"""`swarm ledger verify`: a whole ledger, checked by somebody who has only the CAs' certificates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from swarm.audit.replay import Replay, Step
from swarm.audit.sources import Source
from swarm.errors import LocalError, RemoteError
from swarm.identity import member_fingerprint
from swarm.ledger.application import LedgerApplication
from swarm.ledger.transaction import SignedTransaction

WRONG = "SW3201"
TELL_EVERY = 1000  # blocks

Say = Callable[[str], None]


@dataclass
class Summary:
    """What a ledger was found to hold."""

    chain: bytes
    height: int = 0
    last_id: bytes = b""
    digest: bytes = b""
    transactions: int = 0
    refused: int = 0
    certificates: int = 0
    signatures: int = 0
    anchors: int = 0
    members: list[str] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    accused: list[str] = field(default_factory=list)
    recoveries: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)  # what could not be proven, and why

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"chain        {self.chain.hex()}",
            f"height       {self.height}, block {self.last_id.hex()}",
            f"state        {self.digest.hex()}, recomputed",
            f"transactions {self.transactions}, of which {self.refused} were refused",
            f"certificates {self.certificates} with {self.signatures} signatures of validators",
            *([f"anchors      {self.anchors} blocks are those expected"] * bool(self.anchors)),
            f"members      {len(self.members)}: {', '.join(self.members)}",
            *(f"DOUBLE VOTE  {one}" for one in self.accused),
            *(f"EVICTED      {one}" for one in self.evicted),
            *(f"RECOVERY     {one}" for one in self.recoveries),
            *(f"NOT PROVEN   {one}" for one in self.doubts),
        ]


def verify(
    source: Source,
    authorities: Collection[str],
    *,
    expected: Mapping[int, bytes] | None = None,
    say: Say = lambda text: None,
) -> Summary:
    """Check all of a ledger.

    `authorities` are fingerprints of the CA certificates that the reader trusts. `expected` gives
    block ids that are known from elsewhere, by height: from an anchor, or from a member. Raises
    LocalError: SW3201 for the first thing that is wrong, with its height; SW3202 and others when
    the source cannot be read.
    """
    genesis, accepted = source.genesis, {name.block_id: name for name in source.recoveries}
    known = dict(expected or {})
    summary = Summary(genesis.chain_id, last_id=genesis.chain_id)
    _trusted(genesis.cas, authorities, 0)
    replay = Replay(genesis, accepted)
    summary.digest = replay.app.digest()
    founder_shown = False
    for pair in source.pairs():
        height = summary.height + 1
        try:
            step = replay.take(pair)
        except RemoteError as error:
            raise _wrong(height, error.cause) from None
        if step.before.state.table("cas") is not step.after.state.table("cas"):
            _trusted(step.after.state.cas(), authorities, height)
        if known.pop(height, step.block.id) != step.block.id:
            raise _wrong(height, "the block is not the one that was expected there")
        founder_shown = founder_shown or _shows(step, genesis.founder.fingerprint)
        _count(summary, step)
        if accepted.pop(step.block.id, None) is not None:
            summary.recoveries.append(_recovered(step))
        if height % TELL_EVERY == 0:
            say(f"height {height}: right so far")
    summary.anchors = len(expected or {}) - len(known)
    if known:
        raise _wrong(min(known), f"a block is expected here, the ledger ends at {summary.height}")
    for name in accepted.values():
        raise _wrong(name.height, "a recovery was accepted that is not in the ledger")
    _describe(summary, replay.app)
    if not founder_shown:
        summary.doubts.append(
            "the founder has signed no transaction, so that no certificate shows whose key it has"
        )
    if genesis.order is not None:
        summary.doubts.append(
            f"the order is that of contract {genesis.order.contract} in network "
            f"{genesis.order.chain_id}; compare block ids with members', or give --block"
        )
    return summary


def _wrong(height: int, cause: str) -> LocalError:
    return LocalError(WRONG, f"height {height}: {cause}")


def _trusted(cas: Mapping[str, bytes], authorities: Collection[str], height: int) -> None:
    for fingerprint in cas:
        if fingerprint not in authorities:
            where = "the genesis names" if height == 0 else "the members admitted"
            raise _wrong(height, f"{where} CA {fingerprint}, which is not among yours")


def _shows(step: Step, fingerprint: str) -> bool:
    """Whether a transaction of this key, with its certificate, is in a block."""
    signed = (SignedTransaction.decode(tx) for tx in step.block.transactions)
    return any(member_fingerprint(one.chain_der) == fingerprint for one in signed)


def _count(summary: Summary, step: Step) -> None:
    summary.height, summary.last_id = step.block.height, step.block.id
    summary.digest = step.after.digest()
    summary.transactions += len(step.block.transactions)
    summary.refused += sum(not verdict.ok for verdict in step.outcome.verdicts)
    if step.certificate is not None:
        summary.certificates += 1
        summary.signatures += len(step.certificate.signatures)


def _recovered(step: Step) -> str:
    assert step.recovery is not None, "accepted, and checked by the replay"
    before = {v.uid for v in step.before.validators()}
    gone = sorted(before - {v.uid for v in step.after.validators()})
    names = ", ".join(_name(step.before, uid) for uid in gone)
    return (
        f"at height {step.block.height}, outside of consensus: the validators {names} were given "
        f"up without their consent ({step.recovery.reason}); ask them"
    )


def _name(app: LedgerApplication, uid: str) -> str:
    node = app.state.get("nodes", uid)
    return f"{node['name']} ({uid})" if node and node["name"] else uid


def _describe(summary: Summary, app: LedgerApplication) -> None:
    state = app.state
    summary.members = [
        f"{node['type']} {node['name'] or uid}"
        for uid, node in state.table("nodes").items()
        if node["active"]
    ]
    for record in state.table("evictions").values():
        if record["at"]:
            summary.evicted.append(f"{record['name']} ({record['uid']}) at height {record['at']}")
    for uid, record in state.table("evidence").items():
        heights = ", ".join(str(case["height"]) for case in record["cases"])
        summary.accused.append(f"{record['name']} ({uid}) signed two values at height {heights}")
