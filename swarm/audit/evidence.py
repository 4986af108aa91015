"""The evidence in a record, checked: from JSON to what is proven.

- *Blocks.* The genesis names the first validator. Each block is certified by a quorum of the
  validators that the last block before it has named, and may name others. So headers and
  certificates lead from the genesis to every block that is used, without the blocks between.
- *Acts.* A signed transaction is number `index` of the `count` in a block, by a Merkle proof
  against its header; that it was accepted, by another one. Who signed it follows from the
  certificate chain that travels with it and the reader's own CAs.
- *States.* A record of the ledger's state after a block, by a proof against its header.

Everything malformed, repeated, out of order or unused is refused, so a record has one form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.errors import RemoteError
from swarm.identity import Peer, verify_chain, verify_signature
from swarm.ledger import merkle
from swarm.ledger.block import (
    MAX_VALIDATORS,
    Block,
    BlockHeader,
    Certificate,
    validators_hash,
    verdict_leaf,
)
from swarm.ledger.consensus.quorum import quorum
from swarm.ledger.genesis import Genesis
from swarm.ledger.recovery import Name, check_certificate, recovery_of
from swarm.ledger.state import Validator, Verdict
from swarm.ledger.state.proof import RecordProof
from swarm.ledger.state.table import Record
from swarm.ledger.transaction import SignedTransaction, Transaction

CODE = "SW3203"
# What members do in a training; a record holds all of it that was accepted.
ACTS = frozenset(
    f"{kind}.{name}"
    for kind, names in {
        "contract": ("enroll", "leave"),
        "round": ("checkin", "close", "merged", "suspect", "lost", "report"),
    }.items()
    for name in names
)
_ACCEPTED = verdict_leaf(Verdict(True))

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Act:
    """A member's accepted transaction."""

    height: int
    index: int
    transaction: Transaction
    sender: Peer


@dataclass(frozen=True)
class Proven:
    """What the evidence proves."""

    genesis: Genesis
    contract: str
    headers: Mapping[int, BlockHeader]
    recoveries: tuple[tuple[Name, str], ...]  # with their reasons
    acts: tuple[Act, ...]  # in the ledger's order
    states: tuple[tuple[int, Record], ...]  # the contract's record after blocks, in order
    schema: Record  # the schemas record after the last of these blocks
    idle: tuple[int, ...]  # heights of blocks that are there for nothing


def check(evidence: Any, contract: Any, authorities: Mapping[str, bytes]) -> Proven:
    """Check all of it; `authorities` maps fingerprints of trusted CAs to DER. RemoteError SW3203.

    Errors of the layers below keep their text: what they say is what does not hold.
    """
    _text(contract, "the contract's name")
    parts = _object(evidence, "evidence", {"genesis", "blocks", "acts", "states"})
    genesis = Genesis.decode(_bytes(parts["genesis"], "genesis"))
    _require(genesis.order is None, "another network orders its blocks: they are not certified")
    for fingerprint in genesis.cas:
        _require(
            fingerprint in authorities,
            f"the genesis names CA {fingerprint}, which is not among yours",
        )
    chain = genesis.chain_id  # hashed once, not at each comparison
    headers, recoveries = _blocks(genesis, chain, _list(parts["blocks"], "blocks"))
    acts = _acts(chain, contract, headers, authorities, _list(parts["acts"], "acts"))
    states, schema = _states(chain, contract, headers, _list(parts["states"], "states"))
    used = {act.height for act in acts} | {height for height, _ in states}
    known = validators_hash([_founder(genesis)])
    idle = []
    for height, header in headers.items():
        changes, known = header.effect.next_validators != known, header.effect.next_validators
        if not changes and height not in used:
            idle.append(height)
    return Proven(genesis, contract, headers, recoveries, acts, states, schema, tuple(idle))


def _founder(genesis: Genesis) -> Validator:
    return Validator(genesis.founder.uid, genesis.founder.public_key)


# ---------------------------------------------------------------------- blocks


