"""What goes into the round driver, and what comes out of it.

Events say what has happened, effects what shall be done. Both are plain values, so a whole training
can be written down, replayed and compared. Digests are hexadecimal here, as the ledger's records
are when the API gives them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm.merge.exchange import Key

Record = Mapping[str, Any]


# ------------------------------------------------------------------------------------------ events


@dataclass(frozen=True)
class Opened:
    """A program opened the link; `rules` are those of contract.enroll."""

    contract: str
    rules: Mapping[str, Any]
    mode: str  # snapshot | inactive | active
    round: int = -1  # of the model that the program has; -1: it starts afresh


@dataclass(frozen=True)
class Synced:
    """The program handed its weights in; `done` when its training loop has ended."""

    seq: int
    weight: int  # as on the ledger: 10000 for a weightage of 1
    samples: int
    done: bool
    round: int  # of the decided model that they were made from, -1: from none
    own: bool = True  # they are contributed; False: the last decided model is, in their place


@dataclass(frozen=True)
class Reported:
    """The program told loss and metric with the merged weights of a round."""

    round: int
    loss: str
    metric: str
    epochs: int
    total_epochs: int


@dataclass(frozen=True)
class Bye:
    """The program said good-bye."""

    ok: bool
    text: str


@dataclass(frozen=True)
class ProgramGone:
    """The link ended without a good-bye; answered by `Release`."""

    why: str


@dataclass(frozen=True)
class LedgerChanged:
    """The contract's record at a height; `error` says why there is no news, "" when there is."""

    record: Record | None
    height: int
    error: str = ""


@dataclass(frozen=True)
class Enrolled:
    """The ledger took our enrolment; `record` already shows it."""

    record: Record
    height: int


@dataclass(frozen=True)
class Answered:
    """The verdict on a `Submit`, with its tag."""

    tag: tuple[Any, ...]
    ok: bool
    code: str
    text: str
    height: int


@dataclass(frozen=True)
class Prepared:
    """The contribution was read and hashed."""

    seq: int
    root: bytes
    schema: bytes
    size: int
    tensors: list[str]


@dataclass(frozen=True)
class Broken:
    """Something on this host is wrong and will not heal: files, rules, certificate."""

    code: str
    text: str


@dataclass(frozen=True)
class ExchangeDone:
    """The exchange of an attempt has the whole result."""

    key: Key
    digest: str
    shards: list[bytes]


@dataclass(frozen=True)
class ExchangeSeen:
    """How the exchange does: whom it blames and why, and what it waits for."""

    key: Key
    blames: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Compared:
    """The results of an attempt were compared: owners of shards that differ, and why."""

    key: Key
    blames: Mapping[str, str]


@dataclass(frozen=True)
class Fetched:
    """The result is the model with this digest.

    `blames` says of whom our own attempt at that round had brought other bytes, and how.
    """

    digest: str
    blames: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FetchFailed:
    """No holder gave the model."""

    digest: str
    why: str


@dataclass(frozen=True)
class Tick:
    """Time passed; `serving`: somebody is fetching the last model from us."""

    serving: bool = False


Event = (
    Opened
    | Synced
    | Reported
    | Bye
    | ProgramGone
    | LedgerChanged
    | Enrolled
    | Answered
    | Prepared
    | Broken
    | ExchangeDone
    | ExchangeSeen
    | Compared
    | Fetched
    | FetchFailed
    | Tick
)


# ----------------------------------------------------------------------------------------- effects


@dataclass(frozen=True)
class Enroll:
    """Enroll node and membership; answered by `Enrolled`, or `Broken` when refused."""

    contract: str
    rules: Mapping[str, Any]
    mode: str


@dataclass(frozen=True)
class Submit:
    """Submit an operation; answered by `Answered` with the tag. `side`: off the critical path."""

    tag: tuple[Any, ...]
    op: str
    args: Mapping[str, Any]
    side: bool = False


@dataclass(frozen=True)
class Prepare:
    """Read and hash the contribution; `merged`: the decided model instead of the program's."""

    seq: int
    merged: bool


@dataclass(frozen=True)
class StartExchange:
    """Take part in an attempt; aborts the one before. `checkins`: uid -> weight and root."""

    key: Key
    roster: list[str]
    members: Mapping[str, Mapping[str, Any]]
    checkins: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class AbortExchange:
    """Stop sending and receiving."""


@dataclass(frozen=True)
class Compare:
    """Compare results with others, block by block, and blame the owners of shards that differ."""

    key: Key
    digests: Mapping[str, str]
    members: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Keep:
    """The result is decided: keep it, for the program and for those who fetch it."""

    contract: str
    round: int
    digest: str


@dataclass(frozen=True)
class Fetch:
    """Make the decided model the result: from our own files, else from one of the holders."""

    contract: str
    digest: str
    attempt: tuple[int, int]  # the round and the attempt that made it
    schema: str
    holders: list[Mapping[str, Any]]


@dataclass(frozen=True)
class Tell:
    """Send a message to the program."""

    message: Mapping[str, Any]


@dataclass(frozen=True)
class Release:
    """Forget the program that is gone; the next one may open the link."""


@dataclass(frozen=True)
class Log:
    """A line for the log."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Exit:
    """End the learner; `leave` takes it out of the contract first."""

    status: int
    text: str
    leave: bool = field(default=True)


Effect = (
    Enroll
    | Submit
    | Prepare
    | StartExchange
    | AbortExchange
    | Compare
    | Keep
    | Fetch
    | Tell
    | Release
    | Log
    | Exit
)
