"""The genesis: what all members of one swarm agree on before the first block.

Its hash is the chain id. Quorum rule and time-outs are in here and not in any node's configuration,
because two nodes with different rules would fork.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from swarm.ledger import codec

TAG = "swarm-genesis-1"
ETHEREUM_TAG = "swarm-genesis-2"  # with one more field: the network that does the ordering
CODE = "SW3003"
BYZANTINE = "byzantine"
CRASH = "crash"
FAULT_MODELS = (BYZANTINE, CRASH)
MAX_GENESIS = 256 * 1024
MAX_CAS = 64
MAX_CONFIRMATIONS = 10_000


@dataclass(frozen=True)
class Founder:
    """The first SN: the only validator until others enroll."""

    uid: str
    fingerprint: str  # hex SHA-256 of `public_key`
    organisation: str  # hex SHA-256 of the issuing authority's certificate
    public_key: bytes  # SubjectPublicKeyInfo, DER
    name: str
    host: str
    port: int  # of its API
    p2p: tuple[str, ...]  # multiaddresses
    peer_id: str
    version: str = ""
    holder: str = ""  # with a SPIFFE identity: what stands for its id, see `identity.delegation`


@dataclass(frozen=True)
class Timing:
    """Consensus time-outs in milliseconds; a round waits `base + step × round`."""

    base_ms: int = 300
    step_ms: int = 150
    rotate_blocks: int = 100  # the sticky proposer hands over after so many heights


@dataclass(frozen=True)
class EthereumOrder:
    """The log in an Ethereum-compatible network that gives the ledger its order."""

    chain_id: int  # of the network
    contract: str  # address, 0x and lower case
    start: int  # the block to read from: that of the contract's deployment
    confirmations: int  # blocks, the entry's own included, after which an entry is final


@dataclass(frozen=True)
class Genesis:
    """Everything that makes a swarm this swarm. `cas` maps fingerprint to DER certificate."""

    chain_name: str
    fault_model: str
    cas: Mapping[str, bytes]
    founder: Founder
    created_ms: int
    nonce: bytes
    timing: Timing = field(default_factory=Timing)
    order: EthereumOrder | None = None  # None: the network nodes order by voting

    def encode(self) -> bytes:
        """Canonical bytes; `decode` gives an equal value back."""
        f, t = self.founder, self.timing
        founder = [f.uid, f.fingerprint, f.organisation, f.public_key, f.name, f.host, f.port]
        fields = [
            self.chain_name,
            self.fault_model,
            dict(self.cas),
            [*founder, list(f.p2p), f.peer_id, f.version, *([f.holder] if f.holder else [])],
            self.created_ms,
            self.nonce,
            [t.base_ms, t.step_ms, t.rotate_blocks],
        ]
        if self.order is None:
            return codec.encode([TAG, *fields])
        o = self.order
        order = [o.chain_id, bytes.fromhex(o.contract[2:]), o.start, o.confirmations]
        return codec.encode([ETHEREUM_TAG, *fields, order])

    @property
    def chain_id(self) -> bytes:
        """32 bytes that name this swarm in every signed message."""
        return hashlib.sha256(self.encode()).digest()

    @classmethod
    def decode(cls, data: bytes) -> Genesis:
        """Parse and check. Raises RemoteError SW3003."""
        what = "genesis"
        value = codec.decode(data, limit=MAX_GENESIS, what=what, code=CODE)
        kinds: tuple[type, ...] = (str, str, dict, list, int, bytes, list)
        order = None
        if type(value) is list and value[:1] == [ETHEREUM_TAG]:
            *parts, found = codec.fields(value, ETHEREUM_TAG, (*kinds, list), what, CODE)
            order = _order(found)
        else:
            parts = codec.fields(value, TAG, kinds, what, CODE)
        name, model, cas, founder, created, nonce, timing = parts
        codec.require(model in FAULT_MODELS, f"unknown fault model {model!r}", CODE)
        codec.require(0 < len(cas) <= MAX_CAS, "genesis has no or too many authorities", CODE)
        for fingerprint, der in cas.items():
            codec.require(type(der) is bytes, "an authority is not bytes", CODE)
            codec.require(
                hashlib.sha256(der).hexdigest() == fingerprint, "an authority's hash differs", CODE
            )
        codec.require(len(nonce) == 16, "nonce has not 16 bytes", CODE)
        return cls(name, model, cas, _founder(founder), created, nonce, _timing(timing), order)


def _founder(value: list[codec.Value]) -> Founder:
    kinds: tuple[type, ...] = (str, str, str, bytes, str, str, int, list, str, str)
    if len(value) > len(kinds):
        kinds = (*kinds, str)
    parts = codec.fields(["", *value], "", kinds, "founder", CODE)
    codec.list_of(parts[7], str, "addresses of the founder", most=16, code=CODE)
    parts[7] = tuple(parts[7])
    codec.require(parts[-1] != "" or len(parts) == 10, "founder: an empty holder", CODE)
    return Founder(*parts)


def _order(value: list[codec.Value]) -> EthereumOrder:
    kinds = (int, bytes, int, int)
    chain_id, contract, start, confirmations = codec.fields(
        ["", *value], "", kinds, "ordering network", CODE
    )
    codec.require(chain_id > 0 and start >= 0, "ordering network out of range", CODE)
    codec.require(len(contract) == 20, "a contract's address has not 20 bytes", CODE)
    codec.require(1 <= confirmations <= MAX_CONFIRMATIONS, "confirmations out of range", CODE)
    return EthereumOrder(chain_id, "0x" + contract.hex(), start, confirmations)


def _timing(value: list[codec.Value]) -> Timing:
    base, step, rotate = codec.fields(["", *value], "", (int, int, int), "time-outs", CODE)
    # A growth of zero would never outlast a slow network, and zero blocks would never rotate.
    codec.require(1 <= base <= 60_000 and 1 <= step <= 60_000, "time-outs out of range", CODE)
    codec.require(1 <= rotate <= 1_000_000, "proposer rotation out of range", CODE)
    return Timing(base, step, rotate)