def _blocks(
    genesis: Genesis, chain: bytes, items: list[Any]
) -> tuple[dict[int, BlockHeader], tuple[tuple[Name, str], ...]]:
    present: tuple[Validator, ...] = (_founder(genesis),)
    headers: dict[int, BlockHeader] = {}
    recoveries: list[tuple[Name, str]] = []
    last: BlockHeader | None = None
    for item in items:
        parts = _object(item, "a block", {"certificate"}, {"header", "recovery", "next_validators"})
        _require(("header" in parts) != ("recovery" in parts), "a block needs header or recovery")
        certificate = Certificate.decode(_bytes(parts["certificate"], "certificate"))
        keys = {v.uid: v.public_key_der for v in present}
        if "recovery" in parts:
            block = Block.decode(_bytes(parts["recovery"], "recovery"))
            header = block.header
            told = recovery_of(block)
            _require(told is not None, f"block {header.height} recovers nothing")
            assert told is not None, "required above"
            check_certificate(block, certificate, keys, 0, verify_signature, {block.id})
            recoveries.append((Name.of(block), told.reason))
        else:
            header = BlockHeader.decode(_bytes(parts["header"], "header"))
            needed = quorum(len(keys), genesis.fault_model)
            try:
                certificate.check(header, keys, needed, verify_signature)
            except RemoteError as error:
                raise RemoteError(CODE, f"block {header.height}: {error.cause}") from None
        _follows(chain, last, header)
        present = _following(header, present, parts.get("next_validators"))
        headers[header.height] = last = header
    return headers, tuple(recoveries)


def _follows(chain: bytes, last: BlockHeader | None, header: BlockHeader) -> None:
    height, what = header.height, f"block {header.height}"
    _require(header.chain == chain, f"{what} belongs to another swarm")
    before = (last.height, last.id) if last else (0, chain)
    _require(height > before[0], f"{what} is out of order")
    if height == before[0] + 1:
        _require(header.previous == before[1], f"{what} does not follow the one before it")


def _following(
    header: BlockHeader, present: tuple[Validator, ...], told: Any
) -> tuple[Validator, ...]:
    """Who votes on the next block: those told, if their hash is the one in the header."""
    what = f"block {header.height}"
    if told is None:
        expected = validators_hash(present) == header.effect.next_validators
        _require(expected, f"{what} changes the validators; the record does not say to whom")
        return present
    items = _list(told, "next_validators")
    _require(0 < len(items) <= MAX_VALIDATORS, f"{what} names too many validators, or none")
    found = []
    for item in items:
        pair = _list(item, "a validator")
        _require(len(pair) == 2, "a validator is not [uid, key]")
        found.append(Validator(_text(pair[0], "a uid"), _bytes(pair[1], "a validator's key")))
    _require(tuple(found) != present, f"{what} changes no validators")
    _require(
        validators_hash(found) == header.effect.next_validators,
        f"{what} does not name these validators of the next block",
    )
    return tuple(found)


# ---------------------------------------------------------------------- acts and states


def _acts(
    chain: bytes,
    contract: str,
    headers: Mapping[int, BlockHeader],
    authorities: Mapping[str, bytes],
    items: list[Any],
) -> tuple[Act, ...]:
    acts: list[Act] = []
    for item in items:
        parts = _object(
            item, "an act", {"height", "index", "transaction", "inclusion", "acceptance"}
        )
        height, index = _int(parts["height"], "height"), _int(parts["index"], "index")
        what = f"the act at height {height}, number {index},"
        before = (acts[-1].height, acts[-1].index) if acts else (0, 0)
        _require(before < (height, index), f"{what} is out of order")
        header = _header(headers, height)
        raw = _bytes(parts["transaction"], "transaction")
        _require(
            merkle.proves(header.root, raw, index, header.count, _hashes(parts["inclusion"])),
            f"{what} is not in its block",
        )
        accepted = _hashes(parts["acceptance"])
        _require(
            merkle.proves(header.effect.results, _ACCEPTED, index, header.count, accepted),
            f"{what} was not accepted",
        )
        signed = SignedTransaction.decode(raw)
        try:
            sender = verify_chain(signed.chain_der, authorities)
            signed.check_signature(sender)
        except RemoteError as error:
            raise RemoteError(CODE, f"{what} {error.cause}") from None
        act = Act(height, index, signed.transaction, sender)
        _require(act.transaction.chain == chain, f"{what} belongs to another swarm")
        _require(
            act.transaction.op in ACTS and act.transaction.args.get("contract") == contract,
            f"{what} has nothing to do with contract {contract}",
        )
        acts.append(act)
    return tuple(acts)


