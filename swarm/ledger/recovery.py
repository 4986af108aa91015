"""Going on after the quorum was lost for good, and how a block's certificate is checked.

When more validators are gone than the fault model allows, no block can ever be certified again. The
operators of what is left may then agree on one block outside of consensus: at the height after the
last one, with the single transaction `ledger.recover`, signed by all survivors that it names. From
it on they are the validators.

Such a block proves nothing to anybody who did not agree: a minority could make one at any time. So
a node takes it only when its operator has accepted its very id; ids that were accepted are kept in
the data directory, beside the ledger, and handed to nodes that join later. Whoever has not accepted
it stops at the height before and says so. The signatures have a kind of their own (`RECOVERY`), so
that they can be mistaken for votes, or for evidence against the survivors, nowhere.

`check_certificate` is the one place that decides what certifies a block.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from swarm.errors import RemoteError
from swarm.ledger.application import Application, execute
from swarm.ledger.block import CODE, Block, Certificate, Verify, vote_bytes
from swarm.ledger.state.recoveries import OPERATION
from swarm.ledger.state.verdict import Header
from swarm.ledger.transaction import SignedTransaction

RECOVERY = 3  # kind of signature, beside PREVOTE and PRECOMMIT
REFUSED = "SW3030"
INVALID = "SW3031"
MAX_FILE = 4 << 20
_NAME = re.compile(r"([1-9][0-9]{0,15})-([0-9a-f]{64})")


class Recovery(NamedTuple):
    """What a recovery block says."""

    validators: tuple[str, ...]  # uids of the survivors, sorted
    reason: str


class Name(NamedTuple):
    """How people name a recovery: `<height>-<block id in hexadecimal>`."""

    height: int
    block_id: bytes

    def __str__(self) -> str:
        return f"{self.height}-{self.block_id.hex()}"

    @classmethod
    def of(cls, block: Block) -> Name:
        return cls(block.height, block.id)

    @classmethod
    def parse(cls, text: str) -> Name:
        """Raises RemoteError SW3031."""
        found = _NAME.fullmatch(text.strip())
        if found is None:
            raise RemoteError(INVALID, f"{text[:80]!r} is no recovery: <height>-<block id>")
        return cls(int(found[1]), bytes.fromhex(found[2]))


def recovery_of(block: Block) -> Recovery | None:
    """What a block recovers; None for all ordinary blocks."""
    if len(block.transactions) != 1:
        return None
    try:
        transaction = SignedTransaction.decode(block.transactions[0]).transaction
    except RemoteError:
        return None
    uids, reason = transaction.args.get("validators"), transaction.args.get("reason")
    if transaction.op != OPERATION or type(uids) is not list or type(reason) is not str:
        return None
    if any(type(uid) is not str for uid in uids):
        return None
    return Recovery(tuple(sorted(uids)), reason)


def signed_bytes(block: Block) -> bytes:
    """What each survivor signs."""
    return vote_bytes(block.header.chain, RECOVERY, block.height, 0, block.id)


def certificate_of(block: Block, signatures: Mapping[str, bytes]) -> Certificate:
    """The certificate of a recovery block."""
    return Certificate(block.height, 0, block.id, tuple(sorted(signatures.items())))


def check_certificate(
    block: Block,
    certificate: Certificate,
    keys: Mapping[str, bytes],
    quorum: int,
    verify: Verify,
    accepted: Collection[bytes] = (),
) -> None:
    """Raise RemoteError unless `certificate` makes `block` the one of its height.

    `keys` and `quorum` are of the validators of that height, `accepted` the ids of the recovery
    blocks that this node's operator has agreed to. SW3004: it certifies nothing; SW3030: it is of a
    recovery that was not accepted here.
    """
    if block.id in accepted:
        _check_survivors(block, certificate, keys, verify)
        return
    try:
        certificate.check(block, keys, quorum, verify)
    except RemoteError:
        recovery = recovery_of(block)
        if recovery is None:
            raise
        raise RemoteError(REFUSED, _refusal(block, recovery, keys)) from None


def _check_survivors(
    block: Block, certificate: Certificate, keys: Mapping[str, bytes], verify: Verify
) -> None:
    recovery = recovery_of(block)
    if recovery is None:
        raise RemoteError(CODE, f"block {block.height} was accepted as a recovery, and is none")
    if (certificate.height, certificate.round, certificate.block_id) != (block.height, 0, block.id):
        raise RemoteError(CODE, "certificate is for another block")
    check_signatures(block, dict(certificate.signatures), keys, verify)
    missing = [uid for uid in recovery.validators if uid not in dict(certificate.signatures)]
    if missing:
        raise RemoteError(CODE, f"the recovery lacks the signature of {', '.join(missing)}")


def check_signatures(
    block: Block, signatures: Mapping[str, bytes], keys: Mapping[str, bytes], verify: Verify
) -> None:
    """Raise RemoteError SW3004 unless all signatures are of survivors that the block names, and
    these are validators of its height."""
    recovery = recovery_of(block)
    assert recovery is not None, "the caller has looked"
    for uid in (*recovery.validators, *signatures):
        if uid not in keys or uid not in recovery.validators:
            raise RemoteError(CODE, f"{uid} is no validator of height {block.height} that stays")
    data = signed_bytes(block)
    for uid, signature in signatures.items():
        if not verify(keys[uid], data, signature):
            raise RemoteError(CODE, f"signature of {uid} does not fit the recovery")


def problem(app: Application, last_id: bytes, block: Block) -> str:
    """Why a recovery block, certified or not, may not follow `last_id`; "" when it may."""
    header = block.header
    if header.height != app.height + 1 or header.previous != last_id:
        return f"it does not follow block {app.height}, the last one here"
    try:
        for tx in block.transactions:
            app.identify(tx)
    except RemoteError as error:
        return f"its transaction is not valid: {error.cause}"
    done = execute(app, header_of(block), block.transactions)
    if not done.outcome.verdicts[0].ok:
        return f"it recovers nothing: {done.outcome.verdicts[0].text}"
    return "" if done.effect == header.effect else "it leads to a different state"


def header_of(block: Block) -> Header:
    """What the state machine is told about a recovery block."""
    return Header(block.height, block.header.time_ms, block.header.proposer, recovery=True)


def _refusal(block: Block, recovery: Recovery, keys: Mapping[str, bytes]) -> str:
    dropped = len([uid for uid in keys if uid not in recovery.validators])
    return (
        f"at height {block.height} the network was recovered without {dropped} of its {len(keys)} "
        f"validators, and this node has not agreed ({recovery.reason}); to follow, stop it and run "
        f"'swarm ledger accept DATA_DIR {Name.of(block)}', or rejoin with a fresh data directory"
    )


# ---------------------------------------------------------------------- the file that travels


@dataclass(frozen=True)
class Draft:
    """A recovery on its way from one survivor's operator to the next."""

    chain: bytes
    block: Block
    signatures: Mapping[str, bytes]  # by uid

    @property
    def missing(self) -> list[str]:
        """Survivors that have not signed yet."""
        recovery = recovery_of(self.block)
        assert recovery is not None, "checked when it was made or read"
        return [uid for uid in recovery.validators if uid not in self.signatures]

    def encode(self) -> str:
        """JSON, for a file."""
        value = {
            "swarm-recovery": 1,
            "chain": self.chain.hex(),
            "recovery": str(Name.of(self.block)),
            "block": base64.b64encode(self.block.encoded).decode(),
            "signatures": {uid: raw.hex() for uid, raw in sorted(self.signatures.items())},
        }
        return json.dumps(value, indent=2) + "\n"

    @classmethod
    def decode(cls, data: bytes) -> Draft:
        """Parse; checks no signature. Raises RemoteError SW3031."""
        try:
            value: Any = json.loads(data)
            if value["swarm-recovery"] != 1:
                raise ValueError("its format is unknown")
            chain = bytes.fromhex(value["chain"])
            block = Block.decode(base64.b64decode(value["block"], validate=True))
            signatures = {str(k): bytes.fromhex(v) for k, v in value["signatures"].items()}
        except RemoteError as fault:
            raise RemoteError(INVALID, f"no recovery file: {fault.cause}") from None
        except (
            KeyError, TypeError, ValueError, AttributeError, RecursionError, binascii.Error,
        ) as fault:  # fmt: skip
            raise RemoteError(INVALID, f"no recovery file ({fault!r:.200})") from None
        if recovery_of(block) is None or block.header.chain != chain:
            raise RemoteError(INVALID, "the file's block recovers nothing")
        return cls(chain, block, signatures)
