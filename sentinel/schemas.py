"""Shapes of the API's answers, for its OpenAPI document.

Answers are written as JSON straight from the ledger's records; nothing is copied through these
models when a request is served. The tests hold the two together.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from sentinel import lookback


class Problem(BaseModel):
    """Why a request was not carried out."""

    code: str = Field(description="stable error code, such as SW3005")
    text: str


class Version(BaseModel):
    """What this node runs."""

    version: str
    protocol: int


class ValidatorInfo(BaseModel):
    """A node that votes on blocks."""

    uid: str
    name: str


class MeshPeer(BaseModel):
    """Another network node whose session is up."""

    uid: str
    name: str
    age_s: float | None = Field(description="seconds since it was last heard")


class Certificate(BaseModel):
    """This node's own certificate."""

    not_after: str = Field(description="when it expires, UTC")
    days_left: float = Field(description="negative when it has expired")
    problem: str = Field(description="why others refuse it; empty when they should not")
    warning: str = Field(description="that it expires within 30 days; empty before and afterwards")


class Evicted(BaseModel):
    """A member whose key is barred."""

    uid: str
    name: str
    reason: str


class Disputed(BaseModel):
    """A member against whom there are votes."""

    uid: str
    name: str
    votes: int = Field(description="validators whose organisations want it out")
    needed: int


class Accused(BaseModel):
    """A validator whose key signed two values for one step."""

    uid: str
    name: str
    cases: list[str]


class Recovered(BaseModel):
    """A block that survivors made without a quorum."""

    height: int
    dropped: list[str]
    reason: str


class Status(BaseModel):
    """This node's view of the network."""

    version: str
    chain: str
    name: str
    uid: str
    height: int
    digest: str = Field(description="digest of the whole state, equal on all nodes at a height")
    validators: list[ValidatorInfo]
    quorum: int = Field(description="validators that must agree on a block")
    fault_model: str
    peers: list[MeshPeer]
    waiting: str = Field(description="what the ledger waits for; empty when it waits for nothing")
    evicted: list[Evicted]
    disputed: list[Disputed]
    evidence: list[Accused]
    recoveries: list[Recovered]
    certificate: Certificate
    limited: dict[str, int] = Field(
        description="how often a member, by common name, was turned away for asking too much"
    )


class LookBackRequest(BaseModel):
    """Ports of the caller that shall be tried."""

    ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        min_length=1, max_length=lookback.MAX_PORTS
    )
    token: str = Field(
        pattern=rf"^[0-9a-f]{{{2 * lookback.TOKEN_BYTES}}}$",
        description="hexadecimal; what the caller's ports answer with",
    )


class LookBackAnswer(BaseModel):
    """What this node reached."""

    address: str = Field(description="as which it sees the caller, the only one it tries")
    reached: list[int] = Field(description="ports out of which the token came")
    now_ms: int = Field(description="this node's clock")


class MeshAddress(BaseModel):
    """Where a network node can be dialled."""

    peer_id: str
    addresses: list[str]


class Bootstrap(BaseModel):
    """What a joining network node needs."""

    chain: str
    genesis: str = Field(description="base64")
    peers: list[MeshAddress]
    recoveries: list[str] = Field(description="accepted recoveries: <height>-<block id>")


class BlocksAnswer(BaseModel):
    """Blocks with their certificates; `height` is that of the node."""

    height: int
    blocks: list[tuple[str, str]] = Field(description="base64 of block and of certificate")
    genesis: str | None = Field(None, description="base64; with after=0")
    recoveries: list[str] | None = Field(None, description="<height>-<block id>; with after=0")


class TableAnswer(BaseModel):
    """All records of a table; byte strings are hexadecimal."""

    height: int
    digest: str
    records: dict[str, Any]


class RecordAnswer(BaseModel):
    """One record."""

    height: int
    record: dict[str, Any]


class TransactionAnswer(BaseModel):
    """The verdict on a committed transaction."""

    height: int
    ok: bool
    code: str
    text: str
    result: dict[str, Any]