def _states(
    chain: bytes, contract: str, headers: Mapping[int, BlockHeader], items: list[Any]
) -> tuple[tuple[tuple[int, Record], ...], Record]:
    found: list[tuple[int, Record]] = []
    schema: tuple[int, Record] | None = None
    for item in items:
        _require(schema is None, "a state behind the schema")
        names = {"height", "table", "record", "bucket", "path", "tables"}
        parts = _object(item, "a state", names)
        height = _int(parts["height"], "height")
        table = parts["table"]
        _require(table in ("contracts", "schemas"), "a state of another table")
        record = _proof(parts, contract).check(chain, height, _header(headers, height).state)
        if table == "schemas":
            schema = (height, record)
            continue
        _require(not found or found[-1][0] < height, "the states are out of order")
        found.append((height, record))
    _require(bool(found) and schema is not None, "the contract's state, or its schema, is missing")
    assert schema is not None, "required above"
    _require(schema[0] == found[-1][0], "schema and contract are of different heights")
    return tuple(found), schema[1]


def _proof(parts: Json, contract: str) -> RecordProof:
    bucket = parts["bucket"]
    _require(type(bucket) is dict, "a bucket is no object")
    tables = []
    for item in _list(parts["tables"], "tables"):
        pair = _list(item, "a table")
        _require(len(pair) == 2, "a table is not [name, digest]")
        tables.append((_text(pair[0], "a table's name"), _hash(pair[1])))
    return RecordProof(
        table=parts["table"],
        key=contract,
        record=_bytes(parts["record"], "record"),
        bucket={_text(name, "a name"): _hash(digest) for name, digest in bucket.items()},
        path=_hashes(parts["path"]),
        tables=tuple(tables),
    )


def _header(headers: Mapping[int, BlockHeader], height: int) -> BlockHeader:
    _require(height in headers, f"block {height} is not in the record")
    return headers[height]


# ---------------------------------------------------------------------- JSON from strangers


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise RemoteError(CODE, text)


def _object(value: Any, what: str, needed: set[str], more: set[str] | None = None) -> Json:
    _require(type(value) is dict, f"{what} is no object")
    given = set(value)
    _require(needed <= given <= needed | (more or set()), f"{what} has other parts than expected")
    found: Json = value
    return found


def _list(value: Any, what: str) -> list[Any]:
    _require(type(value) is list, f"{what} is no list")
    found: list[Any] = value
    return found


def _int(value: Any, what: str) -> int:
    _require(type(value) is int and 0 <= value < 1 << 63, f"{what} is no number")
    found: int = value
    return found


def _text(value: Any, what: str) -> str:
    # JSON can hold halves of characters, which have no bytes.
    whole = type(value) is str and value.isprintable() and len(value.encode()) < 256
    _require(whole, f"{what} is no short text")
    found: str = value
    return found


def _bytes(value: Any, what: str) -> bytes:
    _require(type(value) is str, f"{what} is not text")
    try:
        found = bytes.fromhex(value)
    except ValueError:
        found = b""
    # One form only: fromhex takes blanks and capitals, too.
    _require(found.hex() == value, f"{what} is not hexadecimal")
    return found


def _hash(value: Any) -> bytes:
    found = _bytes(value, "a hash")
    _require(len(found) == merkle.HASH, "a hash has not 32 bytes")
    return found


def _hashes(value: Any) -> tuple[bytes, ...]:
    return tuple(_hash(item) for item in _list(value, "a path"))
